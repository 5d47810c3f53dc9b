"""Data sets for neural operators: seeds, grids, the flow against exact solutions and half the time step, the script."""

import math
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
import xarray as xr

from sciml.equation.coefficients import rough_phases
from sciml.equation.elliptic import darcy
from sciml.operator_data import RECIPES, Flow, elliptic_samples, first_vorticity, flow_samples, forcing, sample_seeds
from tests.conftest import ROOT, relative

SMALL = {"darcy-smooth": (9, 17), "darcy-rough": (9, 25), "multiscale": (9, 17), "helmholtz": (21, 41)}
SHORT = Flow(nu=1e-3, records=1, points=16, fine=32)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "data")
    return import_module("make_operator_data")


def test_seeds():
    """A larger set begins with the smaller one; train and test share nothing."""
    train, test = (sample_seeds(0, split, 0, 500) for split in ("train", "test"))
    assert train[20:40] == sample_seeds(0, "train", 20, 40)
    assert len({*train, *test, *sample_seeds(1, "train", 0, 500)}) == 1500
    with pytest.raises(ValueError, match="split must be"):
        sample_seeds(0, "validation", 0, 1)


@pytest.mark.parametrize("task", RECIPES)
def test_elliptic_samples(task):
    points, fine = SMALL[task]
    seeds = sample_seeds(0, "train", 0, 3)
    ds = elliptic_samples(task, seeds, points, fine)
    xr.testing.assert_identical(ds, elliptic_samples(task, seeds, points, fine))
    xr.testing.assert_equal(ds.isel(sample=[2]), elliptic_samples(task, seeds[2:], points, fine))
    assert dict(ds.sizes) == {"sample": 3, "y": points, "x": points}
    assert relative(ds["a"][0].values, ds["a"][1].values) > 1e-4
    assert {v.attrs["units"] for v in ds.variables.values()} == {"1"}
    assert ds.attrs["points_solved"] == fine
    np.testing.assert_allclose(ds["x"], np.linspace(0, 1, points))
    if task != "helmholtz":
        assert float(np.abs(ds["u"][:, [0, -1]]).max()) == 0
        assert float(ds["u"][:, 1:-1, 1:-1].min()) > 0


def test_points_that_are_kept_are_those_of_the_fine_grid():
    seed = sample_seeds(0, "test", 4, 5)
    ds = elliptic_samples("darcy-rough", seed, 9, 25)
    a = rough_phases(25, seed[0])
    assert np.array_equal(ds["a"][0].values, a[::3, ::3].astype(np.float32))
    assert np.array_equal(ds["u"][0].values, darcy(a)[::3, ::3].astype(np.float32))
    with pytest.raises(ValueError, match="take fine = 17 or 25"):
        elliptic_samples("darcy-rough", seed, 9, 24)


# -- Navier-Stokes ---------------------------------------------------------------------------------------------------
def test_the_start_and_the_forcing_are_those_of_the_recipe():
    grid = Flow(fine=32).grid
    w = first_vorticity(grid, sample_seeds(0, "train", 0, 500))
    m = torch.fft.fftfreq(21, 1 / 21, dtype=torch.float64)  # the modes that the 2/3 rule keeps
    eigenvalues = 343 * (4 * math.pi**2 * (m[:, None] ** 2 + m**2) + 49) ** -2.5
    assert float((w**2).mean()) == pytest.approx(float(eigenvalues.sum() - eigenvalues[0, 0]), rel=0.05)
    x, y = grid.axes()
    wave = forcing(grid)
    assert float(wave[3, 5]) == pytest.approx(0.1 * math.sqrt(2) * math.sin(2 * math.pi * 8 / 32 + math.pi / 4))
    assert float(x[0, 0]) == float(y[0, 0]) == 0


def test_viscous_flow_tends_to_the_exact_steady_state():
    """The forcing is an eigenfunction of the Laplacian and does not advect itself: w = f / (8 pi^2 nu)."""
    ds = flow_samples([1], Flow(nu=0.5, records=2, points=16, fine=16, steps=40))
    grid = Flow(fine=16).grid
    exact = forcing(grid) / (8 * math.pi**2 * 0.5)
    assert relative(ds["omega"][0, -1].values, exact) < 1e-5
    assert relative(ds["omega"][0, 0].values, first_vorticity(grid, [1])[0, 0]) < 1e-6


def test_half_the_time_step_changes_nothing():
    seeds = sample_seeds(0, "train", 0, 2)
    ds = flow_samples(seeds, SHORT._replace(records=3))
    finer = flow_samples(seeds, SHORT._replace(records=3, steps=2 * SHORT.steps_per_time))
    assert ds["omega"].dims == ("sample", "time", "y", "x")
    assert ds["time"].values.tolist() == [0, 1, 2, 3]
    assert relative(ds["omega"][:, -1].values, ds["omega"][:, 0].values) > 0.3
    assert relative(ds["omega"].values, finer["omega"].values) < 2e-6
    assert float(np.abs(ds["omega"].mean(("y", "x"))).max()) < 1e-6  # neither forcing nor flow makes a mean
    alone = flow_samples(seeds[1:], SHORT)
    assert relative(alone["omega"][0].values, ds["omega"][1, :2].values) < 1e-6


# -- the script ------------------------------------------------------------------------------------------------------
def test_script_goes_on_where_it_was_stopped(script, tmp_path, monkeypatch):
    """It is stopped in the second part; what it makes then is what it makes at once."""
    o = script.Options(task="darcy-rough", samples=7, test=2, points=9, fine=17, out=tmp_path / "a")
    calls = []

    def make(task, seeds, points, fine):
        calls.append(len(seeds))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return elliptic_samples(task, seeds, points, fine)

    monkeypatch.setattr(script, "elliptic_samples", make)
    with pytest.raises(KeyboardInterrupt):
        script.make_split(o, "train", 7, chunk=3)
    assert not list(o.out.glob("*.nc"))
    path = script.make_split(o, "train", 7, chunk=3)
    assert calls == [3, 3, 3, 1]
    assert sorted(p.name for p in o.out.iterdir()) == ["darcy-rough_train.nc"]
    whole = script.make_split(replace(o, out=tmp_path / "b"), "train", 7, chunk=7)
    with xr.open_dataset(path) as a, xr.open_dataset(whole) as b:
        xr.testing.assert_identical(a.drop_attrs(), b.drop_attrs())
        assert (a.sizes["sample"], a.attrs["split"], a.attrs["seed"]) == (7, "train", 0)


def test_script_makes_flow_and_refuses_nonsense(script, tmp_path):
    o = script.Options(task="ns", samples=2, test=1, points=8, fine=16, nu=1e-2, records=1, out=tmp_path)
    script.run(o)
    for split, n in (("train", 2), ("test", 1)):
        with xr.open_dataset(tmp_path / f"ns_{split}.nc", decode_times=False) as ds:
            assert dict(ds.sizes) == {"sample": n, "time": 2, "y": 8, "x": 8}
            assert bool(np.isfinite(ds["omega"]).all())
    for bad in ({"samples": 0}, {"seed": -1}, {"fine": 12}):
        with pytest.raises(ValueError, match=r"--samples|take fine"):
            script.run(replace(o, out=tmp_path / "bad", **bad))
