"""Examples in the docstrings of public names run."""

import doctest
import math

import pytest
import torch

import sciml as sm

FINDER = doctest.DocTestFinder(recurse=False)
EXAMPLES = {
    name: found
    for name in sm.__all__
    if callable(getattr(sm, name))
    for found in FINDER.find(getattr(sm, name), name, globs={"math": math, "sm": sm, "torch": torch})
    if found.examples
}


def test_most_of_the_daily_names_have_examples():
    assert {"Grid", "Library", "MgNO", "Term", "preset", "random_pv", "rk4", "rollout", "to_dataset"} <= EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name):
    lines: list[str] = []
    failed, _ = doctest.DocTestRunner().run(EXAMPLES[name], out=lines.append)
    assert not failed, "".join(lines)
