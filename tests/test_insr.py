"""Neural-field time stepping: orders in time, exact solutions, constraints, what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import pytest
import torch

import sciml as sm
from sciml.equation.expression import Field, dx, dy, lap
from sciml.field import FourierFeatures, NeuralField, Siren, dirichlet
from sciml.initial import random_field, taylor_green
from sciml.insr.build import insr_on_sphere
from sciml.insr.domain import Box, Sphere, shifted, stratified
from sciml.insr.refit import SCHEMES, adam, refit, semi_lagrangian
from sciml.insr.runge_kutta import BOGACKI_SHAMPINE, DORMAND_PRINCE, TABLEAUS, adapted
from sciml.insr.step import size
from sciml.insr.systems import momentum, primitives, series, strong
from sciml.nn.encodings import Coordinates, Harmonics, strongest_waves
from sciml.nn.jets import sines
from tests.conftest import relative

LINE = sm.Grid(64, 1, Lx=2 * math.pi, Ly=1.0, x0=0.0, y0=0.0, dealias=3 / 2)
BOX = sm.Grid(32, 32, Lx=2.0, Ly=2.0, x0=-1.0, y0=-1.0, dealias=3 / 2)


def sinusoid(seed=0, width=8, depth=2):
    return Siren(LINE, 1, (width,) * depth, omega=1.0, seed=seed)


@cache
def burgers():
    """A smooth start of Burgers' equation, fitted once."""
    eq = sm.equation.Burgers(grid=LINE, nu=0.05)
    step = sm.insr(eq, sinusoid(width=10), 0.1, samples=300, iterations=400)
    return eq, step, step.init((1 + torch.sin(LINE.x) / 2)[None])


def after(method, dt, end=0.4):
    """The field of :func:`burgers` at the end, by a method's steps."""
    eq, step, state = burgers()
    step = sm.insr(eq, step.net, dt, method, samples=300)
    for _ in range(round(end / dt)):
        state = step(state)
    return step.sample(state, torch.stack([LINE.x[0], 0 * LINE.x[0]], -1))


# -- orders of convergence -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", TABLEAUS)
def test_order_of_tangent_steps(name):
    """Against a run with steps far shorter: what is left is the method's own error."""
    tableau = TABLEAUS[name]._replace(error=())
    steps = {1: (0.05, 0.025), 2: (0.1, 0.05), 3: (0.2, 0.1), 4: (0.2, 0.1), 5: (0.4, 0.2)}[tableau.order]
    fine = after(sm.tangent(TABLEAUS["dormand_prince"]._replace(error=()), epsilon=1e-5), 0.025)
    errors = [relative(after(sm.tangent(tableau, epsilon=1e-5), dt), fine) for dt in steps]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(tableau.order, abs=0.6)


@pytest.mark.parametrize("name", SCHEMES)
def test_order_of_fitted_steps(name):
    """Against the spectral solver."""
    eq, step, state = burgers()
    end = sm.rollout(sm.etdrk4(eq, 0.01), 40, every=40)(step.read(state)).fields[-1][0, 0]
    errors = [relative(after(refit(SCHEMES[name], 30), dt)[0], end) for dt in (0.2, 0.1)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1 if "euler" in name else 2, abs=0.35)


def test_semi_lagrangian_steps_are_exact_in_a_uniform_flow():
    eq = sm.equation.Advection(grid=LINE, U=0.7)
    method = refit(semi_lagrangian(lambda before, x: torch.tensor([0.7, 0.0], dtype=torch.float64).expand_as(x)), 40)
    step = sm.insr(eq, sinusoid(), 2.0, method, samples=300)
    state = step.init(torch.exp(torch.sin(LINE.x))[None])
    assert relative(step.read(step(state))[0, 0], torch.exp(torch.sin(LINE.x - 1.4))[0]) < 1e-4


