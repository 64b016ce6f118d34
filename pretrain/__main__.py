"""A worker: `python -m pretrain RUN/config.yaml`, started by DeepSpeed's launcher, torchrun, srun or by hand.

Exit codes: 0 done, 1 crash, 2 user error, 3 preempted, 4 stopped by diagnosis. state.json says the same in words.
"""

import sys
import traceback
from pathlib import Path

from pretrain.distributed import barrier, shut_down
from pretrain.rendezvous import own_rank
from pretrain.report import read_report, write_report
from pretrain.train import Diagnosis, Preempted, train
from tokenizer.errors import UserError

OUTCOMES = {UserError: ("user error", 2), Preempted: ("preempted", 3), Diagnosis: ("stopped by diagnosis", 4)}


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not arguments[0].endswith("config.yaml"):
        print("usage: python -m pretrain RUN/config.yaml (written by `albert launch`; it takes no overrides)", file=sys.stderr)
        return 2
    run_folder = Path(arguments[0]).resolve().parent
    if own_rank() == 0:
        write_report(run_folder, "running", None, "")
    status, code, message = "done", 0, ""
    try:
        train(run_folder)
    except Exception as error:
        status, code = OUTCOMES.get(type(error), ("crashed", 1))
        message = str(error) if code != 1 else f"{type(error).__name__}: {error}"
        if code == 1 and read_report(run_folder).get("exit_code") is not None:
            return 1  # torn down because another rank ended; that one has said why
        if code == 1:
            traceback.print_exc()
    if own_rank() == 0 or code in (1, 2):
        write_report(run_folder, status, code, message)
    if code == 2 or (code in (3, 4) and own_rank() == 0):
        print(message, file=sys.stderr, flush=True)
    if code in (0, 3, 4):  # all ranks come here together; the first to leave makes the launcher end the others
        barrier()
        shut_down()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
