"""Every case: its help, its files, its errors; runs that are interrupted, killed, resumed, repeated."""

import ast
import json
import math
import re
import shutil
import sys
from contextlib import contextmanager
from dataclasses import fields
from fnmatch import fnmatch
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

import sciml as sm
from tests import ROOT
from tests.case_fixtures import CASES, PROMISED, QG, options, qg, refused, stopping
from tests.test_data import contents


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
    classes = {c.__name__: sys.modules[c.__module__] for c in reversed(module.Options.__mro__[:-1])}
    body = [n for f in classes.values() for n in ast.walk(ast.parse(Path(f.__file__).read_text()))]
    body = [line for n in body if isinstance(n, ast.ClassDef) and n.name in classes for line in n.body]
    told = {a.target.id: b.value.value for a, b in pairwise(body)
            if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr)}  # fmt: skip
    hints = get_type_hints(module.Options)
    for field in fields(module.Options):
        assert f"--{field.name.replace('_', '-')}" in text
        assert " ".join(told[field.name].split()) in text
        if re.search(r"\bfloat\b", str(hints[field.name])):
            assert re.search(r"\b(days|s|m|m2|rad|degrees|factor)\b", told[field.name], re.I), (
                f"the unit of {field.name}"
            )


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
        with xr.open_dataset(path, decode_times=False) as ds:
            assert ds.attrs["Conventions"].startswith("CF-")
            assert all("units" in v.attrs for v in ds.variables.values())
            assert all(np.isfinite(v).all() for v in ds.variables.values() if v.dtype.kind in "fiu")
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
    refused(ended, re.escape(bad[0]))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("place", ["a file/out", "a file", "/proc/nowhere"])
def test_unwritable_folder(case, place, call, tmp_path):
    (tmp_path / "a file").write_text("kept")
    ended = call("--preset", "quick", "--out", tmp_path / place, case=case)
    refused(ended, f"cannot write to --out .*{Path(place).name}")
    assert (tmp_path / "a file").read_text() == "kept"


SHARED = {"insr": "neural", "mgno": "operators", "prose": "prose_training"}
"""Modules that say what cases write, by how the names of cases begin."""


@pytest.mark.parametrize("case", CASES)
def test_an_earlier_run_is_set_aside_whole(case, finished):
    """What a case hands to ``make_room`` covers all that it writes."""
    module, shared = import_module(case), SHARED.get(case.split("_")[0])
    modules = [module, *([import_module(shared)] if shared else [])]
    source = "".join(Path(m.__file__).read_text() for m in [*modules, import_module("elastic")])
    assert "make_room(out, " in source
    patterns = [p for m in modules for n in ("WRITTEN", "TRAINED", "COMPARED", "TABLES") for p in getattr(m, n, ())]
    methods = {"CTRL", "CORR", "ASSI", "oi"} if case == "qg_fuxi_da" else set()
    own = {p.name for p in finished(case)[0].iterdir() if not p.name.startswith("synthetic_")} - methods
    assert not [n for n in own if not any(fnmatch(n, p) for p in patterns)]


def test_what_is_read_stays_where_it_is(call, tmp_path):
    """A swath that a first run made, read by the next one in the same folder; but nothing is both read and written."""
    line = ("--preset", "quick", "--out", tmp_path)
    assert call(*line, case="satellite_file").status == 0
    ended = call(*line, "--file", tmp_path / "synthetic_swath.nc", case="satellite_file")
    assert (ended.status, ended.err) == (0, "")
    assert "is kept in" in ended.out
    assert not (tmp_path / "earlier-1" / "synthetic_swath.nc").exists()
    assert (tmp_path / "earlier-1" / "observations.nc").exists()
    own = ("--reader", "cf", "--variable", "value", "--sigma", 1, "--file", tmp_path / "observations.nc")
    refused(call(*line, *own, "--overwrite", case="satellite_file"), "observations.nc would be read and written")
    assert (tmp_path / "observations.nc").exists()


