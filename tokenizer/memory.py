"""The lines of a sample in, what SentencePiece will need to learn from them out; and how much memory is free here.

Measured with SentencePiece 0.2.3, peak of the process in MB, and what is stated here: English 3.9 MB 138, 242; 18.6 MB 456, 589;
37.4 MB 855, 1,032; Chinese poems 3.5 MB 174, 243; 13.9 MB 404, 515; words of random letters 5.8 MB 427, 520; 20.2 MB 992, 1,414.
The size of the vocabulary hardly matters: 856 instead of 855 with 30,000 pieces instead of 8,000.
"""

import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from tokenizer.errors import UserError

FIXED = 150_000_000
"""Bytes: Python, its libraries, and tables of SentencePiece."""

PER_CHARACTER, PER_BYTE, PER_LINE = 22, 1.5, 60
"""Bytes for the suffix array over the text (five 32-bit integers a character) and for the lines themselves."""

PER_NEW_CHARACTER = 75
"""Bytes for candidates of pieces and the words they are weighed on, by the characters of different words. This comes after the
suffix array is gone, and is more than it took where hardly a word comes twice: scripts without spaces, identifiers, noise."""

ONE_IN = 64
"""Words looked at to estimate the number of different ones: those whose checksum it divides."""

CHECKED_LINES = 1 << 14
"""Lines looked at while the sample is still being drawn."""

CGROUPS = [
    ("", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("memory", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
]
"""Versions 2 and 1: controller in /proc/self/cgroup, where it is mounted, files with the limit and the use, cache in it."""


def training_memory(lines: Sequence[bytes]) -> int:
    """Peak memory of this process in bytes while SentencePiece trains on the UTF-8 lines, which are counted in; a safe estimate."""
    words: set[bytes] = set()
    for line in lines:
        words.update([word for word in line.split(b" ") if zlib.crc32(word) % ONE_IN == 0])
    num_new = ONE_IN * sum(len(word.decode()) for word in words)
    return FIXED + max(_text_memory(lines), PER_NEW_CHARACTER * num_new)


def check_growing_sample(lines: Sequence[bytes], sample_size: int) -> None:
    """To be called as the sample grows: raises as `check_memory` does as soon as the lines so far are too many."""
    looked_at = lines[:: max(1, len(lines) // CHECKED_LINES)]
    check_memory(FIXED + _text_memory(looked_at) * len(lines) // len(looked_at), len(lines), sample_size)


def check_memory(needed: int, num_lines: int, sample_size: int) -> str:
    """The words for how much memory `num_lines` lines need (`needed` bytes) and how much there is.

    Raises:
        UserError: it is more than there is; names the --input_sentence_size that fits. `sample_size` is the present one.
    """
    free = free_memory()
    if free is None:
        return f"needs about {_gb(needed)} of memory"
    free += resident_memory()
    if needed > free:
        # Different words grow more slowly than lines, hence less than in proportion.
        fitting = int(0.9 * num_lines * max(0, free - FIXED) / max(1, needed - FIXED))
        fitting -= fitting % 10 ** max(0, len(str(fitting)) - 2)
        remedy = f"Use --input_sentence_size {fitting}, or" if fitting > 100 else "Use"
        raise UserError(
            f"--input_sentence_size {sample_size}: training on {num_lines:,} lines needs about {_gb(needed)} of memory, but "
            f"{_gb(free)} are free here (on this machine, or up to the limit of a container or job). {remedy} a machine with more."
        )
    return f"needs about {_gb(needed)} of memory; {_gb(free)} are free here"


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process can still take: what the machine has available or what a cgroup's limit leaves, the least of them.

    None where the system does not tell (macOS). root: where proc and sys lie.
    """
    try:
        available = re.search(r"MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text())
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return None
    rooms = [int(available[1]) * 1024] if available else []
    for _, controllers, group in groups:
        for controller, mount, *names in CGROUPS:
            if controller in controllers.split(","):
                folder = Path(group.lstrip("/"))
                # A container may show its own group as the root of all, so that the path leads nowhere.
                rooms += [_room(root / mount / above, *names) for above in (folder, *folder.parents)]
    known = [room for room in rooms if room is not None]
    return max(0, min(known)) if known else None


def _room(folder: Path, limit: str, used: str, cache: str) -> int | None:
    try:
        most = (folder / limit).read_text().strip()
        if most == "max":
            return None
        kept = re.search(rf"^{cache} (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
        return int(most) - int((folder / used).read_text()) + (int(kept[1]) if kept else 0)
    except OSError:
        return None


def resident_memory() -> int:
    """Bytes that this process holds now (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


def _text_memory(lines: Sequence[bytes]) -> int:
    num_characters = sum(len(line.decode()) for line in lines)
    return int(PER_CHARACTER * num_characters + PER_BYTE * sum(map(len, lines)) + PER_LINE * len(lines))


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e9:.2f} GB"
