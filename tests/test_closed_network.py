"""Every verb in a network namespace with nothing but loopback; nothing asks for more, and nothing fetches code or models."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ALBERT
from no_network import RECORDER, WITHOUT_NETWORK, missing
from prepared import BUNDLED
from runs import CONFIG

ROOT = Path(__file__).parent.parent
LOAD = """
import sys
from transformers import AutoModel, AutoModelForPreTraining, AutoTokenizer, pipeline
folder = sys.argv[1]
tokens = AutoTokenizer.from_pretrained(folder)("The state of the union.", return_tensors="pt")
print(AutoModel.from_pretrained(folder)(**tokens).last_hidden_state.shape)
AutoModelForPreTraining.from_pretrained(folder)
print(pipeline("fill-mask", folder)("The state of the [MASK] is strong.")[0]["token_str"])
"""
FETCHING = ("trust_remote_code", "torch.hub", "evaluate.load", "hf_hub_download", "snapshot_download", "urlopen", "urlretrieve")
LONGEST = 300
"""Seconds for a verb, most of them imports. Whoever waits for a network tries again for minutes."""


class ClosedMachine:
    """Runs commands without a network, in an environment that does not tell libraries to stay offline."""

    def __init__(self, folder: Path):
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(RECORDER)
        self.record = folder / "network"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_", "WANDB_"))}
        self.environment = kept | {"HOME": str(folder), "PYTHONPATH": str(folder / "site"), "NETWORK_RECORD": str(self.record)}

    def run(self, *command: object) -> str:
        began = time.monotonic()
        finished = subprocess.run(
            [*WITHOUT_NETWORK, *map(str, command)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST * 2,
        )
        assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
        assert time.monotonic() - began < LONGEST
        return finished.stdout

    def asked_for(self) -> list[str]:
        return self.record.read_text().splitlines() if self.record.exists() else []


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> ClosedMachine:
    if reason := missing():
        pytest.skip(reason)
    return ClosedMachine(tmp_path_factory.mktemp("closed"))


def test_no_verb_needs_a_network_or_asks_for_one(machine, tmp_path):
    pytest.importorskip("transformers", reason="the export is loaded with the extra `transformers`")
    (tmp_path / "run.yaml").write_text(CONFIG.replace(", wandb: disabled", ""))  # what it is unless asked
    tokenizer, data, run, export = (tmp_path / name for name in ("tokenizer", "data", "run", "hf"))
    machine.run(ALBERT, "tokenizer", "--input", BUNDLED, "--output", tokenizer, "--vocab_size", 600)
    options = ("--max_seq_length", 32, "--dedup", "minhash", "--fix_unicode", "--max_repeated_lines", 0.9, "--workers", 2)
    machine.run(ALBERT, "prepare", "--input", BUNDLED, "--tokenizer", tokenizer, "--output", data, "--dupe_factor", 1, *options)
    machine.run(ALBERT, "prepare", "--remask", data, "--output", tmp_path / "remasked", "--seed", 1)
    machine.run(ALBERT, "inspect", data, "--html", tmp_path / "page.html")
    launch = (ALBERT, "launch", "--config", tmp_path / "run.yaml", "--data", data, "--output", run, "--num_procs", 2)
    machine.run(*launch, "--dry_run", "--gpu", "h100")
    machine.run(ALBERT, "doctor", *launch[2:])
    machine.run(*launch)
    assert (run / "DONE").exists()
    assert list(run.glob("wandb/offline-run-*/*.wandb"))
    machine.run(ALBERT, "inspect", run, "--html", tmp_path / "run.html")
    machine.run(ALBERT, "export", "--run", run, "--output", export)
    machine.run(ALBERT, "evaluate", "--model", run, export, "--max_instances", 20)
    assert "torch.Size" in machine.run(sys.executable, "-c", LOAD, export)
    (tmp_path / "mine.tsv").write_text("text\tlabel\n" + "It is strong.\tgood\nIt is weak.\tbad\n" * 10)
    machine.run(
        ALBERT, "finetune", "--model", export, "--train", tmp_path / "mine.tsv", "--output", tmp_path / "out", "--epochs", 1
    )
    assert machine.asked_for() == []


def test_a_request_would_be_seen(machine):
    request = "import socket\ntry: socket.create_connection(('192.0.2.1', 80))\nexcept OSError: pass"
    before = machine.asked_for()
    machine.run(sys.executable, "-c", request)
    assert len(machine.asked_for()) > len(before)
    machine.record.unlink()


@pytest.mark.parametrize("room", ["tokenizer", "data_prep", "pretrain", "downstream", "launch"])
def test_nothing_fetches_code_or_models(room):
    """`hf:` names and URLs of the user go through `datasets.load_dataset` and fsspec, each in one file."""
    names: dict[str, set[str]] = {}
    for path in (ROOT / room).glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        used |= {node.arg or "" for node in ast.walk(tree) if isinstance(node, ast.keyword)}
        used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
        names[path.name] = used
    fetching = {file: [name for name in FETCHING if any(name in one for one in used)] for file, used in names.items()}
    assert not any(fetching.values()), fetching
    loaders = {file for file, used in names.items() if any(name.endswith(("load_dataset", "url_to_fs")) for name in used)}
    assert loaders <= {"tables.py", "storage.py"}
