"""Shared by all tests: no network, no wandb account, and a way to run the `albert` command as a user does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALBERT = Path(sys.executable).with_name("albert")


@pytest.fixture(autouse=True, scope="session")
def _offline():
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_DATASETS_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def albert():
    """Run `albert ...`, wait, and return the finished process with its output; the exit code must be `code`."""

    def run(*arguments: object, code: int = 0, timeout: int = 180) -> subprocess.CompletedProcess[str]:
        command = [str(ALBERT), *map(str, arguments)]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        assert finished.returncode == code, (
            f"exit code {finished.returncode}, expected {code}\n{finished.stdout}\n{finished.stderr}"
        )
        return finished

    return run