def test_adapted_steps_keep_to_the_tolerance():
    """Of the rotation z' = i z, with the norm as what is seen."""

    def turning(z, t):
        return torch.stack([-z[1], z[0]])

    start = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for tableau in (BOGACKI_SHAMPINE, DORMAND_PRINCE):
        errors = []
        for tolerance in (1e-4, 1e-7):
            end, _ = adapted(tableau, turning, lambda d: float(d.norm()), start, 0.0, 2.0, 2.0, tolerance)
            errors.append(relative(end, torch.tensor([math.cos(2), math.sin(2)], dtype=torch.float64)))
        assert errors[0] < 2e-3
        assert errors[1] < 2e-6


def test_steps_that_never_help_end():
    def bad(z, t):
        return z * float("nan")

    with pytest.raises(FloatingPointError, match="short enough"):
        adapted(DORMAND_PRINCE, bad, lambda d: float(d.norm()), torch.ones(2), 0.0, 1.0, 1.0, 1e-6)


# -- exact solutions -------------------------------------------------------------------------------------------------
def test_advection():
    eq = sm.equation.Advection(grid=LINE, U=0.5)
    step = sm.insr(eq, sinusoid(), 1.0, sm.tangent(tolerance=1e-7), samples=300)
    run = sm.rollout(step, 4)((torch.exp(torch.sin(LINE.x)))[None])
    assert relative(run.fields[-1][0, 0], torch.exp(torch.sin(LINE.x - 2.0))[0]) < 1e-4
    assert run.time.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_heat_with_walls():
    """sin(pi x) exp(-kappa pi^2 t), exactly zero at the walls all the time."""
    grid = sm.Grid(32, 1, Lx=1.0, Ly=1.0, x0=0.0, y0=0.0)
    net = Siren(grid, 1, (8, 8), omega=1.0, encoding=Coordinates)
    net.constraint = dirichlet(grid)
    step = sm.insr(sm.equation.Advection(grid=grid, U=0.0, kappa=0.1), net, 0.5, samples=300)
    state = step(step.init(lambda x: torch.sin(math.pi * x[None, :, 0])))
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.3, 0.0]], dtype=torch.float64)
    ends = step.sample(state, x)[0]
    assert float(ends[:2].abs().max()) < 1e-15
    assert float(ends[2]) == pytest.approx(math.sin(0.3 * math.pi) * math.exp(-0.05 * math.pi**2), rel=1e-4)


def vortices(nu=0.0, form=momentum, **options):
    eq = sm.equation.Vorticity(grid=BOX, nu=nu)
    step = sm.insr(eq, Siren(BOX, 1, (10, 10), omega=1.0), 0.5, form=form, samples=500, iterations=200, **options)
    return step, step.init(-taylor_green(BOX))


def test_vortices_stay_and_keep_their_energy():
    step, state = vortices()
    u, v = -dy(Field("psi")), dx(Field("psi"))
    before = step.mean(state, [u * u + v * v])
    end = step(step(state))
    assert relative(step.sample(end, BOX_POINTS, [u, v]), step.sample(state, BOX_POINTS, [u, v])) < 1e-3
    assert relative(step.mean(end, [u * u + v * v]), before) < 1e-5
    h, (across, up) = 1e-4, torch.eye(2, dtype=torch.float64)
    east, west, north, south = (step.sample(end, BOX_POINTS + h * d, [u, v]) for d in (across, -across, up, -up))
    divergence = ((east - west)[0] + (north - south)[1]) / (2 * h)
    assert float(divergence.abs().max()) < 1e-6 * float((east - west)[0].abs().max()) / h


BOX_POINTS = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("form", [momentum, strong])
def test_viscous_vortices_decay(form):
    step, state = vortices(nu=0.05, form=form)
    end = step(state)
    psi = (step.sample(s, BOX_POINTS, [dx(Field("psi"))]) for s in (end, state))
    assert relative(next(psi), next(psi) * math.exp(-0.05 * math.pi**2)) < 2e-3


