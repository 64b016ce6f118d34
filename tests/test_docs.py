"""Every option of `albert` that README and docs show is an option of that verb, and every page that is named is there."""

import pkgutil
import re
from dataclasses import fields
from pathlib import Path

import pytest

from benchmarks.ablations import make_parser
from launch.cli import VERBS
from launch.config_reference import config_fields

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("README*.md"), *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "benchmarks").glob("*.md"))]

CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"\balbert +([a-z]+)\b((?:\\\n|[^\n|;&`)])*)")
OPTION = re.compile(r"(?<![\w-])--([a-z][\w.]*)")
LINK = re.compile(r"\]\(([^)#\s]+)")
PAGE_NAME = re.compile(r"\b(?:docs|benchmarks)/\w+\.md")

OPTIONS = {name: {item.name for item in fields(pkgutil.resolve_name(verb.options))} | {"help"} for name, verb in VERBS.items()}
CONFIG = {entry.name for entry in config_fields()}
OF_OTHERS = {"signal", "requeue", "section.field", "api_key"}
"""Options that stand alone in a page and are sbatch's, a placeholder, or a made-up example."""


def commands(page: str) -> list[tuple[str, list[str]]]:
    """(verb, names of its options) of each command in the code of a page; a line that ends in a backslash goes on."""
    return [(verb, OPTION.findall(rest)) for code in CODE.findall(page) for verb, rest in COMMAND.findall(code)]


def is_known(verb: str, option: str) -> bool:
    return option in OPTIONS[verb] or (verb in ("launch", "doctor") and option in CONFIG)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_shown_is_one_of_albert(path):
    shown = commands(path.read_text(encoding="utf-8"))
    assert [verb for verb, _ in shown if verb not in VERBS] == []
    assert [f"albert {verb} --{option}" for verb, options in shown for option in options if not is_known(verb, option)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_option_shown_alone_is_one_of_a_verb(path):
    alone = [code for code in CODE.findall(path.read_text(encoding="utf-8")) if code.startswith("`--")]
    known = CONFIG.union(OF_OTHERS, *OPTIONS.values())
    if path.name == "ablations.md":
        known |= set(OPTION.findall(make_parser().format_help()))
    assert [code for code in alone if not known.issuperset(OPTION.findall(code))] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(path):
    links = [link for link in LINK.findall(path.read_text(encoding="utf-8")) if not link.startswith("http")]
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_every_page_that_code_and_configs_name_is_there():
    folders = ("tokenizer", "data_prep", "pretrain", "downstream", "launch", "benchmarks", "configs")
    files = [path for name in folders for path in (ROOT / name).rglob("*") if path.suffix in (".py", ".sh", ".yaml")]
    named = {(path.name, page) for path in files for page in PAGE_NAME.findall(path.read_text(encoding="utf-8"))}
    assert len(named) > 20
    assert [(name, page) for name, page in named if not (ROOT / page).exists()] == []


def test_commands_are_found_over_lines_in_blocks_and_in_text():
    page = "Say `albert export --onnx` or\n```\n"
    page += "albert launch --config a.yaml \\\n    --training.steps 5 | tee --append log\nalbert nothing\n```\n"
    assert commands(page) == [("export", ["onnx"]), ("launch", ["config", "training.steps"]), ("nothing", [])]
    assert is_known("launch", "training.steps")
    assert not is_known("export", "training.steps")
    assert not is_known("launch", "training.step")
