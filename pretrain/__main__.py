"""A worker: `python -m pretrain RUN/config.yaml`, started by DeepSpeed's launcher, torchrun, srun or by hand.

Exit codes: 0 done, 1 crash, 2 user error, 3 preempted, 4 stopped by diagnosis. state.json says the same in words.
"""

import signal
import sys
import time
import traceback
from contextlib import ExitStack, suppress
from pathlib import Path

from pretrain.config import SupervisionConfig
from pretrain.config_file import load_config
from pretrain.rendezvous import own_rank
from pretrain.report import Diagnosis, Preempted, is_overtaken, own_start, read_report, write_report
from pretrain.run_lock import hold_lock
from pretrain.sessions import begin_session, end_session
from pretrain.watchdog import EXIT_HUNG, Watchdog
from tokenizer.errors import UserError
from tokenizer.files import as_user_error

OUTCOMES = {UserError: ("user error", 2), Preempted: ("preempted", 3), Diagnosis: ("stopped by diagnosis", 4)}


def main(arguments: list[str]) -> int:
    config = Path(arguments[0]).resolve() if len(arguments) == 1 else Path()
    if config.name != "config.yaml" or not config.is_file():
        print("usage: python -m pretrain RUN/config.yaml (written by `albert launch`; it takes no overrides)", file=sys.stderr)
        return 2
    run_folder = config.parent
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # blocked by `launch.node` under Slurm, for DeepSpeed's launcher
    with ExitStack() as held:
        if own_rank() == 0:
            try:
                held.enter_context(hold_lock(run_folder / ".lock"))
            except UserError as error:
                print(error, file=sys.stderr)
                return 2
            report = read_report(run_folder)
            if report["exit_code"] is None or report.get("start") != own_start():  # or another rank has failed meanwhile
                write_report(run_folder, "running", None, "")
        return run(run_folder)


def run(run_folder: Path) -> int:
    """Train; write how it ended to state.json, by the rank that knows; return the exit code."""
    watchdog = Watchdog(SupervisionConfig().watchdog_seconds, lambda what: report_hang(run_folder, what))
    # torch takes seconds to import: state.json must say "running" before any rank can fail
    from pretrain.distributed import barrier, shut_down
    from pretrain.train import train

    keeps_record = own_rank() == 0 and not own_start()  # otherwise `albert launch` does
    try:
        if keeps_record:
            begin_session(run_folder, load_config(run_folder / "config.yaml"), None)
        train(run_folder, watchdog)
    except Exception as error:
        error = as_user_error(error)
        status, code = OUTCOMES.get(type(error), ("crashed", 1))
        message = str(error) if code != 1 else f"{type(error).__name__}: {error}"
        lost_peer = "/gloo/transport/" in message or type(error).__name__ == "DistBackendError"
        if own_rank() != 0 or lost_peer:
            time.sleep(1)  # a rank that knows more speaks first
        if read_report(run_folder)["exit_code"] is None and not is_overtaken(run_folder):
            if lost_peer:
                status, message = "lost a process", "a process ended without a word (killed, or out of memory?)"
            with suppress(OSError):  # a full disk: the exit code says it
                write_report(run_folder, status, code, message)
            if code == 1 and not lost_peer:
                traceback.print_exc()
            elif code != 1:
                print(message, file=sys.stderr, flush=True)
    else:
        code = 0
        if own_rank() == 0:
            with suppress(OSError):  # the file DONE says it, too
                write_report(run_folder, "done", 0, "")
    if keeps_record:
        end_session(run_folder, code)
    if code in (0, 3, 4):  # all ranks come here together; the first to leave makes the launcher end the others
        barrier()
        shut_down()
    watchdog.close()
    return code


def report_hang(run_folder: Path, what: str) -> None:
    with suppress(OSError):
        if read_report(run_folder)["exit_code"] is None and not is_overtaken(run_folder):
            write_report(run_folder, "hung", EXIT_HUNG, f"rank {own_rank()}: {what}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