def test_energy_is_conserved_where_asked():
    """Of moving vortices, with a regularisation so large that it drifts by itself."""
    u, v = -dy(Field("psi")), dx(Field("psi"))
    density, drifts = u * u + v * v, []
    start = -taylor_green(BOX) / 4 + torch.cos(math.pi * (BOX.x + 2 * BOX.y)) / 4
    for conserve in ((), (density,)):
        method = sm.tangent(TABLEAUS["rk4"], epsilon=1e-2, conserve=conserve)
        eq = sm.equation.Vorticity(grid=BOX)
        step = sm.insr(eq, Siren(BOX, 1, (10, 10), omega=1.0), 0.05, method, form=strong, samples=500, iterations=60)
        state = step.init(start)
        end = step(step(step(step(state))))
        drifts.append(abs(float(step.mean(end, [density]) / step.mean(state, [density])) - 1))
    assert drifts[1] < 1e-3 * drifts[0]


def test_layers_turn_as_the_spectral_model_says():
    eq = sm.TwoLayerQG.preset("eddy", nx=16, filterfac=0.0)
    q = sm.random_pv(eq, seed=0, speed=0.5, scale=eq.grid.Lx)
    step = sm.insr(eq, Siren(eq.grid, 2, (10, 10), omega=1.0), 86400.0, sm.tangent(tolerance=1e-5), samples=400)
    found = sm.rollout(step, 3)(q).fields
    truth = sm.rollout(sm.rk4(eq, 3600.0), 72, every=24)(q).fields
    assert relative(found[0], truth[0]) < 2e-3
    assert relative(found[-1], truth[-1]) < 2e-2
    assert relative(truth[-1], truth[0]) > 0.05


def test_a_plane_rossby_wave():
    """cos(k x + l y - w t), w = -beta k / (k^2 + l^2), exact for the nonlinear equation; the network can hold it."""
    beta, k, l = 5.0, math.pi, 2 * math.pi
    eq, waves = sm.equation.Vorticity(grid=BOX, beta=beta), strongest_waves(BOX, BOX.invK2, 20)[0]
    method = sm.tangent(epsilon=1e-12, tolerance=1e-8)
    step = sm.insr(eq, FourierFeatures(BOX, 1, waves), 0.5, method, form=momentum, samples=900)

    def wave(t):
        return lambda x: torch.cos(k * x[:, 0] + l * x[:, 1] + beta * k / (k * k + l * l) * t)[None]

    end = step(step(step.init(wave(0.0))))
    u = [-dy(Field("psi")), dx(Field("psi"))]
    exact = step.system.read_with(
        step.system.left, step.differentiated(wave(1.0), BOX_POINTS), step.coords(BOX_POINTS, 1.0)
    )
    assert relative(step.sample(end, BOX_POINTS, u), exact.detach()) < 1e-6


def test_a_wave_on_the_sphere():
    """Rossby and Haurwitz's of four crests, for a tenth of a day."""
    omega, w, turning = 2 * math.pi, 0.676, (28 * 0.676 - 4 * math.pi) / 30

    def wave(t):
        def psi(x):
            at = Sphere().coords(x)
            return (w * at["y"].sin() * (at["y"].cos() ** 4 * torch.cos(4 * (at["x"] - turning * t)) - 1))[None]

        return psi

    encoding = Harmonics(5)
    net = NeuralField(encoding, (4,), 1, 0, sines(1.0), [1 / encoding.width, 1.0])
    step = insr_on_sphere(omega, net, 0.1, iterations=200, shape=(10, 20))
    state = step.init(wave(0.0))
    x, _ = Sphere().nodes(100, torch.Generator())
    u = [-dy(Field("psi")), dx(Field("psi"))]
    for t, limit in ((0.0, 3e-3), (0.1, 3e-3)):
        exact = step.system.read_with(step.system.left, step.differentiated(wave(t), x), step.coords(x, t)).detach()
        assert relative(step.sample(state, x, u), exact) < limit
        state = step(state)
    assert step.read(state).shape == (1, 10, 20)
    with pytest.raises(ValueError, match="function of unit vectors"):
        step.init(torch.zeros(1, 10, 20))


