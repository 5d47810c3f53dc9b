"""The engine under the cases: bounds of options, presets, folders; absurd values of every option of every case."""

import json
import math
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Annotated, get_args, get_type_hints

import pytest

from tests.case_fixtures import CASES, FOLDER, refused


@pytest.fixture
def common():
    return import_module("common")


# -- bounds ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("about", "admitted", "not_admitted", "text"),
    [
        ((2,), (2, 3, 1e300), (1, -1, math.inf, math.nan), "at least 2"),
        ((0, math.inf, True), (1e-300, 5), (0, -1e-9, math.inf, math.nan), "above 0"),
        ((0, 1), (0, 0.5, 1), (-0.1, 1.1, math.nan, -math.inf), "from 0 to 1"),
        ((0, 4, True), (0.1, 4), (0, 4.1, math.nan), "above 0 and at most 4"),
    ],
)
def test_ranges(about, admitted, not_admitted, text, common):
    one = common.Range(*about)
    assert all(one.admits(x) for x in admitted)
    assert not any(one.admits(x) for x in not_admitted)
    assert str(one) == text


def test_check_names_the_option_and_what_it_got(common):
    @dataclass
    class Options:
        most_members: Annotated[int, common.Range(2)] = 5
        weights: tuple[Annotated[float, common.Range(0, 1)], ...] = (0.5, 0.2)
        days: Annotated[float, common.Range(0, open=True)] | None = None
        free: float = math.nan

    common.check(Options())
    for bad, message in (
        (dict(most_members=1), "--most-members must be at least 2, got 1"),
        (dict(weights=(0.1, 1.5)), "--weights must be from 0 to 1, got 1.5"),
        (dict(days=0.0), "--days must be above 0, got 0.0"),
    ):
        with pytest.raises(common.Refused, match=message):
            common.check(Options(**bad))


def test_what_is_asked_for_replaces_the_preset(common):
    @dataclass
    class Options:
        nx: int | None = None
        samples: int | None = 0
        more: list = field(default_factory=list)

    assert common.asked(Options(), dict(nx=3, samples=4, years=5)) == dict(nx=3, samples=0, years=5)


def test_a_folder_in_which_nothing_was_written_is_removed(common, tmp_path):
    (tmp_path / "old").mkdir()
    for name, left in (("new", False), ("old", True)):
        with pytest.raises(ValueError, match="no"), common.output(tmp_path / name):
            raise ValueError("no")
        assert (tmp_path / name).exists() == left
    with common.output(tmp_path / "more") as out:
        (out / "kept").write_text("")
    assert (tmp_path / "more" / "kept").exists()


# -- a case in a few lines ---------------------------------------------------------------------------------------------
CASE = '''"""A case. Expected: nothing. Run time: none."""
from dataclasses import dataclass
from common import Common, Count, main

@dataclass(frozen=True)
class Options(Common):
    n: Count = 3
    """How many."""

def run(o, out):
    (out / "n.txt").write_text(str(o.n))
    return {"n": o.n}
'''


def test_a_case_needs_options_and_a_function(call, monkeypatch, tmp_path):
    (tmp_path / "tiny_case.py").write_text(CASE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    ended = call("--n", 5, case="tiny_case")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == f"results in {Path('runs') / 'tiny_case'}\n", "the folder has the script's name"
    summary = json.loads((tmp_path / "runs/tiny_case/summary.json").read_text())
    assert (summary["results"], summary["options"]["n"]) == ({"n": 5}, 5)
    refused(call("--n", 0, "--out", tmp_path / "none", case="tiny_case"), "--n must be at least 1, got 0")
    assert not (tmp_path / "none").exists()


# -- every option of every case ----------------------------------------------------------------------------------------
def numeric(case: str) -> dict[str, tuple[type, list]]:
    """Options that are one number: their type and bounds."""
    import sys

    sys.path.insert(0, str(FOLDER))
    try:
        module, common = import_module(case), import_module("common")
    finally:
        sys.path.remove(str(FOLDER))
    plain, rich = get_type_hints(module.Options), get_type_hints(module.Options, include_extras=True)
    found = {}
    for f in fields(module.Options):
        kinds = {plain[f.name], *get_args(plain[f.name])} & {int, float}
        if kinds and "tuple" not in str(plain[f.name]) and "Literal" not in str(plain[f.name]):
            found[f.name] = kinds.pop(), common.ranges(rich[f.name])
    return found


ABSURD = [
    (case, name, value)
    for case in CASES
    for name, (kind, bounds) in numeric(case).items()
    for value in (
        [math.nan] * (kind is float)
        + [b.low - 1 if kind is int else b.low - 1e-3 - abs(b.low) * 1e-3 for b in bounds]
        + [b.high + 1 if kind is int else 1.001 * b.high for b in bounds if math.isfinite(b.high)]
    )
]


@pytest.mark.parametrize("case", CASES)
def test_every_number_has_bounds(case):
    options = numeric(case)
    assert "seed" in options
    assert not [name for name, (_, bounds) in options.items() if not bounds]


@pytest.mark.parametrize(("case", "name", "value"), ABSURD)
def test_absurd_numbers_are_refused_at_once(case, name, value, call, tmp_path):
    option = f"--{name.replace('_', '-')}" if len(name) > 1 else f"--{name}"
    ended = call(f"{option}={value}", "--out", tmp_path / "out", case=case)
    refused(ended, rf"{option} must be .*, got {value}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", ["mgno_qg", "mgno_darcy"])
def test_a_folder_of_data_that_is_a_file(case, call, tmp_path):
    (tmp_path / "file").write_text("mine")
    line = ("--preset", "quick", "--data", tmp_path / "file", "--out", tmp_path / "out")
    refused(call(*line, case=case), "cannot write to --data .*file")


@pytest.mark.parametrize("case", CASES)
def test_files_that_are_none(case, call, tmp_path):
    """Every option that names a file to read: one that is missing, and one that is no such file."""
    module = import_module(case)
    (tmp_path / "rubbish.nc").write_bytes(b"not a file of data")
    hints = get_type_hints(module.Options)
    written = ("out", "data", "states")
    for f in fields(module.Options):
        if "Path" not in str(hints[f.name]) or f.name in written:
            continue
        for name in ("missing.nc", "rubbish.nc"):
            line = [f"--{f.name.replace('_', '-')}", tmp_path / name, "--preset", "quick", "--out", tmp_path / "out"]
            line += ["--train"] if f.name == "start" else []
            ended = call(*line, case=case)
            assert (ended.status, ended.err.count("\n")) == (2, 1), (f.name, name, ended)
            assert ended.err.startswith("error: ")
