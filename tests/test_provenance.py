"""provenance.json: the chain back to the corpus, whole whatever becomes of the folders, and no part of any byte identity."""

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import ROOT
from prepared import BUNDLED, GOLDEN, hashes, options
from runs import SLOW, kill_with_workers, start, wait_for

from data_prep.prepare import prepare, shuffle_stage
from data_prep.schema import read_manifest
from pretrain.config_file import load_config
from pretrain.sessions import run_session
from tokenizer.files import sha256_of_files
from tokenizer.input_records import record_input
from tokenizer.inputs import resolve_inputs
from tokenizer.printable import masked, masked_command
from tokenizer.provenance import PACKAGES, as_text, code_revision, open_session, parent, utc_now

LONG = ("--training.steps", 5000, "--schedule.total_steps", 5000)


def read(folder: Path) -> dict:
    return json.loads((folder / "provenance.json").read_text(encoding="utf-8"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def chain(albert, corpus, tmp_path_factory) -> Path:
    """Corpus, tokenizer, data, run and export, each made by its verb; the run in two sessions."""
    work = tmp_path_factory.mktemp("chain") / "a folder's work"
    work.mkdir()
    (work / "more").mkdir()
    (work / "more" / "b.txt.gz").write_bytes(BUNDLED.read_bytes())
    shutil.copy(corpus, work / "more" / "a.txt")
    sizes = ("--dupe_factor", 1, "--max_seq_length", 32, "--task_size", 500_000)
    albert("tokenizer", "--input", work / "more", "--output", work / "tokenizer", "--vocab_size", 600)
    albert(
        "prepare", "--input", work / "more", "--tokenizer", work / "tokenizer", "--output", work / "data", *sizes, "--workers", 2
    )
    small = ("--model.hidden_size", 32, "--model.intermediate_size", 64, "--training.max_validation_instances", 20)
    where = ("--config", ROOT / "configs" / "demo.yaml", "--data", work / "data", "--output", work / "run", *small)
    albert("launch", *where, "--num_procs", 1, "--training.steps", 1, "--logging.wandb", "disabled")
    albert("launch", *where, "--num_procs", 2, "--training.steps", 2, "--logging.wandb", "disabled")
    albert("export", "--run", work / "run", "--output", work / "hf")
    return work


def test_the_export_leads_back_to_the_files_of_the_corpus(chain):
    record = read(chain / "hf")
    verbs, links = [record["verb"]], []
    while record["parents"]:
        (link,) = record["parents"]
        links.append(link)
        record = link["provenance"]
        verbs.append(record["verb"])
    assert verbs == ["export", "launch", "prepare", "tokenizer"]
    assert [link["role"] for link in links] == ["run", "data", "tokenizer"]
    for link in links:
        assert link["sha256"] == sha256(Path(link["path"]) / link["marker"])
    assert links[0]["marker"] == "checkpoints/step-2/manifest.json"
    expected = [
        {"path": str(path), "size": path.stat().st_size, "sha256": sha256(path)} for path in sorted((chain / "more").iterdir())
    ]
    assert record["inputs"] == expected  # of the tokenizer
    assert links[1]["provenance"]["inputs"] == expected
    checkpoints = {"step-2": links[0]["sha256"]}
    assert read(chain / "hf")["options"] == {"checkpoint": "last", "step": 2, "dtype": "fp32", "checkpoints": checkpoints}


@pytest.mark.parametrize("name", ["tokenizer", "data", "hf"])
def test_outputs_are_those_on_the_disk(chain, name):
    record = read(chain / name)
    assert record["outputs"]
    assert record["outputs"] == [
        {
            "path": entry["path"],
            "size": (chain / name / entry["path"]).stat().st_size,
            "sha256": sha256(chain / name / entry["path"]),
        }
        for entry in record["outputs"]
    ]
    if name != "data":  # there the manifest has the hashes of the rest
        on_disk = {path.name for path in (chain / name).iterdir()} - {"provenance.json"}
        assert {entry["path"] for entry in record["outputs"]} == on_disk


def test_a_session_says_who_where_when_and_with_which_code(chain):
    began = (chain / "more" / "a.txt").stat().st_mtime  # the last thing before the first verb
    before = datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for name in ("tokenizer", "data", "run", "hf"):
        for session in read(chain / name)["sessions"]:
            assert session["command"][0].endswith("albert")
            assert session["command"][2:4] in (
                ["--input", str(chain / "more")],
                ["--config", str(ROOT / "configs" / "demo.yaml")],
                ["--run", str(chain / "run")],
            )
            assert session["host"] == os.uname().nodename
            assert session["code"] == code_revision()
            assert session["lock_sha256"] == sha256(ROOT / "requirements.lock")
            assert before <= session["started"] <= session["ended"] <= utc_now()
            assert session["exit_code"] == 0


def test_a_resumed_run_has_a_session_for_each_start_with_its_steps(chain):
    record = read(chain / "run")
    assert [(session["from_step"], session["to_step"]) for session in record["sessions"]] == [(None, 1), (1, 2)]
    assert [session["command"][session["command"].index("--num_procs") + 1] for session in record["sessions"]] == ["1", "2"]
    assert record["options"]["training"]["steps"] == 2
    assert len(record["parents"]) == 1


def test_the_chain_stays_whole_when_parents_are_moved_or_deleted(chain, albert, tmp_path):
    whole = read(chain / "hf")
    shutil.copytree(chain / "run", tmp_path / "run")
    shutil.move(chain / "tokenizer", tmp_path / "moved")
    try:
        albert("export", "--run", tmp_path / "run", "--output", tmp_path / "hf")
        albert("prepare", "--remask", chain / "data", "--output", tmp_path / "remasked", "--seed", 1)
        (remasked,) = read(tmp_path / "remasked")["parents"]
        (of_copy,) = read(tmp_path / "hf")["parents"]
        assert of_copy["provenance"] == whole["parents"][0]["provenance"]
        assert of_copy["path"] == str(tmp_path / "run")
        assert remasked["role"] == "data"
        assert remasked["sha256"] == sha256(chain / "data" / "manifest.json")
        assert remasked["provenance"] == read(chain / "data")
        assert read(tmp_path / "remasked")["inputs"] == []
        assert read(tmp_path / "remasked")["options"]["seed"] == 1
        # the copy of the tokenizer in the data folder carries its record, too
        assert parent("tokenizer", chain / "data" / "tokenizer", "manifest.json")["provenance"]["verb"] == "tokenizer"
    finally:
        shutil.move(tmp_path / "moved", chain / "tokenizer")


def test_two_preparations_differ_in_provenance_alone(data, corpus, tokenizer, tmp_path):
    shutil.copytree(tokenizer, tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "provenance.json").unlink()
    prepare(options(corpus, tmp_path / "tokenizer", tmp_path / "data"))
    assert hashes(tmp_path / "data") == hashes(data)
    assert {"manifest.json", "train-00000.arrow"} <= hashes(data).keys()
    assert read(tmp_path / "data") != read(data)
    (link,) = read(tmp_path / "data")["parents"]
    assert link["provenance"] == "unknown"
    assert "there is no provenance.json in it; it was made by an earlier release" in link["reason"]
    assert link["sha256"] == sha256(tokenizer / "manifest.json")


def test_a_run_of_an_earlier_release_gets_a_record_when_it_goes_on(small_config, data, albert, tmp_path):
    run = tmp_path / "run"
    launch = ("launch", "--config", small_config, "--data", data, "--output", run, "--model.max_position_embeddings", 64)
    albert(*launch, "--training.steps", 5)
    (run / "provenance.json").unlink()
    albert("export", "--run", run, "--output", tmp_path / "hf")
    unknown, of_data = read(tmp_path / "hf")["parents"]
    assert (unknown["role"], unknown["provenance"]) == ("run", "unknown")
    assert (of_data["role"], of_data["sha256"]) == ("data", sha256(data / "manifest.json"))
    assert of_data["provenance"] == read(data)
    albert(*launch, "--training.steps", 6)
    (session,) = read(run)["sessions"]
    assert (session["from_step"], session["to_step"]) == (5, 6)


def test_a_killed_launch_has_no_end_and_the_next_one_is_a_session_of_its_own(small_config, synthetic, launch, tmp_path):
    run = tmp_path / "run"
    process = start(small_config, synthetic, run, "--checkpoint.every_n_steps", 1, num_procs=1, **SLOW)
    wait_for((run / "checkpoints" / "step-2").is_dir, process)
    kill_with_workers(process)
    launch(run, "--training.steps", 20, "--checkpoint.every_n_steps", 1, num_procs=1)
    killed, next_one = read(run)["sessions"]
    assert (killed["ended"], killed["exit_code"], killed["from_step"], killed["to_step"]) == (None, None, None, None)
    assert (next_one["exit_code"], next_one["to_step"]) == (0, 20)
    assert next_one["from_step"] >= 2


def test_a_session_of_a_run_names_all_hosts_and_the_job(launch, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    launch(run, "--training.steps", 1, num_procs=1)
    assert read(run)["sessions"][0]["hosts"] == ["localhost"]
    assert "slurm_job" not in read(run)["sessions"][0]
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    config = load_config(run / "config.yaml")
    with run_session(run, config, ["node1", "node2"]) as outcome:
        outcome["exit_code"] = 3
    with pytest.raises(KeyboardInterrupt), run_session(run, config, ["node1"]):
        raise KeyboardInterrupt
    _, stopped, interrupted = read(run)["sessions"]
    assert (stopped["hosts"], stopped["slurm_job"], stopped["exit_code"]) == (["node1", "node2"], "4711", 3)
    assert interrupted["exit_code"] == 130
    with run_session(run, config, ["node1"]) as outcome:
        outcome["exit_code"] = 0
        (run / "provenance.json").rename(tmp_path / "moved")
    assert capsys.readouterr().err == f"{run}: provenance.json is gone, so this session is not recorded\n"
    assert not (run / "provenance.json").exists()


def test_stops_and_failures_are_recorded_with_their_exit_codes(small_config, synthetic, launch, tmp_path):
    run = tmp_path / "run"
    process = start(small_config, synthetic, run, *LONG, num_procs=1)
    wait_for(lambda: (run / "metrics.jsonl").exists() and '"train"' in (run / "metrics.jsonl").read_text(), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 3
    for folder in (run / "checkpoints").iterdir():
        (folder / "optimizer.safetensors").write_bytes(b"")
    launch(run, *LONG, num_procs=1, code=2)
    assert [session["exit_code"] for session in read(run)["sessions"]] == [3, 2]


def test_workers_without_albert_launch_keep_the_record_themselves(small_config, synthetic, launch, tmp_path):
    run = tmp_path / "run"
    launch(run, "--training.steps", 1, num_procs=1)
    (run / "DONE").unlink()
    (run / "state.json").unlink()
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("steps: 1\n", "steps: 2\n", 1))
    command = [sys.executable, "-m", "pretrain", str(config)]
    clean = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "ALBERT_START")}
    finished = subprocess.run(command, env=clean, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    by_launch, by_hand = read(run)["sessions"]
    assert by_hand["command"][0].endswith("pretrain/__main__.py")
    assert (by_hand["from_step"], by_hand["to_step"], by_hand["exit_code"]) == (1, 2, 0)
    assert by_launch["exit_code"] == 0


def test_a_phase_names_the_checkpoint_it_began_with(launch, synthetic, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    launch(first, "--training.steps", 4, num_procs=1)
    launch(second, "--training.steps", 6, "--continue_from", first, num_procs=1)
    of_data, of_run = read(second)["parents"]
    assert (of_data["role"], of_run["role"]) == ("data", "continue_from")
    assert of_run["marker"] == "checkpoints/step-4/manifest.json"
    assert of_run["sha256"] == sha256(first / "checkpoints" / "step-4" / "manifest.json")
    assert of_run["provenance"] == read(first)
    launch(first, "--training.steps", 8, num_procs=1)  # the first goes on: the second was made of what it was then
    launch(second, "--training.steps", 7, "--continue_from", first, num_procs=1)
    assert read(second)["parents"] == [of_data, of_run]


def test_a_hugging_face_folder_that_a_run_began_with_is_a_parent_of_unknown_origin(chain, albert, tmp_path):
    shutil.copytree(chain / "hf", tmp_path / "hf")
    (tmp_path / "hf" / "provenance.json").unlink()
    small = ("--model.hidden_size", 32, "--model.intermediate_size", 64, "--training.max_validation_instances", 20)
    where = ("--config", ROOT / "configs" / "demo.yaml", "--data", chain / "data", "--output", tmp_path / "run", *small)
    albert("launch", *where, "--training.steps", 1, "--logging.wandb", "disabled", "--model.init_from", tmp_path / "hf")
    of_data, of_model = read(tmp_path / "run")["parents"]
    assert of_data["provenance"]["verb"] == "prepare"
    assert (of_model["role"], of_model["provenance"]) == ("init_from", "unknown")
    assert of_model["sha256"] == sha256(tmp_path / "hf" / "model.safetensors")


def test_an_interrupted_preparation_leaves_its_trace(corpus, tokenizer, tmp_path, monkeypatch):
    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data_prep.prepare.finish", dies)
        with pytest.raises(KeyboardInterrupt):
            prepare(options(corpus, tokenizer, tmp_path / "data"))
    (session,) = read(tmp_path / "data")["sessions"]
    assert session["exit_code"] == 130
    assert read(tmp_path / "data")["outputs"] == []
    prepare(options(corpus, tokenizer, tmp_path / "data"))
    record = read(tmp_path / "data")
    assert [session["exit_code"] for session in record["sessions"]] == [130, 0]
    assert [entry["sha256"] for entry in record["inputs"]] == [sha256(corpus)]
    before = (tmp_path / "data" / "provenance.json").read_bytes()
    prepare(options(corpus, tokenizer, tmp_path / "data"))  # nothing is left to do
    assert (tmp_path / "data" / "provenance.json").read_bytes() == before


@pytest.mark.parametrize("ends_by", [KeyboardInterrupt, None])
def test_a_preparation_that_ends_after_its_manifest_records_it(corpus, tokenizer, tmp_path, monkeypatch, ends_by):
    folder, given = tmp_path / "data", options(corpus, tokenizer, tmp_path / "data", dupe_factor=1)

    def removes(*_):
        assert (folder / "manifest.json").exists()
        if ends_by is None:  # as of a kill: what the record says is what it was begun with
            (folder / "killed.json").write_bytes((folder / "provenance.json").read_bytes())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data_prep.finish.Folder.remove", removes)
        with pytest.raises(KeyboardInterrupt):
            prepare(given)
    if ends_by is None:
        (folder / "killed.json").rename(folder / "provenance.json")
        assert read(folder)["outputs"] == []
        prepare(given)
    record = read(folder)
    assert record["outputs"] == [
        {"path": "manifest.json", "size": (folder / "manifest.json").stat().st_size, "sha256": sha256(folder / "manifest.json")}
    ]
    assert [session["exit_code"] for session in record["sessions"]] == [130 if ends_by else None]


def test_a_damaged_record_hinders_nobody_from_using_finished_data(data, corpus, tokenizer, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "provenance.json").write_text("damaged")
    assert prepare(options(corpus, tokenizer, tmp_path / "data"))["splits"]
    assert (tmp_path / "data" / "provenance.json").read_text() == "damaged"


def test_a_file_of_an_option_that_is_gone_does_not_end_the_preparation(corpus, tokenizer, tmp_path, monkeypatch):
    words = tmp_path / "words"
    words.write_text("Mr.\n")
    hashed = sha256(words)

    def encoded(*_):
        words.unlink(missing_ok=True)
        return shuffle_stage(*_)

    monkeypatch.setattr("data_prep.prepare.shuffle_stage", encoded)
    prepare(options(corpus, tokenizer, tmp_path / "data", abbreviations=words, dupe_factor=1))
    assert read(tmp_path / "data")["inputs"][-1] == {
        "path": str(words),
        "size": None,
        "reason": "cannot be read (No such file or directory)",
        "sha256": hashed,
        "option": "abbreviations",
    }


def test_each_input_is_recorded_once_however_it_is_cut(corpus, tokenizer, tmp_path):
    files = [corpus.with_name(name) for name in ("addresses.txt", "b.txt", "empty.txt")]
    shutil.copy(corpus, tmp_path / "addresses.txt")
    (tmp_path / "b.txt").write_text("A sentence of a second file. And another one.\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "words").write_text("Mr.\n")
    changes = {"task_size": 3000, "workers": 2, "abbreviations": tmp_path / "words", "dupe_factor": 1}
    prepare(options(tmp_path / "*.txt", tokenizer, tmp_path / "data", **changes))
    inputs = read(tmp_path / "data")["inputs"]
    assert [entry["path"] for entry in inputs] == [str(tmp_path / file.name) for file in files] + [str(tmp_path / "words")]
    assert [entry["sha256"] for entry in inputs] == [sha256(Path(entry["path"])) for entry in inputs]


def test_an_input_that_changes_while_it_is_encoded_is_refused(tokenizer, tmp_path, monkeypatch):
    from tokenizer.errors import UserError

    path = tmp_path / "corpus.txt"
    path.write_text("One sentence. Another sentence.\n\nA second document. It has two sentences.\n" * 20)

    def changed(item):
        path.write_text("Other text.\n")
        return record_input(item)

    monkeypatch.setattr("data_prep.encode.record_input", changed)
    with pytest.raises(UserError, match="was changed since the preparation began"):
        prepare(options(path, tokenizer, tmp_path / "data"))


def test_a_tokenizer_names_no_hash_of_a_file_that_changed_after_it_was_read(tmp_path, monkeypatch):
    from tokenizer import train
    from tokenizer.options import TokenizerOptions

    steady, changed = tmp_path / "a.txt", tmp_path / "b.txt"
    steady.write_bytes(gzip.decompress(BUNDLED.read_bytes())[:50_000])
    changed.write_text("A second file.\n")
    as_read = sha256(steady)

    def drawn(*given, **more):
        sample = draw_sample(*given, **more)
        changed.write_text("Other text.\n")
        return sample

    def trained(*given):
        steady.write_text("Changed while SentencePiece is at work.\n")
        return train_sentencepiece(*given)

    draw_sample, train_sentencepiece = train.draw_sample, train._train_sentencepiece
    monkeypatch.setattr(train, "draw_sample", drawn)
    monkeypatch.setattr(train, "_train_sentencepiece", trained)
    train.train_tokenizer(TokenizerOptions(input=[str(steady), str(changed)], output=tmp_path / "tokenizer", vocab_size=300))
    of_steady, of_changed = read(tmp_path / "tokenizer")["inputs"]
    assert of_steady == {"path": str(steady), "size": 50_000, "sha256": as_read}
    assert of_changed == {"path": str(changed), "size": None, "sha256": None, "reason": "was changed while it was read"}


def test_a_damaged_record_is_named(corpus, tokenizer, launch, tmp_path):
    run = tmp_path / "run"
    launch(run, "--training.steps", 1, num_procs=1)
    for content in ("", "[]", '{"format_version": 9, "sessions": [{"command": []}]}'):
        (run / "provenance.json").write_text(content)
        error = launch(run, "--training.steps", 2, num_procs=1, code=2).stderr
        assert f"{run / 'provenance.json'}: " in error
        assert "move it away" in error
        assert "Traceback" not in error
    link = parent("run", run, "config.yaml")
    assert link["provenance"]["format_version"] == 9  # of a later release: taken as it is


# Inputs that are no plain files


def test_inputs_in_a_store_have_its_mark_and_no_hash(tokenizer, tmp_path):
    import fsspec

    fsspec.filesystem("memory").pipe("/bucket/a.txt", BUNDLED.read_bytes()[:100])
    (item,) = resolve_inputs(["memory://bucket/a.txt"])
    record = record_input(item)
    assert (record["path"], record["size"], record["sha256"]) == ("memory://bucket/a.txt", 100, None)
    assert "in a store" in record["reason"]
    missing = record_input(item._replace(source="memory://bucket/gone.txt"))
    assert "cannot be reached" in missing["reason"]


def test_a_data_set_is_recorded_with_its_files(tmp_path):
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "One."}\n{"text": "Two."}\n')
    (item,) = resolve_inputs([f"hf:{folder}"])
    record = record_input(item)
    assert (record["path"], record["split"], record["sha256"]) == (f"hf:{folder}", "train", None)
    assert record["files"]
    assert all(entry["sha256"] == sha256(Path(entry["path"])) for entry in record["files"])
    assert record["size"] == sum(Path(entry["path"]).stat().st_size for entry in record["files"])


def test_the_verbs_record_a_data_set_with_its_files(albert, tmp_path):
    folder = tmp_path / "local"
    folder.mkdir()
    shutil.copy(BUNDLED, folder / "train.txt.gz")
    given, cache = ("--input", f"hf:{folder}"), {"HF_HOME": str(tmp_path / "cache")}
    albert("tokenizer", *given, "--output", tmp_path / "tokenizer", "--vocab_size", 300, **cache)
    albert("prepare", *given, "--output", tmp_path / "data", "--tokenizer", tmp_path / "tokenizer", "--dupe_factor", 1, **cache)
    for made in ("tokenizer", "data"):
        (entry,) = read(tmp_path / made)["inputs"]
        assert (entry["path"], entry["split"]) == (f"hf:{folder}", "train")
        assert [(file["size"], file["sha256"]) for file in entry["files"]] == [
            (Path(file["path"]).stat().st_size, sha256(Path(file["path"]))) for file in entry["files"]
        ]
        assert entry["files"]


def test_a_file_that_cannot_be_read_says_so(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (item,) = resolve_inputs([str(tmp_path / "a.txt")])
    (tmp_path / "a.txt").unlink()
    assert record_input(item) == {
        "path": str(tmp_path / "a.txt"), "size": None, "sha256": None, "reason": "cannot be read (No such file or directory)"
    }  # fmt: skip


# Code


@pytest.fixture
def checkout(tmp_path) -> Path:
    """The sources as a git repository of their own, committed."""
    root = tmp_path / "it's a checkout"
    root.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "bundled"))
    shutil.copy(ROOT / "setup.cfg", root)
    (root / ".gitignore").write_text("__pycache__/\n")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qm", "all")
    return root


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", root, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_the_code_is_told_by_commit_state_and_sources(checkout):
    clean = code_revision(checkout)
    assert clean["revision"] == git(checkout, "rev-parse", "HEAD")
    assert clean["clean"] is True
    assert clean["sources_sha256"] == code_revision(ROOT)["sources_sha256"]  # the same files elsewhere
    assert clean["version"] == version("albert-pretraining")
    with (checkout / "pretrain" / "train.py").open("a") as file:
        file.write("# changed\n")
    dirty = code_revision(checkout)
    assert (dirty["revision"], dirty["clean"]) == (clean["revision"], False)
    assert dirty["sources_sha256"] != clean["sources_sha256"]
    git(checkout, "checkout", "-q", ".")
    (checkout / "my run").mkdir()
    (checkout / "my run" / "notes.txt").write_text("not of the code")
    assert code_revision(checkout) == clean
    (checkout / "pretrain" / "more.py").write_text("")
    assert code_revision(checkout)["clean"] is False
    (checkout / "pretrain" / "more.py").unlink()
    (checkout / "pretrain" / "train.py").rename(checkout / "pretrain" / "trained.py")
    assert code_revision(checkout)["sources_sha256"] != clean["sources_sha256"], "the name counts"


@pytest.mark.parametrize("name", ["more.py", "ü.py", "two words.py", 'a "quote".py'])
def test_an_untracked_source_shows_whatever_its_name_and_the_settings_of_git(checkout, name):
    git(checkout, "config", "status.showUntrackedFiles", "no")
    assert code_revision(checkout)["clean"] is True
    (checkout / "pretrain" / name).write_text("")
    assert code_revision(checkout)["clean"] is False


def test_the_hash_of_the_sources_is_what_sha256sum_says(checkout):
    listed = "find tokenizer data_prep pretrain downstream launch -name '*.py' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    said = subprocess.run(["/bin/sh", "-c", listed], cwd=checkout, capture_output=True, text=True, check=True).stdout
    assert said.split()[0] == code_revision(checkout)["sources_sha256"]


def test_a_copy_inside_another_project_has_no_revision(checkout, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(checkout / ".git"))  # as inside a hook of it
    other = tmp_path / "other"
    shutil.copytree(checkout, other / "vendored", ignore=shutil.ignore_patterns(".git"))
    assert code_revision(other / "vendored") | {"sources_sha256": ""} == {
        "version": version("albert-pretraining"), "revision": None, "clean": None, "sources_sha256": ""
    }  # fmt: skip
    monkeypatch.delenv("GIT_DIR")
    git(other, "init", "-q")
    assert code_revision(other / "vendored")["revision"] is None
    (checkout / "setup.cfg").write_text("[metadata]\nname = another-project\n")
    assert code_revision(checkout)["revision"] is None


def test_without_git_the_sources_alone_tell(checkout, monkeypatch, tmp_path):
    known = code_revision(checkout)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_revision(checkout) == known | {"revision": None, "clean": None}


# Secrets

TOKEN = "hf_" + "aB3" * 12
KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://user:pass@host/a.txt", "s3://***@host/a.txt"),
        ("wiki=https://user:p/w@x@host:8080/a@b.txt", "wiki=https://***@b.txt"),
        ("https://token@host/a.txt", "https://***@host/a.txt"),
        ("https://host/a?X-Amz-Signature=abc&part=1&sig=x", "https://host/a?X-Amz-Signature=***&part=1&sig=***"),
        ("https://host/a?X-Amz-Security-Token=abc#top", "https://host/a?X-Amz-Security-Token=***#top"),
        (f"/data/{TOKEN}/a.txt", "/data/***/a.txt"),
        ("wiki=s3://AK:12/ab@host/x", "wiki=s3://***@host/x"),  # a bucket has no port
        ("https://host:8080/a@b.txt", "https://host:8080/a@b.txt"),
        ("s3://bucket/it@home.txt", "s3://bucket/it@home.txt"),
        ("/home/me@work/hf_model/key=1/a.txt", "/home/me@work/hf_model/key=1/a.txt"),
        ("memory://bucket/a?page=1", "memory://bucket/a?page=1"),
    ],
)
def test_secrets_in_urls_are_masked(text, shown):
    assert masked(text) == shown


