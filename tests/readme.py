"""The README's lines of Python, for tests that run them."""

import re
from pathlib import Path


def python_of(heading: str) -> list[str]:
    """Every block of Python of a section, without those of sections below it."""
    text = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)[1]
    return re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
