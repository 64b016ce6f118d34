"""Every field of the run config with its type, default and docstring: the end of `albert launch --help`, and docs/config.md.

`python -m launch.config_reference > docs/config.md` writes the page; a test compares them.
"""

from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from docstring_parser import parse_from_object

from pretrain.config import RunConfig
from pretrain.config_file import MAY_DIFFER_ON_RESUME

PAGE = """# The run config

Sections and fields of a run config (YAML), for `albert launch --config`. Any field can be overridden: `--training.steps 500`.
The vocabulary's size and max_seq_length come from the data's manifest and are typed nowhere. On resume only {free} and the
number of processes may differ.

Made from the code by `python -m launch.config_reference > docs/config.md`.

| field | type | default | meaning |
|---|---|---|---|
{rows}
"""


class Field(NamedTuple):
    name: str
    type: str
    default: str
    meaning: str


def config_fields() -> list[Field]:
    """All fields, as `section.field`, in the order of the file."""
    listed = []
    for section in fields(RunConfig):
        if is_dataclass(section.type):
            listed += [entry._replace(name=f"{section.name}.{entry.name}") for entry in fields_of(section.type)]
        else:
            listed += [entry for entry in fields_of(RunConfig) if entry.name == section.name]
    return listed


def fields_of(kind: type) -> list[Field]:
    meaning = docstrings(kind)
    hints = get_type_hints(kind, include_extras=True)
    return [Field(item.name, type_name(hints[item.name]), default_text(item), meaning.get(item.name, "")) for item in fields(kind)]


def docstrings(kind: type) -> dict[str, str]:
    """Field name -> the docstring under it, on one line."""
    return {entry.args[1]: " ".join(entry.description.split()) for entry in parse_from_object(kind).meta if len(entry.args) > 1}


def type_name(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        return type_name(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return " or ".join(get_args(hint))
    if get_origin(hint) is dict:
        return "mapping"
    if options := [type_name(option) for option in get_args(hint) if option is not type(None)]:
        return " or ".join(options)
    return hint.__name__


def default_text(item: Any) -> str:
    if item.default is not MISSING:
        return "null" if item.default is None else str(item.default)
    return "required" if item.default_factory is MISSING else "empty"


def help_text() -> str:
    lines = [f"  --{entry.name} ({entry.type}, default {entry.default}): {entry.meaning}" for entry in config_fields()]
    return "\n".join(["fields of the run config:", *lines])


def page() -> str:
    return PAGE.format(
        free=", ".join(f"`{name}*`" if name.endswith(".") else f"`{name}`" for name in MAY_DIFFER_ON_RESUME),
        rows="\n".join(f"| `{name}` | {kind} | {default} | {meaning} |" for name, kind, default, meaning in config_fields()),
    )


if __name__ == "__main__":
    print(page(), end="")
