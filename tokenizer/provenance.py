"""provenance.json beside an artefact: from which files and artefacts, by which code and command, where and when it was made.

It is no part of the artefact: nothing hashes it and no result depends on it. The records of the artefacts that this one was made of
are embedded, so the chain back to the corpus stays whole when they are moved or deleted. docs/provenance.md describes the format.
"""

import hashlib
import json
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tokenizer.errors import UserError
from tokenizer.files import as_user_error, check_format_version, sha256_of_files, write_text
from tokenizer.printable import masked, masked_command

PROVENANCE_NAME = "provenance.json"
FORMAT_VERSION = 1
UNKNOWN = "unknown"
"""In place of a parent's record, beside a `reason`."""

PROJECT, PACKAGES = "albert-pretraining", ("tokenizer", "data_prep", "pretrain", "downstream", "launch")
LIBRARIES = ("torch", "deepspeed", "transformers", "tokenizers", "sentencepiece")
LINE_WIDTH = 120
GIT_SECONDS = 60
"""After so long git is taken for out of reach."""

Record = dict[str, Any]


def open_session() -> Record:
    """One call of a verb, which begins now: who, where, with which code. It has no end yet."""
    root = package_root()
    lock = root / "requirements.lock"
    return {
        "command": masked_command(sys.argv),
        "working_folder": os.getcwd(),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": library_versions(),
        "code": code_revision(root),
        "lock_sha256": sha256_of_files(lock) if lock.is_file() else None,
        "started": utc_now(),
        "ended": None,
        "exit_code": None,
    }


def new_record(
    verb: str,
    path: str | Path,
    session: Record,
    *,
    options: dict[str, Any],
    parents: Iterable[Record] = (),
    inputs: Iterable[Record] = (),
    before: Record | None = None,
) -> Record:
    """The record of the artefact at `path`, with one more session than the record `before`."""
    return {
        "format_version": FORMAT_VERSION,
        "verb": verb,
        "path": str(path),
        "sessions": [*(before["sessions"] if before else []), session],
        "options": options,
        "parents": list(parents),
        "inputs": list(inputs),
        "outputs": [],
    }


def close_session(record: Record, exit_code: int, outputs: Iterable[Record] = ()) -> None:
    """The last session ends now. outputs: from `record_outputs`."""
    record["sessions"][-1] |= {"ended": utc_now(), "exit_code": exit_code}
    record["outputs"] = list(outputs)


def exit_code_of(error: BaseException | None) -> int:
    """What the `albert` command will end with."""
    if error is None:
        return 0
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, Exception) and isinstance(as_user_error(error), UserError) else 1


def record_outputs(folder: Path, names: Iterable[str]) -> list[Record]:
    """Size and SHA-256 of those of the files that are there."""
    paths = [folder / name for name in names if (folder / name).is_file()]
    return [{"path": str(path.relative_to(folder)), "size": path.stat().st_size, "sha256": sha256_of_files(path)} for path in paths]


def parent(role: str, folder: Path, marker: str, sha256: str | None = None) -> Record:
    """An artefact that this one is made of: the SHA-256 of its file `marker`, which stands for its content, and its own record.

    sha256: of the marker, where that may be gone by now.
    """
    entry = {"role": role, "path": os.path.abspath(folder), "marker": marker, "sha256": sha256}
    try:
        entry["sha256"] = sha256 or sha256_of_files(folder / marker)
        record = json.loads((folder / PROVENANCE_NAME).read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("no record in it")
        return entry | {"provenance": record}
    except FileNotFoundError as error:
        reason = f"there is no {Path(error.filename).name} in it"
        if entry["sha256"]:
            reason += "; it was made by an earlier release, or by another program"
    except (OSError, ValueError) as error:
        reason = f"cannot be read ({error})"
    return entry | {"provenance": UNKNOWN, "reason": reason}


def read_record(folder: Path) -> Record | None:
    """The record in a folder on this machine; None without one.

    Raises:
        UserError: it is damaged, or of another format version.
    """
    path = folder / PROVENANCE_NAME
    return parse_record(path.read_bytes(), path) if path.is_file() else None


def parse_record(content: bytes, path: object) -> Record:
    """path: for messages. Raises as `read_record`."""
    remedy = "move it away; the record then begins anew."
    try:
        record = json.loads(content)
        found, _ = record["format_version"], record["sessions"][-1]["command"]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path}: expected the record of an artefact, but it cannot be read ({error!r}). Or: {remedy}") from error
    check_format_version(Path(str(path)), found, FORMAT_VERSION, remedy)
    return record


