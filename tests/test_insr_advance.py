"""Restarts, splitting, nodes by residual and the running estimate of the error; equations of third and fourth order."""

from __future__ import annotations

import math

import pytest
import torch

import sciml as sm
from sciml.equation.expression import Field
from sciml.field import Siren
from sciml.insr.domain import Box
from sciml.insr.refined import drawn, refined, residuals
from sciml.insr.refit import refit, semi_lagrangian
from sciml.insr.restart import large_residual, restarting, short_steps
from sciml.insr.runge_kutta import TABLEAUS
from sciml.insr.solve import primal
from sciml.insr.splitting import lie, strang
from sciml.insr.systems import momentum, strong
from sciml.insr.tangent import linearised
from tests.conftest import relative
from tests.test_insr import BOX, LINE, after, burgers, sinusoid, vortices

OWN = sm.tangent(epsilon=1e-8, tolerance=1e-8)
NET = sinusoid(width=10)


def l2(a, b) -> float:
    """Relative error in the mean square."""
    return float((a - b).norm() / b.norm())


# -- splitting -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("split", "order"), [(lie, 1), (strang, 2)])
def test_order_of_splitting(split, order):
    """Of advection and viscosity, against both together: what is left is that they do not commute."""
    parts = [(strong(burgers()[0], [name]), OWN) for name in ("advection", "viscosity")]
    together = after(OWN, 0.4)
    errors = [relative(after(split(*parts), dt), together) for dt in (0.4, 0.2)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.4)
    assert errors[1] > 1e-6, "they differ at all"


def test_parts_that_commute_are_split_exactly():
    """Advection by characteristics, fitted anew, and diffusion along the tangent space, in one long step."""
    eq = sm.equation.Advection(grid=LINE, U=0.7, kappa=0.05)
    flow = refit(semi_lagrangian(lambda before, x: torch.tensor([0.7, 0.0], dtype=torch.float64).expand_as(x)), 40)
    method = lie((strong(eq, ["advection"]), flow), (strong(eq, ["diffusion"]), OWN))
    step = sm.insr(eq, sinusoid(), 2.0, method, samples=300)
    start = torch.exp(torch.sin(LINE.x))[None]
    exact = sm.rollout(sm.etdrk4(eq, 0.5), 4, every=4)(start).fields[-1]
    assert relative(step.read(step(step.init(start))), exact) < 2e-4


def test_parts_of_other_equations_are_refused():
    eq, step, state = burgers()
    other = strong(sm.equation.Vorticity(grid=BOX))
    with pytest.raises(ValueError, match="not what the equation steps"):
        sm.insr(eq, step.net, 0.1, strang((other, OWN)), samples=300)(state)


# -- restarts --------------------------------------------------------------------------------------------------------
def test_weights_begin_anew_where_they_are_worn():
    """And only there, and only if the fit is good."""
    eq, step, state = burgers()

    def run(*options):
        return sm.insr(eq, NET, 0.1, restarting(OWN, *options), samples=300)(state)

    plain = sm.insr(eq, NET, 0.1, OWN, samples=300)(state)
    assert torch.equal(run(large_residual(math.inf)).z, plain.z)
    assert torch.equal(run(large_residual(0.0), 1e-12).z, plain.z), "the fit is thrown away"
    anew = run(short_steps(10.0))
    assert relative(anew.z, plain.z) > 1e-3
    assert l2(step.read(anew), step.read(plain)) < 1e-4
    assert anew.memory[1][3] > plain.memory[1][3], "the error of the fit is counted"
    assert anew.memory[1][2] > plain.memory[1][2]
    assert anew.time == plain.time


def test_a_restart_helps_where_no_step_is_short_enough():
    """An advance that gives up on all weights but those of a fresh fit."""
    eq, step, state = burgers()
    moved = step(state)

    def picky(step, state, x, root):
        if torch.equal(state.z, moved.z):
            raise FloatingPointError("no step is short enough")
        return OWN(step, state, x, root)

    going_on = sm.insr(eq, NET, 0.1, restarting(picky), samples=300)
    assert l2(step.read(going_on(moved)), step.read(step(moved))) < 1e-4
    with pytest.raises(sm.BlowUp, match="short enough"):
        sm.insr(eq, NET, 0.1, restarting(picky, tolerance=1e-12), samples=300)(moved)
    with pytest.raises(ValueError, match="tolerance must be positive"):
        restarting(OWN, tolerance=0.0)


