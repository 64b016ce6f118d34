"""`albert prepare` through interruptions and on other executors: the same bytes whoever does the work, and nothing done twice."""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prepared import BUNDLED, hashes, options

from data_prep.documents import PARTS
from data_prep.options import PrepareOptions
from data_prep.plan import read_plan
from data_prep.prepare import prepare
from data_prep.schema import read_manifest
from tokenizer.errors import UserError
from tokenizer.files import sha256_of_files


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Files of several kinds; the largest is cut into more than four ranges, and there are at least 32 tasks."""
    folder = tmp_path_factory.mktemp("corpus")
    documents = gzip.decompress(BUNDLED.read_bytes()).decode().split("\n\n")
    (folder / "large.txt").write_text("\n\n".join(documents[:40]) + "\n", encoding="utf-8")
    records = [json.dumps({"text": document}) for document in documents[40:60]]
    (folder / "records.jsonl").write_text("\n".join(records) + "\n", encoding="utf-8")
    with gzip.open(folder / "packed.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n\n".join(documents[60:64]))
    return folder


TASK_SIZE = 40_000


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, corpus, tokenizer):
    folder = tmp_path_factory.mktemp("undisturbed") / "data"
    prepare(chosen(corpus, tokenizer, folder))
    plan = read_plan(str(folder))
    assert len(plan.tasks) >= 32
    assert len({parts[0] for parts in plan.tasks if parts[0].input_index == 0}) > 4
    assert len(read_manifest(folder).splits["train"].shards) > 3
    return folder


def chosen(corpus, tokenizer, output, **changes):
    return options(corpus, tokenizer, output, **{"dupe_factor": 2, "task_size": TASK_SIZE, "shard_size": 300_000} | changes)


@pytest.mark.parametrize("changes", [{"workers": 2}, {"workers": 8}])
def test_the_number_of_workers_changes_no_byte(tmp_path, corpus, tokenizer, undisturbed, changes):
    prepare(chosen(corpus, tokenizer, tmp_path / "data", **changes))
    assert hashes(tmp_path / "data") == hashes(undisturbed)


def test_the_size_of_tasks_changes_no_shard(tmp_path, corpus, tokenizer, undisturbed):
    prepare(chosen(corpus, tokenizer, tmp_path / "data", task_size=700_000))
    assert len(read_plan(str(tmp_path / "data"), "other").tasks) < 10
    assert shards(tmp_path / "data") == shards(undisturbed)


def shards(folder):
    return {name: digest for name, digest in hashes(folder).items() if name.endswith(".arrow")}


def start(corpus, tokenizer, output, *more):
    command = [Path(sys.executable).with_name("albert"), "prepare", "--input", corpus, "--tokenizer", tokenizer, "--output", output]
    command += ["--max_seq_length", 64, "--dupe_factor", 2, "--task_size", TASK_SIZE, "--shard_size", 300_000, *more]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def completed(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob(f"{PARTS}/*/*/completions/*"))


def test_twenty_kills_at_random_points_change_no_byte_and_no_finished_task_is_done_again(tmp_path, corpus, tokenizer, undisturbed):
    output = tmp_path / "data"
    generator = random.Random(5)
    times: dict[str, int] = {}
    num_kills = 0
    while num_kills < 20 or not (output / PARTS / "shuffle").exists():
        process = start(corpus, tokenizer, output, "--workers", 2)
        # So many more tasks are let through, of some 90 in all; then a moment more.
        wanted = len(completed(output)) + generator.randrange(3)
        deadline = time.monotonic() + 60
        while process.poll() is None and len(completed(output)) < wanted and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(generator.random() * 0.06)
        # The main process alone, or with its workers at once.
        os.killpg(process.pid, signal.SIGKILL) if num_kills % 2 else process.kill()
        process.communicate(timeout=60)  # ends when no worker holds the pipe any more
        num_kills += 1
        assert not (output / "manifest.json").exists(), "the preparation was over before it was killed often enough"
        for name in completed(output):
            written = (output / name).stat().st_mtime_ns
            assert times.setdefault(name, written) == written, f"{name} was done again"
    printed, _ = start(corpus, tokenizer, output, "--workers", 2).communicate(timeout=120)
    assert (output / "manifest.json").exists(), printed
    assert hashes(output) == hashes(undisturbed)
    assert not (output / PARTS).exists()
    assert not list(output.rglob("*.tmp-*"))


def test_a_killed_worker_is_told_and_what_is_finished_is_kept(tmp_path, corpus, tokenizer, undisturbed):
    output = tmp_path / "data"
    process = start(corpus, tokenizer, output, "--workers", 2)
    while len(completed(output)) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    (worker, *_) = [
        int(child)
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    os.kill(worker, signal.SIGKILL)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "A worker process died" in printed
    assert "Traceback" not in printed
    kept = completed(output)
    assert len(kept) >= 3
    prepare(chosen(corpus, tokenizer, output))
    assert hashes(output) == hashes(undisturbed)


def test_a_second_preparation_of_one_folder_is_refused_while_the_first_runs(tmp_path, corpus, tokenizer, undisturbed):
    output = tmp_path / "data"
    first = start(corpus, tokenizer, output)
    while not (output / "plan.json").exists():
        assert first.poll() is None
        time.sleep(0.01)
    with pytest.raises(UserError, match="another `albert prepare` is at work"):
        prepare(chosen(corpus, tokenizer, output))
    first.communicate(timeout=120)
    assert first.returncode == 0
    assert hashes(output) == hashes(undisturbed)


def test_other_options_or_another_corpus_are_refused_over_an_unfinished_folder(tmp_path, corpus, tokenizer):
    copy = shutil.copytree(corpus, tmp_path / "corpus")
    process = start(copy, tokenizer, tmp_path / "data")
    while not completed(tmp_path / "data"):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)
    with pytest.raises(UserError, match="--seed is 1, there it is 0"):
        prepare(chosen(copy, tokenizer, tmp_path / "data", seed=1))
    with pytest.raises(UserError, match="--task_size is 50000, there it is 40000"):
        prepare(chosen(copy, tokenizer, tmp_path / "data", task_size=50_000))
    (copy / "large.txt").write_text("One more. And another.\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"--input: large\.txt is not there, or was changed since"):
        prepare(chosen(copy, tokenizer, tmp_path / "data"))


def test_ray_gives_the_same_bytes(tmp_path, corpus, tokenizer, undisturbed):
    pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
    printed, _ = start(corpus, tokenizer, tmp_path / "data", "--executor", "ray", "--workers", 2).communicate(timeout=300)
    assert (tmp_path / "data" / "manifest.json").exists(), printed
    assert hashes(tmp_path / "data") == hashes(undisturbed)


def test_an_error_of_a_ray_task_reaches_the_user(tmp_path, corpus, tokenizer):
    pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
    copy = shutil.copytree(corpus, tmp_path / "corpus")
    (copy / "zz.jsonl").write_text('{"text": "one. two."}\n{"no": 1}\n', encoding="utf-8")
    process = start(copy, tokenizer, tmp_path / "data", "--executor", "ray", "--workers", 2)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 2, printed
    assert "zz.jsonl:2: no field `text`" in printed
    assert "Traceback" not in printed


STAND_IN = """#!/bin/bash
# Runs what Slurm would run: the script, once for each element of the array.
for word in "$@"; do case $word in
  --array=0-*) last=${word#--array=0-}; last=${last%%%*};;
  --dependency=afterok:*) test -e "$JOBS/${word#--dependency=afterok:}" || exit 1;;
  --*) ;;
  *) break;; esac; shift; done
