"""The batched solver against the package's equations and exact solutions, and the windows made with it."""

import math

import pytest
import torch

from sciml.equation.expression import parse
from sciml.equation.layered import TwoLayerQG
from sciml.grid import Grid
from sciml.prose.flow_data import Flows, generate_flows, random_eddies, random_maps, rms_speed
from sciml.prose.flow_solver import coefficient_function, flow_solver, tabulated
from sciml.prose.flows import FLOWS, as_equation, structure, written_member
from sciml.step import etdrk4
from tests.conftest import relative

GRID = Grid(24)


def eddies(count: int, layers: int, rng) -> torch.Tensor:
    return GRID.fft(random_eddies(1, count, GRID, rng, (0.2, 0.4))[0, :, :layers])


def wave(name="wave", terms=(), m=2, n=1, **values):
    """Solver of one layer, its state with a single wave, and the wave."""
    terms_, table = tabulated([written_member(name, 1, terms, values).expressions])
    solver, psi = flow_solver(terms_, table, GRID), torch.cos(m * GRID.x + n * GRID.y)
    return solver, solver.pv(GRID.fft(psi)[None, None]), psi


def after(solver, z, days, steps_per_day=16):
    return GRID.ifft(solver.psi(solver.run(z, days, days * steps_per_day)))[0, 0]


# -- the solver ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", FLOWS)
def test_batched_members_step_as_the_package_does(family, rng):
    members = FLOWS[family].sample(4, rng)
    eta, psi = random_maps(4, GRID, rng), eddies(4, members[0].layers, rng)
    solver = flow_solver(*tabulated([m.expressions for m in members]), GRID, eta)
    z = solver.pv(psi)
    tendencies, ends = solver.tendency(z), solver.run(z, 1.0, 32)
    for i, member in enumerate(members):
        equation = as_equation(member.expressions, GRID, eta[i])
        assert relative(tendencies[i], equation.tendency(z[i])) < 1e-12
        step = etdrk4(equation, 1 / 32)
        state = step.init(equation.read(z[i]))
        for _ in range(32):
            state = step(state)
        assert relative(ends[i], state.z) < 1e-6


@pytest.mark.parametrize("F", [0.0, 5.0])
def test_rossby_waves_have_their_exact_phase_speed(F):
    terms = ["beta", "viscosity"] + (["radius"] if F else [])
    solver, z, _ = wave(terms=terms, beta=1.5, F=F, nu=0.01)
    angle = 1.5 * 2 / (5 + F) * 3
    expected = math.exp(-0.01 * 5 * 3) * torch.cos(2 * GRID.x + GRID.y + angle)
    assert relative(after(solver, z, 3), expected) < 1e-6


def test_drag_and_relaxation_have_their_exact_rates():
    solver, z, psi = wave(terms=["drag"], r=0.1)
    assert relative(after(solver, z, 3), math.exp(-0.3) * psi) < 1e-8
    solver, z, psi = wave(terms=["drag", "radius", "relaxation"], r=0.1, F=3.0, s=0.2)
    assert relative(after(solver, z, 3), math.exp(-(0.1 * 5 + 0.2) / (5 + 3) * 3) * psi) < 1e-8


def test_relaxation_ends_in_the_jet():
    solver, z, _ = wave(terms=["relaxation", "jet2", "drag"], s=3.0, jet2=0.6, r=0.5)
    expected = 0.6 / (3.0 + 0.5 * 4) * torch.cos(2 * GRID.y).expand(24, 24)
    assert relative(after(solver, 0 * z, 30), expected) < 1e-6


def test_steps_are_of_fourth_order(rng):
    solver = flow_solver(*tabulated([m.expressions for m in FLOWS["two_layer"].sample(2, rng)]), GRID, GRID.y + GRID.x)
    z = solver.pv(eddies(2, 2, rng))
    best = solver.run(z, 2.0, 128)
    errors = [(solver.run(z, 2.0, n) - best).abs().max() for n in (8, 16)]
    assert float(errors[0] / errors[1]) == pytest.approx(16, rel=0.25)


def test_energy_and_enstrophy_are_conserved_without_damping(rng):
    member = written_member("free", 2, ["radius", "beta"], dict(F1=8.0, F2=2.0, beta=1.0))
    solver = flow_solver(*tabulated([member.expressions]), GRID)
    z = solver.pv(eddies(1, 2, rng))
    end = solver.run(z, 5.0, 320)
    theirs = TwoLayerQG(grid=GRID, rd=10**-0.5, delta=0.25)
    assert relative(theirs.energy(end), theirs.energy(z)) < 1e-8
    assert float((theirs.energy(z) - theirs.energy(0.9 * z)).abs() / theirs.energy(z)) > 0.1
    free = flow_solver(*tabulated([written_member("f", 2, ["radius"], dict(F1=8.0, F2=2.0)).expressions]), GRID)
    enstrophy = GRID.mean_square(z)
    assert relative(GRID.mean_square(free.run(z, 5.0, 320)), enstrophy) < 1e-7
    assert relative(end, z) > 0.3


