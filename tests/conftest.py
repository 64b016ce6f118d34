"""Shared by all tests: no network, no wandb account, and a way to run the `albert` command as a user does."""

import gzip
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prepared import BUNDLED, options
from synthetic import write_synthetic_data

ROOT = Path(__file__).parent.parent
ALBERT = Path(sys.executable).with_name("albert")

# Here and not in a fixture: the libraries look when they are imported.
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
# Cores of their own for tests side by side: threads of OpenMP that share one wait for each other in a loop.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    share = len(os.sched_getaffinity(0)) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))
# In the background of a script SIGINT is ignored, and would be by all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def albert():
    """Run `albert ...`, wait, and return the finished process with its output; the exit code must be `code`."""

    def run(*arguments: object, code: int = 0, timeout: int = 600, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [str(ALBERT), *map(str, arguments)]
        pipes = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
        finished = subprocess.run(command, timeout=timeout, env=os.environ | environment, **pipes)
        assert finished.returncode == code, (
            f"exit code {finished.returncode}, expected {code}\n{finished.stdout}\n{finished.stderr}"
        )
        return finished

    return run


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """2,000 pieces of the bundled corpus."""
    folder = tmp_path_factory.mktemp("prepare") / "tokenizer"
    from tokenizer.options import TokenizerOptions
    from tokenizer.train import train_tokenizer

    train_tokenizer(TokenizerOptions(input=[str(BUNDLED)], output=folder, vocab_size=2000))
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Twelve addresses, 40 lines of each."""
    documents = gzip.decompress(BUNDLED.read_bytes()).decode().split("\n\n")[:12]
    path = tmp_path_factory.mktemp("corpus") / "addresses.txt"
    path.write_text("\n\n".join("\n".join(document.split("\n")[:40]) for document in documents) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory, corpus, tokenizer):
    folder = tmp_path_factory.mktemp("prepared") / "data"
    from data_prep.prepare import prepare

    prepare(options(corpus, tokenizer, folder))
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory, tokenizer):
    """The folder of `models.tiny_export`."""
    from models import tiny_export

    return tiny_export(tokenizer, tmp_path_factory.mktemp("export") / "hf")


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory) -> Path:
    """44 training instances: at batch 8 the first epoch ends inside step 6."""
    return write_synthetic_data(tmp_path_factory.mktemp("data") / "synthetic", num_instances=44)


@pytest.fixture(scope="session")
def small_config(tmp_path_factory) -> Path:
    """The run config of tests/runs.py."""
    from runs import CONFIG

    path = tmp_path_factory.mktemp("config") / "run.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="session")
def launch(albert, small_config, synthetic):
    """`albert launch` of the small config with overrides; 2 processes unless told otherwise."""

    def run(run_folder: Path, *overrides: object, num_procs: int = 2, **more):
        options = ("--config", small_config, "--data", synthetic, "--output", run_folder, "--num_procs", num_procs)
        return albert("launch", *options, *overrides, **more)

    return run


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Two machines (tests/cluster.py)."""
    from cluster import Cluster

    with Cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(scope="session")
def undisturbed(launch, tmp_path_factory) -> Path:
    """A run of 10 steps in one go: 2 ranks, 2 micro-batches each, dropout 0.1, an epoch's end inside step 6."""
    run_folder = tmp_path_factory.mktemp("run") / "undisturbed"
    launch(run_folder)
    return run_folder


@pytest.fixture(scope="session")
def long_undisturbed(launch, tmp_path_factory) -> Path:
    """The same over 60 steps."""
    from runs import LONG

    run_folder = tmp_path_factory.mktemp("long") / "undisturbed"
    launch(run_folder, *LONG)
    return run_folder
