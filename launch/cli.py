"""The `albert` command: one verb a stage. A verb's modules are imported only when it is called."""

import os
import pkgutil
import select
import signal
import sys
from argparse import ArgumentError, RawDescriptionHelpFormatter
from dataclasses import MISSING, fields
from importlib.metadata import version
from typing import Any, NamedTuple, get_type_hints

from tokenizer.errors import UserError
from tokenizer.files import as_user_error
from tokenizer.printable import printable


class Verb(NamedTuple):
    summary: str
    options: str
    """`module:dataclass` of its options."""
    function: str
    """`module:function` that takes them; an int it returns is the exit code."""


VERBS = {
    "tokenizer": Verb(
        "train a SentencePiece vocabulary on raw text", "tokenizer.options:TokenizerOptions", "tokenizer.train:train_tokenizer"
    ),
    "prepare": Verb(
        "turn raw text into Arrow shards of masked sentence pairs", "data_prep.options:PrepareOptions", "data_prep.prepare:prepare"
    ),
    "inspect": Verb(
        "show prepared data (instances, numbers, warnings), a run (curves, predictions) or an exported model (fillings, attention)",
        "data_prep.inspect_options:InspectOptions",
        "launch.inspect_verb:inspect",
    ),
    "doctor": Verb(
        "look at hosts, network, folders, config and data before a run", "launch.doctor:DoctorOptions", "launch.doctor:doctor"
    ),
    "launch": Verb(
        "pretrain under DeepSpeed, or go on from the newest good checkpoint", "launch.options:LaunchOptions", "launch.run:launch"
    ),
    "evaluate": Verb(
        "compare models on held-out text: loss, accuracy, sentence order",
        "pretrain.evaluate_options:EvaluateOptions",
        "pretrain.comparison:evaluate",
    ),
    "export": Verb("write a checkpoint in Hugging Face format", "pretrain.export_options:ExportOptions", "pretrain.export:export"),
    "finetune": Verb(
        "train an exported model on labelled text", "downstream.finetune_options:FinetuneOptions", "downstream.finetune:finetune"
    ),
}


def main(arguments: list[str]) -> int:
    """Run one verb; the exit code is 0 done, 1 crash, something red (doctor) or nobody reads the output, 2 user error, 3 preempted,
    4 stopped by diagnosis, 130 interrupted."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        getattr(sys, name).reconfigure(errors="backslashreplace")  # a terminal or file that is not UTF-8
    try:
        try:
            return run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        poll = select.poll()
        poll.register(sys.stdout, 0)
        if not poll.poll(0):  # no error here: it is another pipe that broke
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone, as `head` does
        return 1


def run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(f"albert {version('albert-pretraining')}")
        return 0
    name, *rest = arguments
    if name not in VERBS:
        print(f"albert: there is no verb `{name}`; choose one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as after Ctrl-C; `launch` sets its own
    try:
        options = parse(name, pkgutil.resolve_name(VERBS[name].options), rest)
        result = pkgutil.resolve_name(VERBS[name].function)(options)
    except (UserError, OSError) as fault:
        error = as_user_error(fault)
        if not isinstance(error, UserError):
            raise
        lines = map(printable, f"albert {name}: {error}".split("\n"))  # it may quote the corpus
        print("\n".join(lines), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"albert {name}: interrupted; nothing half-written was left under a final name", file=sys.stderr)
        return 130
    return result if isinstance(result, int) else 0


def usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "usage: albert VERB [options]",
            "",
            "ALBERT from raw text to Hugging Face format. The verbs, in the order of use:",
            "",
            *lines,
        ]
        + ["", "`albert VERB --help` lists a verb's options; `albert --version` the release."]
    )


def parse(name: str, kind: type, arguments: list[str]) -> Any:
    """The options of a verb from its command line; help comes from the docstrings under the fields.

    A field is `--name VALUE`, `--name` alone if it is a bool, or with `field(metadata={"positional": True})` the bare value.

    Raises:
        UserError: an option is unknown, missing or of the wrong type.
    """
    from jsonargparse import ArgumentParser

    from launch.config_reference import docstrings, help_text

    parser = ArgumentParser(prog=f"albert {name}", description=f"{VERBS[name].summary}.", exit_on_error=False)
    if name in ("launch", "doctor"):
        arguments = gather_overrides(arguments)
        parser.formatter_class, parser.epilog = RawDescriptionHelpFormatter, help_text()
    hints, help_of = get_type_hints(kind), docstrings(kind)
    for item in fields(kind):
        required = item.default is MISSING and item.default_factory is MISSING
        many = hints[item.name] == list[str]
        positional = item.metadata.get("positional", False)
        more = {} if positional else {"required": True} if required else {"default": [] if many else item.default}
        parser.add_argument(
            item.name if positional else f"--{item.name}",
            type=str if many else hints[item.name],
            help=help_of[item.name],
            **({"nargs": "+"} if many else {"nargs": "?", "const": True} if hints[item.name] is bool else {}),
            **more,
        )
    try:
        return kind(**vars(parser.parse_args(arguments)))
    except ArgumentError as error:
        message = " ".join(str(error).split())
        raise UserError(f"{message}. `albert {name} --help` lists the options.") from error


def gather_overrides(arguments: list[str]) -> list[str]:
    """`--section.field VALUE` and `--section.field=VALUE` become values of `--overrides`."""
    kept, overrides = [], []
    rest = iter(arguments)
    for argument in rest:
        if argument.startswith("--") and "." in argument.partition("=")[0]:
            name, equals, value = argument.removeprefix("--").partition("=")
            overrides.append(f"{name}={value if equals else next(rest, '')}")
        else:
            kept.append(argument)
    if overrides:
        place = kept.index("--overrides") + 1 if "--overrides" in kept else len(kept)
        kept[place:place] = overrides if "--overrides" in kept else ["--overrides", *overrides]
    return kept
