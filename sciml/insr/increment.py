r"""What a step of an elastic body minimises, at the nodes of a quadrature, with its derivatives.

.. math:: \Phi(u) = \int \frac{\rho}{2 \Delta t^2} |u - 2 u_n + u_{n-1}|^2 + V(u_e) + (1 - \beta)\, V'(u_e^-)\, u,
    \qquad u_e = \beta u + (1 - \beta) u_n,

u the displacement, V the density of elastic, contact and external energy, :math:`u_e^-` that of the step before:
implicit Euler for :math:`\beta = 1` (Martin et al. 2011, ACM TOG 30, 72), the implicit midpoint rule written in
positions for :math:`\beta = 1/2`, quasi-statics without the first term.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sciml.insr.body import Body, Nodes
from sciml.insr.hyperelastic import whitened


class Scheme(NamedTuple):
    """A discretisation in time: whether mass counts, and beta."""

    inertia: float
    blend: float


QUASI_STATIC, IMPLICIT_EULER, IMPLICIT_MIDPOINT = Scheme(0.0, 1.0), Scheme(1.0, 1.0), Scheme(1.0, 0.5)


class Places(NamedTuple):
    """Nodes and weights within the body and, where there are obstacles, on its surface."""

    inside: Nodes
    edge: Nodes


class Fields(NamedTuple):
    """Displacement ``u (n, d)``, deformation gradient ``F (n, d, d)`` inside, displacement ``edge (m, d)`` on the
    surface; or what is dual to them."""

    u: Tensor
    F: Tensor
    edge: Tensor


# -- potential energy at nodes ---------------------------------------------------------------------------------------
def potential(body: Body, places: Places, f: Fields, t: float) -> tuple[Tensor, Tensor, Tensor]:
    """Elastic, contact and external energy."""
    (x, w), (s, area) = places
    contact = external = x.new_zeros(())
    for obstacle in body.obstacles:
        depth = obstacle(s + f.edge)[0].clamp(max=0)
        contact = contact + body.stiffness / 2 * (area * depth.square()).sum()
    if body.force is not None:
        external = -body.density * (w[:, None] * body.force(x, t) * f.u).sum()
    return (w * body.energy.density(f.F)).sum(), contact, external


def slope(body: Body, places: Places, f: Fields, t: float) -> Fields:
    """Its derivative with respect to the fields at the nodes."""
    (x, w), (s, area) = places
    edge, u = torch.zeros_like(f.edge), torch.zeros_like(f.u)
    for obstacle in body.obstacles:
        gap, normal = obstacle(s + f.edge)
        edge += body.stiffness * (area * gap.clamp(max=0))[:, None] * normal
    if body.force is not None:
        u = -body.density * w[:, None] * body.force(x, t)
    return Fields(u, w[:, None, None] * body.energy.stress(f.F), edge)


def roots(body: Body, places: Places, f: Fields) -> tuple[Tensor, list[Tensor]]:
    """Square roots of its curvature: of the elastic part ``(n, d^2, d^2)``, and of contact ``(m, d)``."""
    (_, w), (s, area) = places
    contact = []
    for obstacle in body.obstacles:
        gap, normal = obstacle(s + f.edge)
        contact.append((body.stiffness * area * (gap < 0)).sqrt()[:, None] * normal)
    return w.sqrt()[:, None, None] * whitened(body.energy.curvature(f.F)), contact


class Increment(NamedTuple):
    """The incremental potential of a step: mass over dt^2 [kg m-3 s-2], the displacement that inertia asks for, the
    fields at the start, beta, forces of the step before, and when forces act."""

    mass: float
    target: Tensor
    old: Fields
    blend: float
    pull: Fields | None
    time: float

    def blended(self, f: Fields) -> Fields:
        return mixed(self.old, f, self.blend)

    def value(self, body: Body, places: Places, f: Fields) -> Tensor:
        found = sum(potential(body, places, self.blended(f), self.time))
        found = found + self.mass / 2 * (places.inside[1][:, None] * (f.u - self.target).square()).sum()
        if self.pull is not None:
            found = found + sum((a * b).sum() for a, b in zip(self.pull, f, strict=True))
        return found  # type: ignore[return-value]

    def slope(self, body: Body, places: Places, f: Fields) -> Fields:
        found = slope(body, places, self.blended(f), self.time)
        found = Fields(*(self.blend * a for a in found))
        inertia = self.mass * places.inside[1][:, None] * (f.u - self.target)
        found = found._replace(u=found.u + inertia)
        return found if self.pull is None else Fields(*(a + b for a, b in zip(found, self.pull, strict=True)))


def mixed(old: Fields, new: Fields, blend: float) -> Fields:
    """``(1 - blend) old + blend new``."""
    return Fields(*(torch.lerp(a, b, blend) for a, b in zip(old, new, strict=True)))
