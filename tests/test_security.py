"""Nothing that is read is run, no shell sees a value of a config or a path, and no token of the environment is written."""

import ast
import json
import os
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ALBERT
from prepared import BUNDLED
from runs import records

from tokenizer.files import sha256_of_files

ROOT = Path(__file__).parent.parent
ROOMS = ("tokenizer", "data_prep", "pretrain", "downstream", "launch")
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for room in ROOMS for path in sorted((ROOT / room).glob("*.py"))}

UNPICKLERS = {"pickle", "_pickle", "cPickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
LOADERS = ("torch.load", "torch.jit.load", "torch.save", "read_pickle", "load_checkpoint_in_model", "torch.package")
YAML = {"yaml.safe_load", "yaml.safe_dump", "yaml.YAMLError"}

TOKENS = {
    "WANDB_API_KEY": "ca0a" * 10,  # 40 hexadecimal digits, as wandb wants it
    "HF_TOKEN": "hf_canaryCanaryCanary",
    "HUGGING_FACE_HUB_TOKEN": "hf_canaryOfTheOldName",
    "AWS_SECRET_ACCESS_KEY": "canary/aws/secret",
    "AWS_SESSION_TOKEN": "canary-aws-session",
}
SMALL = ("--training.steps", 2, "--checkpoint.every_n_steps", 1, "--logging.wandb", "offline")


EVIL = """it's "a" $(touch was_run1) `touch was_run2`;touch was_run3&\n|<>#%s %n"""
"""A name of a folder."""


class Bomb:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.mark}'",)


@pytest.fixture
def mark(tmp_path) -> Path:
    return tmp_path / "was_run"


@pytest.fixture
def bomb(mark) -> bytes:
    """Checked here: it goes off when it is loaded."""
    content = pickle.dumps(Bomb(mark))
    pickle.loads(content)
    mark.unlink()
    return content


