"""RUN/provenance.json: each start of a run with its command, code, steps and exit code, and what the run was made of.

A session is one `albert launch`, its own restarts included, or one start of the workers by srun, torchrun or hand. One that was
killed has no end.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.schema import MANIFEST_NAME
from pretrain.config import RunConfig
from pretrain.config_file import to_plain
from pretrain.report import newest_step
from tokenizer.provenance import Record, close_session, exit_code_of, new_record, open_session, parent, read_record, write_record


@contextmanager
def run_session(run_folder: Path, config: RunConfig, hosts: list[str] | None) -> Iterator[Record]:
    """The block is recorded as a session. It sets `exit_code` of what is yielded; an exception has its own.

    hosts: those that the processes run on; None if they are not known.

    Raises:
        UserError: the record that is there is damaged.
        OSError: it cannot be written at the beginning; at the end that is only said.
    """
    begin_session(run_folder, config, hosts)
    outcome: Record = {"exit_code": None}
    try:
        yield outcome
    except BaseException as error:
        outcome["exit_code"] = exit_code_of(error)
        raise
    finally:
        end_session(run_folder, outcome["exit_code"])


def begin_session(run_folder: Path, config: RunConfig, hosts: list[str] | None) -> None:
    """hosts: None if they are not known."""
    before, step = read_record(run_folder), known_step(run_folder)
    parents = before["parents"] if before and step is not None else parents_of(config)  # what it began with is what counts
    opened = open_session() | {"hosts": hosts, "from_step": step, "to_step": None}
    if job := os.environ.get("SLURM_JOB_ID"):
        opened["slurm_job"] = job
    write_record(run_folder, new_record("launch", run_folder, opened, options=to_plain(config), parents=parents, before=before))


def end_session(run_folder: Path, code: int) -> None:
    """A full disk takes nothing from the run's own outcome."""
    try:
        record = read_record(run_folder)  # again: the workers may have written to it
        if record is None:
            print(f"{run_folder}: provenance.json is gone, so this session is not recorded", file=sys.stderr)
            return
        record["sessions"][-1]["to_step"] = known_step(run_folder)
        close_session(record, code)
        write_record(run_folder, record)
    except Exception as error:
        print(f"{run_folder}: the end cannot be recorded in provenance.json ({error})", file=sys.stderr)


def known_step(run_folder: Path) -> int | None:
    """Step of the newest checkpoint; None without one."""
    step = newest_step(run_folder)
    return None if step < 0 else step


def parents_of(config: RunConfig) -> list[Record]:
    parents = [parent("data", config.data.path, MANIFEST_NAME)]
    if config.continue_from is not None:
        parents.append(parent("continue_from", config.continue_from, "config.yaml"))
    if config.model.init_from is not None:
        parents.append(parent("init_from", config.model.init_from, "model.safetensors"))
    return parents


def record_predecessor(run_folder: Path, checkpoint: Path) -> None:
    """The checkpoint that this run begins with, in place of the run it is of. Rank 0 alone."""
    if record := read_record(run_folder):
        before = parent("continue_from", checkpoint.parent.parent, f"checkpoints/{checkpoint.name}/manifest.json")
        record["parents"] = [before if entry["role"] == "continue_from" else entry for entry in record["parents"]]
        write_record(run_folder, record)


def record_kept_rows(run_folder: Path, rows: dict[str, int]) -> None:
    """How many pieces began with rows of `model.init_from`, beside that parent. Rank 0 alone."""
    if record := read_record(run_folder):
        record["parents"] = [entry | {"rows": rows} if entry["role"] == "init_from" else entry for entry in record["parents"]]
        write_record(run_folder, record)
