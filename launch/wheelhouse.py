"""Wheels of all that `make venv` and `make test` install, for machines without a network: gathered on one, checked on another.

`python -m launch.wheelhouse gather|check FOLDER`, run in the repository by `make wheelhouse` and `make venv WHEELHOUSE=FOLDER`.
It takes the standard library and pip alone, because the check comes before there is an environment, and both are of one file
because what is written there is what is compared here.
"""

import argparse
import configparser
import email.parser
import json
import os
import platform
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

from tokenizer.errors import UserError
from tokenizer.files import check_output_folder, replace_folder, sha256_of_files

LOCK = Path("requirements.lock")
FOR_4 = Path("tests/transformers4.txt")
"""What `make test-transformers4` installs."""
EXTRAS = ("transformers", "finetune", "test")
"""Of setup.cfg: those of `make venv` and `make test`."""

SUMS, LICENCES, MADE_FOR = "SHA256SUMS", "licences.tsv", "made_for.json"
"""As `sha256sum -c` reads it; name, version, licence and file of each wheel; Python, machine and lock of the whole."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m launch.wheelhouse", description=__doc__.partition("\n")[0])
    parser.add_argument("verb", choices=["gather", "check"])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    try:
        {"gather": gather, "check": check}[options.verb](options.folder)
    except UserError as error:
        print(f"wheelhouse: {error}", file=sys.stderr)
        return 2
    return 0


def gather(folder: Path) -> None:
    """Download or build the wheels, list their hashes and licences; an earlier wheelhouse there is replaced.

    Raises:
        UserError: the folder holds something else, or pip fails.
    """
    check_output_folder(folder, SUMS, "wheelhouse", rf".*\.whl|{SUMS}|{LICENCES}|{MADE_FOR}")
    with tempfile.TemporaryDirectory() as scratch, replace_folder(folder) as temporary:
        venv.create(scratch, with_pip=True)
        # What is in the lock, what pip needs to make the project itself an editable install, and other versions for one test.
        for wanted in (
            ["--constraint", str(LOCK), *requirements()],
            build_requirements(),
            ["--no-deps", "--requirement", str(FOR_4)],
        ):
            command = [f"{scratch}/bin/python", "-m", "pip", "wheel", "--wheel-dir", str(temporary), *wanted]
            if subprocess.run(command, env=os.environ | {"DS_BUILD_OPS": "0"}).returncode:
                raise UserError("pip could not gather the wheels; what it says is above. Mend that, and start again.")
        wheels = sorted(temporary.glob("*.whl"))
        rows = ["\t".join([*licence_of(wheel), wheel.name]) for wheel in wheels]
        (temporary / LICENCES).write_text("\n".join(["name\tversion\tlicence\tfile", *rows]) + "\n", encoding="utf-8")
        (temporary / MADE_FOR).write_text(json.dumps(made_for(), indent=2) + "\n", encoding="utf-8")
        sums = [f"{sha256_of_files(path)}  {path.name}\n" for path in sorted(temporary.iterdir())]
        (temporary / SUMS).write_text("".join(sums), encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {len(wheels)} wheels, {size / 1e6:,.0f} MB. SHA-256 of {SUMS}: {sha256_of_files(folder / SUMS)}")


def check(folder: Path) -> None:
    """Compare every file with its hash.

    Raises:
        UserError: there is no wheelhouse; files are changed, missing or more than listed, each named; it is of another Python,
            machine or lock.
    """
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
        there = {path.name for path in folder.iterdir()} - {SUMS}
        faults = [f"{folder / name}: is missing" for name in sorted(listed.keys() - there)]
        faults += [f"{folder / name}: is not listed in {SUMS}" for name in sorted(there - listed.keys())]
        faults += [
            f"{folder / name}: is not what was gathered (its SHA-256 is not that of {SUMS})"
            for name in sorted(listed.keys() & there)
            if sha256_of_files(folder / name) != listed[name]
        ]
        if faults:
            raise UserError("\n".join([*faults, "Copy the wheelhouse again, or gather it again with `make wheelhouse`."]))
        found = json.loads((folder / MADE_FOR).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no wheelhouse ({error}). Make one with `make wheelhouse WHEELHOUSE=FOLDER`.") from error
    for name, value in made_for().items():
        if found.get(name) != value:
            raise UserError(
                f"{folder}: was gathered for {name} {found.get(name)}, and here it is {value}. Gather it again for this."
            )
    print(f"{folder}: {len(listed)} files are what was gathered. SHA-256 of {SUMS}: {sha256_of_files(folder / SUMS)}")


def requirements() -> list[str]:
    """What setup.cfg asks for."""
    config = configparser.ConfigParser()
    config.read("setup.cfg", encoding="utf-8")
    texts = [config["options"]["install_requires"], *(config["options.extras_require"][extra] for extra in EXTRAS)]
    return [line.strip() for text in texts for line in text.splitlines() if line.strip()]


def build_requirements() -> list[str]:
    """What pyproject.toml asks for."""
    return tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]


def made_for() -> dict[str, str]:
    """What the choice of wheels depends on."""
    return {
        "Python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "machine": f"{sys.platform} {platform.machine()}",
        str(LOCK): sha256_of_files(LOCK),
    }


def licence_of(wheel: Path) -> tuple[str, str, str]:
    """(name, version, licence) as the wheel's METADATA has them: License-Expression, else the classifiers, else License."""
    with zipfile.ZipFile(wheel) as content:
        name = next(name for name in content.namelist() if name.count("/") == 1 and name.endswith(".dist-info/METADATA"))
        fields = email.parser.Parser().parsestr(content.read(name).decode("utf-8"), headersonly=True)
    classifiers = [text.rpartition(" :: ")[2] for text in fields.get_all("Classifier", []) if text.startswith("License :: ")]
    free_text = (fields.get("License") or "").strip().splitlines()[:1]
    licence = fields.get("License-Expression") or " and ".join(classifiers) or " ".join(free_text) or "not stated"
    return fields["Name"], fields["Version"], licence


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
