"""Imports point one way, and only the named files touch deepspeed and torch.distributed."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ["tokenizer", "data_prep", "pretrain", "downstream", "launch"]
FILES = [path for room in ROOMS for path in sorted((ROOT / room).glob("*.py"))]


def imported_modules(path: Path) -> set[str]:
    """Every module a file imports, anywhere in it."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_imports_point_to_lower_rooms_only(path):
    above = ROOMS[ROOMS.index(path.parent.name) + 1 :]
    if path.parent.name == "downstream":  # it knows exported folders alone
        above += ["data_prep", "pretrain"]
    assert {module for module in imported_modules(path) if module.partition(".")[0] in above} == set()


@pytest.mark.parametrize(("library", "owner"), [("deepspeed", "engine"), ("torch.distributed", "distributed")])
def test_one_file_imports(library, owner):
    importers = [
        path for path in FILES if any(name == library or name.startswith(f"{library}.") for name in imported_modules(path))
    ]
    assert importers == [ROOT / "pretrain" / f"{owner}.py"]


def test_tests_are_not_installed():
    from importlib.metadata import distribution

    top_level = distribution("albert-pretraining").read_text("top_level.txt")
    assert sorted(top_level.split()) == sorted(ROOMS)
