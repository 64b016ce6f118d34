"""`albert launch --slurm` under a real Slurm: jobs on two nodes, and what can happen to them."""

import json
import os
import shlex
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import cluster
import numpy as np
import pytest
import slurm_cluster
from conftest import ALBERT
from runs import FAULTS, LONG, SLOW, assert_same_run, figures, records

from launch.commands import plan_start
from launch.hosts import Place
from launch.slurm import Job, job_faults, script_text, stopped_while_waiting
from launch.workers import forwarded_signals
from pretrain.report import newest_step

needs_slurm = pytest.mark.skipif(slurm_cluster.missing() is not None, reason=str(slurm_cluster.missing()))
SUPERVISED = ("--supervision.max_restarts", 2, "--supervision.watchdog_seconds", 8, "--checkpoint.every_n_steps", 1)
ENDLESS = ("--training.steps", 100_000, "--schedule.total_steps", 100_000, "--checkpoint.every_n_steps", 1000)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with slurm_cluster.Slurm(tmp_path_factory.mktemp("slurm")) as made:
        yield made


@pytest.fixture
def begin(slurm, small_config, synthetic):
    """Submit a run on both nodes; the number of its job."""
    begun = []

    def run(run_folder: Path, *options: object, until_step: int = -1, **environment: str) -> str:
        where = ("--config", small_config, "--data", synthetic, "--output", run_folder, "--slurm", "true", "--num_nodes", 2)
        slurm.run(ALBERT, "launch", *where, *SUPERVISED, "--checkpoint.keep_last", 20, *options, **environment)
        job = json.loads((run_folder / "slurm.json").read_text())["job"]
        begun.append(job)
        wait_for_checkpoint(slurm, run_folder, job, until_step)
        return job

    yield run
    for job in begun:
        slurm.run("scancel", "--quiet", job)
        slurm.wait_for_end(job, 180)


def wait_for_checkpoint(slurm, run_folder: Path, job: str, step: int) -> None:
    deadline = time.monotonic() + 180
    while newest_step(run_folder) < step:
        assert time.monotonic() < deadline, log_of(run_folder, job)
        time.sleep(0.05)


def log_of(run_folder: Path, job: str) -> str:
    path = run_folder / f"slurm-{job}.log"
    return path.read_text() if path.exists() else ""


def end(slurm, run_folder: Path, job: str, ended: str, seconds: float = 300) -> str:
    """The log of a job that ends so."""
    found = slurm.wait_for_end(job, seconds)
    log = log_of(run_folder, job)
    assert found == ended, log
    return log


@needs_slurm
def test_a_job_on_two_nodes_makes_the_run_of_one_whatever_the_folder_is_called(slurm, begin, undisturbed, tmp_path):
    run_folder = tmp_path / 'a run\'s "100 %j" $HOME; `true`'
    began_at = time.monotonic()
    job = begin(run_folder, "--sbatch", 'comment=it\'s a "test" for $5')
    end(slurm, run_folder, job, "COMPLETED 0:0")
    print(f"a job of 10 steps: done after {time.monotonic() - began_at:.1f} s")
    ours, theirs = (figures(folder, "loss", "grad_norm", "rows_crc32") for folder in (run_folder, undisturbed))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert run_folder.stat().st_mode & 0o777 == 0o700


@needs_slurm
def test_a_job_whose_time_is_nearly_up_saves_and_is_requeued_and_a_cancelled_one_saves_and_is_not(slurm, begin, tmp_path):
    """Slurm's own signal, from --sbatch time=2 and 45 seconds before: Slurm gives it up to half a minute earlier."""
    run_folder = tmp_path / "run"
    slurm.wait_for_nodes()
    began_at = time.monotonic()
    job = begin(run_folder, *ENDLESS, "--sbatch", "time=2", "signal=B:USR1@45")
    slurm.wait_for(lambda: slurm.show(job, "Restarts") == "1", 180)
    print(
        f"time limit of 120 s, signal 45 s before or somewhat earlier: saved and requeued after {time.monotonic() - began_at:.1f} s"
    )
    assert f"job {job} is to be requeued: it saved, and goes on" in log_of(run_folder, job)
    saved = newest_step(run_folder)
    assert saved == records(run_folder)[-1]["step"]
    slurm.begin_again_now(job)
    slurm.wait_for(lambda: records(run_folder)[-1]["step"] > saved, 180)
    assert [record["message"] for record in records(run_folder, "restart")] == [f"Slurm has started job {job} again"]
    slurm.run("scancel", job)
    cancelled_at = time.monotonic()
    slurm.wait_for_end(job, 180)
    print(f"scancel: saved and over after {time.monotonic() - cancelled_at:.1f} s")
    assert slurm.state(job) == "CANCELLED"
    assert newest_step(run_folder) > saved
    assert json.loads((run_folder / "state.json").read_text())["status"] == "preempted"