def test_values_of_options_that_look_secret_are_masked():
    given = [
        "albert",
        "--api_key",
        "abc",
        "--wandb.token=abc",
        "--tokenizer",
        "T",
        "--text_field",
        "key",
        "token=abc",
        KEY,
        "--key",
    ]
    shown = [
        "albert",
        "--api_key",
        "***",
        "--wandb.token=***",
        "--tokenizer",
        "T",
        "--text_field",
        "key",
        "token=***",
        "***",
        "--key",
    ]
    assert masked_command(given) == shown


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["--sbatch", f"export=ALL,WANDB_API_KEY={KEY}"], ["--sbatch", "export=ALL,WANDB_API_KEY=***"]),
        (["--sbatch", "export=AWS_ACCESS_KEY_ID=a,B=1", "n=1"], ["--sbatch", "export=AWS_ACCESS_KEY_ID=***,B=1", "n=1"]),
        (["--launcher_args", "-x HF_TOKEN=a -x NCCL_DEBUG=INFO"], ["--launcher_args", "-x HF_TOKEN=*** -x NCCL_DEBUG=INFO"]),
        (["--launcher_args", "-x 'MY_KEY=a b' -n 1"], ["--launcher_args", "-x 'MY_KEY=***' -n 1"]),
        (["--launcher_args", '-n 1 MY_KEY="a b" --api_key a'], ["--launcher_args", "-n 1 MY_KEY=*** --api_key ***"]),
        (["--launcher_args", f"-x A={KEY} {KEY}"], ["--launcher_args", "-x A=*** ***"]),
        (["--input", "key=/a.txt", f"token=s3://u:p@h/{TOKEN}"], ["--input", "key=/a.txt", "token=s3://***@h/***"]),
        (["--input=key=/a.txt", "--k", "token=a"], ["--input=key=/a.txt", "--k", "token=***"]),
        (["--weights", "key=0.5"], ["--weights", "key=0.5"]),
        (["--model.init_from", f"/hub/snapshots/{KEY}"], ["--model.init_from", f"/hub/snapshots/{KEY}"]),
        (["--tokenizer=T", "--sbatch", "signal=B:USR1@60"], ["--tokenizer=T", "--sbatch", "signal=B:USR1@60"]),
    ],
)  # fmt: skip
def test_secrets_inside_an_argument_are_masked_and_labels_are_not(given, shown):
    assert masked_command(given) == shown


def test_no_secret_gets_into_the_file(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("sys.argv", ["albert", "prepare", "--input", "s3://user:geheim@host/a.txt"])
    record = {"sessions": [open_session()], "inputs": [{"path": "s3://user:geheim@host/a.txt"}], "odd": Path("\udcff/é")}
    text = as_text(record)
    assert record["sessions"][0]["command"] == ["albert", "prepare", "--input", "s3://***@host/a.txt"]
    assert "geheim" not in text
    assert TOKEN not in text
    assert "s3://***@host/a.txt" in text
    assert json.loads(text)["odd"] == "\udcff/é"  # bytes that are no UTF-8 come back
    text.encode("utf-8")


def test_the_golden_folders_of_earlier_releases_have_no_record_and_are_read(tmp_path):
    assert not (GOLDEN / "shards_1" / "provenance.json").exists()
    assert read_manifest(GOLDEN / "shards_1").format_version == 1
    link = parent("data", GOLDEN / "shards_1", "manifest.json")
    assert link["sha256"] == sha256_of_files(GOLDEN / "shards_1" / "manifest.json")
    assert link["provenance"] == "unknown"
    assert "there is no manifest.json in it" in parent("data", tmp_path, "manifest.json")["reason"]