for ((element = 0; element <= last; element++)); do
  SLURM_ARRAY_TASK_ID=$element SLURM_ARRAY_TASK_COUNT=$((last + 1)) bash "$@" </dev/null || exit 1
done
job=$(ls "$JOBS" | wc -l); touch "$JOBS/$job"; echo "$job;cluster"
"""


def test_the_sbatch_script_prepares_the_same_bytes(tmp_path, corpus, tokenizer, undisturbed, monkeypatch, capsys):
    output = tmp_path / "a folder's data"
    where = {"executor": "slurm", "sbatch": ["partition=cpu", "mem=2G"], "workers": 2}
    jobs = chosen(corpus, tokenizer, output, task_size=700_000, **where)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="sbatch: not found here") as caught:
        prepare(jobs)
    tasks = len(read_plan(str(output)).tasks)
    assert f"--array=0-{tasks - 1}%2 --partition=cpu --mem=2G" in str(caught.value)
    assert subprocess.run(["/bin/bash", "-n", output / "prepare.sbatch"]).returncode == 0
    (tmp_path / "bin").mkdir()
    (tmp_path / "jobs").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(STAND_IN)
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("JOBS", str(tmp_path / "jobs"))
    prepare(jobs)
    assert "finish: job 3" in capsys.readouterr().out
    assert shards(output) == shards(undisturbed)
    record = json.loads((output / "provenance.json").read_text())
    assert [session["exit_code"] for session in record["sessions"]] == [2, 0, 0]  # without sbatch, with it, and the last job
    assert record["sessions"][2]["command"][-4:-2] == ["--stage", "finish"]
    of_corpus = {str(path): sha256_of_files(path) for path in corpus.rglob("*") if path.is_file()}
    assert {entry["path"]: entry["sha256"] for entry in record["inputs"]} == of_corpus
    assert record["outputs"][0]["sha256"] == sha256_of_files(output / "manifest.json")


def test_a_stage_of_a_plan_waits_for_the_one_before(tmp_path, corpus, tokenizer, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="sbatch"):
        prepare(chosen(corpus, tokenizer, tmp_path / "data", executor="slurm"))
    plan = str(tmp_path / "data" / "plan.json")
    with pytest.raises(UserError, match=r"stage encode is not done: \d+ of \d+ tasks are missing"):
        prepare(PrepareOptions(plan=plan, stage="shuffle", task="0"))
    with pytest.raises(UserError, match="this plan has the stages encode, gather, shuffle, finish"):
        prepare(PrepareOptions(plan=plan, stage="train", task="0"))
    for task in ("one", "3/3", "0/0", None):
        with pytest.raises(UserError, match="--task is .*, but must be I, or I/N with I below N"):
            prepare(PrepareOptions(plan=plan, stage="encode", task=task))
    with pytest.raises(UserError, match=r"--task 999: stage encode has the tasks 0 to \d+"):
        prepare(PrepareOptions(plan=plan, stage="encode", task="999"))
    with pytest.raises(UserError, match="--seed is 1, but must be left out beside --plan"):
        prepare(PrepareOptions(plan=plan, stage="encode", task="0", seed=1))
    with pytest.raises(UserError, match="expected the plan.json of a data folder"):
        prepare(PrepareOptions(plan=f"{tmp_path / 'data'}/other.json", stage="encode", task="0"))
