"""Cases that are refused, interrupted, killed, resumed or repeated."""

import json
import os
import random
import re
import runpy
import shutil
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import sciml as sm
from sciml import record
from sciml.data import whole_records
from tests.case_fixtures import BLOWING_UP, FOLDER, QG, qg, refused, stopping
from tests.runs import child
from tests.test_data import contents

# -- refused -----------------------------------------------------------------------------------------------------------
NUMBERS = [f"--{n}={v}" for n in ("nx", "ny", "members") for v in (0, -1)]
NUMBERS += [f"--{n}={v}" for n in ("days", "dt", "every-days") for v in (0, -1, "nan", "inf", "-inf")]
NUMBERS += [f"--spinup-days={v}" for v in (-1, "nan", "inf")] + ["--nx=7", "--ny=7"]


@pytest.mark.parametrize("number", NUMBERS)
def test_senseless_numbers(number, call, earlier):
    before = contents(earlier)
    ended = call("--preset", "quick", number, "--overwrite", "--out", earlier)
    refused(ended, rf"{number.split('=')[0]} must be (above|at least|from) \d+.*, got {number.split('=')[1]}")
    assert contents(earlier) == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--days 5", "--days 5 is shorter than --every-days 10"),
        ("--days 10 --dt 1e6", "or than one --dt of 1e.06"),
        ("--dt 1e-300", r"ask for \S+ steps"),
        ("--days 1e305", r"ask for \S+ steps"),
        ("--seed=-1", "--seed must be"),
        ("--seed 99999999999999999999", "--seed must be"),
        ("--cluster local", "add --format zarr"),
        ("--cluster nonsense://x --format zarr", "no dask scheduler answers at 'nonsense://x'"),
        ("--resume", "exclude each other"),
        ("--nx 64 --dt 2e5", r"must blow up: the CFL number of the start .*Try dt = \d+"),
        ("--config relaxation_jet --stepper ab3", "must blow up: a linear mode decays .*etdrk4 or imex"),
        pytest.param(
            "--device cuda", "no CUDA device", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA")
        ),
    ],
)
def test_overwriting_waits_until_the_run_can_start(line, message, call, earlier):
    before = contents(earlier)
    refused(call("--preset", "quick", *line.split(), "--overwrite", "--out", earlier), message)
    assert contents(earlier) == before


@pytest.mark.parametrize("form", ["netcdf", "zarr"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_finished_run_is_set_aside(overwrite, form, undrawn, call, earlier):
    """Whole, beside the user's own files, again and again; with --overwrite it goes, but nothing else."""
    before = contents(earlier)
    (earlier / "notes.txt").write_text("mine")
    line = ("--preset", "quick", *QG, "--format", form, "--out", earlier, *(["--overwrite"] if overwrite else []))
    for seed in (1, 2):
        ended = call(*line, "--seed", seed)
        assert ended.status == 0
        assert ("is kept in" in ended.out) == (not overwrite)
        assert json.loads((earlier / "summary.json").read_text())["options"]["seed"] == seed
        assert ("fields.nc" in os.listdir(earlier)) == (form == "netcdf"), "the two do not mix"
        with sm.open_run(earlier) as ds:
            assert ds.sizes["time"] == 7
    assert (earlier / "notes.txt").read_text() == "mine"
    kept = [earlier / "earlier-1", earlier / "earlier-2"]
    assert [p.exists() for p in kept] == [not overwrite] * 2
    if not overwrite:
        assert contents(kept[0]) == before
        assert json.loads((kept[1] / "summary.json").read_text())["options"]["seed"] == 1


def test_a_run_that_blows_up_leaves_the_earlier_one(undrawn, call, earlier):
    before = contents(earlier)
    ended = call(*BLOWING_UP, "--out", earlier)
    assert ended.status == 2
    assert contents(earlier / "earlier-1") == before
    assert call("--preset", "quick", *QG, "--resume", "--out", earlier / "earlier-1").status == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--nx 18", r"its grid \(y, x\) is \[16, 16\], this run's is \[18, 18\]"),
        ("--ny 18", r"its grid \(y, x\) is \[16, 16\], this run's is \[18, 16\]"),
        ("--dt 7200", "its dt is 14400.0, this run's is 7200.0"),
        ("--config jet", "its config is eddy, this run's is jet"),
        ("--seed 3", "its seed is 0, this run's is 3"),
        ("--stepper rk4", "its stepper is ab3, this run's is rk4"),
        ("--precision float32", "its precision is float64, this run's is float32"),
        ("--members 2", "its members is 1, this run's is 2"),
        ("--format zarr", "its format is netcdf, this run's is zarr"),
        ("--every-days 5", "its steps between records is 60, this run's is 30"),
        ("--spinup-days 30", "its spin-up steps is 120, this run's is 180"),
        ("--days 30", "480 steps into its run, more than the 300 asked for"),
        ("--cluster here --format zarr", "holds no run that was made with --cluster"),
    ],
)
def test_resume_of_another_run(line, message, call, earlier):
    before = contents(earlier)
    refused(call("--preset", "quick", *QG, *line.split(), "--resume", "--out", earlier), message)
    assert contents(earlier) == before