def write_record(folder: Path, record: Record) -> None:
    write_text(folder / PROVENANCE_NAME, as_text(record))


def as_text(record: Record) -> str:
    """JSON for the eye; no secrets; bytes of a path that are not UTF-8 as JSON's escapes."""
    return (_laid_out(_masked(record)) + "\n").encode("utf-8", "backslashreplace").decode("utf-8")


def _laid_out(value: Any, indent: str = "") -> str:
    """JSON; what fits into a line, and every list of plain values such as a command, is one line."""
    if not isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    named, deeper = isinstance(value, dict), indent + "  "
    items = (
        [f"{json.dumps(name, ensure_ascii=False)}: {_laid_out(item, deeper)}" for name, item in value.items()]
        if named
        else [_laid_out(item, deeper) for item in value]
    )
    opening, closing = "{}" if named else "[]"
    is_plain = not named and not any(isinstance(item, (dict, list)) for item in value)
    width = len(indent) + sum(len(item) + 2 for item in items)
    if is_plain or (width <= LINE_WIDTH and not any("\n" in item for item in items)):
        return f"{opening}{', '.join(items)}{closing}"
    return f"{opening}\n{deeper}" + f",\n{deeper}".join(items) + f"\n{indent}{closing}"


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _masked(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(item) for item in value]
    return masked(str(value)) if isinstance(value, (str, Path)) else value


def library_versions() -> dict[str, str]:
    """Of those of LIBRARIES that are installed; none is imported."""
    versions = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def code_revision(root: Path | None = None) -> Record:
    """The code at work: release, git commit (None outside the project's own checkout), whether nothing was changed since, and the
    SHA-256 of what `sha256sum` prints for the sources, sorted by path.

    root: folder of the five packages; default: that of this code.
    """
    root = root or package_root()
    try:
        release = version(PROJECT)
    except PackageNotFoundError:
        release = None
    sources = sorted(path.relative_to(root).as_posix() for name in PACKAGES for path in (root / name).rglob("*.py"))
    lines = "".join(f"{sha256_of_files(root / path)}  {path}\n" for path in sources)
    sources_sha256 = hashlib.sha256(lines.encode()).hexdigest()
    return {"version": release, **git_state(root), "sources_sha256": sources_sha256}


def git_state(root: Path) -> Record:
    """`revision` and `clean` of the checkout at `root`; None where it is not the project's, or git is missing or refuses."""
    unknown = {"revision": None, "clean": None}
    setup = root / "setup.cfg"
    if not setup.is_file() or not re.search(rf"^name\s*=\s*{PROJECT}$", setup.read_text(encoding="utf-8"), re.MULTILINE):
        return unknown
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or os.path.realpath(top) != os.path.realpath(root):  # a copy inside another project's checkout
        return unknown
    revision = _git(root, "rev-parse", "HEAD")
    # NUL between the names, none of them quoted; untracked ones whatever the user's own settings hide.
    changes = _git(root, "status", "--porcelain", "-z", "--untracked-files=normal")
    if changes is None:
        return {"revision": revision, "clean": None}
    ours = tuple(f"?? {name}/" for name in PACKAGES)  # files of the user's beside the packages change no code
    return {
        "revision": revision,
        "clean": all(line.startswith("??") and not line.startswith(ours) for line in changes.split("\0") if line),
    }


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints; None if it fails."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # inside a hook they name another one
    try:
        finished = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *arguments],
            env=own,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return os.fsdecode(finished.stdout).strip("\n") if finished.returncode == 0 else None


def package_root() -> Path:
    return Path(__file__).resolve().parent.parent


def utc_now() -> str:
    """ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