def imports_of(tree: ast.AST) -> set[str]:
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("path", TREES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_source_unpickles_evaluates_or_calls_a_shell(path):
    tree = TREES[path]
    assert {name.partition(".")[0] for name in imports_of(tree)}.isdisjoint(UNPICKLERS)
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not [name for name in used if name.endswith(LOADERS)]
    assert {name for name in used if name.startswith("yaml.")} <= YAML
    assert used.isdisjoint({"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"})
    keywords = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    assert keywords.isdisjoint({"allow_pickle", "weights_only", "shell"})
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert called.isdisjoint({"eval", "exec", "compile", "__import__"})


class Work:
    """All verbs in folders with names that a shell would run, and with tokens in the environment."""

    def __init__(self, folder: Path, config: Path):
        self.folder, self.config = folder, config
        self.place = folder / EVIL
        self.place.mkdir()
        self.corpus = self.place / f"{EVIL}.txt.gz"
        shutil.copyfile(BUNDLED, self.corpus)
        self.tokenizer, self.data, self.export = (self.place / name for name in ("tokenizer", "data", "hf"))
        self.run_folder = self.place / f"run {EVIL}"
        self.said: list[str] = []

    def albert(self, *arguments: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Where what a shell would make can be found."""
        command = [str(ALBERT), *map(str, arguments)]
        pipes = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
        finished = subprocess.run(command, cwd=self.folder, env=os.environ | TOKENS | environment, timeout=180, **pipes)
        assert finished.returncode == code, f"{finished.returncode}\n{finished.stdout}\n{finished.stderr}"
        self.said += [finished.stdout, finished.stderr]
        return finished

    def prepare(self, *more: object) -> list[object]:
        where = ["--input", self.corpus, "--tokenizer", self.tokenizer]
        return ["prepare", *where, "--max_seq_length", 32, "--dupe_factor", 1, *more]

    def launch(self, *more: object) -> list[object]:
        where = ["--config", self.config, "--data", self.data, "--output", self.run_folder, "--num_procs", 2]
        return ["launch", *where, *SMALL, "--logging.wandb_project", "$(touch was_run)", *more]

    def run_all(self) -> None:
        self.albert("tokenizer", "--input", self.corpus, "--output", self.tokenizer, "--vocab_size", 600)
        self.albert(*self.prepare("--output", self.data, "--workers", 2))
        self.albert("inspect", self.data, "--html", self.place / f"{EVIL}.html")
        self.albert(*self.launch("--dry_run"))
        self.albert("doctor", *self.launch()[1:])
        self.albert(*self.launch())
        self.albert("inspect", self.run_folder, "--html", self.place / f"{EVIL} of the run.html")
        self.albert("export", "--run", self.run_folder, "--output", self.export)
        self.albert("export", "--run", self.run_folder, "--output", self.export, "--checkpoint", "$(touch was_run)", code=2)
        self.albert("evaluate", "--model", self.run_folder, self.export, "--output", self.place / "figures.json")


@pytest.fixture(scope="module")
def work(tmp_path_factory, small_config) -> Work:
    made = Work(tmp_path_factory.mktemp("security"), small_config)
    made.run_all()
    return made


def test_paths_and_values_that_a_shell_would_run_are_only_names(work):
    assert len(records(work.run_folder)) == 2
    assert (work.export / "model.safetensors").exists()
    assert list(work.run_folder.glob("wandb/offline-run-*"))
    assert not list(work.folder.rglob("was_run*"))


def test_a_host_name_that_a_shell_would_run_is_refused(work, tmp_path):
    for name in ("$(touch was_run)", "`touch was_run`", "a;touch was_run", "a'b", "-oProxyCommand=touch"):
        (tmp_path / "hosts").write_text(f"{name} slots=1\n")
        launch = ["launch", "--config", work.config, "--data", work.data, "--output", tmp_path / "run"]
        work.albert(*launch, "--hostfile", tmp_path / "hosts", code=2)
    assert not list(work.folder.rglob("was_run*"))


def test_options_for_sbatch_arrive_as_single_words_and_its_script_runs_in_any_folder(work, tmp_path):
    (tmp_path / "sbatch").write_text('#!/bin/bash\nprintf \'%s\\0\' "$@" >> "$SAID"\necho 1\n')
    (tmp_path / "sbatch").chmod(0o755)
    values = [f"comment={EVIL}", "account=a\n#SBATCH --wrap=touch was_run\ntouch was_run"]
    data = work.place / f"data {EVIL}"
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SAID": str(tmp_path / "said")}
    work.albert(*work.prepare("--output", data, "--executor", "slurm", "--sbatch", *values), **path)
    words = (tmp_path / "said").read_text().split("\0")
    assert [words.count(f"--{value}") for value in values] == [3 + 1, 3 + 1]  # encode, gather, shuffle, finish
    script = words[words.index("encode") - 1]
    job = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "1"}
    subprocess.run(["bash", script, "encode"], cwd=work.folder, env=os.environ | job, check=True, timeout=180)
    assert (data / "slurm-encode-0.log").exists()
    assert not list(work.folder.rglob("was_run*"))


def test_no_token_of_the_environment_is_written_or_said(work):
    files = [path for path in work.folder.rglob("*") if path.is_file()]
    assert {"config.yaml", "metrics.jsonl", "plan.json", "README.md", f"{EVIL}.html"} <= {path.name for path in files}
    for token in TOKENS.values():
        assert not [text for text in work.said if token in text]
        assert not [path for path in files if token.encode() in path.read_bytes()]


@pytest.mark.parametrize("value", ['!!python/object/apply:os.system ["touch was_run"]', "!!python/name:os.system"])
def test_yaml_that_names_code_is_refused(work, tmp_path, value):
    config = tmp_path / "run.yaml"
    config.write_text(f"training: {value}\n")
    assert "is not valid YAML" in work.albert("launch", "--config", config, "--output", tmp_path / "run", code=2).stderr
    assert "not valid YAML" in work.albert(*work.launch("--training.steps", value), code=2).stderr
    run = shutil.copytree(work.run_folder, tmp_path / "copy")
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + f"extra: {value}\n")
    work.albert("export", "--run", run, "--output", tmp_path / "hf", code=2)
    work.albert(*work.prepare("--output", tmp_path / "data", "--seed", value), code=2)
    work.albert(*work.prepare("--output", tmp_path / "data", "--tokenizer", value), code=2)
    assert not list(work.folder.rglob("was_run*"))


@pytest.mark.parametrize(
    "name",
    ["manifest.json", "train-00000*.arrow", "validation-00000*.arrow", "tokenizer/tokenizer.json", "tokenizer/manifest.json"],
)
def test_a_pickle_in_a_data_folder_is_refused(work, tmp_path, bomb, mark, name):
    data = shutil.copytree(work.data, tmp_path / "data")
    (target,) = data.glob(name)
    target.write_bytes(bomb)
    if name != "tokenizer/manifest.json":  # training takes the hashes of the other two files
        work.albert(*work.launch("--data", data, "--output", tmp_path / "run", "--num_procs", 1), code=2)
    if not name.startswith("validation"):  # of which nothing is shown
        work.albert("inspect", data, code=2)
    work.albert("prepare", "--remask", data, "--output", tmp_path / "data2", code=2)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["corpus.txt", "corpus.jsonl", "corpus.parquet", "corpus.txt.gz", "model.bin", "plan.json"])
def test_a_pickle_given_to_prepare_is_refused(work, tmp_path, bomb, mark, name):
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / name if name == "plan.json" else tmp_path / name
    target.write_bytes(bomb)
    inputs = ["--input", work.corpus if name in ("plan.json", "model.bin") else target]
    more = ["--languages", "en", "--language_model", target] if name == "model.bin" else []
    work.albert(*work.prepare("--output", tmp_path / "out", *more), *inputs, code=2)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_pickle_in_a_checkpoint_is_refused(work, tmp_path, bomb, mark, name):
    """Also where manifest.json has its hash."""
    run = shutil.copytree(work.run_folder, tmp_path / "run")
    for folder in (run / "checkpoints").iterdir():
        (folder / name).write_bytes(bomb)
        if name != "manifest.json":
            digests = json.loads((folder / "manifest.json").read_text())
            (folder / "manifest.json").write_text(json.dumps(digests | {name: sha256_of_files(folder / name)}))
    # Code 1 where a hash says that all is well: somebody has seen to that.
    code = 2 if name == "manifest.json" else 1
    work.albert(*work.launch("--output", run, "--training.steps", 3, "--num_procs", 1), code=code)
    if name != "optimizer.safetensors":  # which an export does not read
        work.albert("export", "--run", run, "--output", tmp_path / "hf", code=code)
    assert not mark.exists()


def test_pickles_beside_what_is_read_are_passed_over(work, tmp_path, bomb, mark):
    run = shutil.copytree(work.run_folder, tmp_path / "run")
    for folder in (run, *(run / "checkpoints").iterdir()):
        for name in ("pytorch_model.bin", "mp_rank_00_model_states.pt", "rng_state.pth", "optimizer.pt", "latest"):
            (folder / name).write_bytes(bomb)
    work.albert(*work.launch("--output", run, "--training.steps", 3))
    assert len(records(run)) == 3
    init = shutil.copytree(work.export, tmp_path / "hf")
    (init / "model.safetensors").unlink()
    (init / "pytorch_model.bin").write_bytes(bomb)
    said = work.albert(*work.launch("--output", tmp_path / "new", "--model.init_from", init), code=2).stderr
    assert "Pickled weights are not read" in said
    said = work.albert("evaluate", "--model", run, init, code=2).stderr
    assert "Pickled weights are not read" in said
    assert not mark.exists()
