"""What torch.compile has done so far in this process; without torch.compile, nothing."""

import os
import shutil
import sysconfig
from pathlib import Path

import torch

from tokenizer.errors import UserError


def check_compiler(device: torch.device) -> None:
    """torch.compile writes C++ on a CPU and builds launchers in C on a GPU.

    Raises:
        UserError: there is no compiler.
    """
    variable, usual, other = ("CC", "gcc", "clang") if device.type == "cuda" else ("CXX", "g++", "clang++")
    compiler = os.environ.get(variable) or usual
    if shutil.which(compiler) is None and shutil.which(other) is None:
        raise UserError(
            f"training.compile: torch.compile needs a compiler, and {compiler} is not to be found. Install one (package g++ or "
            "gcc-c++), name one in CXX or CC, or set training.compile to false."
        )
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        raise UserError(
            f"training.compile: torch.compile needs {header}, which comes with the package python3-dev or python3-devel. Install "
            "it, or set training.compile to false."
        )


def compiled_graphs() -> int:
    """Graphs compiled so far: a number that grows after the first steps means that shapes or flags keep changing."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def compile_seconds() -> float:
    """Seconds spent on it so far."""
    from torch._dynamo.utils import cumulative_time_spent_ns

    return sum(cumulative_time_spent_ns[f"entire_{part}_compile"] for part in ("frame", "backward")) / 1e9