# -- what a step is --------------------------------------------------------------------------------------------------
def test_states_are_all_there_is():
    """A step elsewhere in between changes nothing; the same seed gives the same bits."""
    eq, step, state = burgers()
    once = step(state)
    step(once)
    assert torch.equal(step(state).z, once.z)
    again = sm.insr(eq, sinusoid(width=10), 0.1, samples=300, iterations=5)
    start = (1 + torch.sin(LINE.x) / 2)[None]
    assert torch.equal(
        again.init(start).z, sm.insr(eq, sinusoid(width=10), 0.1, samples=300, iterations=5).init(start).z
    )


def test_a_restart_keeps_the_field():
    _, step, state = burgers()
    moved = step(state)
    again = step.restarted(moved)
    assert again.time == moved.time
    assert relative(again.z, moved.z) > 1e-3, "weights begin anew"
    assert relative(step.read(again), step.read(moved)) < 1e-4
    assert relative(step.read(step(again)), step.read(step(moved))) < 1e-3


def test_nodes_that_move_are_drawn_from_the_state():
    eq, _, state = burgers()
    for offsets in (shifted, stratified):
        step = sm.insr(eq, sinusoid(width=10), 0.1, samples=300, domain=Box(LINE, offsets))
        once, twice = step(state), step(step(state))
        assert not torch.equal(once.rng, state.rng)
        assert torch.equal(step(once).z, twice.z)
        assert relative(step.read(once), burgers()[1].read(burgers()[1](state))) < 1e-4


def test_few_weights_move():
    eq, _, state = burgers()
    step = sm.insr(eq, sinusoid(width=10), 0.1, sm.tangent(moving=40, epsilon=1e-6), samples=300)
    moved = step(state).z != state.z
    assert int(moved.sum()) == 40


def test_fixed_fields_are_read_at_any_place():
    eq = sm.TwoLayerQG.preset("eddy", nx=16, topography=torch.randn(16, 16, dtype=torch.float64))
    constant = strong(sm.TwoLayerQG.preset("eddy", nx=16, topography=eq.topography, filterfac=0.0)).constant
    points = torch.stack(torch.broadcast_tensors(*eq.grid.axes()), -1).reshape(-1, 2)
    slope = eq.grid.ifft(eq.grid.ik * eq.fixed["eta"])
    assert relative(constant("eta", 1, 0, points).reshape(16, 16), slope) < 1e-10
    with pytest.raises(ValueError, match="neither"):
        constant("nothing", 0, 0, points)


LAYERS = sm.TwoLayerQG.preset("eddy", nx=16, filterfac=0.0)
EQUATIONS = [
    sm.equation.Burgers(grid=LINE, nu=0.1),
    sm.equation.KuramotoSivashinsky(grid=LINE),
    sm.equation.AllenCahn(grid=LINE),
    sm.equation.KortewegDeVries(grid=LINE),
    sm.equation.Vorticity(grid=BOX, nu=0.1, beta=1.0, drag=0.1),
    replace(LAYERS, grid=replace(LAYERS.grid, dealias=2 / 3)),
]


@pytest.mark.parametrize("eq", EQUATIONS, ids=lambda eq: type(eq).__name__)
def test_equations_at_points_are_those_on_the_grid(eq):
    """The pointwise right-hand side of a band-limited field against the spectral tendency."""
    grid, system = eq.grid, strong(eq)
    n = len(system.fields)
    field = random_field(grid, lambda K: torch.exp(-((K * grid.Lx / 8) ** 2)), seed=1, batch=(n,)) * grid.Lx / 6
    if system.fields == eq.prognostic:
        z = eq.init(field)
    else:
        z = eq.pv(field) if hasattr(eq, "pv") else eq.grid.fft(field) * -eq.grid.K2
    own = eq.fields(z)
    points = torch.stack(torch.broadcast_tensors(*grid.axes()), -1).reshape(-1, 2)
    coords = {"x": points[:, 0], "y": points[:, 1]}
    found = system.read_with(system.right, lambda name, a, b: series(grid, own[name], a, b, points), coords)
    assert relative(grid.project(found.reshape(n, *grid.shape)), eq.read(eq.tendency(z))) < 1e-6
    left = system.read_with(system.left, lambda name, a, b: series(grid, own[name], a, b, points), coords)
    assert relative(left.reshape(n, *grid.shape), eq.read(z)) < 1e-8
    assert tuple(primitives(eq)) == eq.prognostic


