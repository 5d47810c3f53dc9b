"""Cases of neural-field stepping: going on after an interruption, the solvers beside, what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

import sciml as sm
from sciml.files import load_tensors
from sciml.initial import taylor_green
from tests.case_fixtures import refused, stopping
from tests.conftest import relative

SHORT = ["--preset", "quick", "--width", "6", "--iterations", "30", "--end", "1"]


@pytest.fixture
def neural():
    return import_module("neural")


def test_a_run_goes_on_where_it_was_interrupted(call, tmp_path, monkeypatch, neural):
    """To the same weights, bit for bit."""
    line = [*SHORT, "--out"]
    assert call(*line, tmp_path / "whole", case="insr_advection").status == 0
    with monkeypatch.context() as patch:
        patch.setattr(neural, "keep", stopping(neural.keep, 5))
        assert call(*line, tmp_path / "part", case="insr_advection").status == 130
    assert call(*line, tmp_path / "part", "--resume", case="insr_advection").status == 0
    runs = [load_tensors(tmp_path / n / "state.safetensors") for n in ("whole", "part")]
    assert torch.equal(runs[0][0]["state.theta"], runs[1][0]["state.theta"])
    errors = [json.loads((tmp_path / n / "summary.json").read_text())["results"]["errors"] for n in ("whole", "part")]
    assert errors[0] == errors[1]
    assert len(errors[0]) == 25


@pytest.mark.parametrize(
    ("case", "arguments"),
    [
        ("insr_advection", ["--end", "1"]),
        pytest.param("insr_taylor_green", ["--end", "0.5"], marks=pytest.mark.slow),
        ("insr_elastic", ["--scene", "stretch"]),
        ("insr_elastic", ["--scene", "twist", "--iterations", "3", "--tolerance", "0.5"]),
    ],
)
def test_a_film_has_a_frame_for_each_output(case, arguments, call, tmp_path):
    """Of lines, of maps, of a plane and of a solid body; the frames differ."""
    line = ["--preset", "quick", "--width", "6", *(["--iterations", "30"] if "twist" not in arguments else [])]
    assert call(*line, *arguments, "--movie", "--out", tmp_path, case=case).status == 0
    with xr.open_dataset(tmp_path / "fields.nc") as ds, Image.open(tmp_path / "movie.gif") as film:
        assert film.n_frames == ds.sizes["time"]
        frames = []
        for i in (0, film.n_frames - 1):
            film.seek(i)
            frames.append(np.asarray(film.convert("L"), float)[film.height // 5 :])
    assert np.abs(frames[1] - frames[0]).mean() > 0.5


def test_a_run_goes_on_with_its_own_options_only(call, tmp_path):
    refused(call(*SHORT, "--resume", "--out", tmp_path, case="insr_advection"), "no state in")
    assert call(*SHORT, "--out", tmp_path, case="insr_advection").status == 0
    refused(call(*SHORT, "--resume", "--omega", "3", "--out", tmp_path, case="insr_advection"), "another --omega")


@pytest.mark.parametrize(
    ("case", "arguments", "message"),
    [
        ("insr_advection", ["--scheme", "nothing"], "there are euler, midpoint, rk4"),
        ("insr_advection", ["--method", "refit", "--scheme", "rk4"], "there are explicit_euler"),
        ("insr_advection", ["--method", "refit", "--restart"], "goes with --method tangent"),
        ("insr_advection", ["--step", "0.7"], "go whole times into 0.5"),
        ("insr_advection", ["--step", "-1"], "--step must be above 0"),
        ("insr_advection", ["--boundary", "penalty"], "go together"),
        ("insr_advection", ["--end", "20", "--boundary", "dirichlet"], "at most 13 s, when the pulse is near a wall"),
        ("insr_advection", ["--samples", "0.3"], "do not fix"),
        ("insr_advection", ["--width", "0"], "--width must be from 1"),
        ("insr_burgers", ["--nu", "1e-6"], "--nu must be from 0.0001 to 1"),
        ("insr_allen_cahn", ["--kappa", "0"], "--kappa must be from 0.001 to 1"),
        ("insr_qg", ["--days", "0"], "from 1 to 100"),
        ("insr_sphere", ["--degree", "0"], "from 1 to 12"),
        ("insr_turbulence", ["--nu", "1e-5"], "--nu must be from 0.002 to 1"),
        ("insr_teng", ["--D", "0"], "--D must be from 0.01 to 10"),
        ("insr_taylor_green", ["--nu", "-1"], "--nu must be from 0 to 1"),
    ],
)
def test_what_cannot_work_is_refused(case, arguments, message, call, tmp_path):
    refused(call("--preset", "quick", *arguments, "--out", tmp_path, case=case), message)


def test_a_march_that_ends_early_says_where_its_last_state_is(call, tmp_path):
    line = "--preset quick --width 6 --iterations 20 --scheme euler --epsilon 1e-15 --nu 1 --end 4".split()
    ended = call(*line, "--out", tmp_path / "o", case="insr_burgers")
    refused(ended, "use a larger epsilon; the last good state, at t = .*, is in .*state.safetensors")
    assert (tmp_path / "o" / "state.safetensors").stat().st_size > 0


# -- solvers beside --------------------------------------------------------------------------------------------------
def test_classical_solvers_converge(neural):
    """Of the Gaussian pulse, which more points resolve better."""
    case = import_module("insr_advection")
    p = case.problem(replace(case.Options(), end=1.0))
    errors = [neural.classical(p, n, 1).error for n in (32, 64, 128)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    rows = neural.rivals(p, 64, 1e9)
    assert rows[0].error == pytest.approx(errors[1])
    assert rows[1].numbers == 1024, "the finest, with all the time it needs"


def test_central_differences_have_the_known_error():
    """6.6e-2 with 901 points and steps of 0.05 s."""
    case = import_module("insr_advection")
    assert case.differences(901, 12.0).error == pytest.approx(6.6e-2, rel=0.03)


def test_the_spectral_solver_on_the_sphere_keeps_the_wave():
    case = import_module("insr_sphere")
    row = case.spectral(6, 1.0)
    assert row.numbers == 48
    assert row.error < 1e-6


def test_vortices_of_two_scales_have_no_mean():
    case = import_module("insr_taylor_green")
    grid = sm.Grid(96, 96, Lx=2.0, Ly=2.0, x0=-1.0, y0=-1.0)
    omega = case.vortices(grid)
    assert float(omega.mean().abs()) < 1e-12
    eq = sm.equation.Vorticity(grid=grid)
    u, v = case.velocity(eq, -taylor_green(grid))
    assert relative(u, torch.cos(math.pi * grid.x) * torch.sin(math.pi * grid.y)) < 1e-12
    assert relative(v, -torch.sin(math.pi * grid.x) * torch.cos(math.pi * grid.y)) < 1e-12
    assert float((u**2 + v**2).mean()) == pytest.approx(2 * import_module("neural").energy(eq, -taylor_green(grid)))


def test_random_eddies_have_unit_velocity():
    case = import_module("insr_turbulence")
    grid = sm.Grid(48, 48, Lx=2 * math.pi, Ly=2 * math.pi, x0=0.0, y0=0.0)
    eq = sm.equation.Vorticity(grid=grid)
    u, v = grid.ifft(eq.velocity(eq.init(case.eddies(eq, 2.0, seed=1))))
    assert float((u**2 + v**2).mean()) == pytest.approx(1.0)


def test_problems_in_two_dimensions():
    """42 coefficients of the start are above 1e-6; a wave of x + y changes twice as fast as in one dimension."""
    case = import_module("insr_teng")
    grid = sm.Grid(64, 64, Lx=2 * math.pi, Ly=2 * math.pi, x0=0.0, y0=0.0, dealias=3 / 2)
    start = case.wave(grid)
    assert int((torch.fft.fft2(start).abs() / 64**2 > 1e-6).sum()) == 42
    eq = case.equation(replace(case.Options(), problem="burgers"), grid)
    line = sm.equation.Burgers(grid=sm.Grid(64, 1, Lx=2 * math.pi, Ly=1.0, x0=0.0, y0=0.0, dealias=3 / 2), nu=0.1)
    found = eq.read(eq.tendency(eq.init(torch.sin(sum(grid.axes()))[None])))
    one = line.read(line.tendency(line.init(torch.sin(line.grid.x)[None])))
    assert relative(found[0, 0], 2 * one[0, 0]) < 1e-10
