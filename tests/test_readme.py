"""What README.md shows runs as it stands: its Python, block by block, and the options of its commands."""

import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
import tyro

from tests.pages import ROOT, blocks, run

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [p for p in PAGES if not {"_build", "generated"} & set(p.parts)]


def commands(page: Path) -> list[list[str]]:
    """Arguments of every command that runs a case."""
    text = re.sub(r"\\\n +", "", page.read_text())  # lines that go on
    lines = re.findall(r"^    (?:\.venv/bin/)?python cases/(.*?)(?: {2,}.*)?$", text, re.M)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_python_runs(page):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert run(page) > 0
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
