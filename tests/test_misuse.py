"""What a newcomer gets wrong is said at once, in one line that names it: the public functions with wrong arguments."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

import sciml as sm
from sciml import testbed
from sciml.assim.base import covariance
from sciml.initial import random_pv
from sciml.observations import QC, check, gridded, observations
from sciml.prose.flow_fit import select_terms
from sciml.step import State
from sciml.superob import superob
from tests import ROOT

EQ = sm.preset("eddy", nx=16)
STEP = sm.ab3(EQ, 7200.0)
Q = random_pv(EQ, seed=0)
RUN = sm.rollout(STEP, 12, every=1)(Q)
Z = EQ.init(RUN.fields)
TERMS = sm.Library(("lap(psi2)",))


def rk4(eq):
    return sm.rk4(eq, 7200.0)


def dataset(members=None):
    return sm.to_dataset(sm.rollout(STEP, 12)(random_pv(EQ, seed=0, members=members)), EQ)


def emulated(**options):
    return sm.emulator(sm.MgNO(2, 2, width=4, layers=1), [dataset()], **options)


def medida(*, stepper=rk4, data=None, library=TERMS, **options):
    return sm.medida(EQ, stepper, sm.pairs(Z, steps=1) if data is None else data, library, **options)


def cycled(analysis=None, windows=None, start=None):
    t = testbed.twin(n=1)
    return sm.cycle(t.step, analysis or sm.OptimalInterpolation(t.B), windows or t.windows, start or State(t.prior[0]))


MISTAKES: dict[str, tuple[Callable, str]] = {
    # equations, grids, steps
    "text for a term": (lambda: EQ + "lap(psi2)", "only terms can be added"),
    "nothing for a term": (lambda: EQ + None, "only terms can be added"),
    "number for an expression": (lambda: sm.Term("q2", "d", 3), "text such as"),
    "term of another field": (lambda: EQ + sm.Term("q9", "d", "lap(psi2)"), "prognostic fields"),
    "term with another field": (lambda: EQ + sm.Term("q2", "d", "lap(psi3)"), "unknown fields.*psi3"),
    "no points": (lambda: sm.preset("eddy", nx=0), "at least one point"),
    "no device": (lambda: sm.Grid(16, device="foo"), "no device 'foo'"),
    "number for a grid": (lambda: sm.LayeredQG(grid=64), "must be a Grid"),
    "negative drag": (lambda: sm.preset("eddy", nx=16, rek=-1.0), "rek takes energy out"),
    "drag as text": (lambda: sm.preset("eddy", nx=16, rek="a"), "rek takes energy out"),
    "parameter not a number": (lambda: sm.ab3(sm.preset("eddy", nx=16, rek=float("nan")), 1.0), "finite number: rek"),
    "arguments of a stepper in turn": (lambda: sm.ab3(7200.0, EQ), "an equation and a number"),
    "time step as text": (lambda: sm.ab3(EQ, dt="7200"), "an equation and a number"),
    "coefficients for fields": (lambda: sm.rollout(STEP, 2)(torch.fft.fft2(Q)), "are complex"),
    "no step": (lambda: sm.rollout(EQ, 2)(Q), "takes a step"),
    "dataset as a start": (lambda: sm.rollout(STEP, 2)(dataset()), "sm.from_dataset"),
    "negative steps": (lambda: sm.rollout(STEP, -1), "not negative"),
    "part of a step": (lambda: sm.rollout(STEP, 10.5), "whole and not"),
    "random PV of another equation": (lambda: random_pv(sm.equation.Lorenz63(), seed=0), "random_field"),
    "eddies below the grid": (lambda: random_pv(EQ, seed=0, scale=1.0), "at least two points"),
    "speed not a number": (lambda: random_pv(EQ, seed=0, speed=float("nan")), "not negative"),
    # spectra
    "no times": (lambda: sm.spectra.from_dataset(dataset().isel(time=slice(0, 0)), EQ, 1.0), "no values of 'q'"),
    "gaps": (lambda: sm.spectra.from_dataset(dataset() * float("nan"), EQ, 1.0), "not finite"),
    # discovery
    "a step for a stepper": (lambda: medida(stepper=STEP), "what makes a step"),
    "texts for a library": (lambda: medida(library=["lap(psi2)"]), "a library such as"),
    "text for a library": (lambda: sm.Library("lap(psi2)"), "tuple of terms"),
    "no library": (lambda: medida(library=sm.Library(())), "a library such as"),
    "states for pairs": (lambda: medida(data=Z), "pairs of states"),
    "text for fields": (lambda: medida(fields="q2"), "list of names"),
    "no fields": (lambda: medida(fields=[]), "list of names"),
    "states of another grid": (
        lambda: sm.medida(sm.preset("eddy", nx=32), rk4, sm.pairs(Z, steps=1), TERMS), "on the grid of the data",
    ),
    "fields for states": (lambda: sm.pairs(RUN.fields, steps=1), "eq.init"),
    "no steps between states": (lambda: sm.pairs(Z, steps=0), "whole numbers from 1"),
    "other interval": (lambda: medida(data=sm.pairs(Z, steps=1, interval=86400.0)), "states are 86400 apart"),
    # emulators
    "no updates": (lambda: emulated(updates=0), "updates must be at least 1"),
    "no batch": (lambda: emulated(updates=2, batch=0), "batch must be at least 1"),
    "short runs": (lambda: emulated(updates=2, every=100), "too short"),
    "dataset for runs": (lambda: sm.emulator(sm.MgNO(2, 2, width=4, layers=1), dataset()), "list of at least one"),
    # assimilation
    "name for an analysis": (lambda: cycled(analysis="letkf"), "method with settings"),
    "class for an analysis": (lambda: cycled(analysis=sm.LETKF), "method with settings"),
    "numbers for windows": (lambda: cycled(windows=[1.0]), "windows of observations"),
    "start not finite": (lambda: cycled(start=State(testbed.twin(n=1).prior[0] * float("nan"))), "start is not finite"),
    "radius in km": (lambda: sm.LETKF(testbed.twin(n=1).space, radius=40.0), "grid's unit"),
    "no samples": (lambda: covariance(EQ.grid, Z[:0]), "samples are states"),
    "samples of another grid": (lambda: covariance(sm.Grid(32), Z), "of this grid"),
    "samples not finite": (lambda: covariance(EQ.grid, Z * float("nan")), "not finite"),
    "grid for a covariance": (lambda: sm.FourDVar(EQ.grid), "takes a Covariance"),
    "part of a lag": (lambda: sm.FourDVar(testbed.twin(n=1).B, lag=1.5), "whole number lag"),
    "increment after the window": (lambda: sm.ThreeDVar(testbed.twin(n=1).B, middle=5.0), "part of the window"),
    "negative tolerance": (lambda: sm.OptimalInterpolation(testbed.twin(n=1).B, tolerance=-1.0), "tolerance"),
    # files
    "weights of another kind": (lambda: sm.PROSE.load(ROOT / "data/weights/fuxida_qg.safetensors"), "another kind"),
    "weights for another grid": (
        lambda: sm.FuXiDA.load(ROOT / "data/weights/fuxida_qg.safetensors", *testbed.shown(sm.preset("eddy", nx=32))),
        "is of a network for dx = 15625, this grid has 31250",
    ),
    "a folder for a file": (lambda: sm.PROSE.load(ROOT / "data"), "is a folder"),
    # equations from maps
    "one map": (lambda: select_terms(torch.randn(1, 1, 16, 16)), "two or more maps"),
    "maps that are not square": (lambda: select_terms(torch.randn(4, 1, 16, 24)), "two or more maps"),
    "maps with gaps": (lambda: select_terms(torch.full((4, 1, 16, 16), float("nan"))), "not finite"),
    "bottom of another grid": (lambda: select_terms(torch.randn(4, 1, 16, 16), torch.zeros(8, 8)), "eta is a map"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(name):
    wrong, said = MISTAKES[name]
    with pytest.raises(ValueError, match=said) as caught:
        wrong()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_members_are_runs_of_their_own():
    emulator = sm.emulator(sm.MgNO(2, 2, width=4, layers=1), [dataset(2), dataset(1)], updates=2)
    assert emulator.grid.shape == (16, 16)


def test_steppers_that_each_pair_starts_anew_are_warned_of():
    with pytest.warns(UserWarning, match="remembers earlier steps"):
        medida(stepper=lambda eq: sm.ab3(eq, 7200.0), rounds=1)


def test_observations_in_another_unit_are_warned_of():
    window = testbed.twin(n=1).windows[0]
    obs = window.obs.assign_coords(x=window.obs["x"] / 1e3, y=window.obs["y"] / 1e3)
    with pytest.warns(UserWarning, match="hundredth of the box"):
        sm.windows(obs, window.operator, 0.0, window.dt, window.steps, 1)


def test_observations_that_nobody_checked_are_refused():
    window = testbed.twin(n=1).windows[0]
    for name, value in (("value", float("nan")), ("sigma", -1.0), ("x", float("nan")), ("time", float("nan"))):
        bad = window.obs.assign({name: window.obs[name] * 0 + value})
        for use in (lambda o: replace(window, obs=o), lambda o: superob(o, 1e5, 1e5),
                    lambda o: gridded(o, window.operator.grid, 0.0, 1e9)):  # fmt: skip
            with pytest.raises(ValueError, match=r"observations\.check first"):
                use(bad)


def test_flagged_observations_are_left_out_of_windows():
    window = testbed.twin(n=1).windows[0]
    spoilt = window.obs["value"].values.copy()
    spoilt[::10] += 0.1
    again = replace(window, obs=check(window.obs.assign(value=("obs", spoilt, window.obs["value"].attrs))))
    assert len(again) == 0.9 * len(window)
    assert len(again.sigma) == again.obs.sizes["obs"] == len(again)


def test_fields_of_another_grid_are_no_equivalents():
    t = testbed.twin(n=1)
    H = replace(t.windows[0].operator, fields=lambda z: torch.zeros(*z.shape[:-2], 8, 8, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"gives fields of \(8, 8\) points, the operator.s grid has \(16, 16\)"):
        replace(t.windows[0], operator=H).equivalents(t.prior[:1].expand(16, -1, -1, -1))


@pytest.mark.filterwarnings("ignore:.*gross errors:UserWarning")
def test_fill_values_that_are_most_of_a_channel_are_gross_errors():
    obs = observations([-9999.0] * 60 + [0.1] * 40, 0.1, np.arange(100.0), 5.0, 5.0)
    assert check(obs)["qc"].values[:60].tolist() == [QC["gross_error"]] * 60


def test_interval_that_fits_is_accepted():
    assert medida(data=sm.pairs(Z, steps=2, interval=14400.0), rounds=1).fits
