"""The Python of Markdown pages, block by block; as a script it runs those of the pages that it is given.

python tests/pages.py README.md
"""

import re
import sys
import tempfile
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def blocks(page: Path) -> list[tuple[int, str]]:
    """Python blocks of a page, each with the number of its first line."""
    text = page.read_text()
    found = re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S)
    return [(text[: m.start(1)].count("\n") + 1, m[1]) for m in found]


def run(page: Path) -> int:
    """All blocks in one namespace, in a folder of its own that has the sample data; how many there are."""
    found, names = blocks(page), {}
    with tempfile.TemporaryDirectory() as folder, chdir(folder), redirect_stdout(StringIO()):
        Path("data").symlink_to(ROOT / "data")
        for line, source in found:
            exec(compile("\n" * (line - 1) + source, str(page), "exec"), names)
    return len(found)


if __name__ == "__main__":
    import sciml

    assert "site-packages" in Path(sciml.__file__).parts, "this is not the installed package"
    for name in sys.argv[1:]:
        print(f"{name}: {run(Path(name).resolve())} blocks of Python run with {sciml.__file__}")
