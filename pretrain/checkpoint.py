"""Checkpoints without pickles: safetensors and JSON, complete or absent, checked before use.

RUN/checkpoints/step-N/ holds model.safetensors, optimizer.safetensors, state.json and, written last, manifest.json with the
SHA-256 of the others. The folder is written under a temporary name, fsynced and renamed. No RNG state is kept because there is
none: dropout is a hash (pretrain/dropout.py).
"""

import json
import re
import secrets
import shutil
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tokenizer.errors import UserError
from tokenizer.files import check_format_version, disk_errors, fsync_path, replace_folder, sha256_of_files, write_json

FORMAT_VERSION = 2
FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """A copy, on the CPU, of what a checkpoint holds, by file: later steps do not reach it."""
    tensors = {"model.safetensors": weights(model), "optimizer.safetensors": optimizer_tensors(model, optimizer)}
    return {file: {name: tensor.to("cpu", copy=True) for name, tensor in named.items()} for file, named in tensors.items()}


def write_checkpoint(folder: Path, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
    """Write one checkpoint from a snapshot; `state` is plain JSON with at least `step`. Called by rank 0 alone.

    Raises:
        UserError: the disk is full or not writable; what was there stays.
    """
    with replace_folder(folder) as temporary:
        for name, named in tensors.items():
            save_tensors(temporary / name, named)
        write_json(temporary / "state.json", {"format_version": FORMAT_VERSION} | state)
        write_json(temporary / "manifest.json", {name: sha256_of_files(temporary / name) for name in FILES})


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """`save_file`, which lets other threads run; the system's error is raised as OSError again."""
    with disk_errors(path):
        save_file(tensors, path, metadata=metadata)


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore weights and optimizer state in place.

    Raises:
        UserError: the tensors are not those of this model.
    """
    load_weights(folder, model)
    load_optimizer_tensors(folder, model, optimizer)


def load_weights(folder: Path, model: nn.Module) -> None:
    """Restore the weights alone."""
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except RuntimeError as error:
        raise UserError(f"{folder}: holds another model than the run config describes: {' '.join(str(error).split())}") from error


def read_state(folder: Path) -> dict[str, Any]:
    """The JSON state of a checkpoint.

    Raises:
        UserError: it was written by a release whose format this one does not read.
    """
    path = folder / "state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    check_format_version(path, state.get("format_version"), FORMAT_VERSION, "start a new run.")
    return state


def newest_good_checkpoint(checkpoints: Path) -> tuple[Path | None, dict[Path, str]]:
    """The newest checkpoint that is whole, or None if there are none at all; and what is wrong with each newer one.

    Raises:
        UserError: checkpoints exist and none is whole.
    """
    damaged = {}
    for folder in reversed(list_checkpoints(checkpoints)):
        fault = find_fault(folder)
        if fault is None:
            return folder, damaged
        damaged[folder] = fault
    if damaged:
        listed = "\n".join(f"  - {folder}: {fault}" for folder, fault in damaged.items())
        raise UserError(
            f"{checkpoints}: no checkpoint is whole, so the run is not resumed:\n{listed}\n"
            "Restore one from a backup, or start again with another --output."
        )
    return None, {}


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Folders step-N, by N."""
    if not checkpoints.is_dir():
        return []
    return sorted((path for path in checkpoints.iterdir() if re.fullmatch(r"step-\d+", path.name)), key=step_of)


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def find_fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None: every file is there with the SHA-256 of the manifest.

    Raises:
        UserError: a file is there and cannot be read.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        for name in FILES:
            if sha256_of_files(folder / name) != manifest[name]:
                return f"{name} is damaged (its SHA-256 is not the manifest's)"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:  # the checkpoint may be whole: nothing is concluded from a file system that fails
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}). Mend that, and start again.") from error
    except (ValueError, KeyError, TypeError) as error:
        return f"manifest.json cannot be used ({error})"
    return None


def delete_old_checkpoints(checkpoints: Path, *, keep_last: int, best_step: int | None) -> None:
    """Keep the newest `keep_last` and the best. What goes loses its name first: nobody meets half of it."""
    for folder in list_checkpoints(checkpoints)[:-keep_last]:
        if step_of(folder) != best_step:
            going = folder.with_name(f".{folder.name}.tmp-{secrets.token_hex(4)}")  # as of what a killed save leaves
            shutil.rmtree(folder.rename(going), ignore_errors=True)  # an export on NFS may have it open; the next start deletes it


def delete_unfinished(checkpoints: Path) -> None:
    """Remove temporary folders that a killed save left behind; one that was killed while it replaced a checkpoint gives it back."""
    for path in checkpoints.glob(".step-*.tmp-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in checkpoints.glob(".step-*.old-*"):
        name = path.name.removeprefix(".").partition(".old-")[0]
        if (checkpoints / name).exists():
            shutil.rmtree(path)
        else:
            path.rename(checkpoints / name)


def set_aside(folder: Path, why: str = "damaged") -> None:
    """Rename a checkpoint, so that it neither counts as newest nor pushes good ones out."""
    names = (f"{why}-{folder.name}{suffix}" for suffix in ("", *(f"-{number}" for number in range(2, 1000))))
    folder.rename(next(folder.with_name(name) for name in names if not folder.with_name(name).exists()))
    fsync_path(folder.parent)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Optimizer state as `KEY/PARAMETER`, e.g. `exp_avg/pooler.weight`."""
    return {
        f"{key}/{name}": value.contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer_tensors(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore the optimizer state; scalars such as AdamW's `step` stay where PyTorch keeps them, on the CPU."""
    parameters = dict(model.named_parameters())
    restored: dict[str, dict[str, Tensor]] = {name: {} for name in parameters}
    with safetensors.safe_open(folder / "optimizer.safetensors", framework="pt") as file:
        for full_name in file.keys():  # noqa: SIM118  (safe_open is no dict)
            key, name = full_name.split("/", 1)
            if name not in parameters:
                raise UserError(f"{folder}: holds optimizer state of {name}, which the run config's model lacks.")
            value = file.get_tensor(full_name)
            restored[name][key] = value.to(parameters[name].device) if value.dim() else value
    optimizer.state.clear()  # a checkpoint from before the first update has none
    for name, parameter in parameters.items():
        if restored[name]:
            optimizer.state[parameter] = restored[name]
