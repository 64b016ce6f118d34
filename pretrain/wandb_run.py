"""wandb: one run over all starts of a run folder, with what it takes to tell later what was run where.

The id is kept in RUN/wandb_id from before wandb starts, so a run that is killed before its first checkpoint has it, too. Offline,
each start leaves a folder of its own with that id, and `wandb sync RUN/wandb/offline-run-*` joins them.
"""

import os
import platform
import secrets
import socket
import string
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from data_prep.schema import manifest_sha256
from pretrain.config import RunConfig
from pretrain.config_file import to_plain
from pretrain.distributed import world_size
from tokenizer.files import write_text
from tokenizer.provenance import code_revision


def start_wandb(run_folder: Path, config: RunConfig, device: torch.device, known_id: str | None) -> Any | None:
    """A wandb run, or None if it is disabled or cannot start (the reason is said).

    known_id: from a checkpoint, where earlier releases kept it alone.
    """
    mode = mode_of(config.logging.wandb)
    if mode == "disabled":
        return None
    # Otherwise it reports its use and its errors to its maker, of an offline run, too.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        import wandb

        return wandb.init(
            project=config.logging.wandb_project,
            name=run_folder.name,
            dir=run_folder,
            id=settled_id(run_folder, known_id),
            resume="allow" if mode == "online" else None,
            mode=mode,
            config=to_plain(config) | origin(config, device),
            settings=wandb.Settings(silent=True, console="off", disable_git=True),
        )
    except Exception as error:
        print(f"wandb does not start ({error}); the run goes on without it, metrics.jsonl is complete", file=sys.stderr)
        return None


def mode_of(configured: str) -> str:
    """What the config says, but WANDB_MODE may keep it off the network, or off."""
    wanted = os.environ.get("WANDB_MODE", "")
    return wanted if configured == "online" and wanted in ("offline", "disabled") else configured


def settled_id(run_folder: Path, known_id: str | None) -> str:
    """The id of this run folder: 8 letters and digits, drawn at the first start."""
    path = run_folder / "wandb_id"
    if path.is_file() and (known := path.read_text(encoding="utf-8").strip()):
        return known
    drawn = known_id or "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
    write_text(path, drawn + "\n")
    return drawn


def origin(config: RunConfig, device: torch.device) -> dict[str, Any]:
    """Beside the run config: which code, which data, and on what it runs. No variables of the environment."""
    on_gpu = device.type == "cuda"
    environment = {
        "host": socket.gethostname(),
        "world_size": world_size(),
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or platform.machine(),
        "cuda": torch.version.cuda if on_gpu else None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{package: version(package) for package in ("torch", "deepspeed")},
    }
    return {"code": code_revision(), "data_manifest_sha256": manifest_sha256(config.data.path), "environment": environment}
