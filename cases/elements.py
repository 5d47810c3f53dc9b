"""Finite elements for the elastic bodies of the cases: boxes of Lagrange elements, of the same energies, as a classical
solver and a reference."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import splu

from sciml.insr.body import Body
from sciml.insr.hyperelastic import whitened

Array = np.ndarray


def lagrange(nodes: Array, x: Array) -> tuple[Array, Array]:
    """Values and slopes ``(points, nodes)`` of Lagrange's polynomials."""
    powers = np.vander(nodes, increasing=True)
    inverse, n = np.linalg.inv(powers), np.arange(len(nodes))
    slopes = n * np.vander(x, len(n), increasing=True)[:, np.maximum(n - 1, 0)]
    return np.vander(x, len(n), increasing=True) @ inverse, slopes @ inverse


@dataclass(frozen=True)
class Mesh:
    """A body cut into ``counts`` elements of an order."""

    body: Body
    counts: tuple[int, ...]
    order: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Numbers of nodes along the sides."""
        return tuple(self.order * n + 1 for n in self.counts)

    @cached_property
    def nodes(self) -> Array:
        """Positions ``(nodes, d)``, the last axis running fastest."""
        axes = [np.linspace(0, a, n) for a, n in zip(self.body.lengths, self.shape, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, self.body.d)

    @cached_property
    def elements(self) -> Array:
        """Numbers of the nodes of elements ``(elements, (order + 1)^d)``."""
        number = np.arange(len(self.nodes)).reshape(self.shape)
        local = list(itertools.product(range(self.order + 1), repeat=self.body.d))
        corners = itertools.product(*map(range, self.counts))
        return np.array([[number[tuple(self.order * c + a for c, a in zip(corner, at, strict=True))] for at in local]
                         for corner in corners])  # fmt: skip

    @cached_property
    def quadrature(self) -> tuple[Array, Array, Array]:
        """Weights ``(g,)``, values ``(g, k)`` and gradients ``(g, k, d)`` of shape functions, alike in all elements."""
        x, w = np.polynomial.legendre.leggauss(self.order + 1)
        steps = [a / n for a, n in zip(self.body.lengths, self.counts, strict=True)]
        N, dN = lagrange(np.linspace(0, 1, self.order + 1), (x + 1) / 2)
        d = self.body.d
        weight = math.prod(steps) * product([w / 2] * d)
        slopes = [product([dN / steps[i] if i == j else N for j in range(d)]) for i in range(d)]
        return weight, product([N] * d), np.stack(slopes, -1)

    @cached_property
    def mass(self) -> sp.csr_matrix:
        """``(nodes d, nodes d)``."""
        w, N, _ = self.quadrature
        block = np.einsum("g,gk,gl->kl", w, N, N) * self.body.density
        whole = np.einsum("kl,ij->kilj", block, np.eye(self.body.d)).reshape(self.local, self.local)
        return self.assembled(np.broadcast_to(whole, (len(self.elements), self.local, self.local)))

    @property
    def local(self) -> int:
        """Unknowns of an element."""
        return self.elements.shape[1] * self.body.d

    @cached_property
    def unknowns(self) -> Array:
        """Their numbers ``(elements, local)``."""
        return (self.elements[..., None] * self.body.d + np.arange(self.body.d)).reshape(len(self.elements), -1)

    def assembled(self, blocks: Array) -> sp.csr_matrix:
        rows, columns = np.repeat(self.unknowns, self.local, 1), np.tile(self.unknowns, (1, self.local))
        n = self.nodes.size
        return sp.csr_matrix((blocks.ravel(), (rows.ravel(), columns.ravel())), shape=(n, n))

    def gradient(self, u: Array) -> torch.Tensor:
        """F ``(elements g, d, d)`` of displacements ``(nodes, d)``."""
        gradient = np.einsum("eki,gkj->egij", u[self.elements], self.quadrature[2])
        return torch.from_numpy(gradient.reshape(-1, self.body.d, self.body.d)) + torch.eye(self.body.d).double()

    def energy(self, u: Array) -> float:
        """Elastic, in J."""
        density = self.body.energy.density(self.gradient(u)).numpy().reshape(len(self.elements), -1)
        return float((density @ self.quadrature[0]).sum())

    def force(self, u: Array) -> Array:
        """Its derivative ``(nodes d,)``."""
        d, (w, _, dN) = self.body.d, self.quadrature
        P = self.body.energy.stress(self.gradient(u)).numpy().reshape(len(self.elements), -1, d, d)
        parts = np.einsum("g,egij,gkj->eki", w, P, dN).reshape(len(self.elements), -1)
        return np.bincount(self.unknowns.ravel(), parts.ravel(), self.nodes.size)

    def stiffness(self, u: Array) -> sp.csr_matrix:
        """Its curvature, made positive semi-definite at every point."""
        d, (w, _, dN) = self.body.d, self.quadrature
        R = whitened(self.body.energy.curvature(self.gradient(u))).numpy()
        R = R.reshape(len(self.elements), len(w), d * d, d, d)
        B = np.einsum("g,egpij,gkj->egpki", np.sqrt(w), R, dN).reshape(len(self.elements), -1, self.local)
        return self.assembled(np.matmul(B.transpose(0, 2, 1), B))

    def at(self, u: Array, x: Array) -> Array:
        """Displacements at positions ``(n, d)``."""
        found, weights = np.zeros((len(x), 1), int), np.ones((len(x), 1))
        for i, (count, length) in enumerate(zip(self.counts, self.body.lengths, strict=True)):
            place = x[:, i] / length * count
            cell = np.clip(place.astype(int), 0, count - 1)
            local = lagrange(np.linspace(0, 1, self.order + 1), place - cell)[0]
            number = self.order * cell[:, None] + np.arange(self.order + 1)
            found = (found[:, :, None] * self.shape[i] + number[:, None]).reshape(len(x), -1)
            weights = (weights[:, :, None] * local[:, None]).reshape(len(x), -1)
        return np.einsum("nk,nki->ni", weights, u[found])

    def fixed(self, time: float) -> tuple[Array, Array]:
        """Which components of which nodes are prescribed ``(nodes, d)``, and the displacements."""
        held = np.zeros(self.nodes.shape, bool)
        for face in self.body.faces:
            on = np.isclose(self.nodes[:, face.axis], face.side * self.body.lengths[face.axis])
            for i in face.components:
                held[on, i] = True
        return held, self.body.lifted(torch.from_numpy(self.nodes), time)[0].numpy()


def product(factors: Sequence[Array]) -> Array:
    """Tensor product along every axis, the last factor running fastest."""
    found = factors[0]
    for f in factors[1:]:
        found = np.kron(found, f)
    return found


# -- statics and dynamics --------------------------------------------------------------------------------------------
def minimum(
    mesh: Mesh, u: Array, time: float, mass: float = 0.0, target: Array | None = None,
    old: Array | None = None, pull: Array | None = None, iterations: int = 60,
) -> Array:  # fmt: skip
    """Displacements of the least ``mass/2 |u - target|^2 + V((u + old) / 2) + pull u`` by Newton's method, without old
    of V(u). Raises ``FloatingPointError`` where it is not found."""
    held, wanted = mesh.fixed(time)
    free = ~held.ravel()
    u = np.where(held, wanted, u)

    def middle(u: Array) -> Array:
        return u if old is None else (u + old) / 2

    def value(u: Array) -> float:
        apart = 0.0 if target is None else (u - target).ravel()
        inertia = 0.0 if target is None else mass / 2 * float(apart @ (mesh.mass @ apart))
        return mesh.energy(middle(u)) + inertia + (0.0 if pull is None else float(pull @ u.ravel()))

    share, expected = 1.0 if old is None else 0.5, 0.0
    for _ in range(iterations):
        g, K = share * mesh.force(middle(u)), share**2 * mesh.stiffness(middle(u))
        if target is not None:
            g, K = g + mass * (mesh.mass @ (u - target).ravel()), K + mass * mesh.mass
        g = (g if pull is None else g + pull)[free]
        move = np.zeros(u.size)
        move[free] = splu(K[free][:, free].tocsc()).solve(-g)
        expected, now, length = float(g @ move[free]), value(u), 1.0
        while value(u + length * move.reshape(u.shape)) > now + 1e-4 * length * expected and length > 1e-3:
            length /= 2
        u = u + length * move.reshape(u.shape)
        if -expected < 1e-16 * max(abs(now), 1e-300) or np.abs(move).max() < 1e-12 * max(mesh.body.lengths):
            return u
    if -expected > 1e-10 * abs(now):
        raise FloatingPointError("the finite elements did not converge; use smaller steps of the load")
    return u


class Motion(NamedTuple):
    """Displacements at two times."""

    now: Array
    before: Array


def bent(mesh: Mesh, steps: int, guess: Callable[[Array, Array, float], Array] | None = None) -> Array:
    """Displacements after a load from 0 to 1, in steps; ``guess`` of a step's start, from nodes, u and the load."""
    u = np.zeros(mesh.nodes.shape)
    for i in range(1, steps + 1):
        u = minimum(mesh, u if guess is None else guess(mesh.nodes, u, i / steps), i / steps)
    return u


def moved(mesh: Mesh, state: Motion, dt: float, time: float) -> Motion:
    """A step by the midpoint rule from a time."""
    pull = mesh.force((state.now + state.before) / 2) / 2
    target = 2 * state.now - state.before
    return Motion(minimum(mesh, state.now, time + dt, 1 / dt**2, target, state.now, pull), state.now)


def begun(mesh: Mesh, u: Array, dt: float) -> Motion:
    """At rest in a displacement at time 0: the midpoint rule backwards."""
    return Motion(u, minimum(mesh, u, -dt, 1 / dt**2, u, u))