@pytest.mark.parametrize("name", ["fields.nc", "fields.restart.safetensors"])
@pytest.mark.parametrize("keep", [0, 0.01, 0.6, 0.9999])
def test_resume_with_a_truncated_file(name, keep, call, earlier):
    os.truncate(earlier / name, int(keep * (earlier / name).stat().st_size))
    before = contents(earlier)
    ended = call("--preset", "quick", *QG, "--days", 80, "--resume", "--out", earlier)
    refused(ended, rf"{name}.* (is damaged|cut short)")
    assert contents(earlier) == before


@pytest.mark.parametrize("size", [0, 100, None])
def test_resume_with_a_damaged_or_missing_chunk(size, call, tmp_path):
    short = ("--preset", "quick", *QG, "--format", "zarr", "--out", tmp_path / "z")
    assert call(*short).status == 0
    chunk = tmp_path / "z" / "fields.zarr" / "u" / "1.0.0.0"
    chunk.unlink() if size is None else os.truncate(chunk, size)
    before = contents(tmp_path / "z")
    refused(call(*short, "--days", 80, "--resume"), r"fields.zarr is damaged")
    assert contents(tmp_path / "z") == before


def test_a_full_disk(call, earlier, monkeypatch):
    with xr.open_dataset(earlier / "fields.nc") as ds:
        old = ds.load()
    usage = shutil.disk_usage(earlier)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    refused(call("--preset", "quick", *QG, "--days", 80, "--resume", "--out", earlier), "no space is left for .*nc")
    monkeypatch.undo()
    with xr.open_dataset(earlier / "fields.nc") as ds:
        assert ds.equals(old)


def test_zarr_is_not_installed(call, earlier, monkeypatch):
    before = contents(earlier)
    monkeypatch.setitem(sys.modules, "zarr", None)
    refused(call("--preset", "quick", *QG, "--format", "zarr", "--out", earlier), "zarr")
    assert contents(earlier) == before


def test_resume_without_a_run(call, tmp_path):
    refused(call("--preset", "quick", "--resume", "--out", tmp_path), "nothing to resume: there is no .*restart")
    assert list(tmp_path.iterdir()) == []


def test_blow_up_on_the_way(undrawn, call, tmp_path):
    """The growing eddies outrun the step: what was written is kept and readable, and not replaced unasked."""
    message = r"stopped being finite at t = \S+; the CFL number was .*Try dt = "
    refused(call(*BLOWING_UP, "--out", tmp_path), message)
    with sm.open_run(tmp_path) as ds:
        assert ds.sizes["time"] > 10
        assert np.isfinite(ds["q"]).all()
    before = contents(tmp_path / "fields.nc")
    refused(call(*BLOWING_UP, "--out", tmp_path), "holds a run that was not finished; .*--resume.*--overwrite")
    refused(call(*BLOWING_UP, "--resume", "--out", tmp_path), "stopped being finite")
    assert contents(tmp_path / "fields.nc") == before