def test_coefficients_of_parameters_are_differentiable():
    terms, table = coefficient_function(structure(1, ["beta", "radius"]))
    F = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    solver = flow_solver(terms, table({"F": F, "beta": torch.ones_like(F)}), GRID)
    wave = solver.pv(GRID.fft(torch.cos(GRID.x + 0 * GRID.y))[None, None])
    speed = (solver.tendency(wave.detach())[0, 0, 1, 0] / wave.detach()[0, 0, 1, 0]).imag
    (slope,) = torch.autograd.grad(speed, F)
    assert speed.item() == pytest.approx(1 / 4)
    assert slope.item() == pytest.approx(-1 / 16)


@pytest.mark.parametrize(("rows", "message"), [
    (["-J(psi1, q1)*q1", "lap(psi1)"], "cannot step the term"),
    (["-J(q1, psi1)", "lap(psi1)"], r"row 1 may have J\(psi1, f\)"),
    (["-J(psi1, eta)", "lap(psi1)"], "give the map eta"),
    (["dx(phi)", "lap(psi1)"], r"unknown fields \['phi'\]"),
])  # fmt: skip
def test_terms_that_the_solver_does_not_know(rows, message):
    with pytest.raises(ValueError, match=message):
        flow_solver(*tabulated([[parse(row) for row in rows]]), GRID)


def test_tables_of_unlike_flows_are_refused(rng):
    one, two = (FLOWS[f].sample(1, rng)[0].expressions for f in ("barotropic", "two_layer"))
    with pytest.raises(ValueError, match=r"flows of \[1, 2\] layers"):
        tabulated([one, two])
    with pytest.raises(ValueError, match="no number"):
        tabulated([structure(1, ["beta"])])


# -- windows ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def members():
    rng = torch.Generator().manual_seed(2)
    return [m for family in FLOWS.values() for m in family.sample(2, rng)]


@pytest.fixture(scope="module")
def flows(members) -> Flows:
    return generate_flows(members, 2, seed=1, frames=11, spin_up=3)


def test_windows(flows, members):
    assert flows.frames.shape == (len(flows), 11, 2, 32, 32)
    assert flows.names == tuple(FLOWS)
    assert flows.eta.shape == (8, 32, 32)
    assert torch.allclose(flows.eta.square().mean((-2, -1)), torch.ones(8), atol=1e-5)
    assert flows.equations == [m.expressions for m in members]
    assert torch.equal(flows.t, torch.arange(11.0))
    one_layer = flows.family[flows.equation] < 3
    assert not flows.frames[one_layer, :, 1].any()
    assert flows.frames[~one_layer, :, 1].abs().amax((1, 2, 3)).min() > 0.005


def test_windows_are_lively(flows):
    first, last = flows.frames[:, 0], flows.frames[:, 10]
    forgotten = (last - first).square().sum((1, 2, 3)).sqrt() / last.square().sum((1, 2, 3)).sqrt()
    assert forgotten.median() > 0.7
    assert rms_speed(flows.frames).min() > 0.02


def test_same_seed_same_bits(flows, members):
    again, other = (generate_flows(members, 2, seed=s, frames=11, spin_up=3) for s in (1, 2))
    assert torch.equal(again.frames, flows.frames)
    assert torch.equal(again.eta, flows.eta)
    assert not torch.equal(other.eta, flows.eta)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_windows(flows, members):
    there = generate_flows(members, 2, seed=1, frames=11, spin_up=3, device="cuda")
    assert relative(there.frames, flows.frames) < 1e-2
    assert there.frames.device.type == "cpu"


def test_resolution_changes_neither_maps_nor_eddies():
    fine, coarse = Grid(48), Grid(32)
    for draw in (lambda g, r: random_maps(2, g, r), lambda g, r: random_eddies(1, 2, g, r, (0.1, 0.2))):
        a, b = (draw(g, torch.Generator().manual_seed(4)) for g in (fine, coarse))
        assert relative(fine.resample(a, coarse), b) < 1e-12


def test_selections_and_splits(flows):
    train, test = flows.split(0.25, seed=0)
    assert len(train) + len(test) == len(flows)
    assert not set(train.equation.tolist()) & set(test.equation.tolist())
    assert len(set(flows.family[test.equation].tolist())) == 4
    assert torch.equal(flows.select(torch.tensor([3])).frames[0], flows.frames[3])
    assert flows.to("cpu").frames.device.type == "cpu"
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        flows.split(1, seed=0)


def test_equal_equations_stay_together(members):
    twins = generate_flows([members[0], members[1], members[0]], 1, seed=0, frames=1, spin_up=0)
    sides = [set(side.equation.tolist()) for side in twins.split(0.5)]
    assert {0, 2} in sides
    with pytest.raises(ValueError, match="'barotropic' has one equation only"):
        generate_flows([members[0]] * 2, 1, seed=0, frames=1, spin_up=0).split(0.5)


def test_windows_that_cannot_be(members):
    with pytest.raises(ValueError, match="at least one window"):
        generate_flows(members, 0, seed=0)
    with pytest.raises(ValueError, match=r"no window kept its rms speed within \(5, 6\)"):
        generate_flows(members[:1], 1, seed=0, frames=1, spin_up=0, bounds=(5, 6))
