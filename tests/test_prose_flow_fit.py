"""Coefficients and terms of flows from frames with and without noise."""

import pytest
import torch

from sciml.equation.expression import parse, to_text
from sciml.grid import Grid
from sciml.prose.flow_data import random_eddies, random_maps, record
from sciml.prose.flow_fit import fit_flow, form_of, predict_flow, rank_flows, select_terms
from sciml.prose.flow_solver import flow_solver, tabulated
from sciml.prose.flows import structure, written_member

N = 24
VALUES = dict(F=4.0, beta=0.8, r=0.05, h=0.7, nu=5e-3)
TERMS = frozenset({"radius", "beta", "drag", "topography", "viscosity"})


def frames_of(member, count=8, seed=0):
    """Frames ``(count, layers, N, N)`` and the map of the topography."""
    rng, grid = torch.Generator().manual_seed(seed), Grid(N)
    eta, psi = random_maps(1, grid, rng)[0], random_eddies(1, 1, grid, rng, (0.3, 0.4))[0, 0, : member.layers]
    solver = flow_solver(*tabulated([member.expressions]), grid, eta)
    return record(solver, solver.pv(grid.fft(psi)[None]), count, 1.0, spin_up=2.0)[:, 0], eta


@pytest.fixture(scope="module")
def one():
    member = written_member("one", 1, TERMS, VALUES)
    return (member, *frames_of(member, 13))


def noisy(frames, size=0.02, seed=1):
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(frames.shape, generator=rng, dtype=torch.float64)
    return frames + size * frames.std((-2, -1), keepdim=True) * noise


def test_clean_frames_give_the_equation_back(one):
    member, frames, eta = one
    fit = fit_flow(structure(1, TERMS), frames[:8], eta)
    assert fit.values == pytest.approx(VALUES, rel=1e-4)
    assert fit.expressions == member.expressions
    assert fit.misfit < 1e-5
    assert fit.state.shape == (1, N, N)


def test_two_layers_are_fitted_too():
    values = dict(F1=5.0, F2=2.0, U=0.2, beta=0.6, r=0.05, nu4=5e-5)
    member = written_member("two", 2, ["radius", "shear", "beta", "drag", "hyperviscosity"], values)
    frames, _ = frames_of(member, 5)
    fit = fit_flow(structure(2, member.terms), frames)
    assert fit.values == pytest.approx(values, rel=5e-3)


def test_noise_biases_nothing(one):
    """Errors stay within a few standard errors, and viscosity (which noise in regressors would spoil) within 10 %."""
    _, frames, eta = one
    fits = [fit_flow(structure(1, TERMS), noisy(frames[:8], seed=s), eta) for s in range(3)]
    for name, value in VALUES.items():
        errors = torch.tensor([fit.values[name] - value for fit in fits])
        assert abs(float(errors.mean())) < 3 * max(fit.errors[name] for fit in fits)
    assert all(abs(fit.values["nu"] / VALUES["nu"] - 1) < 0.15 for fit in fits)
    assert all(max(fit.errors[n] / v for n, v in VALUES.items()) < 0.1 for fit in fits)


def test_estimated_state_has_less_noise_than_the_frame(one):
    _, frames, eta = one
    seen = noisy(frames[:8])
    fit = fit_flow(structure(1, TERMS), seen, eta)
    assert (fit.state - frames[7]).norm() < 0.5 * (seen[7] - frames[7]).norm()
    ahead = predict_flow(fit.expressions, fit.state, 5, eta)
    assert (ahead[-1] - frames[12]).norm() < 0.05 * frames[12].norm()


def test_forecast_with_the_equation_is_the_flow(one):
    member, frames, eta = one
    ahead = predict_flow(member.expressions, frames[7], 5, eta)
    assert torch.allclose(ahead, frames[8:], rtol=0, atol=1e-12)


def test_selection_finds_the_terms(one):
    _, frames, eta = one
    candidates = TERMS | {"jet1", "hyperviscosity"}
    terms, fit = select_terms(noisy(frames[:8], 0.01), eta, candidates=candidates, steps_per_day=4)
    assert terms == TERMS
    assert fit.values["beta"] == pytest.approx(0.8, rel=0.02)


def test_structures_are_ranked(one):
    _, frames, eta = one
    forms = [structure(1, TERMS - {"drag"}), structure(1, TERMS), structure(1, TERMS | {"jet2"})]
    best, *rest = rank_flows(forms, noisy(frames[:8]), eta, steps_per_day=4)
    assert best.values.keys() == VALUES.keys()
    assert best.bic < rest[0].bic < rest[1].bic


def test_written_flows_are_fitted_from_their_own_numbers(one):
    member, frames, eta = one
    wrong = [parse(to_text(e).replace("0.8*", "0.6*").replace("4*", "3.2*")) for e in member.expressions]
    form, start = form_of(wrong)
    assert sorted(start.values()) == [0.005, 0.05, 0.6, 0.7, 3.2]
    fit = fit_flow(form, frames[:8], eta, start=start)
    assert fit.expressions == member.expressions


def test_equal_numbers_share_a_parameter():
    rows = ["-J(psi1, q1) - dx(psi1)", "-J(psi2, q2) - 0.5*lap(psi2) - dx(psi2)"]
    rows += ["lap(psi1) - 4*psi1 + 4*psi2", "lap(psi2) + 2*psi1 - 2*psi2"]
    form, start = form_of([parse(row) for row in rows])
    assert sorted(start.values()) == [0.5, 1, 2, 4]
    assert to_text(form[2]) == "lap(psi1) + c2*psi2 - c2*psi1"
    with pytest.raises(ValueError, match="numbers only"):
        form_of(form)


def test_frames_that_do_not_fit():
    with pytest.raises(ValueError, match=r"must be \(2 or more, 1, n, n\)"):
        fit_flow(structure(1, []), torch.zeros(8, 2, N, N))
    moving = torch.randn(8, 1, N, N, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="give the map eta"):
        fit_flow(structure(1, ["topography"]), moving)
    with pytest.raises(ValueError, match="all frames are the same"):
        select_terms(moving[:1].expand(8, -1, -1, -1))
    with pytest.raises(ValueError, match=r"a speed of .* is none of a flow in a box of side 2 pi"):
        select_terms(1e4 * moving)
    with pytest.raises(ValueError, match="every, the days between two frames, must be positive, got -1"):
        select_terms(moving, every=-1)
    with pytest.raises(ValueError, match=r"a frame of this flow is \(1, n, n\), got \(2, 32, 32\)"):
        predict_flow([parse("-J(psi1, q1)"), parse("lap(psi1)")], torch.zeros(2, 32, 32), 3)
