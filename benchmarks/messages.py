"""Translated messages of Debian packages in, a small corpus of one language out, for docs/your-language.md.

    python -m benchmarks.messages --language bn --packages mediawiki libreoffice-l10n-bn --output work/bn/messages.jsonl

Needs apt-get and dpkg-deb (Debian or a relative); nothing is installed. Read are MediaWiki's .json files and gettext's .mo files.
A document is what a file holds in a row for one purpose: messages whose names (.json) or contexts (.mo) begin alike. Licences:
mediawiki GPL-2.0-or-later, libreoffice-l10n-* MPL-2.0 (/usr/share/doc/PACKAGE/copyright in them).
"""

import argparse
import gettext
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

MARKUP = re.compile(r"<[^>]*>|\{\{[^{}]*\}\}|'{2,}|~(?=\w)")
"""Tags, templates, bold and italics of wikitext, and LibreOffice's sign for an access key."""

Message = tuple[str, str]
"""What it is for, text."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.messages", description="A corpus of one language from Debian packages.")
    parser.add_argument("--language", required=True, help="as the packages name it, such as bn or sw")
    parser.add_argument("--packages", nargs="+", required=True, help="names of Debian packages")
    parser.add_argument("--output", type=Path, required=True, help=".jsonl file to write")
    options = parser.parse_args()
    records = [(package, text) for package in options.packages for text in documents(package, options.language)]
    if not records:
        sys.exit(f"{' '.join(options.packages)}: no message in the language {options.language}.")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", encoding="utf-8") as file:
        for package, text in records:
            file.write(json.dumps({"text": text, "source": package}, ensure_ascii=False) + "\n")
    print(f"{options.output}: {len(records):,} documents, {sum(len(text) for _, text in records):,} characters")


def documents(package: str, language: str) -> Iterator[str]:
    """Texts whose messages are paragraphs, in the order of the files' names."""
    for path, content in sorted(files_of(package)):
        if path.endswith(f"/{language}.json"):
            messages = messages_of_json(content)
        elif path.endswith(".mo") and f"/{language}/" in path:
            messages = messages_of_mo(content)
        else:
            continue
        for _, group in groupby(messages, key=lambda message: re.split(r"[-|]", message[0])[0]):
            yield "\n\n".join(MARKUP.sub("", text).strip() for _, text in group)


def messages_of_json(content: bytes) -> list[Message]:
    return [(name, text) for name, text in json.loads(content).items() if isinstance(text, str)]


def messages_of_mo(content: bytes) -> list[Message]:
    """In the order of the file, which is that of contexts."""
    catalogue = gettext.GNUTranslations(io.BytesIO(content))._catalog
    return [(key.partition("\4")[0], text) for key, text in catalogue.items() if isinstance(key, str) and key]


def files_of(package: str) -> Iterator[tuple[str, bytes]]:
    """Path and content of the .json and .mo files of a Debian package."""
    with tempfile.TemporaryDirectory() as folder:
        if not shutil.which("apt-get") or subprocess.run(["apt-get", "download", package], cwd=folder, check=False).returncode:
            sys.exit(f"{package}: could not be fetched with apt-get. Its message, if any, stands above.")
        (deb,) = Path(folder).glob("*.deb")
        unpacking = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE)
        with unpacking, tarfile.open(fileobj=unpacking.stdout, mode="r|") as archive:
            for member in archive:
                if member.isfile() and member.name.endswith((".json", ".mo")):
                    yield member.name, archive.extractfile(member).read()


if __name__ == "__main__":
    main()
