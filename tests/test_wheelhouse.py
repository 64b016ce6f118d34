"""The wheelhouse: what is changed, missing or added is named; and wheels as pip makes them are described."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from launch.wheelhouse import LICENCES, MADE_FOR, SUMS, build_requirements, check, licence_of, made_for, requirements
from tokenizer.errors import UserError
from tokenizer.files import sha256_of_files

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def write_wheel(folder: Path, name: str, *fields: str) -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        metadata = "\n".join(
            ["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *fields, "", "License: of the text, not a field"]
        )
        wheel.writestr(f"{name}/vendored/other-2.0.dist-info/METADATA", "Name: other\nVersion: 2.0\n")
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", metadata)
    return path


@pytest.fixture
def wheelhouse(tmp_path) -> Path:
    folder = tmp_path / "whe'el $(house)"
    folder.mkdir()
    for name in ("one", "two"):
        write_wheel(folder, name)
    (folder / LICENCES).write_text("name\n")
    (folder / MADE_FOR).write_text(json.dumps(made_for()))
    write_sums(folder)
    return folder


def write_sums(folder: Path) -> None:
    listed = sorted(path for path in folder.iterdir() if path.name != SUMS)
    (folder / SUMS).write_text("".join(f"{sha256_of_files(path)}  {path.name}\n" for path in listed))


def test_a_whole_wheelhouse_passes_and_sha256sum_agrees(wheelhouse, capsys):
    check(wheelhouse)
    assert sha256_of_files(wheelhouse / SUMS) in capsys.readouterr().out
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=wheelhouse, check=True, capture_output=True)


def test_every_changed_missing_and_added_file_is_named(wheelhouse):
    with (wheelhouse / "one-1.0-py3-none-any.whl").open("ab") as file:
        file.write(b"\0")
    (wheelhouse / "two-1.0-py3-none-any.whl").rename(wheelhouse / "three-1.0-py3-none-any.whl")
    with pytest.raises(UserError) as caught:
        check(wheelhouse)
    lines = str(caught.value).split("\n")
    assert f"{wheelhouse}/one-1.0-py3-none-any.whl: is not what was gathered (its SHA-256 is not that of {SUMS})" in lines
    assert f"{wheelhouse}/two-1.0-py3-none-any.whl: is missing" in lines
    assert f"{wheelhouse}/three-1.0-py3-none-any.whl: is not listed in {SUMS}" in lines


@pytest.mark.parametrize("name", ["Python", "machine", "requirements.lock"])
def test_a_wheelhouse_for_something_else_is_refused(wheelhouse, name):
    (wheelhouse / MADE_FOR).write_text(json.dumps(made_for() | {name: "another"}))
    write_sums(wheelhouse)
    with pytest.raises(UserError, match=f"was gathered for {name} another, and here it is "):
        check(wheelhouse)


@pytest.mark.parametrize("content", [None, "no hash", ""])
def test_what_is_no_wheelhouse_is_refused(tmp_path, content):
    folder = tmp_path / "folder"
    if content is not None:
        folder.mkdir()
        (folder / SUMS).write_text(content)
    with pytest.raises(UserError, match="no wheelhouse"):
        check(folder)


def test_make_stops_before_it_makes_an_environment(wheelhouse, tmp_path):
    (wheelhouse / "one-1.0-py3-none-any.whl").unlink()
    there = tmp_path / "checkout"
    made_meanwhile = ("__pycache__", ".*_cache", ".hypothesis", "*.egg-info")
    left_out = (".venv", ".git", "work", "tests", "wheelhouse", "benchmarks", *made_meanwhile)
    shutil.copytree(ROOT, there, ignore=shutil.ignore_patterns(*left_out))
    command = ["make", f"PYTHON={sys.executable}", ".venv/installed-test", f"WHEELHOUSE={wheelhouse}".replace("$", "$$")]
    finished = subprocess.run(command, cwd=there, capture_output=True, text=True)
    assert finished.returncode == 2
    assert f"wheelhouse: {wheelhouse}/one-1.0-py3-none-any.whl: is missing" in finished.stderr
    assert not (there / ".venv").exists()


def test_gathering_leaves_a_folder_that_holds_something_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    command = [sys.executable, "-m", "launch.wheelhouse", "gather", str(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (finished.returncode, (tmp_path / "thesis.txt").read_text()) == (2, "years of work")
    assert "holds something else (thesis.txt)" in finished.stderr


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        (["License-Expression: MIT AND Apache-2.0", "Classifier: License :: Other"], "MIT AND Apache-2.0"),
        (["License: text of many\n lines", "Classifier: License :: OSI Approved :: MIT License"], "MIT License"),
        (["License: BSD"], "BSD"),
        (["Classifier: Programming Language :: C"], "not stated"),
    ],
)
def test_the_licence_is_what_the_wheel_says(tmp_path, fields, licence):
    assert licence_of(write_wheel(tmp_path, "some", *fields)) == ("some", "1.0", licence)


def test_what_is_gathered_is_what_the_environment_needs():
    wanted = requirements()
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    pinned = re.findall(r"^    ((?:torch|deepspeed)==\S+)$", setup, re.MULTILINE)
    assert len(pinned) == 2
    assert set(pinned) <= set(wanted)
    for name in ("transformers", "pytest", "moto[s3]"):
        assert [line for line in wanted if line.startswith(name)], name
    assert build_requirements() == ["setuptools>=68"]
