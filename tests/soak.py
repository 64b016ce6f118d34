"""`make soak`: runs under random faults, until the time is up, each ending equal to a run that was left alone.

    python tests/soak.py [--minutes 10] [--seed 0] [--work FOLDER]

Faults: SIGKILL of a rank, of all ranks, of the node launcher, of `albert launch`; SIGTERM and SIGUSR1 to `albert launch`; a
checkpoint file or the metrics cut short; the newest checkpoint deleted. Odd rounds keep two processes, and the end must be bitwise
the same; even rounds change between one and two, and losses and gradient norms must agree to 1e-5. Ends with an error at the first
that does not.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from runs import CONFIG, assert_same_run, figures, records, start, workers
from synthetic import write_synthetic_data

from pretrain.checkpoint import list_checkpoints

STEPS = 60
OPTIONS = [
    "--training.steps",
    STEPS,
    "--schedule.total_steps",
    100,
    "--training.validate_every_n_steps",
    20,
    "--optimizer.lr",
    0.003,
]
OPTIONS += ["--training.global_batch_size", 64, "--training.micro_batch_size", 16, "--model.num_hidden_layers", 24]
SAVES = ["--checkpoint.every_n_steps", 2, "--checkpoint.keep_last", 4]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="keep all runs here; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        return soak(options.work or Path(temporary), options.minutes * 60, random.Random(options.seed))


def soak(work: Path, seconds: float, generator: random.Random) -> int:
    """Rounds until `seconds` are over; prints each fault, and their number at the end."""
    began, survived = time.monotonic(), Counter()
    config = work / "run.yaml"
    config.write_text(CONFIG)
    data = write_synthetic_data(work / "data", num_instances=1000)  # the first epoch ends inside step 16
    reference = work / "undisturbed"
    finish(start(config, data, reference, *OPTIONS, *SAVES))
    rounds = 0
    while time.monotonic() - began < seconds:
        rounds += 1
        run_folder = work / f"round-{rounds}"
        bitwise = rounds % 2 == 1
        faults = disturbed_run(config, data, run_folder, bitwise, generator, until=began + seconds)
        survived += faults
        if bitwise:
            assert_same_run(run_folder, reference, step=STEPS)
        else:
            ours, theirs = (figures(folder, "loss", "grad_norm") for folder in (run_folder, reference))
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)
            assert figures(run_folder, "samples", "rows_crc32") == figures(reference, "samples", "rows_crc32")
        print(f"round {rounds}: {faults.total()} faults, {'bitwise the same' if bitwise else 'the same to 1e-5'}", flush=True)
        shutil.rmtree(run_folder)
    for fault, count in survived.most_common():
        print(f"{count:5}  {fault}")
    print(f"survived {survived.total()} faults in {rounds} rounds of {STEPS} steps and {time.monotonic() - began:.0f} s")
    return 0


def disturbed_run(
    config: Path, data: Path, run_folder: Path, bitwise: bool, generator: random.Random, until: float
) -> Counter[str]:
    """One run to its end, with a fault after each start as long as there is time."""
    faults: Counter[str] = Counter()
    while not (run_folder / "DONE").exists():
        num_procs = 2 if bitwise else generator.choice([1, 2])
        before = newest_step(run_folder)
        process = start(config, data, run_folder, *OPTIONS, *SAVES, num_procs=num_procs)
        if time.monotonic() > until:
            finish(process)
            break
        while newest_step(run_folder) <= before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 2))
        fault = generator.choice(list(FAULTS))
        FAULTS[fault](process, generator)
        output, _ = process.communicate(timeout=300)  # workers that outlive `albert launch` hold the pipe
        wait_for_workers(run_folder)
        late = "SIG" in fault and process.returncode < 0 and (run_folder / "DONE").exists()  # it met Python at its end
        if process.returncode == 0 or late:  # it was faster than the fault
            break
        expected = 3 if "SIG" in fault else -9 if "albert launch" in fault else 1
        assert process.returncode == expected, f"{fault}: exit code {process.returncode}\n{output}"
        faults[fault] += 1
        if (run_folder / "DONE").exists():  # workers that outlived `albert launch`
            break
        if generator.random() < 0.5:
            fault = generator.choice(list(DAMAGES))
            if DAMAGES[fault](run_folder, generator):
                faults[fault] += 1
    return faults


def finish(process: subprocess.Popen) -> None:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def newest_step(run_folder: Path) -> int:
    folders = list_checkpoints(run_folder / "checkpoints")
    return int(folders[-1].name.removeprefix("step-")) if folders else -1


def wait_for_workers(run_folder: Path) -> None:
    """Until nobody holds RUN/.lock: workers outlive an `albert launch` that was killed."""
    config = str(run_folder / "config.yaml")
    left = [process for process in psutil.process_iter(["cmdline"]) if config in (process.info["cmdline"] or [])]
    assert not psutil.wait_procs(left, timeout=120)[1]


def kill_some_ranks(choose: Callable[[list[psutil.Process], random.Random], list[psutil.Process]]) -> Callable:
    def kill(process: subprocess.Popen, generator: random.Random) -> None:
        for worker in choose(living(process), generator):
            quietly(worker.kill)

    return kill


def living(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        return workers(process)
    except psutil.NoSuchProcess:
        return []


def quietly(call: Callable[[], None]) -> None:
    """The run may have ended by itself a moment ago."""
    try:
        call()
    except (psutil.NoSuchProcess, ProcessLookupError):
        return


def kill_node_launcher(process: subprocess.Popen, generator: random.Random) -> None:
    quietly(lambda: [child.kill() for child in psutil.Process(process.pid).children()])


FAULTS: dict[str, Callable[[subprocess.Popen, random.Random], None]] = {
    "kill -9 of one rank": kill_some_ranks(lambda ranks, generator: ranks and [generator.choice(ranks)]),
    "kill -9 of all ranks": kill_some_ranks(lambda ranks, generator: ranks),
    "kill -9 of the node launcher": kill_node_launcher,
    "kill -9 of albert launch": lambda process, generator: process.kill(),
    "SIGTERM": lambda process, generator: process.send_signal(signal.SIGTERM),
    "SIGUSR1": lambda process, generator: process.send_signal(signal.SIGUSR1),
}


def cut_checkpoint(run_folder: Path, generator: random.Random) -> bool:
    """The newest checkpoint loses the end of one file; one more must be there, or nothing could be resumed."""
    folders = list_checkpoints(run_folder / "checkpoints")
    if len(folders) < 2:
        return False
    path = generator.choice(sorted(folders[-1].iterdir()))
    content = path.read_bytes()
    path.write_bytes(content[: generator.randrange(len(content))])
    return True


def delete_checkpoint(run_folder: Path, generator: random.Random) -> bool:
    folders = list_checkpoints(run_folder / "checkpoints")
    if len(folders) < 2:
        return False
    shutil.rmtree(folders[-1])
    return True


def cut_metrics(run_folder: Path, generator: random.Random) -> bool:
    """The last line is torn, as a machine that stops leaves it; lines before the newest checkpoint are on the disk by then."""
    path = run_folder / "metrics.jsonl"
    if not path.exists() or not records(run_folder) or records(run_folder)[-1]["step"] <= newest_step(run_folder):
        return False
    content = path.read_text().rstrip("\n")
    path.write_text(content[: content.rindex("\n") + 1 + generator.randrange(1, 40)])
    return True


DAMAGES: dict[str, Callable[[Path, random.Random], bool]] = {
    "checkpoint cut short": cut_checkpoint,
    "newest checkpoint deleted": delete_checkpoint,
    "metrics torn": cut_metrics,
}


if __name__ == "__main__":
    sys.exit(main())
