"""provenance.json of a data folder: each `albert prepare` that worked on it, the tokenizer or data it was made of, and its inputs.

It is written when the work begins, so that a preparation that was killed leaves its trace, and completed at the end.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from data_prep.encode import part_name
from data_prep.folder import Folder
from data_prep.options import PrepareOptions
from data_prep.plan import FILES, Plan
from data_prep.schema import MANIFEST_NAME
from tokenizer.errors import UserError
from tokenizer.input_records import record_input, record_size
from tokenizer.provenance import PROVENANCE_NAME, Record, as_text, close_session, exit_code_of, new_record, parent, parse_record


@contextmanager
def recorded(folder: Folder, session: Record, options: dict[str, Any], parents: Iterable[Record]) -> Iterator[Record]:
    """Yield the record of the folder, with one more session; write it now, and with the session's end when the block ends.

    options: those that shape the bytes.

    Raises:
        UserError: the record that is there is damaged, or it cannot be written.
    """
    record = new_record("prepare", folder.url, session, options=options, parents=parents, before=read(folder))
    write(folder, record)
    number = len(record["sessions"]) - 1
    try:
        yield record
    except BaseException as error:
        code = 2 if isinstance(error, OSError) else exit_code_of(error)
        close_session(record, code)
        with suppress(UserError, OSError):  # what went wrong first is what counts
            close_session(record, code, outputs(folder))  # interrupted after the manifest, the folder is finished
            write_end(folder, record, number)
        raise
    close_session(record, 0, outputs(folder))
    write_end(folder, record, number)


def parents_of(options: PrepareOptions) -> list[Record]:
    """What the data is made of beside the corpus."""
    if options.remask:
        return [parent("data", Path(Folder(options.remask).root), MANIFEST_NAME)]
    has_manifest = (options.tokenizer / MANIFEST_NAME).is_file()  # one that was downloaded has none
    return [parent("tokenizer", options.tokenizer, MANIFEST_NAME if has_manifest else "tokenizer.json")]


def add_inputs(record: Record, folder: Folder, plan: Plan) -> None:
    """The records of the inputs, as the tasks of the first stage wrote them, and of the other files that shape the data.

    To be called before the manifest is written: what comes after it is not done again.
    """
    found = dict(entry for task in range(len(plan.tasks)) for entry in read_part(folder, task))
    record["inputs"] = [found.get(number) or record_input(item) for number, item in enumerate(plan.inputs)]
    for name in FILES:
        if path := getattr(plan.options, name):
            record["inputs"].append(record_size(path) | {"sha256": plan.shaping[name], "option": name})
    write(folder, record)


def read_part(folder: Folder, task: int) -> list[tuple[int, Record]]:
    """Number and record of each input that begins in the task; none if an earlier release did it."""
    name = f"{part_name(task)}.inputs.json"
    return [(number, record) for number, record in folder.read_json(name)] if folder.exists(name) else []


def outputs(folder: Folder) -> list[Record]:
    """The manifest, which holds the hashes of the shards; nothing while Slurm is at work."""
    if not folder.exists(MANIFEST_NAME):
        return []
    content = folder.read(MANIFEST_NAME)
    return [{"path": MANIFEST_NAME, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}]


def complete(folder: Folder) -> None:
    """Add the outputs to the record of a finished folder, where a kill at the very end left them out."""
    with suppress(UserError):  # a damaged record hinders nobody from using the data
        record = read(folder)
        if record and not record["outputs"]:
            write(folder, record | {"outputs": outputs(folder)})


def read(folder: Folder) -> Record | None:
    """None without one. Raises UserError if it is damaged."""
    return parse_record(folder.read(PROVENANCE_NAME), folder.path(PROVENANCE_NAME)) if folder.exists(PROVENANCE_NAME) else None


def write_end(folder: Folder, record: Record, number: int) -> None:
    """The record with the end of its session of this number: the jobs of a Slurm array may have come before who submitted them."""
    there = read(folder) or record
    sessions = [*there["sessions"][:number], record["sessions"][number], *there["sessions"][number + 1 :]]
    newest = there if len(sessions) > len(record["sessions"]) else record
    write(folder, newest | {"sessions": sessions})


def write(folder: Folder, record: Record) -> None:
    with folder.write(PROVENANCE_NAME) as path:
        path.write_text(as_text(record), encoding="utf-8")
