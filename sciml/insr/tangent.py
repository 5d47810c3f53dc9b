r"""Moving weights along the tangent space of a neural field.

The field's time derivative is the nearest to what the equation asks for, over the nodes of a quadrature (Dirac's and
Frenkel's principle; Du & Zaki 2021, PRE 104, 045303; Bruna, Peherstorfer & Vanden-Eijnden 2024, JCP 496, 112588):

.. math:: \dot\theta = \arg\min \sum_i w_i |J_i \dot\theta - R(x_i)|^2 + \epsilon\, d\, |\dot\theta|^2,
    \qquad J_i = \partial L(u)(x_i) / \partial \theta,

d the mean of the diagonal of :math:`J^T J`: an ordinary differential equation for the weights. Epsilon stays the same
within a run. Larger values bias the field, smaller ones make weights move fast where the field hardly sees it, which
steps adapted to the error *of the field* follow safely.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.equation.expression import Expr, expand
from sciml.insr.runge_kutta import DORMAND_PRINCE, Tableau, adapted, stepped
from sciml.insr.solve import Linear, primal, subset
from sciml.insr.step import Advance, NeuralStep
from sciml.insr.weights import jacobian, put
from sciml.nn.jets import Jet
from sciml.step import State


def tangent(
    tableau: Tableau = DORMAND_PRINCE, epsilon: float = 1e-8, tolerance: float = 1e-6, solve: Linear = primal,
    moving: int = 0, conserve: Sequence[Expr] = (),
) -> Advance:  # fmt: skip
    """Weights by a Runge-Kutta method.

    Parameters
    ----------
    tableau : steps are adapted where it has an embedded method, otherwise they are ``dt``
    epsilon : regularisation, relative
    tolerance : largest error of a step, root mean square of L(u) relative to that of L(u)
    moving : only so many weights move in a step, drawn anew for each (Berman & Peherstorfer 2023); all by default
    conserve : densities, as expressions in the network's fields, whose means change by the error in time alone

    Examples
    --------
    >>> from sciml.field import Siren
    >>> eq = sm.equation.Advection(grid=sm.Grid(64, 1, Lx=2.0, Ly=1.0), U=1.0)
    >>> net = Siren(eq.grid, 1, (6, 6), omega=1.0, seed=0)
    >>> step = sm.insr(eq, net, dt=0.1, method=sm.tangent(tolerance=1e-4), samples=200, iterations=50)
    >>> sm.rollout(step, 1)(torch.sin(math.pi * eq.grid.x)[None]).fields.shape
    torch.Size([2, 1, 1, 64])
    """
    if not (epsilon >= 0 and tolerance > 0):
        raise ValueError(f"epsilon must not be negative and tolerance positive, got {epsilon} and {tolerance}")
    if moving < 0:
        raise ValueError(f"moving is a number of weights, or 0 for all of them; got {moving}")
    densities = tuple(expand(e) for e in conserve)

    def advance(step: NeuralStep, state: State, x: Tensor, root: Tensor) -> tuple[Tensor, list[float]]:
        residuals: list[float] = []
        seen: list[Tensor] = []
        in_time: list[float] = []
        own = subset(solve, moving, round(state.time / step.dt)) if moving else solve

        def slope(z: Tensor, t: float) -> Tensor:
            """Of the weights, and of the error that the residual makes, relative to L(u)."""
            J, values, f, normals = linearised(step, z[:-1], t, x, root, state.memory[0], densities)
            found = constrained(own(J, f, epsilon), J, normals, epsilon)
            missing = (J @ found - f).norm()
            residuals.append(float(missing / f.norm().clamp(min=torch.finfo(f.dtype).tiny)))
            seen[:] = J, values
            return torch.cat([found, (missing / values.norm())[None]])

        def visible(change: Tensor) -> float:
            in_time.append(float((seen[0] @ change[:-1]).norm() / seen[1].norm()))
            return in_time[-1]

        h, z = float(state.memory[1][1]), torch.cat([state.z, state.z.new_zeros(1)])
        if tableau.error:
            z, h = adapted(tableau, slope, visible, z, state.time, state.time + step.dt, h, tolerance)
        else:
            z = stepped(tableau, slope, z, state.time, step.dt)[0]
        made = float(z[-1]) + sum(e for e in in_time if e <= tolerance)
        return z[:-1], [max(residuals), h, len(residuals), made if step.system.measures and tableau.error else math.nan]

    return advance


def linearised(
    step: NeuralStep, theta: Tensor, t: float, x: Tensor, root: Tensor, scale: Tensor, densities: Sequence[Expr]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Of L(u) at the nodes, all times the roots of weights: J ``(rows n, P)``, L(u), R(u), and the derivatives of the
    means of densities ``(densities, P)``."""
    system, coords, kept = step.system, step.coords(x, t), []
    order = max(system.order, 1)

    def functional(jet: Jet) -> Tensor:
        jet = jet * scale
        with torch.no_grad():
            kept.append(system.read(system.right, jet, coords))
        return system.read((*system.left, *densities), jet, coords)

    values, J = jacobian(put(step.net, theta), step.domain.jet(x, order), functional)
    rows, normals = len(system.left), torch.einsum("rnp,n->rp", J[len(system.left) :], root.square())
    weighted = (a * root for a in (values[:rows], kept[0]))
    return (J[:rows] * root[:, None]).flatten(0, 1), *(a.flatten() for a in weighted), normals  # type: ignore[return-value]


def constrained(slope: Tensor, J: Tensor, normals: Tensor, epsilon: float) -> Tensor:
    """The least-squares solution that does not change the means of densities, by Lagrange multipliers; densities that
    say the same or are always zero do no harm."""
    if not len(normals):
        return slope
    gram = J.mT @ J
    gram.diagonal().add_(max(epsilon, 1e-14) * gram.diagonal().mean())
    towards = torch.linalg.solve(gram, normals.mT)
    multipliers = torch.linalg.lstsq(normals @ towards, (normals @ slope)[:, None], driver="gelsd").solution[:, 0]
    return slope - towards @ multipliers
