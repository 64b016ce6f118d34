"""The records behind an export (docs/provenance.md) as a model card tells them: without paths, hosts and commands."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from tokenizer.provenance import UNKNOWN, Record

NAMED_FILES = 10
"""Of a corpus; of more, their number alone."""
HUB_NAME = r"hf:([\w.-]+/[\w.-]+|[\w.-]+)(:.*)?"
"""An input of the Hugging Face Hub; of a local folder, whose name may look like that, there is no revision."""


def comes_of_private_text(parents: list[Record]) -> bool:
    """Whether any artefact behind these says that it is private."""
    return any((entry["provenance"].get("options") or {}).get("private") is True for entry in recorded(parents))


def recorded(parents: list[Record]) -> Iterator[Record]:
    """Of the artefacts behind these, nearest first, those with a record of their own."""
    return (entry for entry in ancestors(parents) if entry["provenance"] != UNKNOWN)


def ancestors(parents: list[Record]) -> Iterator[Record]:
    """Each artefact behind these, nearest first, each once."""
    waiting, seen = list(parents), set()
    while waiting:
        entry = waiting.pop(0)
        if (entry["role"], entry["sha256"]) not in seen:
            seen.add((entry["role"], entry["sha256"]))
            yield entry
            waiting += [] if entry["provenance"] == UNKNOWN else entry["provenance"].get("parents", [])


def chain_rows(parents: list[Record]) -> str:
    """Role, marker, its SHA-256, code revision and end of the last session of each."""
    rows = []
    for entry in ancestors(parents):
        session = {} if entry["provenance"] == UNKNOWN else (entry["provenance"].get("sessions") or [{}])[-1]
        code = session.get("code", {})
        revision = (code.get("revision") or "")[:12] or f"sources {code.get('sources_sha256', UNKNOWN)[:12]}"
        changed = " (changed)" if code.get("clean") is False else ""
        made = session.get("ended") or UNKNOWN
        rows.append(f"| {entry['role']} | {entry['marker']} | `{entry['sha256'] or UNKNOWN}` | {revision}{changed} | {made} |")
    return "\n".join(rows)


def corpus_inputs(parents: list[Record]) -> list[Record]:
    """The files of the text that the data was prepared from, or the data whose masks it is a new draw of."""
    data = next((entry for entry in parents if entry["role"] == "data"), None)
    if data is None:  # a run's record has it
        run = next((entry for entry in parents if entry["role"] == "run" and entry["provenance"] != UNKNOWN), None)
        return corpus_inputs([each for each in run["provenance"].get("parents", []) if each["role"] == "data"]) if run else []
    record = {} if data["provenance"] == UNKNOWN else data["provenance"]
    texts = [entry for entry in record.get("inputs", []) if "option" not in entry]
    before = [each for each in record.get("parents", []) if each["role"] == "data"]
    return texts or (corpus_inputs(before) if before else [])


def corpus_rows(parents: list[Record], *, private: bool) -> str:
    """The files of the corpus by name, size and SHA-256, or their number where they are many or private."""
    inputs = corpus_inputs(parents)
    if not inputs:
        return "The files of the corpus are not known."
    total = f"The corpus: {len(inputs):,} input(s), {sum(entry['size'] or 0 for entry in inputs):,} bytes as they lie on the disk."
    if private or len(inputs) > NAMED_FILES:
        return total
    rows = [f"| {shown_name(entry['path'])} | {entry['size'] or UNKNOWN} | `{entry['sha256'] or UNKNOWN}` |" for entry in inputs]
    return "\n".join([total, "", "| input | bytes | SHA-256 |", "|---|---|---|", *rows])


def hub_datasets(parents: list[Record]) -> list[str]:
    """Names of the Hugging Face Hub that the corpus came from."""
    found = (re.fullmatch(HUB_NAME, entry["path"]) for entry in corpus_inputs(parents) if entry.get("revision"))
    return sorted({match[1] for match in found if match})


def shown_name(path: str) -> str:
    """The end of a path or URL, as text of a table; a name of the Hub whole."""
    name = path if re.fullmatch(HUB_NAME, path) else PurePosixPath(path.partition("?")[0]).name
    return "".join(f"\\{sign}" if sign in "|`<>[]*_\\" else sign for sign in name if sign.isprintable())
