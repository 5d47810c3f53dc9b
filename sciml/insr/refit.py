r"""Fitting the field anew at each step: Gauss-Newton on the residual of a time discretisation.

.. math:: \theta_{n+1} = \arg\min \sum_i w_i |r(u_{n+1}, u_n)(x_i)|^2,

started from :math:`\theta_n` (Chen et al. 2023, ICML, eq. 4, where it is Adam's work; Chen et al. 2024, ICML).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor

from sciml.field import NeuralField
from sciml.insr.solve import levenberg_marquardt
from sciml.insr.step import Advance, NeuralStep, size
from sciml.insr.weights import jacobian, put, weights
from sciml.nn.jets import Jet
from sciml.step import State

Residual = Callable[[Jet], Tensor]
Scheme = Callable[["Before", float], Residual]
"""``(what is known before, dt) -> residual of the new field's jet (rows, n)``"""


class Before:
    """A step's start as schemes see it."""

    def __init__(self, step: NeuralStep, state: State, x: Tensor, net: NeuralField | None = None):
        self.step, self.x, self.time, self.scale = step, x, state.time, state.memory[0]
        self.net = net if net is not None else put(step.net, state.z)
        self.jet = self.at(x)

    @torch.no_grad()
    def at(self, positions: Tensor) -> Jet:
        """Jet of the field before at any positions, while the network has the weights before."""
        return self.net.jet(self.step.domain.jet(positions, self.step.system.order)) * self.scale

    def left(self, jet: Jet) -> Tensor:
        """L(u)."""
        return self.step.system.read(self.step.system.left, jet, self.step.coords(self.x, self.time))

    def right(self, jet: Jet, t: float) -> Tensor:
        """R(u) at a time."""
        return self.step.system.read(self.step.system.right, jet, self.step.coords(self.x, t))


# -- discretisations in time -----------------------------------------------------------------------------------------
def explicit_euler(before: Before, dt: float) -> Residual:
    """``L(u) - L(u_n) - dt R(u_n)``, first order."""
    target = before.left(before.jet) + dt * before.right(before.jet, before.time)
    return lambda jet: before.left(jet) - target


def implicit_euler(before: Before, dt: float) -> Residual:
    """``L(u) - L(u_n) - dt R(u)``, first order."""
    start = before.left(before.jet)
    return lambda jet: before.left(jet) - start - dt * before.right(jet, before.time + dt)


def implicit_midpoint(before: Before, dt: float) -> Residual:
    """``L(u) - L(u_n) - dt R((u + u_n) / 2)``, second order: the paper's scheme for advection."""
    start = before.left(before.jet)

    def residual(jet: Jet) -> Tensor:
        return before.left(jet) - start - dt * before.right((jet + before.jet) * 0.5, before.time + dt / 2)

    return residual


def trapezoid(before: Before, dt: float) -> Residual:
    """``L(u) - L(u_n) - dt (R(u) + R(u_n)) / 2``, Crank and Nicolson's, second order."""
    start = before.left(before.jet) + dt / 2 * before.right(before.jet, before.time)
    return lambda jet: before.left(jet) - start - dt / 2 * before.right(jet, before.time + dt)


SCHEMES = {"explicit_euler": explicit_euler, "implicit_euler": implicit_euler, "implicit_midpoint": implicit_midpoint,
           "trapezoid": trapezoid}  # fmt: skip


def semi_lagrangian(velocity: Callable[[Before, Tensor], Tensor]) -> Scheme:
    """``L(u)(x) = L(u_n)(X)`` with X where the flow ``(before, positions) -> (n, 2)`` comes from, by the midpoint rule:
    exact in time in a uniform flow, second order in a steady one. Of an equation's terms this is advection alone."""

    def scheme(before: Before, dt: float) -> Residual:
        middle = before.x - dt / 2 * velocity(before, before.x)
        source = before.x - dt * velocity(before, middle)
        coords = before.step.coords(source, before.time)
        target = before.step.system.read(before.step.system.left, before.at(source), coords)
        return lambda jet: before.left(jet) - target

    return scheme


