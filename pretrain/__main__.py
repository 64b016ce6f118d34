"""A worker: `python -m pretrain RUN/config.yaml`, started by DeepSpeed's launcher, torchrun, srun or by hand.

Exit codes: 0 done, 1 crash, 2 user error, 3 preempted, 4 stopped by diagnosis. state.json says the same in words.
"""

import sys
import traceback
from pathlib import Path

from pretrain.distributed import barrier, shut_down
from pretrain.rendezvous import own_rank
from pretrain.train import Diagnosis, Preempted, train
from tokenizer.errors import UserError
from tokenizer.files import write_json

OUTCOMES = {UserError: ("user error", 2), Preempted: ("preempted", 3), Diagnosis: ("stopped by diagnosis", 4)}


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not arguments[0].endswith("config.yaml"):
        print("usage: python -m pretrain RUN/config.yaml (written by `albert launch`; it takes no overrides)", file=sys.stderr)
        return 2
    run_folder = Path(arguments[0]).resolve().parent
    report(run_folder, "running", None, "")
    status, code, message = "done", 0, ""
    try:
        train(run_folder)
    except Exception as error:
        status, code = OUTCOMES.get(type(error), ("crashed", 1))
        message = str(error)
        if code == 1:
            message = f"{type(error).__name__}: {error}"
            traceback.print_exc()
    report(run_folder, status, code, message)
    if code == 2 or (code in (3, 4) and own_rank() == 0):
        print(message, file=sys.stderr, flush=True)
    if code in (0, 3, 4):  # all ranks come here together; the first to leave makes the launcher end the others
        barrier()
        shut_down()
    return code


def report(run_folder: Path, status: str, code: int | None, message: str) -> None:
    """RUN/state.json, by rank 0; a crash or user error by whichever rank it hits."""
    if own_rank() == 0 or code in (1, 2):
        write_json(run_folder / "state.json", {"format_version": 1, "status": status, "exit_code": code, "message": message})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
