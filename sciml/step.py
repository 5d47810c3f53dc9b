"""Time steppers: functions ``(equation, dt) -> Step``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sciml.equation.base import Equation, apply
from sciml.equation.loops import constant_trajectory as constant_trajectory  # analyses see steps, not equations
from sciml.equation.loops import weighted_sum

Memory = tuple[Tensor, ...]
Advance = Callable[[Tensor, float, Memory], tuple[Tensor, Memory]]


class State(NamedTuple):
    """What a step advances; two equal states have equal futures.

    Examples
    --------
    >>> eq = sm.preset("eddy", nx=16)
    >>> step = sm.rk4(eq, 7200.0)
    >>> state = step(step.init(sm.random_pv(eq, seed=0)))
    >>> state.time, state.z.shape == (2, *eq.grid.modes)
    (7200.0, True)
    """

    z: Tensor
    """fields in the method's own form; for equations, coefficients ``(..., n, *grid.modes)``"""
    time: float = 0.0
    memory: Memory = ()
    """tendencies that a multi-step method remembers"""
    rng: Tensor | None = None
    """state of the random generator, for equations with noise"""


@dataclass(frozen=True)
class Step:
    """One step of an equation, its filter applied last; made by the functions of :data:`STEPPERS`.

    ``limits`` are the lengths of the stability region along the imaginary and the negative real axis, or None where
    the method treats linear terms exactly or implicitly.

    Examples
    --------
    >>> eq = sm.equation.Lorenz63()
    >>> step = sm.STEPPERS["rk4"](eq, 0.01)
    >>> state = step(step.init(torch.tensor([1.0, 1.0, 25.0])))
    >>> step.read(state).shape, round(state.time, 2)
    (torch.Size([3]), 0.01)
    """

    equation: Equation
    dt: float
    advance: Advance
    limits: tuple[float, float] | None = None

    def __post_init__(self):
        if not isinstance(self.equation, Equation) or not isinstance(self.dt, int | float):
            kinds = type(self.equation).__name__, type(self.dt).__name__
            raise ValueError(f"a stepper takes an equation and a number, the time step; got {kinds[0]} and {kinds[1]}")
        if not (0 < self.dt < math.inf):
            raise ValueError(f"dt must be a positive number, got {self.dt}")
        grid, operators = self.equation.grid, [self.equation.linear, *self.equation.fixed.values()]
        operators += [] if self.equation.filter is None else [self.equation.filter]
        if not all(torch.isfinite(a.detach().abs().sum()) for a in operators):
            known = {n: torch.as_tensor(v).detach() for n, v in {**self.equation.params, **self.equation.fixed}.items()}
            bad = [name for name, value in known.items() if not torch.isfinite(value.abs().sum())]
            raise ValueError(f"a parameter or a fixed field of the equation is not a finite number: {', '.join(bad)}")
        z = torch.zeros(len(self.equation.prognostic), *grid.modes, dtype=grid.cdtype, device=grid.device)
        self.equation.tendency(
            z
        )  # operators are made and kept now: torch.func may not see them made inside a transform

    def init(self, fields: Tensor, time: float = 0.0, seed: int = 0) -> State:
        """State of fields ``(..., n, ny, nx)``; ``seed`` matters for equations with noise."""
        z = self.equation.init(fields)
        noisy = self.equation.noise is not None
        rng = torch.Generator(self.equation.grid.device).manual_seed(seed).get_state() if noisy else None
        return State(z, float(time), (), rng)

    def __call__(self, state: State) -> State:
        z, memory = self.advance(state.z, state.time, state.memory)
        eq, rng = self.equation, state.rng
        if eq.noise is not None and rng is not None:
            generator = torch.Generator(eq.grid.device)
            generator.set_state(rng)
            z = z + math.sqrt(self.dt) * eq.noise(eq, generator, z.shape[:-3])
            rng = generator.get_state()
        return State(z, state.time + self.dt, memory, rng)

    def read(self, state: State) -> Tensor:
        """Prognostic fields on the grid, ``(..., n, ny, nx)``."""
        return self.equation.read(state.z)


def euler(equation: Equation, dt: float) -> Step:
    """Forward Euler, first order: ``z + dt f(z)``."""

    def advance(z, t, memory):
        return weighted_sum(z, [equation.tendency(z, t)], [dt], equation.filter), ()

    return Step(equation, dt, advance, limits=(0.0, 2.0))


AB3 = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12))


def ab3(equation: Equation, dt: float, start: Callable[[Equation, float], Step] | None = None) -> Step:
    """Adams-Bashforth, third order.

    Started as pyqg does, by one Euler and one second-order step, whose errors make the whole second order; with
    ``start=rk4`` the first two steps are of that stepper and the whole is third order.

    Examples
    --------
    >>> step = sm.ab3(sm.preset("eddy", nx=16), dt=7200.0)
    >>> state = step.init(sm.random_pv(step.equation, seed=0))
    >>> step(step(state)).time
    14400.0
    """
    first = start(equation, dt).advance if start is not None else None

    def advance(z, t, memory):
        tendencies = (equation.tendency(z, t), *memory)
        if first is not None and len(memory) < 2:
            return first(z, t, ())[0], tendencies[:2]
        weights = [dt * w for w in AB3[len(memory)]]
        return weighted_sum(z, tendencies, weights, equation.filter), tendencies[:2]

    return Step(equation, dt, advance, limits=(0.72, 6 / 11))


