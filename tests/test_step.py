"""Time steppers on the full model: exact waves, orders of accuracy, an unstable normal mode, gradients, precision."""

import cmath
import math
from functools import partial

import pytest
import torch

from sciml import STEPPERS, Grid, LayeredQG, Term, TwoLayerQG, ab3, random_pv, rk4, rollout, stability
from sciml.equation.base import apply
from sciml.equation.expression import parse
from sciml.equation.forcing import ring_forcing
from sciml.step import State, phi_functions
from tests.conftest import relative

MAKERS = {**STEPPERS, "ab3 started by rk4": partial(ab3, start=rk4)}
ORDER = {
    "euler": 1,
    "ab3": 2,
    "ab3 started by rk4": 3,
    "rk4": 4,
    "etdrk4": 4,
    "imex": 2,
}  # pyqg's start costs one order
L = 1e6


def wave(eq, m, n, psi):
    """State with one wavevector, ``psi_i exp(i (k x + l y))``."""
    z = torch.zeros(eq.n, *eq.grid.modes, dtype=torch.complex128)
    z[:, m, n] = torch.as_tensor(psi, dtype=torch.complex128)
    return apply(eq.stretch.to(z.dtype), z)


@pytest.mark.parametrize("U", [(0.0, 0.0), (0.02, 0.02)])
@pytest.mark.parametrize("mode", ["barotropic", "baroclinic"])
@pytest.mark.parametrize("name", STEPPERS)
def test_rossby_waves(name, mode, U):
    """A plane wave of either vertical mode is an exact nonlinear solution: omega = U k - beta k / (K2 [+ kd2]);
    the stepper's own error of a linear wave is (omega dt)^p / (p + 1)! a step, with a generous factor."""
    eq = TwoLayerQG(grid=Grid(24, 20, Lx=L, Ly=0.8 * L), beta=1.5e-11, rd=15e3, delta=0.25, U1=U[0], U2=U[1])
    m, n = 4, 3
    k, K2 = float(eq.grid.k[m, 0]), float(eq.grid.K2[m, n])
    omega = U[0] * k - 1.5e-11 * k / (K2 + (15e3**-2 if mode == "baroclinic" else 0))
    steps, phase = 100, 1.0
    dt = phase / steps / abs(omega)
    start = wave(eq, m, n, (1.0, 1.0) if mode == "barotropic" else (1.0, -0.25))  # sum delta_i psi_i = 0
    step, state = STEPPERS[name](eq, dt), State(1e3 * start)
    for _ in range(steps):
        state = step(state)
    exact = 1e3 * start * cmath.exp(-1j * omega * dt * steps)
    tolerance = {"euler": 1e-2, "ab3": 1e-4, "imex": 2e-5, "rk4": 2e-10, "etdrk4": 1e-11}[name]
    assert relative(state.z, exact) < tolerance
    if name in ("euler", "imex"):
        assert relative(state.z, exact) > tolerance / 30  # the bound is not idle


def test_published_rossby_periods():
    """pyqg's default beta and rd, k = 4 x 2 pi / 1e6: 121.847 and 979.186 days."""
    eq = TwoLayerQG(grid=Grid(16, Lx=L), beta=1.5e-11, rd=15e3)
    frequency = stability(eq).frequency[:, 4, 0].abs()
    days = (2 * math.pi / frequency / 86400).sort().values
    assert days.tolist() == pytest.approx([121.847, 979.186], abs=6e-4)


def turbulent(dealias=2 / 3):
    """A fully nonlinear model with every kind of term, nondimensional, and a state with eddies of unit speed."""
    grid = Grid(24, 28, dealias=dealias, Ly=2 * math.pi)
    x, y = grid.axes()
    eq = LayeredQG(
        grid=grid, H=(0.2, 0.8), gprime=(0.5,), f0=1.0, U=(0.5, 0.0), V=(0.0, 0.1), beta=1.0, rek=0.1, nu=1e-3,
        nu_order=1, topography=torch.cos(x + y) * torch.ones_like(x * y),
    )  # fmt: skip
    return eq, random_pv(eq, seed=1, speed=1.0, scale=2.0)


def test_order_of_every_stepper():
    """Errors at dt and dt / 2 against RK4 with a far smaller step."""
    eq, q = turbulent()
    T, coarse = 0.32, {"euler": 160, "ab3": 64, "ab3 started by rk4": 64, "imex": 64, "rk4": 16, "etdrk4": 16}

    start = State(rk4(eq, 1.0).init(q).z)
    exact = rollout(rk4(eq, T / 1024), 1024, every=1024, save=lambda s: s.z)(q).fields[-1]
    for name, steps in coarse.items():
        errors = []
        for n in (steps, 2 * steps):
            step, state = MAKERS[name](eq, T / n), start
            for _ in range(n):
                state = step(state)
            errors.append(relative(state.z, exact))
        order = math.log2(errors[0] / errors[1])
        assert order == pytest.approx(ORDER[name], abs=0.15), f"{name}: {order}, errors {errors}"