# -- interrupted, killed, extended -------------------------------------------------------------------------------------
def equal_runs(a: Path, b: Path) -> None:
    """Fields are the same bytes; diagnostics and results the same numbers."""
    assert contents(a / "fields.nc") == contents(b / "fields.nc")
    with xr.open_dataset(a / "diagnostics.nc") as x, xr.open_dataset(b / "diagnostics.nc") as y:
        assert x.identical(y)
        assert list(x.data_vars) == list(y.data_vars)
    x, y = (json.loads((f / "summary.json").read_text())["results"] for f in (a, b))
    assert x == y


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_interrupted_and_resumed(count, undrawn, call, finished, tmp_path, monkeypatch):
    line = ("--preset", "quick", *QG, "--out", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(qg(), "one_record", stopping(qg().one_record, count))
        ended = call(*line)
    assert ended.status == 130
    assert re.fullmatch("interrupted; .*--resume\n", ended.err)
    if count > 1:
        with sm.open_run(tmp_path) as ds:
            assert ds.sizes["time"] == count - 2
        refused(call(*line), "holds a run that was not finished; .*--resume.*--overwrite")
        assert call(*line, "--resume").status == 0
    else:
        assert call(*line).status == 0, "nothing had been written"
    equal_runs(finished("qg_two_layer")[0], tmp_path)


def test_finished_run_is_extended(undrawn, call, finished, tmp_path):
    line = ("--preset", "quick", *QG, "--out", tmp_path)
    assert call(*line, "--days", 20).status == 0
    assert call(*line, "--resume").status == 0
    equal_runs(finished("qg_two_layer")[0], tmp_path)


def run_case(args: list[str]) -> None:
    """In a child: the script from the command line, with a restart file at every record."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    record.RESTART_SECONDS = 0.0
    sys.argv = ["qg_two_layer.py", *args]
    sys.path.insert(0, str(FOLDER))
    runpy.run_path(str(FOLDER / "qg_two_layer.py"), run_name="__main__")


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(tmp_path):
    """SIGKILL again and again, at any moment from start to end; then the run is finished and nothing tells."""
    line = ["--preset", "quick", *QG, "--days", "120", "--every-days", "3", "--out"]
    begun = time.monotonic()
    assert child(run_case, [*line, str(tmp_path / "a")]) == 0
    seconds = time.monotonic() - begun
    out, rng, killed, resumed = tmp_path / "b", random.Random(0), 0, 0
    for _ in range(4):
        resume = (out / "fields.restart.safetensors").exists()
        ended = child(run_case, [*line, str(out), "--resume" if resume else "--overwrite"],
                      kill_after=rng.uniform(0.1, 0.7) * seconds)  # fmt: skip
        assert ended in (0, -signal.SIGKILL)
        killed, resumed = killed + (ended != 0), resumed + resume
        if (out / "fields.nc").exists() and (n := whole_records(out / "fields.nc")):
            with sm.open_run(tmp_path / "a") as a, sm.open_run(out) as b:
                assert b["q"].equals(a["q"][:n])
    assert child(run_case, [*line, str(out), "--resume"]) == 0
    assert killed > 0
    assert resumed > 0
    equal_runs(tmp_path / "a", out)


@pytest.mark.parametrize("case", ["qg_assimilate", "closed_loop"])
def test_files_of_the_users_own_are_not_taken_for_an_earlier_run(case, tmp_path, monkeypatch):
    """Neither removed nor moved, whatever their kind, nor a folder that has the name of a method."""
    monkeypatch.syspath_prepend(str(FOLDER))
    module = import_module(case)
    (tmp_path / "letkf").mkdir()
    for name in ("data.nc", "figure.png", "letkf/notes.txt", "notes.json"):
        (tmp_path / name).write_text("mine")
    assert import_module("common").earlier(tmp_path, module.WRITTEN) == []
    assert all("*" not in name for name in module.WRITTEN)
