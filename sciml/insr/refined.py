r"""Nodes where least squares need them: a quadrature whose density follows the residual.

Of m even candidates, node i is taken with the probability :math:`p_i \propto w_i (q + (1 - q) |r_i| / \bar r)` and has
the weight :math:`w_i / (n p_i)`, so that sums over the n nodes taken are integrals over the domain: importance sampling
(Bruna, Peherstorfer & Vanden-Eijnden 2024, JCP 496, 112588, adapt samples to the network).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.insr.solve import Linear, primal
from sciml.insr.step import Advance, NeuralStep
from sciml.insr.tangent import linearised
from sciml.insr.weights import put
from sciml.nn.jets import Jet
from sciml.step import State


def refined(
    advance: Advance, candidates: int = 4, even: float = 0.5, epsilon: float = 1e-8, solve: Linear = primal
) -> Advance:  # fmt: skip
    """Like ``advance``, on nodes drawn anew for each step by the size of the residual at its start.

    For features thinner than the spacing of nodes; it takes at least two nodes for each weight, as those that are far
    from the features become few. Where even nodes resolve the field, they are as good.

    Parameters
    ----------
    candidates : as a factor of the nodes
    even : q, the part of nodes that stay evenly spread, from 0 to 1
    epsilon, solve : of the least squares whose residual is looked at
    """
    if not (candidates >= 2 and 0 < even <= 1):
        raise ValueError(f"candidates must be at least 2 and even from 0 to 1, got {candidates} and {even}")

    def advanced(step: NeuralStep, state: State, x: Tensor, root: Tensor) -> tuple[Tensor, Sequence[float]]:
        places, weight = step.domain.nodes(candidates * len(x), torch.Generator().manual_seed(0))
        missing = residuals(step, state, x, root, places, epsilon, solve)
        density = weight * (even + (1 - even) * missing / (weight * missing).sum().clamp(min=1e-300))
        kept, root = drawn(weight, density / density.sum(), len(x))
        return advance(step, state, places[kept], root)

    return advanced


def residuals(
    step: NeuralStep, state: State, x: Tensor, root: Tensor, places: Tensor, epsilon: float, solve: Linear
) -> Tensor:  # fmt: skip
    """Sizes ``(m,)`` at places of what the tangent space of the nodes x misses."""
    J, _, f, _ = linearised(step, state.z, state.time, x, root, state.memory[0], ())
    slope = solve(J, f, epsilon)
    system, coords = step.system, step.coords(places, state.time)
    place, h = step.domain.jet(places, max(system.order, 1)), 1e-5 / float(slope.abs().amax().clamp(min=1e-300))

    def jet(theta: Tensor) -> Jet:
        return put(step.net, theta).jet(place) * state.memory[0]

    with torch.no_grad():
        ahead, behind = (system.read(system.left, jet(state.z + s * slope), coords) for s in (h, -h))
        return ((ahead - behind) / (2 * h) - system.read(system.right, jet(state.z), coords)).norm(dim=0)


def drawn(weight: Tensor, probability: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Indices ``(n,)`` by even steps through the cumulative probability, and roots of the new weights."""
    steps = (torch.arange(n, dtype=weight.dtype, device=weight.device) + 0.5) / n
    kept = torch.searchsorted(probability.cumsum(0), steps).clamp(max=len(weight) - 1)
    return kept, (weight[kept] / (n * probability[kept])).sqrt()