def test_rows_at_rest_are_measured_by_the_others():
    assert size(torch.tensor([[3.0, 4.0], [0.0, 0.0]]).double())[1] == pytest.approx(math.sqrt(12.5))


# -- refusals --------------------------------------------------------------------------------------------------------
def test_impossible_settings_are_refused():
    eq = sm.equation.Burgers(grid=LINE, nu=0.05)
    net = sinusoid()
    rough = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(0)).double()

    def projecting(step):
        return replace(step, advance=refit(SCHEMES["implicit_midpoint"]))

    cases = {
        "2 outputs": lambda: sm.insr(eq, Siren(LINE, 2, (8,)), 0.1),
        "do not fix": lambda: sm.insr(eq, net, 0.1, samples=20),
        "positive number": lambda: sm.insr(eq, net, -1.0),
        "float64": lambda: sm.insr(eq, Siren(LINE, 1, (8,)).float(), 0.1),
        "epsilon must": lambda: sm.insr(eq, net, 0.1, sm.tangent(epsilon=-1.0)),
        "leave out": lambda: sm.insr(sm.TwoLayerQG.preset("eddy", nx=16, filterfac=23.6), Siren(BOX, 2, (8,)), 0.1),
        "not of Burgers": lambda: momentum(eq),
        "tendencies given": lambda: momentum(sm.equation.Vorticity(grid=BOX).with_tendency(lambda e, z, t: z)),
        "terms of vorticity": lambda: momentum(sm.equation.Vorticity(grid=BOX, force=torch.zeros(32, 32))),
        "not finite everywhere": lambda: sm.insr(eq, net, 0.1).init(torch.full((1, 1, 64), math.nan)),
        "leaves .*% of it": lambda: sm.insr(eq, Siren(LINE, 1, (4,)), 0.1, samples=100, iterations=1).init(rough),
        "a gradient to project out": lambda: projecting(vortices()[0])(vortices()[1]),
        "must give": lambda: sm.insr(eq, net, 0.1).init(lambda x: x),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()
    broken = sinusoid()
    broken.head.weight.data[0, 0] = math.inf
    with pytest.raises(ValueError, match="weight of the network is not finite"):
        sm.insr(eq, broken, 0.1)


def test_a_step_that_is_too_long_says_so():
    eq, _, state = burgers()
    for tableau in ("gauss_2", "rk4"):
        with pytest.raises(sm.BlowUp, match=r"t = 0.*(smaller dt|larger epsilon)"):
            sm.insr(eq, sinusoid(width=10), 300.0, sm.tangent(TABLEAUS[tableau], epsilon=1e-12), samples=300)(state)


def test_adam_makes_residuals_smaller():
    """The published recipe for a step of a few iterations, here with a large rate."""
    grid = sm.Grid(64, 1, Lx=4.0, Ly=1.0, x0=-2.0, y0=0.0)
    eq, net = sm.equation.Advection(grid=grid, U=0.25), Siren(grid, 1, (8, 8), omega=3.0, encoding=Coordinates)
    errors = []
    for iterations in (1, 100):
        step = sm.insr(eq, net, 0.05, adam(SCHEMES["implicit_midpoint"], 1e-3, iterations), samples=200, iterations=100)
        state = step.init(lambda x: torch.exp(-(x[None, :, 0] ** 2)))
        errors.append(float(step(state).memory[1][0]))
    assert errors[1] < 0.3 * errors[0]


def test_laplacian_of_the_streamfunction_is_read():
    step, state = vortices()
    omega = step.sample(
        state, torch.stack(torch.broadcast_tensors(*BOX.axes()), -1).reshape(-1, 2), [lap(Field("psi"))]
    )
    assert relative(omega.reshape(1, 32, 32), step.read(state)) < 1e-12
    assert relative(step.read(state), -taylor_green(BOX)) < 2e-3