# -- the estimate of the error ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("epsilon", [1e-8, 1e-4])
def test_the_estimate_is_near_the_error(epsilon):
    """Against the spectral solver, where residuals are small and where epsilon makes them large."""
    eq, step, state = burgers()
    step = sm.insr(eq, step.net, 0.2, sm.tangent(epsilon=epsilon, tolerance=1e-6), samples=300)
    truth = sm.rollout(sm.etdrk4(eq, 0.01), 80, every=80)(burgers_start()).fields[-1]
    for _ in range(4):
        state = step(state)
    error, estimate = l2(step.read(state), truth), float(state.memory[1][3])
    assert error / 2 < estimate < 20 * error


def burgers_start():
    return (1 + torch.sin(LINE.x) / 2)[None]


def test_forms_that_project_have_no_estimate():
    step, state = vortices()
    assert math.isnan(float(step(state).memory[1][3]))
    assert not momentum(sm.equation.Vorticity(grid=BOX)).measures


# -- nodes by residual -----------------------------------------------------------------------------------------------
def test_nodes_drawn_by_residual_integrate():
    """Sums over a few nodes are integrals over all, for any density that is positive."""
    x, weight = Box(LINE).nodes(4000, torch.Generator())
    density = weight * (0.2 + torch.exp(-10 * (x[:, 0] - 2) ** 2))
    kept, root = drawn(weight, density / density.sum(), 500)
    assert float(root.square().sum()) == pytest.approx(1.0, abs=2e-3)
    f = torch.sin(x[:, 0]) ** 2
    assert float((root.square() * f[kept]).sum()) == pytest.approx(0.5, abs=2e-3)
    near = (x[kept, 0] - 2).abs() < 0.5
    assert float(near.double().mean()) > 2 * float(((x[:, 0] - 2).abs() < 0.5).double().mean())


def test_residuals_at_places_are_those_of_least_squares():
    eq, step, state = burgers()
    x, root = step.nodes(torch.Generator())
    missing = (residuals(step, state, x, root, x, 1e-4, primal) * root).norm()
    with torch.no_grad():
        jet = step.net.jet(step.domain.jet(x, 2)) * state.memory[0]
    f = step.system.read(step.system.right, jet, step.coords(x, 0.0))
    once = sm.insr(eq, step.net, 1e-6, sm.tangent(TABLEAUS["euler"], epsilon=1e-4), samples=300)
    assert float(missing / (f * root).norm()) == pytest.approx(float(once(state).memory[1][0]), rel=1e-3)


def test_nodes_by_residual_see_a_thin_pulse():
    """Thinner than the spacing of 220 even nodes: what is left by the slope of few nodes, looked at on many."""
    grid = sm.Grid(512, 1, Lx=4.0, Ly=1.0, x0=-2.0, y0=0.0, dealias=3 / 2)
    eq, net = sm.equation.Burgers(grid=grid, nu=2e-3), Siren(grid, 1, (8, 8), omega=4.0)
    step = sm.insr(eq, net, 0.05, samples=1000, iterations=100)
    state = step.init(torch.exp(-((grid.x / 0.015) ** 2) / 2)[None])
    many, weight = Box(grid).nodes(3000, torch.Generator())
    J, _, f, _ = linearised(step, state.z, 0.0, many, weight.sqrt(), state.memory[0], ())

    def left(x, root):
        own, _, g, _ = linearised(step, state.z, 0.0, x, root, state.memory[0], ())
        return float((J @ primal(own, g, 1e-8) - f).norm())

    x, weight = Box(grid).nodes(220, torch.Generator())
    chosen = []
    refined(lambda step, state, x, root: chosen.append((x, root)))(step, state, x, weight.sqrt())
    least = float((J @ primal(J, f, 1e-8) - f).norm())
    assert left(x, weight.sqrt()) > 1.15 * least
    assert left(*chosen[0]) < 1.08 * least
    with pytest.raises(ValueError, match="candidates must be at least 2"):
        refined(OWN, candidates=1)