@needs_slurm
def test_a_requeued_job_makes_the_run_of_one_that_was_not_and_a_second_one_is_refused(
    slurm, begin, undisturbed, small_config, synthetic, tmp_path
):
    run_folder = tmp_path / "run"
    job = begin(run_folder, until_step=2, **SLOW)
    slurm.run("scancel", "--batch", "--signal=USR1", job)
    slurm.wait_for(lambda: slurm.show(job, "Restarts") == "1", 180)
    again = ("--config", small_config, "--data", synthetic, "--output", run_folder, "--slurm", "true", "--num_nodes", 2)
    refused = slurm.run(ALBERT, "launch", *again, *SUPERVISED, "--checkpoint.keep_last", 20, code=2)
    assert f"job {job} is waiting or at work for this run" in refused
    slurm.begin_again_now(job)
    end(slurm, run_folder, job, "COMPLETED 0:0")
    assert_same_run(run_folder, undisturbed)


@needs_slurm
def test_a_trainer_that_is_killed_is_a_restart_on_the_same_nodes(slurm, begin, undisturbed, tmp_path):
    job = begin(tmp_path / "run", until_step=2, **SLOW)
    slurm.b.find("-m pretrain").kill()
    killed_at = time.monotonic()
    log = end(slurm, tmp_path / "run", job, "COMPLETED 0:0")
    print(f"trainer killed under Slurm: done after {time.monotonic() - killed_at:.1f} s")
    assert "restart 1 in 5 s" in log
    assert_same_run(tmp_path / "run", undisturbed)


@needs_slurm
def test_a_network_that_is_cut_between_the_nodes_of_a_job_is_found_and_the_job_goes_on(slurm, begin, long_undisturbed, tmp_path):
    """Slurm itself reaches both all the time."""
    run_folder = tmp_path / "run"
    job = begin(run_folder, *LONG, until_step=20, **SLOW)
    slurm.wait_for(lambda: records(run_folder)[-1]["step"] >= 22, 180)  # what hangs while it saves is given ten times as long
    slurm.cut()
    cut_at = time.monotonic()
    try:
        slurm.wait_for(lambda: "no sign of life" in (run_folder / "state.json").read_text(), 60)
        print(f"network cut under Slurm: found after {time.monotonic() - cut_at:.1f} s")
    finally:
        slurm.join()
    log = end(slurm, run_folder, job, "COMPLETED 0:0")
    print(f"network cut under Slurm: done after {time.monotonic() - cut_at:.1f} s")
    assert "restart 1 in 5 s" in log
    assert_same_run(run_folder, long_undisturbed, step=60)


@needs_slurm
@pytest.mark.parametrize("which", ["a", "b"])
def test_a_node_that_is_lost_has_slurm_requeue_the_job(which, slurm, begin, long_undisturbed, tmp_path):
    """Node A runs the script, too."""
    run_folder = tmp_path / "run"
    job = begin(run_folder, *LONG, until_step=20, **SLOW)
    node = getattr(slurm, which)
    slurm.power_off(node)
    lost_at = time.monotonic()
    slurm.wait_for(lambda: slurm.show(job, "Restarts") == "1", 180)
    print(f"node {which} lost: requeued after {time.monotonic() - lost_at:.1f} s, SlurmdTimeout {slurm_cluster.SECONDS_TO_DOWN}")
    slurm.wait_for(lambda: slurm.state(job) == "PENDING", 60)  # or srun hangs in Slurm 22.05
    slurm.power_on(node)
    slurm.wait_for_nodes()
    slurm.begin_again_now(job)
    back_at = time.monotonic()
    end(slurm, run_folder, job, "COMPLETED 0:0")
    print(f"node {which} lost: done {time.monotonic() - back_at:.1f} s after it was back")
    assert_same_run(run_folder, long_undisturbed, step=60)


