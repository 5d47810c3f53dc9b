"""Every notebook runs from top to bottom, at quick settings; the stored ones have their outputs."""

import json
import re

import matplotlib.pyplot
import pytest
import torch

from tests import ROOT

QUICK = {
    "assimilation": [("n, skip = 44, 28", "n, skip = 8, 3"), ("leads = 6", "leads = 2"), ("every=2", "every=4")],
    "closed_loop": [("learn, test = 15, 17", "learn, test = 8, 12")],
    "fuxi_da": [("n, skip = 60, 30", "n, skip = 10, 4")],
    "insr": [("(1e-5, 1e-8, 1e-11)", "(1e-5,)"), ("iterations=150", "iterations=20"), ("dt=0.5, form", "dt=0.1, form"),
             ("100, every=50)(start)", "20, every=10)(start)"), ("[0.1, 0.05, 0.025]", "[0.1, 0.05]")],
    "medida": [("speed=0.3)), 1500)", "speed=0.3)), 300)"), ("advanced(coarse, z, 60)", "advanced(coarse, z, 20)"),
               ("range(12)", "range(3)")],
    "mgno": [("updates=300", "updates=5"), ("240, seed, years=3", "120, seed, years=1"),
             ("(0, 60, 120, 170)", "(0, 20, 40)"), ("720 * DAY", "60 * DAY"), ("1, 7, years=4", "1, 7, years=1")],
    "prose": [],
    "qg_spectra": [('"2520", "--days", "1440"', '"100", "--days", "100"')],
}  # fmt: skip
"""What is replaced by less, notebook by notebook."""


def cells(name: str, kind: str) -> list[dict]:
    found = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())["cells"]
    return [c for c in found if c["cell_type"] == kind]


def test_all_notebooks_are_known():
    assert {p.stem for p in (ROOT / "notebooks").glob("*.ipynb")} == QUICK.keys()


@pytest.mark.parametrize("name", QUICK)
def test_stored_outputs(name):
    """Executed in order, without errors, warnings or paths of a machine; with words between the code."""
    code, words = cells(name, "code"), cells(name, "markdown")
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1))
    printed = json.dumps([c["outputs"] for c in code])
    assert "image/png" in printed
    assert not re.search(r'"output_type": "error"|Warning|/(?:home|tmp|root)/', printed)
    assert len(words) >= 0.7 * len(code)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of fewer samples, and of many figures
@pytest.mark.parametrize("name", QUICK)
def test_runs(name, tmp_path, monkeypatch):
    """In a folder beside the data and the cases, as in the repository."""
    source = "\n".join("".join(c["source"]) for c in cells(name, "code"))
    for before, after in QUICK[name]:
        assert before in source, before
        source = source.replace(before, after)
    for part in ("data", "cases", "sciml"):
        (tmp_path / part).symlink_to(ROOT / part)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    threads = torch.get_num_threads()
    try:
        exec(compile(source, f"{name}.ipynb", "exec"), {"display": lambda *args: None})
    finally:
        torch.set_num_threads(threads)
        matplotlib.pyplot.close("all")