def rk4(equation: Equation, dt: float) -> Step:
    """The classical Runge-Kutta method, fourth order.

    Examples
    --------
    >>> step = sm.rk4(sm.equation.Advection(grid=sm.Grid(64, 1, Lx=1.0, Ly=1.0)), 0.005)
    >>> u = torch.sin(2 * torch.pi * step.equation.grid.axes()[0]).reshape(1, 1, 64)
    >>> once_around = sm.rollout(step, 200, every=200)(u).fields[-1]
    >>> bool((once_around - u).abs().max() < 1e-5)
    True
    """

    def advance(z, t, memory):
        f = equation.tendency
        a = f(z, t)
        b = f(weighted_sum(z, [a], [dt / 2]), t + dt / 2)
        c = f(weighted_sum(z, [b], [dt / 2]), t + dt / 2)
        d = f(weighted_sum(z, [c], [dt]), t + dt)
        return weighted_sum(z, [a, b, c, d], [dt / 6, dt / 3, dt / 3, dt / 6], equation.filter), ()

    return Step(equation, dt, advance, limits=(2 * math.sqrt(2), 2.785))


def etdrk4(equation: Equation, dt: float) -> Step:
    r"""Exponential time differencing, fourth order: linear terms exactly, the others by Runge-Kutta.

    Cox & Matthews (2002), JCP 176, 430, eqs 26-29, with
    :math:`\varphi_1(A) = (e^A - 1)/A, \varphi_{j+1}(A) = (\varphi_j(A) - 1/j!)/A` of the whole linear operator (layers
    stay coupled) from one matrix exponential (Al-Mohy & Higham 2011, theorem 2.1).

    Examples
    --------
    >>> eq = sm.equation.Advection(grid=sm.Grid(64, 1, Lx=2 * torch.pi, Ly=1.0), U=0.0, kappa=1.0)
    >>> u = torch.sin(eq.grid.axes()[0]).reshape(1, 1, 64)
    >>> step = sm.etdrk4(eq, 1.0)  # linear terms are exact at any step
    >>> bool((step.read(step(step.init(u))) - math.exp(-1) * u).abs().max() < 1e-12)
    True
    """
    half, half_phi, _, _ = phi_functions(equation.linear * (dt / 2))
    whole, phi1, phi2, phi3 = phi_functions(equation.linear * dt)
    cast = equation.grid.complex
    E2, P = cast(half), cast(half_phi * (dt / 2))
    E, A = cast(whole), cast(dt * (phi1 - 3 * phi2 + 4 * phi3))
    B, C = cast(dt * (2 * phi2 - 4 * phi3)), cast(dt * (4 * phi3 - phi2))

    def advance(z, t, memory):
        N = equation.nonlinear
        n0, carried = N(z, t), apply(E2, z)
        a = carried + apply(P, n0)
        na = N(a, t + dt / 2)
        nb = N(carried + apply(P, na), t + dt / 2)
        nc = N(apply(E2, a) + apply(P, 2 * nb - n0), t + dt)
        return filtered(equation, apply(E, z) + apply(A, n0) + apply(B, na + nb) + apply(C, nc)), ()

    return Step(equation, dt, advance)


def phi_functions(A: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``exp(A), phi_1(A), phi_2(A), phi_3(A)`` of matrices ``(n, n, ...)``."""
    n = A.shape[0]
    A = A.movedim((0, 1), (-2, -1))
    big = A.new_zeros(*A.shape[:-2], 4 * n, 4 * n)
    big[..., :n, :n] = A
    for j in range(3):
        big[..., j * n : (j + 1) * n, (j + 1) * n : (j + 2) * n] = torch.eye(n, dtype=A.dtype, device=A.device)
    big = torch.linalg.matrix_exp(big)[..., :n, :]
    e, p1, p2, p3 = (m.movedim((-2, -1), (0, 1)) for m in big.split(n, -1))
    return e, p1, p2, p3


def imex(equation: Equation, dt: float) -> Step:
    """Crank-Nicolson for linear terms, Adams-Bashforth 2 for the others (CNAB2), second order, started by one
    first-order step of the latter. Ascher, Ruuth & Wetton (1995), SIAM J. Numer. Anal. 32, 797, eq. 13."""
    L = equation.linear.movedim((0, 1), (-2, -1))
    eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
    solve = torch.linalg.inv(eye - dt / 2 * L)
    cast = equation.grid.complex
    explicit, implicit = (cast(M.movedim((-2, -1), (0, 1))) for M in (solve @ (eye + dt / 2 * L), dt * solve))

    def advance(z, t, memory):
        f = equation.nonlinear(z, t)
        push = 1.5 * f - 0.5 * memory[0] if memory else f
        return filtered(equation, apply(explicit, z) + apply(implicit, push)), (f,)

    return Step(equation, dt, advance)


def filtered(equation: Equation, z: Tensor) -> Tensor:
    """The new state times the equation's filter, where it has one."""
    return z if equation.filter is None else z * equation.filter


STEPPERS: dict[str, Callable[[Equation, float], Step]] = {
    "euler": euler,
    "ab3": ab3,
    "rk4": rk4,
    "etdrk4": etdrk4,
    "imex": imex,
}
"""Every stepper by name, for options and for tests that run over all of them."""