def test_start_up_of_ab3_is_pyqgs():
    """Euler, then AB2, then AB3, written out."""
    eq, q = turbulent()
    step, f, h = ab3(eq, 0.01), eq.tendency, 0.01
    z0 = step.init(q).z
    z1 = z0 + h * f(z0)
    z2 = z1 + h * (1.5 * f(z1) - 0.5 * f(z0))
    z3 = z2 + h * (23 * f(z2) - 16 * f(z1) + 5 * f(z0)) / 12
    state = step(step(step(step.init(q))))
    assert relative(state.z, z3) < 1e-14
    assert state.time == pytest.approx(0.03)


@pytest.mark.parametrize("name", ["rk4", "etdrk4", "ab3", "imex"])
def test_unstable_normal_mode_grows_at_its_eigenvalue(name):
    """pyqg's default with drag, mode (7, 0): an exact exponentially growing solution of the nonlinear model, followed
    over five e-foldings."""
    eq = TwoLayerQG.preset("eddy", 24, dealias=2 / 3)
    modes = stability(eq)
    i, m, l = modes.fastest()
    assert (m, l) == (7, 0)
    sigma, omega = float(modes.growth[i, m, l]), float(modes.frequency[i, m, l])
    n = {"rk4": 2000, "etdrk4": 1000, "ab3": 12000, "imex": 12000}[name]
    dt = 5 / sigma / n
    step = STEPPERS[name](eq, dt)
    state = State(wave(eq, m, l, modes.psi[i, :, m, l]))
    start = state.z[0, m, l]
    for _ in range(n):
        state = step(state)
    growth = torch.log(state.z[0, m, l] / start * cmath.exp(1j * omega * 5 / sigma)) / (5 / sigma)
    assert float(growth.real) == pytest.approx(sigma, rel=1e-6)
    assert abs(float(growth.imag)) < 1e-5 * abs(omega)


def test_phi_functions_against_series():
    """phi_j(A) = sum A^m / (m + j)! for a small matrix, and the scalar formulas for a large one."""
    A = torch.tensor([[0.1, 0.3], [-0.2, 0.05]], dtype=torch.complex128)
    power, sums = torch.eye(2, dtype=A.dtype), [torch.zeros_like(A) for _ in range(4)]
    for m in range(20):
        sums = [s + power / float(math.factorial(m + j)) for j, s in enumerate(sums)]
        power = power @ A
    for found, expected in zip(phi_functions(A), sums, strict=True):
        assert relative(found, expected) < 1e-14
    big = torch.tensor([[-40.0 + 3j]], dtype=torch.complex128)
    e, p1, p2, p3 = phi_functions(big)
    assert relative(e, torch.exp(big)) < 1e-12
    assert relative(p1, (torch.exp(big) - 1) / big) < 1e-12
    assert relative(p2, (p1 - 1) / big) < 1e-12
    assert relative(p3, (p2 - 0.5) / big) < 1e-12


