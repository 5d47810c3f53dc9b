"""Examples in docstrings run; every public name has one."""

import doctest
import importlib
import math
import pkgutil

import pytest
import torch

import sciml as sm
from tests import ROOT

FINDER = doctest.DocTestFinder(recurse=True)
MODULES = [m.name for m in pkgutil.walk_packages(sm.__path__, "sciml.")]


def examples(name: str) -> dict[str, doctest.DocTest]:
    """Of one module, with more than they say themselves in their namespace: math, torch and the package."""
    module = importlib.import_module(name)
    names = {"math": math, "sm": sm, "torch": torch}
    return {t.name: t for t in FINDER.find(module, name, extraglobs=names) if t.examples}


EXAMPLES = {name: test for m in MODULES for name, test in examples(m).items()}


def test_every_public_name_has_an_example():
    """But for modules, and the table of steppers."""
    names = [n for n in sm.__all__ if callable(getattr(sm, n))]
    assert len(sm.__all__) - len(names) == 5
    assert len(names) <= 42
    public = [getattr(sm, n) for n in names] + [getattr(sm.equation, n) for n in sm.equation.__all__]
    assert not [a.__name__ for a in public if ">>>" not in (a.__doc__ or "")]
    assert len(EXAMPLES) >= len(names)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, monkeypatch):
    monkeypatch.chdir(ROOT)  # where data/weights are
    lines: list[str] = []
    failed, _ = doctest.DocTestRunner().run(EXAMPLES[name], out=lines.append)
    assert not failed, "".join(lines)
