"""Every case: its help, its files, its errors; runs that are interrupted, killed, resumed, repeated."""

import ast
import json
import math
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import fields, replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

import sciml as sm
from sciml import record
from sciml.data import whole_records
from tests.conftest import ROOT
from tests.runs import child
from tests.test_data import contents

FOLDER = ROOT / "cases"
CASES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem != "common")
SHORT = {"qg_two_layer": "--nx 16 --dt 14400 --spinup-days 20 --days 60"}
PROMISED = {"qg_two_layer": "fields.nc diagnostics.nc pv.png spectra.png budget.png energy.png summary.json"}
QG = SHORT["qg_two_layer"].split()
BLOWING_UP = [
    "--preset",
    "quick",
    "--config",
    "phillips",
    "--nx",
    "32",
    "--dt",
    "6e4",
    "--spinup-days",
    "0",
    "--days",
    "400",
    "--every-days",
    "2",
]


@pytest.fixture(autouse=True)
def _cases_are_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def qg():
    return import_module("qg_two_layer")


class Ended(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def call(monkeypatch, capfd):
    """Run a case in this process as if from the command line."""

    def run(*args, case="qg_two_layer") -> Ended:
        monkeypatch.setattr(sys, "argv", [f"{case}.py", *map(str, args)])
        module, status = import_module(case), 0
        capfd.readouterr()
        try:
            module.main(module.run, module.Options)
        except SystemExit as end:
            status = end.code or 0
        return Ended(status, *capfd.readouterr())

    return run


def refused(ended: Ended, message: str) -> None:
    assert ended.status == 2
    assert re.fullmatch(r"error: .+\n", ended.err), "one line"
    assert re.search(message, ended.err)
    assert ended.out == ""


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Folder and output of a short run of every case, each made once from the command line."""
    made = {}

    def run(case: str) -> tuple[Path, str]:
        if case not in made:
            out = tmp_path_factory.mktemp(case) / "run"
            line = [sys.executable, f"cases/{case}.py", "--preset", "quick", *SHORT.get(case, "").split(), "--out", out]
            ended = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=300)
            assert (ended.returncode, ended.stderr) == (0, ""), "quiet where no terminal reads"
            made[case] = out, ended.stdout
        return made[case]

    return run


@pytest.fixture
def earlier(finished, tmp_path) -> Path:
    """A copy of a finished run, to do harm to."""
    return shutil.copytree(finished("qg_two_layer")[0], tmp_path / "run")


# -- every case --------------------------------------------------------------------------------------------------------
def test_cases_are_found():
    assert "qg_two_layer" in CASES
    assert "common" not in CASES


@pytest.mark.parametrize("case", CASES)
def test_help_explains_every_option_with_its_unit(case, call):
    ended = call("--help", case=case)
    assert (ended.status, ended.err) == (0, "")
    module, text = import_module(case), " ".join(re.sub("[│╭╮╰╯─]", " ", ended.out).split())
    assert " ".join(module.__doc__.split()) in text
    for word in ("Expected", "Run time", r"\b(19|20)\d\d\b"):
        assert re.search(word, module.__doc__), "the docstring gives a reference, expected numbers and the run time"
    body = [n for f in (module, import_module("common")) for n in ast.walk(ast.parse(Path(f.__file__).read_text()))]
    body = [line for n in body if isinstance(n, ast.ClassDef) and n.name in ("Options", "Common") for line in n.body]
    told = {a.target.id: b.value.value for a, b in pairwise(body)
            if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr)}  # fmt: skip
    for field in fields(module.Options):
        assert f"--{field.name.replace('_', '-')}" in text
        assert " ".join(told[field.name].split()) in text
        if str(field.type).startswith("float"):
            assert re.search(r"\b(days|s|m|m2|rad)\b", told[field.name], re.I), f"the unit of {field.name}"


@pytest.mark.parametrize("case", CASES)
def test_short_run_writes_what_is_promised(case, finished):
    folder, printed = finished(case)
    promised = PROMISED.get(case, "summary.json").split()
    found = {p.name for p in folder.iterdir()}
    assert found - {p.name for p in folder.glob("*restart*")} >= set(promised)
    assert not [n for n in found if n.startswith(".")], "no temporary files are left"
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 200
            assert np.asarray(image.convert("L")).std() > 5, "not blank"
    for path in folder.glob("*.nc"):
        with xr.open_dataset(path) as ds:
            assert ds.attrs["Conventions"].startswith("CF-")
            assert all("units" in v.attrs for v in ds.variables.values())
            assert all(np.isfinite(v).all() for v in ds.variables.values())
    assert 3 <= len(printed.splitlines()) <= 20, "a short table"
    summary = json.loads((folder / "summary.json").read_text())
    options = {f.name for f in fields(import_module(case).Options)}
    assert set(summary) >= {"results", "options", "versions", "wall_seconds"}
    assert set(summary["options"]) == options
    assert summary["options"]["preset"] == "quick"
    assert summary["options"]["seed"] == 0
    assert summary["versions"]["torch"] == torch.__version__
    assert summary["versions"]["sciml"] == sm.__version__
    assert summary["wall_seconds"] > 0
    assert summary["results"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "bad", [["--preset", "slow"], ["--seed", "x"], ["--nonsense", "1"], ["--device", "tpu"], ["word"]], ids=str
)
def test_bad_options(case, bad, call, tmp_path):
    ended = call(*bad, "--out", tmp_path / "out", case=case)
    assert ended.status == 2
    assert bad[0] in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("place", ["a file/out", "a file", "/proc/nowhere"])
def test_unwritable_folder(case, place, call, tmp_path):
    (tmp_path / "a file").write_text("kept")
    ended = call("--preset", "quick", "--out", tmp_path / place, case=case)
    refused(ended, f"cannot write to --out .*{Path(place).name}")
    assert (tmp_path / "a file").read_text() == "kept"


# -- the two-layer case: files -----------------------------------------------------------------------------------------
def test_fields(finished):
    with sm.open_run(finished("qg_two_layer")[0]) as ds:
        assert dict(ds.sizes) == dict(time=7, lev=2, y=16, x=16)
        assert {(v.dims, v.dtype) for v in ds.data_vars.values()} == {(("time", "lev", "y", "x"), np.dtype("float64"))}
        assert {n: ds[n].attrs["units"] for n in ds.data_vars} == dict(q="s-1", psi="m2 s-1", u="m s-1", v="m s-1")
        assert np.allclose(ds["time"], 86400.0 * np.arange(20, 81, 10), rtol=1e-12)
        eq = sm.preset("eddy", 16)
        z = eq.init(torch.as_tensor(ds["q"].values))
        for name, f in zip(("u", "v"), eq.velocity(z), strict=True):
            assert np.allclose(ds[name], f, atol=1e-12 * float(f.abs().max()))
        assert json.loads(ds.attrs["equation_parameters"]) == {n: float(v) for n, v in eq.params.items()}


def test_diagnostics(finished):
    """Means over the records; spectra that sum to the scalars; a budget that closes but for its sampling in time."""
    folder = finished("qg_two_layer")[0]
    eq = sm.preset("eddy", 16)
    with xr.open_dataset(folder / "diagnostics.nc") as ds, sm.open_run(folder) as run:
        spectra = {"KEspec", "Ensspec", "APEspec", "KEflux", "APEflux", "APEgenspec", "KEfrictionspec", "filter"}
        assert set(ds.data_vars) == spectra | {"residual", "EKE", "APEgen", "EKEdiss"}
        assert all(ds[n].dims == ("lev", "k") for n in ("KEspec", "Ensspec"))
        assert all(ds[n].dims == ("k",) for n in spectra - {"KEspec", "Ensspec"})
        assert (ds["EKE"].dims, ds["APEgen"].dims, ds["EKEdiss"].dims) == (("lev",), (), ())
        assert ds["k"].attrs["units"] == "rad m-1"
        assert np.allclose(np.diff(ds["k"]), 2 * math.pi / 1e6)
        dk = float(ds["k"][1])
        eke = (0.5 * (run["u"] ** 2 + run["v"] ** 2)).mean(("time", "y", "x"))
        assert np.allclose(ds["EKE"], eke, rtol=1e-10)
        assert np.allclose(ds["KEspec"].sum("k") * dk, eke, rtol=1e-10)
        assert np.allclose(ds["Ensspec"].sum("k") * dk, (0.5 * run["q"] ** 2).mean(("time", "y", "x")), rtol=1e-10)
        assert np.isclose(ds["APEgenspec"].sum() * dk, ds["APEgen"])
        assert np.isclose(-ds["KEfrictionspec"].sum() * dk, ds["EKEdiss"])
        assert abs(float((ds["KEflux"] + ds["APEflux"]).sum())) < 1e-3 * float(abs(ds["KEflux"]).sum())
        truth = sm.spectra.from_dataset(run, eq, dt=14400.0)
        for n in sorted(spectra):
            assert np.allclose(ds[n], truth[n], rtol=1e-8, atol=1e-10 * float(abs(truth[n]).max())), n
        assert (ds.attrs["records"], ds.attrs["averaged_days"]) == (7, 60)


@pytest.fixture
def undrawn(monkeypatch):
    """Runs without pictures, where these are not the point."""
    monkeypatch.setattr(qg(), "pictures", lambda *args: None)


def options(**changes):
    short = dict(preset="quick", nx=16, dt=14400.0, spinup_days=10.0, days=20.0)
    return replace(qg().Options(), **(short | changes))


UNITS = {"eddy": "m2 s-1", "jet": "m2 s-1", "phillips": "m2 s-1", "relaxation_jet": "1"}
NEXT = {"relaxation_jet": dict(nx=16, ny=24, dt=0.025, spinup_days=0.0, days=0.5, every_days=0.25)}


@pytest.mark.parametrize("config", UNITS)
def test_every_configuration(config, call, tmp_path):
    changes = NEXT.get(config, {})
    line = [f"--{n.replace('_', '-')}={v}" for n, v in changes.items()] or QG
    ended = call("--preset", "quick", "--config", config, *line, "--out", tmp_path)
    assert (ended.status, ended.err) == (0, "")
    assert {p.name for p in tmp_path.iterdir()} >= set(PROMISED["qg_two_layer"].split())
    with sm.open_run(tmp_path) as ds, xr.open_dataset(tmp_path / "diagnostics.nc") as d:
        assert ds["psi"].attrs["units"] == UNITS[config]
        assert {v.attrs["units"] == "1" for v in (*ds.variables.values(), *d.variables.values())} >= {True}
        assert np.isfinite(ds["q"]).all()
        assert float(abs(ds["q"]).max()) > 0
        if config == "relaxation_jet":
            assert {v.attrs["units"] for v in (*ds.variables.values(), *d.variables.values())} == {"1"}
            assert ds.sizes == dict(time=3, lev=2, y=24, x=16)
            assert {"relaxation", "sponge", "filter"} < set(d.data_vars)


@pytest.mark.parametrize("config", ["eddy", "relaxation_jet"])
@pytest.mark.parametrize("stepper", sm.STEPPERS)
def test_every_stepper(config, stepper, tmp_path):
    o = options(config=config, stepper=stepper, **NEXT.get(config, {}))
    qg().simulate(o, tmp_path)
    with sm.open_run(tmp_path) as ds:
        assert ds.sizes["time"] == 3
        assert np.isfinite(ds["q"]).all()


def test_steppers_are_all_offered():
    import typing

    hints = typing.get_type_hints(qg().Options)
    offered = {a for t in typing.get_args(hints["stepper"]) for a in typing.get_args(t)}
    assert offered == set(sm.STEPPERS)


@pytest.mark.parametrize("form", ["netcdf", "zarr"])
@pytest.mark.parametrize("members", [1, 3])
def test_single_precision_stays_single(form, members, tmp_path):
    qg().simulate(options(precision="float32", format=form, members=members), tmp_path)
    with sm.open_run(tmp_path) as ds:
        assert {ds[n].dtype for n in ("q", "psi", "u", "v")} == {np.dtype("float32")}
        assert ds["time"].dtype == np.float64
        assert ds["q"].dims == ((("member",) if members > 1 else ()) + ("time", "lev", "y", "x"))
        assert ds.sizes.get("member", 1) == members


def test_formats_hold_the_same(call, tmp_path):
    """Members and a movie, and everything else that comes at the end, from either format."""
    for form, more in (("netcdf", []), ("zarr", ["--movie"])):
        line = ("--preset", "quick", *QG, "--members", 2, "--format", form, *more, "--out", tmp_path / form)
        assert call(*line).status == 0
        with xr.open_dataset(tmp_path / form / "diagnostics.nc") as d:
            assert d["KEspec"].dims == ("member", "lev", "k")
    with sm.open_run(tmp_path / "netcdf") as a, sm.open_run(tmp_path / "zarr") as b:
        assert a.drop_attrs(deep=False).identical(b.drop_attrs(deep=False))
        assert a["member"].values.tolist() == [0, 1]
        assert float(abs(a["q"][0] - a["q"][1]).max()) > 1e-7, "members differ"
    with Image.open(tmp_path / "zarr" / "pv.gif") as image:
        assert image.n_frames == 7


def test_seed(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        qg().simulate(options(seed=seed), tmp_path / name)
    a, b, c = ((tmp_path / name / "fields.nc").read_bytes() for name in "abc")
    assert a == b
    assert a != c


# -- members over a cluster --------------------------------------------------------------------------------------------
@contextmanager
def one_by_one(cluster, members):
    """Stands for a cluster: the same map, in this process."""
    assert cluster == "here"
    yield lambda work, members: [work(m) for m in members]


MEMBERS = ("--preset", "quick", *QG, "--format", "zarr", "--members")


def same_but_for_rounding(a: Path, b: Path) -> None:
    for name in ("fields", "diagnostics"):
        with sm.open_run(a, name) as x, sm.open_run(b, name) as y:
            assert x.sizes == y.sizes
            assert set(x.variables) == set(y.variables)
            for n in x.data_vars:
                if n != "residual":
                    assert np.allclose(x[n], y[n], rtol=1e-7, atol=1e-10 * float(abs(x[n]).max())), n


def test_members_alone_equal_members_together(undrawn, call, tmp_path, monkeypatch):
    monkeypatch.setattr(qg(), "workers", one_by_one)
    assert call(*MEMBERS, 3, "--out", tmp_path / "together").status == 0
    assert call(*MEMBERS, 3, "--cluster", "here", "--out", tmp_path / "alone").status == 0
    groups = [p.name for p in (tmp_path / "alone/fields.zarr").iterdir() if p.is_dir()]
    assert sorted(groups) == ["member_000", "member_001", "member_002"]
    same_but_for_rounding(tmp_path / "together", tmp_path / "alone")


def test_members_are_resumed(undrawn, call, tmp_path, monkeypatch):
    """Interrupted when the first member was done, the second under way, the third not begun."""
    monkeypatch.setattr(qg(), "workers", one_by_one)
    line = (*MEMBERS, 3, "--cluster", "here", "--out")
    assert call(*line, tmp_path / "a").status == 0
    with monkeypatch.context() as patch:
        patch.setattr(qg(), "one_record", stopping(qg().one_record, 13))
        assert call(*line, tmp_path / "b").status == 130
    assert len(list((tmp_path / "b").glob("*.restart.*"))) == 2
    refused(call(*line, tmp_path / "b"), "holds a run that was not finished; .*--resume.*--overwrite")
    assert call(*line, tmp_path / "b", "--resume").status == 0
    assert contents(tmp_path / "a/fields.zarr") == contents(tmp_path / "b/fields.zarr")
    assert call(*MEMBERS, 2, "--cluster", "here", "--overwrite", "--out", tmp_path / "b").status == 0
    with sm.open_run(tmp_path / "b") as ds:
        assert ds.sizes["member"] == 2, "the third is gone"
    refused(call(*MEMBERS, 2, "--resume", "--out", tmp_path / "b"), "nothing to resume")
    refused(
        call(*MEMBERS, 3, "--cluster", "here", "--resume", "--out", tmp_path / "b"), "its members is 2, this run's is 3"
    )


@pytest.mark.slow
def test_local_cluster(undrawn, call, tmp_path):
    ended = call(*MEMBERS, 2, "--cluster", "local", "--out", tmp_path / "alone")
    assert (ended.status, ended.err) == (0, "")
    assert call(*MEMBERS, 2, "--out", tmp_path / "together").status == 0
    same_but_for_rounding(tmp_path / "together", tmp_path / "alone")


# -- refused -----------------------------------------------------------------------------------------------------------
NUMBERS = [f"--{n}={v}" for n in ("nx", "ny", "members") for v in (0, -1)]
NUMBERS += [f"--{n}={v}" for n in ("days", "dt", "every-days") for v in (0, -1, "nan", "inf", "-inf")]
NUMBERS += [f"--spinup-days={v}" for v in (-1, "nan", "inf")] + ["--nx=7", "--ny=7"]


@pytest.mark.parametrize("number", NUMBERS)
def test_senseless_numbers(number, call, earlier):
    before = contents(earlier)
    ended = call("--preset", "quick", number, "--overwrite", "--out", earlier)
    refused(ended, rf"{number.split('=')[0]} must be (positive|at least \d+) and finite, got {number.split('=')[1]}")
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
    message = r"stopped being finite between t = \S+ and t = \S+; the CFL number was .*Try dt = "
    refused(call(*BLOWING_UP, "--out", tmp_path), message)
    with sm.open_run(tmp_path) as ds:
        assert ds.sizes["time"] > 10
        assert np.isfinite(ds["q"]).all()
    before = contents(tmp_path / "fields.nc")
    refused(call(*BLOWING_UP, "--out", tmp_path), "holds a run that was not finished; .*--resume.*--overwrite")
    refused(call(*BLOWING_UP, "--resume", "--out", tmp_path), "stopped being finite")
    assert contents(tmp_path / "fields.nc") == before


# -- interrupted, killed, extended -------------------------------------------------------------------------------------
def stopping(f, count: int):
    """``f``, interrupted at its ``count``-th call."""
    left = iter(range(count))

    def wrapped(*args, **kwargs):
        if next(left) == count - 1:
            raise KeyboardInterrupt
        return f(*args, **kwargs)

    return wrapped


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
