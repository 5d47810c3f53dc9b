"""The case on Kuramoto and Sivashinsky's equation: its data, its filter against Kalman's equations, what it finds."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
import xarray as xr

import sciml as sm
from tests.case_fixtures import refused
from tests.conftest import relative


@pytest.fixture
def ks():
    return import_module("medida_ks")


@pytest.fixture
def options(ks):
    return ks.Options(preset="quick", seed=3)


@pytest.fixture
def data(ks, options):
    """Equation, states of 8 pairs, and the pair without noise."""
    eq, states, _ = ks.truth(options, 64, 8)
    return eq, states, ks.low_passed(states[:2], 0.0, 1)


# -- data ------------------------------------------------------------------------------------------------------------
def test_states_are_a_run_of_the_equation(ks, options, data):
    """Against steps of another scheme, a tenth as long."""
    eq, states, _ = data
    step = sm.rk4(eq, options.dt * options.factor / 1000)
    late = ks.advanced(step, states[0], 1000)
    assert relative(late, states[1]) < 1e-8


def test_models_lack_what_the_notes_say(ks, data):
    """h = -(1 - a1) u u_x - (1 - a2) u_xx - (1 - a3) u_xxxx + d u_xxx + 3/2 cubic u^2 u_x."""
    _, _, clean = data
    truly = ks.equation("", clean.before)
    for case, (a, b, c, d, cubic) in ks.MODELS.items():
        lacks = ks.library.coefficients(ks.LIBRARY, truly, ks.equation(case, clean.before), clean.before[:4])[0]
        expected = {"u*dx(u)": a - 1, "lap(u)": b - 1, "lap(lap(u))": c - 1, "dx(lap(u))": d, "dx(u)*u**2": 1.5 * cubic}
        found = {n: v for n, v in zip(ks.LIBRARY.names, lacks, strict=True) if v}
        assert found == pytest.approx({n: v for n, v in expected.items() if v}), case


def test_vectors_keep_the_mean_square(ks, data):
    eq, states, _ = data
    x = ks.vector(states[0])
    assert relative((x**2).sum(-1), eq.grid.ifft(states[0]).square().mean((-1, -2, -3))) < 1e-12
    assert relative(ks.coefficients(x), states[0]) < 1e-14


def test_noise_is_as_large_as_stated_and_drawn_anew(ks, data):
    eq, states, _ = data
    seen = ks.noisy(eq.grid, states, 0.3, 1)
    noise = eq.grid.ifft(seen - states)
    assert float(noise.std()) == pytest.approx(0.3, rel=0.1)
    assert float((noise[0] * noise[2]).mean()) == pytest.approx(0, abs=0.02)


# -- the filter ------------------------------------------------------------------------------------------------------
def test_the_filter_is_kalmans_with_many_members(ks, options, data):
    """A linear model, so that covariances are known: B = M R M', both analyses and the root of R (B + R)^-1."""
    _, states, _ = data
    z = states[:2, :1, :, :9]
    linear = replace(ks.equation("", z[0]), a=0.0)
    step, variance = sm.etdrk4(linear, options.dt * options.factor), 0.04
    seen = ks.Pair(z[0], z[1], 4)
    before, after, innovation, root = (a[0] for a in ks.assimilated(step, seen, variance, 40_000, 0))
    eye = torch.eye(len(before), dtype=torch.float64)
    forecast = ks.forecast(step, ks.vector(z[0]), 4)[0]
    M = ks.forecast(step, eye, 4).mT
    R = variance * eye
    start = R.clone()
    start[1, 1] = 0
    B, C = M @ start @ M.mT, start @ M.mT
    d = ks.vector(z[1])[0] - forecast
    assert relative(innovation, d) < 1e-9
    assert relative(after - forecast, B @ torch.linalg.solve(B + R, d)) < 0.03
    assert relative(before - ks.vector(z[0])[0], C @ torch.linalg.solve(B + R, d)) < 0.03
    assert relative(root @ root, torch.linalg.inv(B + R) @ R) < 0.03


def test_no_members_leave_observations_as_they_are(ks, options, data):
    _, _, clean = data
    step = sm.etdrk4(ks.equation("1", clean.before), options.dt * options.factor)
    before, after, innovation, root = ks.assimilated(step, clean, 0.0, 0, 0)
    assert torch.equal(before, ks.vector(clean.before))
    assert torch.equal(after, ks.vector(clean.after))
    assert torch.equal(innovation, after - ks.forecast(step, before, 1))
    assert torch.equal(root, torch.eye(root.shape[-1], dtype=torch.float64))


def test_a_model_that_blows_up_is_told(ks, data):
    _, states, _ = data
    step = sm.rk4(ks.equation("", states[0]), 10.0)
    with pytest.raises(ValueError, match="blows up"):
        ks.forecast(step, ks.vector(states[0]), 20)


# -- what is found ---------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:this stepper remembers")
@pytest.mark.parametrize("scheme", ["etdrk4", "imex"])
@pytest.mark.parametrize("case", ["1", "4", "5", "10", "11", "dispersion_0.5_3", "cubic_1.5"])
def test_without_noise_models_are_found_within_one_percent(ks, options, data, case, scheme):
    """Also where the model takes other, longer steps than the truth."""
    _, _, clean = data
    truly = ks.equation("", clean.before)
    lacks = ks.library.coefficients(ks.LIBRARY, truly, ks.equation(case, clean.before), clean.before[:4])[0]
    score = ks.Score(lacks, ks.discover(case, replace(options, scheme=scheme), 0.0, clean, 0))
    assert score.right
    assert score.error < (0.01 if scheme == "etdrk4" else 1.0)


def test_noise_needs_the_filter(finished):
    out, _ = finished("medida_ks")
    models = json.loads((out / "summary.json").read_text())["results"]["models"]["1"]
    assert models["filter"]["right"]
    assert models["filter"]["error"] < 5 < models["as observed"]["error"]
    with xr.open_dataset(out / "table.nc") as ds:
        truth, found, std = (ds[n].sel(model="1", estimate="filter").values for n in ("missing", "lacks", "std"))
    assert np.abs(found - truth).max() < 4 * std.max()


# -- refusals --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--case 13", "no model '13'; there are 1, 2"),
        ("--nx 32", "--nx must be from 64"),
        ("--noise 2", "--noise must be from 0 to 1"),
        ("--members 0.001", "such that there are 2"),
        ("--steps 0", "--steps must be from 1"),
    ],
)
def test_bad_options_are_refused(call, tmp_path, arguments, message):
    ended = call("--preset", "quick", *arguments.split(), "--out", tmp_path / "run", case="medida_ks")
    refused(ended, message)
    assert not (tmp_path / "run").exists()