# -- the fit ---------------------------------------------------------------------------------------------------------
def refit(scheme: Scheme, iterations: int = 20, tolerance: float = 1e-10, damping: float = 1e-8) -> Advance:
    """Weights by Levenberg and Marquardt's method on a scheme's residual, until its root mean square relative to L(u)
    is ``tolerance`` or no step makes it smaller. There is no estimate of the error, as that in time is not known.

    Raises ``ValueError`` for implicit schemes of systems that measure no residual (``momentum``, the sphere): least
    squares would make the gradient that these project out small, and with it the flow.
    """

    def advance(step: NeuralStep, state: State, x: Tensor, root: Tensor) -> tuple[Tensor, list[float]]:
        solvable(step, scheme)
        before = Before(step, state, x)
        wanted, place = scheme(before, step.dt), step.domain.jet(x, step.system.order)
        factor = root / size(before.left(before.jet))[:, None]

        def residual(theta: Tensor) -> tuple[Tensor, Tensor]:
            values, J = jacobian(put(step.net, theta), place, lambda jet: wanted(jet * state.memory[0]))
            return (values * factor).flatten(), (J * factor[..., None]).flatten(0, 1)

        fit = levenberg_marquardt(residual, state.z, iterations, tolerance, damping)
        return fit.theta, [fit.error, step.dt, fit.iterations, math.nan]

    return advance


def adam(
    scheme: Scheme, lr: float = 1e-4, iterations: int = 20_000, patience: int = 500, walls: float = 1.0
) -> Advance:  # fmt: skip
    """The recipe of Chen et al. (2023), for comparison: Adam on fresh uniform samples at each iteration, a rate that is
    cut by ten where the loss stays, until it is 1e-8, and a penalty at the ends of a one-dimensional box (as released;
    but in float64)."""

    def advance(step: NeuralStep, state: State, x: Tensor, root: Tensor) -> tuple[Tensor, list[float]]:
        solvable(step, scheme)
        net, old = put(step.net, state.z), put(deepcopy(step.net), state.z)
        draw = torch.Generator().manual_seed(round(state.time / step.dt))
        optimiser = torch.optim.Adam(net.parameters(), lr=lr)
        plan = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.1, patience=patience, min_lr=1e-8)
        loss, made = x.new_zeros(()), 0
        for made in range(1, iterations + 1):  # noqa: B007
            positions = uniform(step, len(x), draw)
            before = Before(step, state, positions, old)
            jet = net.jet(step.domain.jet(positions, step.system.order)) * state.memory[0]
            loss = (scheme(before, step.dt)(jet) / step.dt).square().mean()
            edge = ends(step, max(len(x) // 100, 10), draw)
            optimiser.zero_grad()
            (loss + walls * (net(edge) * state.memory[0]).square().mean()).backward()
            optimiser.step()
            plan.step(float(loss.detach()))
            if optimiser.param_groups[0]["lr"] <= 1.1e-8:
                break
        missing = float(loss.detach().sqrt())
        return weights(net), [missing, step.dt, made, math.nan]

    return advance


def solvable(step: NeuralStep, scheme: Scheme) -> None:
    """Refuse what a fit would get wrong."""
    if not step.system.measures and scheme is not explicit_euler:
        raise ValueError("this form leaves a gradient to project out, which an implicit fit would take for an error; "
                         "use the strong form, tangent, or explicit_euler")  # fmt: skip


def uniform(step: NeuralStep, n: int, draw: torch.Generator) -> Tensor:
    """Positions drawn from a box."""
    grid = step.domain.grid  # type: ignore[attr-defined]
    start, length = torch.tensor([[grid.x0, grid.y0], [grid.Lx, grid.Ly if grid.ny > 1 else 0.0]]).double()
    return start + length * torch.rand(n, 2, generator=draw, dtype=torch.float64)


def ends(step: NeuralStep, n: int, draw: torch.Generator) -> Tensor:
    """Positions within 1e-4 of the ends of a box in x."""
    near, grid = uniform(step, n, draw), step.domain.grid  # type: ignore[attr-defined]
    side = torch.randint(2, (n,), generator=draw)
    near[:, 0] = grid.x0 + grid.Lx * side + 1e-4 * (2 * torch.rand(n, generator=draw, dtype=torch.float64) - 1)
    return near