# -- equations of third and fourth order -----------------------------------------------------------------------------
def test_a_soliton():
    """Of Korteweg and de Vries, 2 p^2 sech^2(p (x - 4 p^2 t)); the mean stays."""
    grid = sm.Grid(128, 1, Lx=20.0, Ly=1.0, x0=-10.0, y0=0.0, dealias=3 / 2)
    eq, net = sm.equation.KortewegDeVries(grid=grid), Siren(grid, 1, (10, 10), omega=2.0)

    def soliton(t):
        return (2 / torch.cosh(grid.x - 4 * t) ** 2)[None]

    step = sm.insr(eq, net, 0.1, sm.tangent(epsilon=1e-9, tolerance=1e-5), samples=300, iterations=150)
    first = state = step.init(soliton(0.0))
    for _ in range(2):
        state = step(state)
    assert l2(step.read(state), soliton(0.2)) < 2e-3
    assert l2(soliton(0.2), soliton(0.0)) > 0.5, "it has moved"
    u = [Field("u")]
    assert relative(step.mean(state, u, 2000), step.mean(first, u, 2000)) < 1e-3


def test_a_field_of_kuramoto_and_sivashinsky():
    """Against the spectral solver, while waves grow and steepen."""
    grid = sm.Grid(64, 1, Lx=22.0, Ly=1.0, x0=0.0, y0=0.0, dealias=3 / 2)
    eq, net = sm.equation.KuramotoSivashinsky(grid=grid), Siren(grid, 1, (10, 10), omega=1.5)
    start = (torch.cos(2 * math.pi * grid.x / 11) + torch.sin(2 * math.pi * grid.x / 22) / 2)[None]
    truth = sm.rollout(sm.etdrk4(eq, 0.01), 200, every=200)(start).fields[-1]
    step = sm.insr(eq, net, 0.5, sm.tangent(epsilon=1e-9, tolerance=1e-5), samples=300, iterations=150)
    state = step.init(start)
    for _ in range(4):
        state = step(state)
    assert l2(step.read(state), truth) < 2e-3
    assert l2(truth, start) > 0.3, "it has changed"


# -- what cannot work ------------------------------------------------------------------------------------------------
def advection(**options):
    eq = sm.equation.Advection(grid=LINE, U=0.7)
    return sm.insr(eq, sinusoid(), 0.1, **{"samples": 300, "iterations": 60} | options)


@pytest.mark.parametrize(("options", "message"), [
    ({"samples": 300.5}, r"samples must be a whole number of at least 1, got 300\.5"),
    ({"iterations": -1}, "iterations must be a whole number of at least 0"),
])  # fmt: skip
def test_numbers_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        advection(**options)


def test_moving_weights_and_starts_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="moving is a number of weights"):
        sm.tangent(moving=-5)
    with pytest.raises(ValueError, match=r"fields \(n, ny, nx\) or a function, got \(3, 1, 1, \d+\)"):
        advection().init(torch.exp(torch.sin(LINE.x)).expand(3, 1, 1, -1))


@pytest.mark.parametrize("densities", [(Field("c"), Field("c")), (0 * Field("c"), Field("c")), (0 * Field("c"),)])
def test_densities_that_say_nothing_new_do_no_harm(densities):
    """The mean of c is conserved by those that name it, once or twice, and a density of nothing changes nothing."""
    start = torch.exp(torch.sin(LINE.x))[None]
    step = advection(method=sm.tangent(tolerance=1e-4, conserve=densities))
    run = sm.rollout(step, 3, save=lambda s: step.mean(s, [Field("c")]))(start)
    assert torch.isfinite(run.fields).all()
    drift = float((run.fields[-1] / run.fields[0] - 1).abs())
    assert drift < (1e-6 if Field("c") in densities else 1e-3)