@needs_slurm
def test_restarts_in_vain_requeue_the_job_once_and_then_end_it(slurm, begin, tmp_path):
    """Rank 1 dies in step 2 of each start, before the first checkpoint."""
    run_folder = tmp_path / "run"
    variables = {"PYTHONPATH": FAULTS, "DIES_AT": "3", "DIES_BY": "kill"}
    job = begin(run_folder, "--supervision.max_restarts", 0, "--checkpoint.every_n_steps", 5, **variables)
    slurm.wait_for(lambda: slurm.show(job, "Restarts") == "1", 180)
    assert "to be requeued: the next try may be on other nodes" in log_of(run_folder, job)
    slurm.begin_again_now(job)
    log = end(slurm, run_folder, job, "FAILED 1:0")
    assert log.count("to be requeued") == 1
    assert newest_step(run_folder) == -1


@needs_slurm
def test_a_job_that_has_to_make_room_saves_and_is_requeued(slurm, begin, tmp_path):
    """Slurm gives it a minute (GraceTime)."""
    run_folder = tmp_path / "run"
    job = begin(run_folder, *ENDLESS)
    slurm.wait_for(lambda: bool(records(run_folder)), 180)
    urgent = slurm.run("sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--wrap", "true").strip()
    slurm.wait_for(lambda: slurm.show(job, "Restarts") == "1", 180)
    assert f"job {job} is to be requeued: it saved, and goes on" in log_of(run_folder, job)
    assert newest_step(run_folder) == records(run_folder)[-1]["step"]
    slurm.wait_for_end(urgent, 180)
    (run_folder / "STOP").touch()
    slurm.begin_again_now(job)
    log = end(slurm, run_folder, job, "FAILED 3:0")
    assert "asked to stop by RUN/STOP while the job waited" in log


@needs_slurm
def test_inside_an_allocation_it_trains_at_once(slurm, small_config, synthetic, undisturbed, tmp_path):
    """From a command, and from a step, whose nodes it shares with that."""
    where = ("launch", "--config", small_config, "--data", synthetic, "--slurm", "--checkpoint.keep_last", 20)
    slurm.wait_for_nodes()
    output = slurm.run("salloc", "--nodes=2", "--ntasks-per-node=1", ALBERT, *where, "--output", tmp_path / "run")
    assert "submitted" not in output
    assert_same_run(tmp_path / "run", undisturbed)
    slurm.wait_for_nodes()
    step = ("srun", "--nodes=1", "--ntasks=1", "--cpus-per-task=2", ALBERT, *where, "--output", tmp_path / "step", "--num_procs", 2)
    slurm.run("salloc", "--nodes=1", "--exclusive", *step)
    assert_same_run(tmp_path / "step", undisturbed)
    slurm.wait_for_nodes()
    refused = slurm.run("salloc", "--nodes=1", ALBERT, *where, "--output", tmp_path / "other", "--num_nodes", 2, code=2)
    assert "this is inside a job, whose nodes are taken" in refused


@needs_slurm
def test_doctor_reaches_the_nodes_through_srun_and_finds_what_is_wrong_with_one(slurm, small_config, synthetic, tmp_path):
    """The options of the launch to come, --sbatch included; node B cannot write to the folder of the runs."""
    slurm.wait_for_nodes()
    runs = tmp_path / "runs"
    runs.mkdir()
    where = ("--config", small_config, "--data", synthetic, "--output", runs / "run", "--slurm", "--num_nodes", 2)
    doctor = (ALBERT, "doctor", *where, "--sbatch", "partition=main", "requeue", "time=5")
    output = slurm.run(*doctor, COLUMNS="300")
    assert f"2 of 2: {slurm.a.name}, {slurm.b.name}" in output
    assert "1 pair(s)" in output
    cluster.call(*slurm.b.enter(), "mount", "--bind", "-o", "ro", runs, runs)
    output = slurm.run(*doctor, COLUMNS="300", code=1)
    assert "1 red" in output
    assert f"{slurm.b.name}: {runs}/.albert-doctor-" in output
    assert not list(runs.iterdir())