def test_a_request_that_is_refused_late_leaves_the_earlier_run(call, tmp_path):
    """Even with --overwrite, and in folders of methods, beside the user's own files."""
    line = ("--preset", "quick", "--out", tmp_path / "s")
    assert call(*line, case="satellite_file").status == 0
    before = contents(tmp_path / "s")
    for more in ((), ("--overwrite",)):
        refused(call(*line, *more, "--file", "nope.nc", case="satellite_file"), "there is no file nope.nc")
        assert contents(tmp_path / "s") == before
    common, o = import_module("common"), import_module("qg_assimilate").Options(method="all", overwrite=True)
    written = import_module("qg_assimilate").of_methods(("oi", "free"))
    for name in ("oi/analysis.nc", "oi/notes.txt", "free/maps.png", "letkf/analysis.nc"):
        (tmp_path / "q" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "q" / name).write_text(name)
    before = contents(tmp_path / "q")
    common.make_room(tmp_path / "q", written, o)
    assert set(contents(tmp_path / "q" / "earlier-1")) == {"oi/analysis.nc", "free/maps.png"}
    common.settle(overwrite=False, done=False)
    assert contents(tmp_path / "q") == before
    common.make_room(tmp_path / "q", written, o)
    common.settle(overwrite=True, done=True)
    assert set(contents(tmp_path / "q")) == {"oi/notes.txt", "letkf/analysis.nc"}


@pytest.mark.parametrize(
    ("case", "line", "message"),
    [
        ("qg_fuxi_da", "--updates 5", "--updates goes with --train"),
        ("qg_fuxi_da", "--resume", "--resume goes with --train"),
        ("qg_fuxi_da", "--train --days 5", "--days goes with comparisons, without --train"),
        ("prose_ode", "--equations 5", "--equations goes with --train"),
        ("prose_ode", "--data none.nc", "--data goes with --train"),
        ("prose_pde", "--lr 1e-4", "--lr goes with --train"),
        ("prose_qg", "--resume", "--resume goes with --train"),
        ("mgno_qg", "--batch 2", "--batch goes with --train"),
        ("qg_assimilate", "--model-error 0.1", "--model-error goes with --method 4dvar or fuxida4dvar"),
        ("qg_assimilate", "--method oi --members 5", "--members goes with --method enkf or etkf or enkfn or letkf"),
        ("mgno_darcy", "--resume --overwrite", "exclude each other"),
        ("mgno_darcy", "--updates 4 --minutes 3", "--minutes and --updates exclude each other"),
        ("altimetry_map", "--method oi --nx 32", "--nx goes with --method 4dvar or both"),
        ("satellite_file", "--cell-days 1", "--cell-days goes with --superob"),
        ("medida_qg", "--twin", "--twin goes with --noise or --sensors"),
        ("prose_pde", "--train --resume", "there is no training.checkpoint"),
        ("insr_allen_cahn", "--resume --overwrite", "exclude each other"),
    ],
)
def test_options_that_nothing_would_read(case, line, message, call, tmp_path):
    refused(call("--preset", "quick", *line.split(), "--out", tmp_path / "o", case=case), message)
    assert not (tmp_path / "o").exists()


def test_trainings_go_on_only_when_asked(finished, call, tmp_path):
    """A finished one is set aside; one that was stopped is refused; with --resume networks that are there are kept."""
    out, line = tmp_path / "o", "--preset quick --points 16 --samples 16 --updates 4 --batch 4 --networks unet".split()
    shutil.copytree(finished("mgno_darcy")[0], out)
    (out / "summary.json").unlink()
    line += ["--data", ROOT / "runs" / "operator", "--out", out]
    refused(call(*line, case="mgno_darcy"), "not finished; continue it with --resume, or start again with --overwrite")
    ended = call(*line, "--resume", case="mgno_darcy")
    assert (ended.status, ended.err) == (0, "")
    assert "training unet" not in ended.out
    refused(call(*line, "--resume", "--lr", "1e-4", case="mgno_darcy"), "of a training with lr 0.003, not 0.0001")
    ended = call(*line, case="mgno_darcy")
    assert "training unet" in ended.out
    assert (out / "earlier-1" / "mgno.safetensors").exists()


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
        stated = json.loads(ds.attrs["equation_parameters"])
        assert stated.items() >= {n: float(v) for n, v in eq.params.items()}.items()
        assert stated.items() >= dict(rd=15e3, delta=0.25, H1=500.0, f0=1e-4, filterfac=23.6, nu_order=4).items()
        assert json.loads(ds.attrs["grid"])["nx"] == 16
        assert json.loads(ds.attrs["run"])["stepper"] == "ab3"
        assert "-rek*lap(psi2) [drag]" in ds.attrs["terms"]


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
