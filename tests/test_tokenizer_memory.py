"""`albert tokenizer` states the memory it will take, stops before it takes more than there is, and reads within bounds."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from prepared import BUNDLED
from test_tokenizer import SCRIPTS, bundled_text, fuzzed_strings

from tokenizer.chain import build_normalizer
from tokenizer.charsmap import charsmap
from tokenizer.corpus import Document
from tokenizer.errors import UserError
from tokenizer.memory import free_memory, training_memory
from tokenizer.options import TokenizerOptions
from tokenizer.sample import FIRST_CHECK, NORMALISED_AT_ONCE, cut_text, draw_sample
from tokenizer.train import train_tokenizer

ROOT = Path(__file__).parent.parent

MEASURED = """
import re, sys
from pathlib import Path
from tokenizer.options import TokenizerOptions
from tokenizer.train import train_tokenizer
source, output, vocab_size, sample_size = sys.argv[1:]
options = TokenizerOptions(
    input=[source], output=Path(output), vocab_size=int(vocab_size), input_sentence_size=int(sample_size), character_coverage=0.9995
)
train_tokenizer(options)
# ru_maxrss would begin with what the parent held.
print("PEAK", 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]))
"""


measures = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


def measured_training(source: Path, output: Path, vocab_size: int, sample_size: int = 10_000_000) -> tuple[float, float]:
    """(stated, measured) peak memory in bytes of a process of its own."""
    command = [sys.executable, "-c", MEASURED, *map(str, (source, output, vocab_size, sample_size))]
    printed = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout
    stated = re.search(r"Training [\d,]+ pieces on [\d,]+ lines needs about ([\d.]+) GB of memory", printed)
    return float(stated[1]) * 1e9, float(re.search(r"PEAK (\d+)", printed)[1])


def documents_of(*texts: str) -> list[Document]:
    return [Document(0, number, text, "here") for number, text in enumerate(texts)]


def draw(documents, sample_size: int = 10_000_000, normalizer=None, keep_accents: bool = True):
    normalizer = normalizer or build_normalizer(True, keep_accents, charsmap())
    return draw_sample(documents, normalizer, keep_accents=keep_accents, sample_size=sample_size, seed=0)


# What is stated


@measures
def test_the_memory_stated_is_between_the_peak_and_three_times_the_peak(tmp_path):
    stated, measured = measured_training(BUNDLED, tmp_path / "out", 8000)
    assert measured <= stated <= 3 * measured


@measures
def test_the_memory_stated_holds_where_hardly_a_word_comes_twice(tmp_path):
    """Unlike ordinary text: the candidates of pieces take more than the suffix array before them."""
    numbers = (f"{(number * 2654435761) % 2**32:08x}{(number * 40503) % 2**16:04x}" for number in range(60_000))
    letters = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
    lines = (" ".join(next(numbers) for _ in range(10)).translate(letters) for _ in range(6_000))
    (tmp_path / "a.txt").write_text("\n".join(lines))
    stated, measured = measured_training(tmp_path / "a.txt", tmp_path / "out", 1000)
    assert measured <= stated <= 3 * measured


def test_more_lines_need_more():
    lines = [f"{text} {number}".encode() for number in range(300) for text in SCRIPTS.values()]
    needs = [training_memory(lines[:number]) for number in (0, 1000, 2000, 3000)]
    assert needs == sorted(set(needs))


# Too little


@pytest.fixture
def machine(monkeypatch):
    """Sets how many bytes are free, as the operating system tells it. The memory that the tests' process holds is left out."""

    def set_free(num_bytes: int) -> None:
        monkeypatch.setattr("tokenizer.memory.free_memory", lambda: num_bytes)
        monkeypatch.setattr("tokenizer.memory.resident_memory", lambda: 0)

    return set_free


def test_training_that_does_not_fit_stops_and_names_a_sample_that_does(tmp_path, machine, capsys):
    options = {"input": [str(BUNDLED)], "vocab_size": 1000, "character_coverage": 0.99}
    machine(190_000_000)
    with pytest.raises(
        UserError, match=r"--input_sentence_size 10000000: training on [\d,]+ lines needs about 0\.\d+ GB"
    ) as caught:
        train_tokenizer(TokenizerOptions(output=tmp_path / "out", **options))
    assert "0.19 GB are free here" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert "Training" not in capsys.readouterr().out
    fitting = int(re.search(r"Use --input_sentence_size (\d+), or", str(caught.value))[1])
    train_tokenizer(TokenizerOptions(output=tmp_path / "out", input_sentence_size=fitting, **options))
    assert f"on {fitting:,} lines needs about 0.1" in capsys.readouterr().out


def test_where_no_sample_fits_none_is_named(tmp_path, machine):
    machine(100_000_000)
    with pytest.raises(UserError, match="are free here") as caught:
        train_tokenizer(TokenizerOptions(input=[str(BUNDLED)], output=tmp_path / "out", vocab_size=1000))
    assert "Use a machine with more" in str(caught.value)


def test_a_sample_that_outgrows_the_memory_stops_the_reading(machine):
    num_read = 0

    def endless():
        nonlocal num_read
        while True:
            num_read += 1
            yield Document(0, num_read, "The state of the Union is strong.\n" * 500, "here")

    machine(300_000_000)
    with pytest.raises(UserError, match=r"--input_sentence_size 10000000: .* Use --input_sentence_size (\d+)"):
        draw(endless())
    assert FIRST_CHECK < num_read * 500 < 16 * FIRST_CHECK