@pytest.mark.parametrize("name", ["etdrk4", "imex"])
def test_hyperviscous_decay(name):
    """Each mode decays exponentially; ETDRK4 does it exactly however stiff, Crank-Nicolson as its own quotient."""
    eq = LayeredQG(grid=Grid(16), nu=1e-4, nu_order=4)
    z = eq.init(torch.randn(1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1e-12)
    rate = 1e-4 * eq.grid.K2**4
    out = STEPPERS[name](eq, 0.1)(State(z)).z
    factor = torch.exp(-0.1 * rate) if name == "etdrk4" else (1 - 0.05 * rate) / (1 + 0.05 * rate)
    assert float((0.1 * rate).max()) > 10
    assert float((out - factor * z).abs().max() / z.abs().max()) < 1e-10


def test_drag_only_decay():
    """U = beta = 0: a single mode decays with the eigenvalues of its 2 x 2 problem."""
    eq = TwoLayerQG(grid=Grid(16, Lx=L), rd=15e3, delta=0.25, rek=5.787e-7)
    K2, F1, F2 = float(eq.grid.K2[3, 2]), 15e3**-2 / 1.25, 0.25 * 15e3**-2 / 1.25
    B = torch.tensor([[-K2 - F1, F1], [F2, -K2 - F2]], dtype=torch.float64)
    drag = torch.tensor([[0.0, 0.0], [0.0, 5.787e-7 * K2]], dtype=torch.float64)
    T = 100 * 86400.0
    psi = torch.tensor([1.0, 0.3], dtype=torch.float64)
    exact = torch.linalg.matrix_exp(torch.linalg.solve(B, drag) * T) @ psi
    state = State(wave(eq, 3, 2, psi))
    step = rk4(eq, T / 100)
    for _ in range(100):
        state = step(state)
    assert relative(eq.psi(state.z)[:, 3, 2].real, exact) < 1e-9


# -- gradients -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dealias", [1, 2 / 3])
@pytest.mark.parametrize("name", STEPPERS)
def test_tangent_and_adjoint(name, dealias, rng):
    """Tangent against finite differences, and <M x, y> = <x, M' y>."""
    eq, q = turbulent(dealias)
    step = STEPPERS[name](eq, 0.01)

    def model(q):
        return rollout(step, 8, every=8)(q).fields[-1]

    x, y = (torch.randn(q.shape, dtype=q.dtype, generator=rng) for _ in range(2))
    end, tangent = torch.func.jvp(model, (q,), (x,))
    _, pull = torch.func.vjp(model, q)
    (adjoint,) = pull(y)
    assert relative(end, model(q)) < 1e-12
    assert float((tangent * y).sum()) == pytest.approx(float((x * adjoint).sum()), rel=1e-10)
    eps = 1e-5
    difference = (model(q + eps * x) - model(q - eps * x)) / (2 * eps)
    assert relative(difference, tangent) < 1e-7


def test_gradient_with_respect_to_parameters():
    q = random_pv(TwoLayerQG.preset("eddy", 16), seed=0)

    def loss(rek, beta):
        eq = TwoLayerQG.preset("eddy", 16, rek=rek, beta=beta)
        return 1e12 * (rollout(rk4(eq, 7200.0), 20, every=20)(q).fields[-1] ** 2).mean()

    parameters = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (5e-7, 1.5e-11)]
    loss(*parameters).backward()
    for i, p in enumerate(parameters):
        h = 1e-3 * float(p.detach())
        up, down = ([float(a.detach()) + (j == i) * s * h for j, a in enumerate(parameters)] for s in (1, -1))
        difference = (loss(*up) - loss(*down)) / (2 * h)
        assert float(p.grad) == pytest.approx(float(difference), rel=1e-5)


# -- precision, ensembles, noise -------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", STEPPERS)
def test_float32_stays_float32(name):
    eq = TwoLayerQG.preset("eddy", 16, dtype=torch.float32, topography=torch.zeros(16, 16))
    step = STEPPERS[name](eq, 3600.0)
    state = step.init(random_pv(eq, seed=0))
    for _ in range(4):
        state = step(state)
    assert state.z.dtype == torch.complex64
    assert all(m.dtype == torch.complex64 for m in state.memory)
    assert step.read(state).dtype == torch.float32


def test_members_do_not_touch_each_other():
    eq = TwoLayerQG.preset("eddy", 16)
    step = ab3(eq, 7200.0)
    q = random_pv(eq, seed=0, members=3, speed=0.1)
    together = rollout(step, 50, every=50)(q).fields[-1]
    alone = torch.stack([rollout(step, 50, every=50)(m).fields[-1] for m in q])
    assert relative(together, alone) < 1e-13


def test_noise_is_reproducible_and_restarts_exactly():
    eq = TwoLayerQG.preset("eddy", 16)
    eq = TwoLayerQG.preset("eddy", 16, noise=ring_forcing(eq, 1e-9, 4e-5, 1.5e-5))
    step = ab3(eq, 7200.0)
    q = random_pv(eq, seed=0)
    run = [step.init(q, seed=3)]
    for _ in range(6):
        run.append(step(run[-1]))
    again = run[3]
    for _ in range(3):
        again = step(again)
    assert torch.equal(again.z, run[6].z)
    assert not torch.equal(step(step.init(q, seed=4)).z, run[1].z)


def test_forced_energy_grows_at_the_stated_rate():
    """From rest, no drag: mean energy of 64 members after 40 steps is rate x time, within four standard errors."""
    eq = TwoLayerQG(grid=Grid(16, Lx=L), rd=15e3)
    eq = TwoLayerQG(grid=eq.grid, rd=15e3, noise=ring_forcing(eq, 1e-9, 4e-5, 1.5e-5))
    step = rk4(eq, 7200.0)
    state = step.init(torch.zeros(64, 2, 16, 16), seed=0)
    for _ in range(40):
        state = step(state)
    energy = eq.energy(state.z)
    assert float((energy.mean() - 1e-9 * state.time).abs()) < 4 * float(energy.std()) / 8


def test_bad_time_step():
    with pytest.raises(ValueError, match="dt must be a positive number"):
        ab3(TwoLayerQG.preset("eddy", 8), dt=-1.0)


def test_time_dependent_terms_see_the_clock():
    """dq/dt = cos t has the solution sin t; RK4 evaluates its stages at the right times."""
    eq = LayeredQG(grid=Grid(8)) + Term("q1", "clock", parse("cos(t)"))
    state = rollout(rk4(eq, 0.1), 20, every=20)(torch.zeros(1, 8, 8)).state
    assert float(state.z[0, 0, 0].real) == pytest.approx(math.sin(2.0), rel=1e-6)
