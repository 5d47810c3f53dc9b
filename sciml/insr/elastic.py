r"""Elastic bodies by neural fields: each step is the least incremental potential over the weights.

.. math:: \theta_{n+1} = \arg\min \Phi(u(\theta)),

with :math:`\Phi` of :mod:`sciml.insr.increment` (Chen et al. 2023, ICML, where it is Adam's work). Weights move by
damped Gauss-Newton steps: the derivatives of u and its gradient with respect to the weights are in closed form, and the
curvature of the energy at every node is made positive semi-definite.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sciml.field import NeuralField
from sciml.insr.body import (
    Body,
    Motion,
    Quadrature,
    differentiated,
    gauss,
    held,
    jets,
    surface,
    tensor_product,
)
from sciml.insr.increment import IMPLICIT_MIDPOINT, Fields, Increment, Places, Scheme, mixed, potential, roots, slope
from sciml.insr.solve import cholesky_solve, levenberg_marquardt
from sciml.insr.step import size
from sciml.insr.weights import jacobian, put, weights
from sciml.nn.jets import Jet
from sciml.rollout import BlowUp
from sciml.step import State

HEAD = 1e-12
"""Damping of the head, over the mean diagonal of the Gauss-Newton matrix."""


class Energies(NamedTuple):
    """In J, in plane strain J m-1."""

    kinetic: float
    elastic: float
    contact: float
    external: float

    @property
    def total(self) -> float:
        return sum(self)


# -- the step --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ElasticStep:
    """Made by :func:`elastic`; see there.

    ``z`` of its states holds the weights, ``memory`` those of the step before and notes of the last step: how far from
    the minimum it ended, relative and in the energy's norm, iterations made, and the damping.
    """

    body: Body
    net: NeuralField
    dt: float
    scheme: Scheme
    samples: int
    quadrature: Quadrature
    iterations: int
    tolerance: float
    most: float
    damping: float
    shape: tuple[int, ...]
    start: Tensor

    # -- the three functions of a step -------------------------------------------------------------------------------
    def init(
        self, start: Motion | None = None, time: float = 0.0, seed: int = 0, velocity: Motion | None = None
    ) -> State:  # fmt: skip
        """Weights fitted to functions that give displacement [m] and velocity [m s-1]; by default at rest.

        Raises ``ValueError`` for a start that is not finite.
        """
        generator = torch.Generator().manual_seed(seed)
        places, notes = self.places(generator), self.start.new_tensor([0.0, 0.0, self.damping])
        now = self.start if start is None else self.fitted(self.start, places, start, time)
        if start is None and velocity is None:
            before = now
        elif self.scheme.blend == 1:  # velocities are differences
            before = self.fitted(now, places, self.earlier(start, velocity), time - self.dt)
        else:
            before = self.stepped_back(now, places, time, velocity)
        return State(now, float(time), (before, notes), generator.get_state())

    def __call__(self, state: State) -> State:
        generator = torch.Generator()
        generator.set_state(state.rng)  # type: ignore[arg-type]
        places = self.places(generator)
        try:
            theta, notes = self.minimised(
                state.z, places, self.increment(state, places), state.time + self.dt, float(state.memory[1][2])
            )
        except FloatingPointError as error:
            raise BlowUp(f"at t = {state.time:.6g}: {error}") from None
        return State(theta, state.time + self.dt, (state.z, notes), generator.get_state())

    def read(self, state: State) -> Tensor:
        """Displacements ``(d, *shape)`` on an even grid that takes in the faces."""
        return self.sample(state, self.grid())[0].mT.reshape(self.body.d, *self.shape)

    def grid(self) -> Tensor:
        """Positions that :meth:`read` gives, the last axis running fastest."""
        sides = zip(self.body.lengths, self.shape, strict=True)
        return tensor_product([torch.linspace(0, length, n, dtype=torch.float64) for length, n in sides])

    # -- fields of weights -------------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(self, state: State, positions: Tensor, chunk: int = 8192) -> tuple[Tensor, Tensor]:
        """Displacement ``(n, d)`` and deformation gradient ``(n, d, d)`` at positions ``(n, d)``."""
        parts = [self.deformed(put(self.net, state.z).jet(jets(p)), p, state.time) for p in positions.split(chunk)]
        return torch.cat([u for u, _ in parts]), torch.cat([F for _, F in parts])

    def deformed(self, jet: Jet, positions: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """Of the network's jet at positions."""
        u, gradient = self.body.lifted(positions, t)
        one = torch.eye(self.body.d).to(positions)
        return u + jet.c[0], one + gradient + jet.c[1:].movedim(0, -1)

    @torch.no_grad()
    def fields(self, theta: Tensor, places: Places, t: float) -> Fields:
        """At nodes."""
        return self.parted(put(self.net, theta).jet(jets(both(places))), places, t)

    def parted(self, jet: Jet, places: Places, t: float) -> Fields:
        n = len(places.inside[0])
        u, F = self.deformed(jet, both(places), t)
        return Fields(u[:n], F[:n], u[n:])

    def linearised(self, theta: Tensor, places: Places, t: float) -> tuple[Fields, Fields]:
        """Fields at nodes, and their derivatives with respect to the weights: the same shapes, weights last."""
        d, n, kept = self.body.d, len(places.inside[0]), []

        def functional(jet: Jet) -> Tensor:
            kept.append(Jet(jet.c.detach(), jet.dims, jet.order))
            return jet.c.mT.flatten(0, 1)

        _, J = jacobian(put(self.net, theta), jets(both(places)), functional)
        J = J.unflatten(0, (1 + d, d))
        inside = J[1:, :, :n].permute(2, 1, 0, 3)
        return self.parted(kept[0], places, t), Fields(J[0, :, :n].transpose(0, 1), inside, J[0, :, n:].transpose(0, 1))

    def places(self, generator: torch.Generator) -> Places:
        """Nodes of a step."""
        inside = self.quadrature(self.body.lengths, self.samples, generator)
        none = inside[0].new_zeros(0, self.body.d), inside[0].new_zeros(0)
        share = 12 * self.samples ** (1 - 1 / self.body.d)
        return Places(inside, surface(self.body, round(share), generator) if self.body.obstacles else none)

    # -- a step ------------------------------------------------------------------------------------------------------
    def increment(self, state: State, places: Places) -> Increment:
        """Of the step from a state."""
        now = self.fields(state.z, places, state.time)
        before = self.fields(state.memory[0], places, state.time - self.dt)
        late, pull = 1 - self.scheme.blend, None
        if late:
            forces = slope(self.body, places, mixed(before, now, self.scheme.blend), state.time - late * self.dt)
            pull = Fields(*(late * a for a in forces))
        mass = self.scheme.inertia * self.body.density / self.dt**2
        return Increment(mass, 2 * now.u - before.u, now, self.scheme.blend, pull, state.time + (1 - late) * self.dt)

    def stepped_back(self, theta: Tensor, places: Places, time: float, velocity: Motion | None) -> Tensor:
        """Weights one step before the start: the midpoint rule is the same backwards."""
        now, x = self.fields(theta, places, time), places.inside[0]
        target = now.u if velocity is None else now.u - self.dt * velocity(x, time)
        mass, middle = self.body.density / self.dt**2, time - self.dt / 2
        back = Increment(mass, target, now, self.scheme.blend, None, middle)
        return self.minimised(theta, places, back, time - self.dt, self.damping)[0]

    def minimised(
        self, theta: Tensor, places: Places, goal: Increment, t: float, damping: float
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Weights of the least incremental potential, and notes.

        The head is all but undamped, as fields are linear in it, and the layers below move by what the head cannot do:
        damping is their own, an eighth after a step that does what was expected and four times after one that does not;
        after three of these steps become shorter too.
        Raises ``FloatingPointError`` where the minimum is not found.
        """
        made, far = 0, math.inf
        for made in range(1, self.iterations + 1):
            f, J = self.linearised(theta, places, t)
            gradient, gram = self.normal(f, J, places, goal)
            value, reach = float(goal.value(self.body, places, f)), self.magnitude(f, places, goal)
            if not math.isfinite(value + float(gradient.sum())):
                raise FloatingPointError("the energy is not finite; use a shorter step")
            for attempt in range(12):
                move = cholesky_solve(gram + torch.diag(self.metric(damping) * gram.diagonal().mean()), -gradient, 0.0)
                expected, length = float(gradient @ move), 4.0 ** min(0, 3 - attempt)
                if attempt == 0:
                    far = math.sqrt(max(-expected, 0.0) / reach)
                if far <= self.tolerance:
                    return theta, theta.new_tensor([far, made, damping])
                tried = theta + length * move
                lowered = float(goal.value(self.body, places, self.fields(tried, places, t))) - value
                if lowered < 1e-2 * length * expected:
                    break
                damping *= 4
            else:
                break
            good = lowered < 0.4 * length * expected and length == 1
            theta, damping = tried, max(damping / (8 if good else 1), self.damping)
        if not far <= self.most:
            raise FloatingPointError(f"the step did not converge ({far:.1e} from the minimum after {made} iterations): "
                                     "use a shorter step, more iterations or a larger tolerance")  # fmt: skip
        return theta, theta.new_tensor([far, made, min(damping, 100 * self.damping)])

    def metric(self, damping: float) -> Tensor:
        """Of every weight, over the mean diagonal of the Gauss-Newton matrix."""
        named = self.net.named_parameters()
        return torch.cat([p.new_full((p.numel(),), HEAD if n.startswith("head.") else damping) for n, p in named])

    def normal(self, f: Fields, J: Fields, places: Places, goal: Increment) -> tuple[Tensor, Tensor]:
        """Gradient ``(P,)`` and Gauss-Newton matrix ``(P, P)`` of the incremental potential in the weights."""
        gradient = sum(a.flatten() @ b.flatten(0, -2) for a, b in zip(goal.slope(self.body, places, f), J, strict=True))
        elastic, contact = roots(self.body, places, goal.blended(f))
        rows = [goal.blend * (elastic @ J.F.flatten(1, 2)).flatten(0, 1)]
        rows += [goal.blend * torch.einsum("md,mdp->mp", normal, J.edge)[normal.any(-1)] for normal in contact]
        if goal.mass:
            rows.append(((goal.mass * places.inside[1]).sqrt()[:, None, None] * J.u).flatten(0, 1))
        whole = torch.cat(rows)
        return gradient, whole.mT @ whole  # type: ignore[return-value]

    def magnitude(self, f: Fields, places: Places, goal: Increment) -> float:
        """What a distance from the minimum is compared with: elastic, contact, kinetic and external energy, and that of
        strains of 1e-10."""
        parts = potential(self.body, places, goal.blended(f), goal.time)
        kinetic = goal.mass / 2 * (places.inside[1][:, None] * (f.u - goal.old.u).square()).sum()
        stiff = float(self.body.energy.curvature(torch.eye(self.body.d).to(f.F)[None])[0].diagonal().mean())
        return float(sum(p.abs() for p in parts) + kinetic) + 1e-20 * stiff * self.body.volume

    # -- energies and fits -------------------------------------------------------------------------------------------
    def energies(self, state: State, samples: int | None = None) -> Energies:
        """Of the last step: kinetic of its mean velocity, potential of the blended displacement that forces are of."""
        places = replace(self, samples=samples or self.samples).places(torch.Generator().manual_seed(0))
        now = self.fields(state.z, places, state.time)
        before = self.fields(state.memory[0], places, state.time - self.dt)
        speed = (now.u - before.u) / self.dt * self.scheme.inertia
        kinetic = self.body.density / 2 * (places.inside[1][:, None] * speed.square()).sum()
        when = state.time - (1 - self.scheme.blend) * self.dt
        rest = potential(self.body, places, mixed(before, now, self.scheme.blend), when)
        return Energies(float(kinetic), *map(float, rest))

    def fitted(self, theta: Tensor, places: Places, wanted: Motion, t: float) -> Tensor:
        """Weights nearest to a displacement and its gradient, both relative to their size."""
        x, root = places.inside[0], places.inside[1].sqrt()
        u, gradient = differentiated(wanted, x, t)
        if u.shape != x.shape or not bool(torch.isfinite(u).all()):
            raise ValueError(f"the start must give finite displacements {tuple(x.shape)}, got {tuple(u.shape)}")
        one = torch.eye(self.body.d).to(u)
        reach = size(torch.stack([u.norm(dim=-1), gradient.norm(dim=(-1, -2)) * max(self.body.lengths)]))
        per_u, per_F = root / reach[0], root / reach[1] * max(self.body.lengths)

        def residual(theta: Tensor) -> tuple[Tensor, Tensor]:
            f, J = self.linearised(theta, places, t)
            r = [(f.u - u) * per_u[:, None], (f.F - one - gradient) * per_F[:, None, None]]
            Jr = [J.u * per_u[:, None, None], J.F * per_F[:, None, None, None]]
            return torch.cat([a.flatten() for a in r]), torch.cat([a.flatten(0, -2) for a in Jr])

        return levenberg_marquardt(residual, theta, 10 * self.iterations, 1e-9).theta

    def earlier(self, start: Motion | None, velocity: Motion | None) -> Motion:
        """The displacement one step before."""

        def wanted(x: Tensor, t: float) -> Tensor:
            u = self.body.lifted(x, t + self.dt)[0] if start is None else start(x, t + self.dt)
            return u if velocity is None else u - self.dt * velocity(x, t + self.dt)

        return wanted


def both(places: Places) -> Tensor:
    """Positions inside and on the surface."""
    return torch.cat([places.inside[0], places.edge[0]])


def elastic(
    body: Body, net: NeuralField, dt: float, scheme: Scheme = IMPLICIT_MIDPOINT, *, scale: float | None = None,
    samples: int | None = None, quadrature: Quadrature = gauss, iterations: int = 30, tolerance: float = 1e-5,
    most: float = 1e-2, damping: float = 1e-2, shape: tuple[int, ...] | None = None,
) -> ElasticStep:  # fmt: skip
    """The motion of an elastic body by a neural field: no mesh, no training data (Chen et al. 2023, ICML).

    Raises ``ValueError`` for a network, samples or a step that cannot work.

    Parameters
    ----------
    net : a network in float64 with one output for each direction (:func:`~sciml.insr.body.displacement`)
    dt : time between two states [s]; with :data:`QUASI_STATIC`, of the load
    scale : of displacements [m], by default the body's shortest side
    samples : nodes of the quadrature (default: twice the weights over the directions)
    iterations : of a step, at most
    tolerance, most : distance from the minimum where a step ends, and where it is refused if it cannot get nearer,
        relative and in the energy's norm
    damping : least of the layers below the head, over the mean diagonal of the Gauss-Newton matrix; very large values
        leave them as they are, so that the field is one of fixed functions
    shape : of the grid that :meth:`~ElasticStep.read` gives
    """
    P, d = sum(p.numel() for p in net.parameters()), body.d
    samples = math.ceil(2 * P / d) if samples is None else samples
    scale = min(body.lengths) if scale is None else scale
    if net.head.out_features != d or net.encoding.width < 1:
        raise ValueError(f"the network has {net.head.out_features} outputs, a body in {d} dimensions needs {d}")
    if net.head.weight.dtype != torch.float64:
        raise ValueError("least squares in the weights of a network need float64; use net.double()")
    if not all(bool(torch.isfinite(p).all()) for p in net.parameters()):
        raise ValueError("a weight of the network is not finite")
    if not (0 < dt < math.inf and 0 < scale < math.inf and 0 < tolerance < 1 and iterations > 0):
        raise ValueError(f"dt, scale, iterations and tolerance must be positive and tolerance less than 1, got {dt}, "
                         f"{scale}, {iterations} and {tolerance}")  # fmt: skip
    if samples * d < P:
        raise ValueError(f"{samples} samples of {d} components do not fix {P} weights: use at least "
                         f"{math.ceil(1.5 * P / d)}, or a smaller network")  # fmt: skip
    own = deepcopy(net)  # whose weights are replaced at each step
    own.constraint = held(body, scale)
    shape = (11,) * d if shape is None else shape
    return ElasticStep(body, own, dt, scheme, samples, quadrature, iterations, tolerance, most, damping, shape,
                       weights(net))  # fmt: skip
