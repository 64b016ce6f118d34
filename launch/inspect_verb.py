"""`albert inspect FOLDER`: what the folder holds decides whether it is looked at as data, as a run, or as an exported model."""

from dataclasses import fields

from data_prep.inspect_options import InspectOptions
from data_prep.schema import MANIFEST_NAME
from tokenizer.errors import UserError

MARKS = {"data": MANIFEST_NAME, "a run": "config.yaml", "an exported model": "config.json"}
"""What a folder is -> the file by which it is known; the first that is there counts."""
ONLY_FOR = {"text": ("an exported model",), "checkpoint": ("a run",)} | dict.fromkeys(("split", "num", "seed"), ("data", "a run"))
"""Options that not every folder has a use for."""
ON_THE_PAGE = ("checkpoint", "split", "num", "seed")
"""Options of a run that --html alone has a use for."""


def inspect(options: InspectOptions) -> None:
    """Raise a UserError for what is none of them, or for options of another, beside those of the three."""
    options.check()
    kind = next((kind for kind, mark in MARKS.items() if (options.folder / mark).is_file()), None)
    if kind is None:
        raise UserError(
            f"{options.folder}: is no data folder (no {MANIFEST_NAME} in it) and no run (no config.yaml), nor an exported model "
            "(no config.json). Make data with `albert prepare`, start a run with `albert launch`, export it with `albert export`."
        )
    refuse_others(options, kind)
    if kind == "data":
        from data_prep.inspect import inspect as inspect_data

        inspect_data(options)
    elif kind == "a run":
        from pretrain.inspect_run import inspect_run

        inspect_run(options)
    else:
        from downstream.inspect_export import inspect_export

        inspect_export(options.folder, options.text, options.html)


def refuse_others(options: InspectOptions, kind: str) -> None:
    plain = InspectOptions(folder=options.folder)
    given = [field.name for field in fields(options) if getattr(options, field.name) != getattr(plain, field.name)]
    faults = [
        f"--{name}: goes with {' or '.join(ONLY_FOR[name])}, and {options.folder} is {kind}."
        for name in given
        if kind not in ONLY_FOR.get(name, (kind,))
    ]
    if kind == "a run" and options.html is None:
        faults += [f"--{name}: of a run, goes with --html, whose page has predictions." for name in given if name in ON_THE_PAGE]
    if faults:
        raise UserError("\n".join(faults))
