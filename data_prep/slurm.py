"""`--executor slurm`: a plan in, a chain of job arrays out, one a stage, each of which waits for the one before.

An array element runs every Nth task of its stage, so that a stage of any size fits a site's largest array.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from data_prep.folder import Folder
from data_prep.options import PrepareOptions
from data_prep.plan import PLAN_NAME
from tokenizer.errors import UserError

SCRIPT_NAME = "prepare.sbatch"
LARGEST_ARRAY = 1000
"""Slurm's MaxArraySize is 1001 unless the site says otherwise."""

OWN_OPTIONS = ("array", "dependency", "output", "parsable")


def submit(folder: Folder, options: PrepareOptions, stages: list[tuple[str, int]], num_shuffle_jobs: int) -> None:
    """Write the script into the folder and submit it once a stage. stages: (name, number of tasks) of those before the shuffle.

    Raises:
        UserError: an option that is ours to set, a folder that other nodes cannot see, no sbatch here (the commands are in the
            message), or sbatch refuses.
    """
    names = [option.partition("=")[0] for option in options.sbatch]
    if ours := sorted(set(names) & set(OWN_OPTIONS)):
        raise UserError(f"--sbatch {ours[0]}: this option is set here. Give account, partition, time, mem and the like.")
    if not folder.is_local:
        raise UserError(f"{folder}: with --executor slurm the output must be a folder that all nodes see.")
    script = Path(folder.path(SCRIPT_NAME))
    script.write_text(script_text(folder), encoding="utf-8")
    sizes = {**dict(stages), "shuffle": num_shuffle_jobs, "finish": 1}
    if shutil.which("sbatch") is None:
        jobs = zip(sizes.items(), [None, *(f"ID_OF_{name}" for name in sizes)], strict=False)
        commands = [shlex.join(command(script, options, name, size, before)) for (name, size), before in jobs]
        raise UserError(
            f"sbatch: not found here. {script} is written; where sbatch is, run these one after the other, each with the id that "
            "the one before prints:\n" + "\n".join(commands)
        )
    job = None
    for name, size in sizes.items():
        finished = subprocess.run(command(script, options, name, size, job), capture_output=True, text=True)
        if finished.returncode:
            raise UserError(
                f"sbatch: stage {name} was refused: {finished.stderr.strip()}. Stages before it are submitted (squeue --me)."
            )
        job = finished.stdout.strip().partition(";")[0]
        print(f"{name}: job {job}")
    print(f"When job {job} is done, {folder} holds manifest.json. If one fails: mend the cause, and give the same command again.")


def command(script: Path, options: PrepareOptions, stage: str, size: int, previous: str | None) -> list[str]:
    """sbatch for one stage of `size` tasks; no shell reads it."""
    size = min(size, LARGEST_ARRAY)
    limit = f"%{options.workers}" if options.workers and options.workers < size else ""
    wait = [f"--dependency=afterok:{previous}", "--kill-on-invalid-dep=yes"] if previous else []
    more = [f"--{option}" for option in options.sbatch]
    return ["sbatch", "--parsable", f"--job-name=albert-{stage}", f"--array=0-{size - 1}{limit}", *wait, *more, str(script), stage]


def script_text(folder: Folder) -> str:
    """One script for all stages; its argument is the stage."""
    albert = Path(sys.executable).with_name("albert")
    plan = folder.path(PLAN_NAME)
    return f"""#!/bin/bash
#SBATCH --cpus-per-task=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={os.devnull}
exec {shlex.quote(str(albert))} prepare --plan {shlex.quote(plan)} --stage "$1" \\
  --task "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" >>{shlex.quote(folder.path())}/"slurm-$1-$SLURM_ARRAY_TASK_ID.log" 2>&1
"""