def test_a_sample_of_the_size_asked_for_may_come_from_any_amount_of_text(machine):
    machine(200_000_000)
    documents = documents_of(*["The state of the Union is strong.\n" * 500] * 400)
    assert len(draw(documents, sample_size=5000).lines) == 5000


# How much there is

GB = 10**9


def system(root: Path, available: int, groups: str, **files: object) -> Path:
    """proc and sys as Linux shows them."""
    files = {"proc/meminfo": f"MemTotal: 1 kB\nMemAvailable: {available // 1000} kB\n", "proc/self/cgroup": groups} | files
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def group(folder: str, limit: object, used: int, cache: int = 0, version: int = 2) -> dict[str, object]:
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    stat = f"anon 5\n{'inactive_file' if version == 2 else 'total_inactive_file'} {cache}"
    return {f"{folder}/{name}": value for name, value in zip((*names, "memory.stat"), (limit, used, stat), strict=True)}


def test_without_a_limit_it_is_what_the_machine_has(tmp_path):
    files = group("sys/fs/cgroup/job", "max", 3 * GB)
    assert free_memory(system(tmp_path, 7 * GB, "0::/job", **files)) == 7 * 1024 * GB // 1000


def test_the_limit_of_a_group_or_of_one_above_it_counts_without_cache(tmp_path):
    files = group("sys/fs/cgroup/slurm", 4 * GB, 3 * GB, GB) | group("sys/fs/cgroup/slurm/job", 6 * GB, GB)
    assert free_memory(system(tmp_path, 7 * GB, "0::/slurm/job", **files)) == 2 * GB


def test_a_container_that_shows_its_group_as_the_root_is_seen(tmp_path):
    files = group("sys/fs/cgroup", 2 * GB, GB)
    assert free_memory(system(tmp_path, 7 * GB, "0::/docker/not-to-be-seen-here", **files)) == GB


def test_version_1_groups_are_seen(tmp_path):
    groups = "5:cpu,cpuacct:/\n4:memory:/slurm/job"
    files = group("sys/fs/cgroup/memory", 2**63 - 4096, GB, version=1)
    files |= group("sys/fs/cgroup/memory/slurm/job", 3 * GB, 2 * GB, GB // 2, version=1)
    assert free_memory(system(tmp_path, 7 * GB, groups, **files)) == 1.5 * GB


def test_a_group_that_is_over_its_limit_has_nothing_and_an_unknown_system_tells_nothing(tmp_path):
    assert free_memory(tmp_path) is None
    assert free_memory(system(tmp_path, 7 * GB, "0::/", **group("sys/fs/cgroup", GB, 2 * GB))) == 0


# Reading


@measures
@pytest.mark.parametrize(
    "line", ["word " * 10_000_000, "x" * 5_000_000, "字" * 5_000_000], ids=["long_line", "long_word", "unspaced"]
)
def test_a_long_line_takes_no_more_memory_than_a_short_one(tmp_path, line):
    text = bundled_text(4)
    (tmp_path / "short.txt").write_text(text, encoding="utf-8")
    (tmp_path / "long.txt").write_text(f"{text}\n\n{line}\n", encoding="utf-8")
    _, short = measured_training(tmp_path / "short.txt", tmp_path / "out", 300, 300)
    _, long = measured_training(tmp_path / "long.txt", tmp_path / "out", 300, 300)
    # The normalizer alone would take 40 bytes for each byte of a line, so 200 MB and more.
    assert long - short < 40_000_000


def test_a_document_in_sections_is_one_document():
    documents = [Document(0, 0, "one", "here", section) for section in range(3)] + documents_of("two")
    sample = draw(documents)
    assert (sample.num_documents, sample.num_lines) == (2, 4)


def test_long_text_is_cut_at_white_space_and_nothing_is_lost():
    for text in (
        "word " * 50_000,
        "x" * 200_000,
        " " * 200_000,
        "a" + " " * 99_999 + "字" * 99_999,
        "a\u2003" * 70_000,
        "short",
        "",
    ):
        parts = list(cut_text(text))
        assert "".join(parts) == text
        assert max(map(len, parts)) <= NORMALISED_AT_ONCE
    assert all(part.endswith(" ") for part in cut_text("word " * 50_000))


@pytest.mark.parametrize("keep_accents", [True, False])
def test_words_normalised_once_give_the_lines_and_counts_of_lines_normalised_whole(keep_accents):
    """More different words than the table holds, real text, and nasty strings, which may begin with a mark."""
    many = [" ".join(f"Wort{number}É{number % 7}" for number in range(begin, begin + 50)) for begin in range(0, 300_000, 50)]
    scripts = list(SCRIPTS.values()) if keep_accents else []  # accents may not be stripped from these
    nasty = [line for text in fuzzed_strings(20_000, seed=3) for line in text.split("\n")] if keep_accents else []
    lines = bundled_text(10).split("\n") + many + scripts + nasty
    normalizer = build_normalizer(True, keep_accents, charsmap())
    expected = [normalizer.normalize_str(line).translate({0: " ", 0x2585: " "}).split() for line in lines]
    expected = [words for words in expected if words]
    sample = draw(documents_of(*lines), normalizer=normalizer, keep_accents=keep_accents)
    assert sample.lines == [" ".join(words).encode() for words in expected]
    assert sample.num_lines == len(expected)
    counts = Counter()
    for words in expected:
        counts.update("".join(words))
    assert sample.character_counts == counts
