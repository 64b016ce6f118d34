"""YAML and command-line overrides in, a `RunConfig` out, or one error that lists every fault; and back, and two compared."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from pretrain.config import RunConfig, scaled_lr
from pretrain.hf_shape import OTHERS, SHAPE, model_fields
from tokenizer.errors import UserError

MAY_DIFFER_ON_RESUME = (
    "data.path",
    "continue_from",
    "training.steps",
    "training.micro_batch_size",
    "training.bucket_by_length",
    "training.compile",
    "training.activation_checkpointing",
    "checkpoint.",
    "stability.",
    "supervision.",
    "logging.",
)
"""Fields, or sections, that a resumed run may change. A moved data folder is known by its manifest; the number of processes is no
field."""


def load_config(path: Path, overrides: Sequence[tuple[str, str]] = ()) -> RunConfig:
    """Read YAML, apply `section.field` overrides (values as YAML), check everything.

    Raises:
        UserError: the file cannot be read, or any field is unknown, missing, of the wrong type or out of range; all are listed.
    """
    content = read_yaml(path)
    for name, value in overrides:
        section, _, key = name.partition(".")
        if key and content.get(section) is None:
            content[section] = {}
        target = content[section] if key else content
        if not isinstance(target, dict):
            raise UserError(f"{path}: section {section} must hold fields, but is {target!r}.")
        target[key or section] = parse_value(name, value)
    begins = content.get("continue_from") is None  # with it init_from does not go together, which `check_config` says
    if begins and isinstance(model := content.get("model"), dict) and isinstance(model.get("init_from"), str):
        content["model"] = taken_over(model)
    return check_config(content, source=str(path))


def taken_over(model: dict[str, Any]) -> dict[str, Any]:
    """The section `model`, with the fields that are not given from `init_from`.

    A run that has begun has all fields in its config.yaml, and does without that folder; so does one of a release before there was
    `hidden_act`, which began with gelu_new alone.
    """
    is_whole = model.keys() >= {*SHAPE, *OTHERS}
    if is_whole and "hidden_act" in model:
        return model
    try:
        theirs, _ = model_fields(Path(model["init_from"]))
    except UserError as error:
        if is_whole:
            return model
        raise UserError(f"model.init_from: {error} A run that has begun does without: --config RUN/config.yaml.") from error
    if model.get("share", "all") != "all":  # exported with a group for each layer
        del theirs["num_hidden_groups"]
    return theirs | model


def check_config(content: dict[str, Any], *, source: str) -> RunConfig:
    """A `RunConfig` from plain data, the learning rate filled in; every fault in one `UserError`."""
    content = {
        key: {} if value is None and key not in ("continue_from", "format_version") else value for key, value in content.items()
    }
    try:
        config = TypeAdapter(RunConfig).validate_python(content)
        lr = config.optimizer.lr or scaled_lr(config.training.global_batch_size)
        return replace(config, optimizer=replace(config.optimizer, lr=lr))
    except ValidationError as error:
        faults = [line for fault in error.errors() for line in describe(fault).split("\n")]
    listed = "\n".join(f"  - {fault}" for fault in faults)
    raise UserError(f"{source}: {len(faults)} fault(s) in the run config:\n{listed}")


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Fields, as `section.field: old -> new`, that differ and may not differ on resume."""
    before, after = flatten(to_plain(old)), flatten(to_plain(new))
    return [
        f"{name}: {before.get(name)!r} -> {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and not name.startswith(MAY_DIFFER_ON_RESUME)
    ]


def to_plain(config: RunConfig) -> dict[str, Any]:
    """Nested dict of plain values, as written to RUN/config.yaml."""
    return TypeAdapter(RunConfig).dump_python(config, mode="json")


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Give a YAML run config, e.g. configs/demo.yaml.") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content or {}, dict):
        raise UserError(f"{path}: expected sections such as `model:` and `training:`, found {type(content).__name__}.")
    return content or {}


def parse_value(name: str, value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"--{name} {value}: the value is not valid YAML.") from error


def describe(fault: Mapping[str, Any]) -> str:
    """One line for one pydantic error (several for a check of ours), with the nearest known name for a misspelt key."""
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "missing":
        return f"{where}: is missing" + (" (albert launch --data DATA)" if where in ("data", "data.path") else "")
    if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        owner = RunConfig
        for part in fault["loc"][:-1]:
            owner = get_type_hints(owner)[str(part)]
        near = difflib.get_close_matches(str(fault["loc"][-1]), [item.name for item in fields(owner)], n=1, cutoff=0.5)
        return f"{where}: no such field" + (f"; did you mean {near[0]}?" if near else "")
    if fault["type"] == "value_error":
        return "\n".join(f"{where}.{line}".removeprefix(".") for line in str(fault["ctx"]["error"]).split("\n"))
    message = fault["msg"][0].lower() + fault["msg"][1:]
    return f"{where}: {message}, found {fault['input']!r}"


def flatten(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
