"""`training.max_hours`: a run that ends by time, on all ranks at the same step, over an interruption."""

import json

from runs import LONG, SLOW, records, start, wait_for

SECONDS = 10.0


def state_of(run_folder):
    """state.json of the newest checkpoint."""
    steps = [int(path.name.removeprefix("step-")) for path in (run_folder / "checkpoints").glob("step-*")]
    return json.loads((run_folder / "checkpoints" / f"step-{max(steps)}" / "state.json").read_text())


def test_a_run_ends_by_time_counted_over_its_sessions(albert, small_config, synthetic, tmp_path):
    run_folder, endless = tmp_path / "run", (*LONG, "--training.steps", 10**6, "--schedule.total_steps", 10**6)
    limited = (*endless, "--training.max_hours", SECONDS / 3600, "--checkpoint.every_n_steps", 10**6)
    process = start(small_config, synthetic, run_folder, *limited, **SLOW)
    wait_for(lambda: (run_folder / "metrics.jsonl").exists() and len(records(run_folder)) >= 5, process)
    (run_folder / "STOP").touch()
    assert process.wait(180) == 3, process.stdout.read()
    stopped = state_of(run_folder)
    assert 0 < stopped["training_seconds"] < SECONDS

    process = start(small_config, synthetic, run_folder, *limited, **SLOW)
    assert process.wait(180) == 0, process.stdout.read()
    ended, done = state_of(run_folder), json.loads((run_folder / "DONE").read_text())
    assert done == {"step": ended["step"], "training_hours": ended["training_seconds"] / 3600}
    trained, [_, last_validation] = records(run_folder), records(run_folder, "validation")
    assert trained[-1]["step"] == last_validation["step"] == ended["step"] > stopped["step"]
    longest_step = max(record["seconds_per_step"] for record in trained)
    assert SECONDS <= ended["training_seconds"] <= SECONDS + 2 * longest_step
    counted = sum(record["seconds_per_step"] for record in trained)
    assert abs(counted - SECONDS) < 0.2 * SECONDS + longest_step  # the log's own clock, which counts what is between steps, too
    assert [record["step"] for record in trained] == list(range(1, ended["step"] + 1))
    after = [record["lr"] for record in trained if record["step"] > stopped["step"]]
    assert after == sorted(after, reverse=True)
    assert after[0] <= 0.01 * (1 - stopped["training_seconds"] / SECONDS)
    assert after[-1] == 0

    where = ("--config", small_config, "--data", synthetic, "--output", run_folder)
    assert "already done after its" in albert("launch", *where, *limited).stdout
    error = albert("launch", *where, *endless, "--training.max_hours", 1, code=2).stderr
    assert "training.max_hours" in error
