"""What README.md shows runs as it stands: its Python, block by block, and the options of its commands."""

import re
import shlex
import sys
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path

import pytest
import torch
import tyro

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [p for p in PAGES if "_build" not in p.parts]


def blocks(page: Path) -> list[tuple[int, str]]:
    """Python blocks of a page, each with the number of its first line."""
    text = page.read_text()
    found = re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S)
    return [(text[: m.start(1)].count("\n") + 1, m[1]) for m in found]


def commands(page: Path) -> list[list[str]]:
    """Arguments of every command that runs a case."""
    text = re.sub(r"\\\n +", "", page.read_text())  # lines that go on
    lines = re.findall(r"^    (?:\.venv/bin/)?python cases/(.*?)(?: {2,}.*)?$", text, re.M)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_python_runs(page, tmp_path, monkeypatch):
    """In one namespace, in a folder of its own that has the sample data."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    threads, names = torch.get_num_threads(), {}
    torch.set_num_threads(1)
    try:
        for line, source in blocks(page):
            with redirect_stdout(StringIO()):
                exec(compile("\n" * (line - 1) + source, str(page), "exec"), names)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=lambda p: p.name)
def test_commands_have_the_options_that_are_shown(page, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "cases"))
    for name, *arguments in commands(page):
        if not re.fullmatch(r"\w+\.py", name) or "|" in "".join(arguments) or {"...", "--help"} & {*arguments}:
            continue
        case = import_module(name.removesuffix(".py"))
        chosen = tyro.cli(case.Options, args=arguments)
        assert isinstance(chosen, case.Options)
        assert case.__name__ in sys.modules