def test_a_batch_script_quotes_what_it_is_given():
    folder = Path("/scratch/a run's $HOME")
    job = Job(
        num_nodes=4, num_procs=8, container="apptainer:/images/a b.sif", sbatch=["gres=gpu:8", "comment=it's $5", "exclusive"]
    )
    lines = script_text(folder, job).splitlines()
    assert lines[0] == "#!/bin/bash"
    assert "#SBATCH --nodes=4" in lines
    assert "#SBATCH --signal=B:USR1@120" in lines
    assert "#SBATCH --exclusive" in lines
    assert shlex.split(next(line for line in lines if "comment" in line))[1] == "--comment=it's $5"
    command = shlex.split(lines[-1])
    assert command[:4] == ["exec", sys.executable, os.fspath(ALBERT), "launch"]
    assert command[-4:] == ["--num_procs", "8", "--container", "apptainer:/images/a b.sif"]
    assert str(folder / "config.yaml") in command


@needs_slurm
def test_sbatch_takes_each_option_as_it_was_given(slurm, tmp_path):
    comments = ['it\'s "free" text for $5', "a\\b", "ends with \\", "`true` %j #x"]
    for index, comment in enumerate(comments):
        script = tmp_path / f"{index}.sbatch"
        script.write_text(
            script_text(tmp_path, Job(num_nodes=1, num_procs=1, container=None, sbatch=[f"comment={comment}", "hold"]))
        )
        number = slurm.run("sbatch", "--parsable", script).strip()
        shown = slurm.run("scontrol", "show", "job", number)
        slurm.run("scancel", number)
        assert f"Comment={comment}" in shown


def test_what_asked_a_killed_start_to_stop_does_not_stop_the_next_one_and_what_a_user_asked_does(monkeypatch, tmp_path):
    variables = {"SLURM_JOB_ID": "7", "SLURM_TASK_PID": str(os.getpid()), "SLURM_RESTART_COUNT": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert not stopped_while_waiting(tmp_path)
    with forwarded_signals(tmp_path / "STOP"):
        os.kill(os.getpid(), signal.SIGTERM)
        assert not stopped_while_waiting(tmp_path)
    (tmp_path / "STOP").touch()
    assert stopped_while_waiting(tmp_path)
    assert not (tmp_path / "STOP").exists()


def test_in_a_container_a_node_has_the_folders_of_the_run_and_its_own_libraries(monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/module/lib")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    mounts = (Path("/data"), Path("/scratch/run"))
    place = Place(devices={"n1": [0], "n2": [0]}, starter="srun", container="apptainer:/images/a b.sif", mounts=mounts)
    started = plan_start(Path("/scratch/run"), place, "START", 29500, {})
    agent = ["python3", "-P", "-u", "-m", "launch.node", "/scratch/run", "START"]
    inside = ["apptainer", "exec", "--nv", "--bind=/data", "--bind=/scratch/run", "/images/a b.sif", *agent]
    assert started.command[-len(inside) :] == inside
    environment = json.loads(started.files["nodes.json"])["environment"]
    assert "NCCL_DEBUG" in environment
    assert "LD_LIBRARY_PATH" not in environment
    place = replace(place, container="pyxis:docker://albert:1")
    options = ["--container-image=docker://albert:1", "--container-mounts=/data:/data,/scratch/run:/scratch/run"]
    started = plan_start(Path("/scratch/run"), place, "START", 29500, {})
    assert started.command[-len(agent) - 2 :] == [*options, *agent]


def test_options_of_sbatch_that_are_set_here_or_break_the_script_are_refused():
    given = ["nodes=3", "partition=a\nreboot", "Bad Name=1", "signal=TERM@60", "time=1:00:00"]
    faults = job_faults(Job(num_nodes=1, num_procs=None, container="docker:x", sbatch=given))
    assert len(faults) == 5
    assert faults[0].startswith("--sbatch nodes: is set here")
    assert "expected name=value" in faults[1]
    assert "expected signal=B:USR1@SECONDS" in faults[3]
    assert faults[4] == "--container docker:x: expected apptainer:IMAGE or pyxis:IMAGE"
