r"""A neural field as a state: a step whose state is the weights of a network.

The equation is :math:`L(u)_t = R(u)` with u the outputs of the network (:mod:`sciml.insr.systems`). How the weights
advance is a function of its own: :func:`~sciml.insr.tangent.tangent` moves them along the tangent space,
:func:`~sciml.insr.refit.refit` fits the field anew at each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.equation.expression import Expr, Field, expand
from sciml.field import NeuralField, differentiated
from sciml.insr.domain import Domain
from sciml.insr.solve import Fit, levenberg_marquardt
from sciml.insr.systems import Derivative, System, depth
from sciml.insr.weights import jacobian, put
from sciml.nn.jets import Jet
from sciml.rollout import BlowUp
from sciml.step import State

Advance = Callable[["NeuralStep", State, Tensor, Tensor], tuple[Tensor, Sequence[float]]]
"""``(step, state, nodes, roots of weights) -> weights, [residual, length of the next part of a step, evaluations, error
made]``"""
Source = Callable[[Tensor], Callable[[Tensor], Derivative]]
"""``fields on the grid -> positions -> derivatives (name, m, n) there``"""

MOST = 1 / 3
"""That a fit of a start may leave, of u and L(u) together."""
LARGEST = 1e8
"""Of a weight; fields are scaled, so that useful ones are at most of the order of hundreds."""


@dataclass(frozen=True)
class NeuralStep:
    """Made by :func:`~sciml.insr.insr`; see there.

    ``memory`` of its states holds the scale of each output of the network, and the notes of the last step: the relative
    residual of its least squares, the length of the next part of a step, evaluations made, and a running estimate of
    the error relative to L(u): of the fit of the start and all that was added since, by residuals and in time, as if
    nothing of it grew or decayed (not a number where residuals measure no error). The weights that ``net`` has itself
    never matter.
    """

    system: System
    net: NeuralField
    domain: Domain
    dt: float
    advance: Advance
    samples: int
    source: Source
    output: tuple[Tensor, tuple[Expr, ...], tuple[int, ...]]
    """positions, expressions and shape of what :meth:`read` gives"""
    iterations: int
    start: Tensor
    """weights that :meth:`init` begins with"""
    projected: bool = False
    """whether fits end by variable projection, see :func:`~sciml.insr.solve.levenberg_marquardt`"""

    # -- the three functions of a step -------------------------------------------------------------------------------
    def init(self, fields: Tensor | Callable[[Tensor], Tensor], time: float = 0.0, seed: int = 0) -> State:
        """Weights fitted to fields ``(n, ny, nx)`` on the grid, what the equation steps, or to a function of torch
        ``positions (n, d) -> (outputs, n)`` of what the network holds; both to u and to L(u).

        Raises ``ValueError`` for values that are not finite, and where the fit leaves a third of them.
        """
        generator = torch.Generator(self.net.head.weight.device).manual_seed(seed)
        x, root = self.nodes(generator)
        coords = self.coords(x, time)
        if not callable(fields) and (fields := torch.as_tensor(fields)).ndim != 3:
            raise ValueError(f"the start must be fields (n, ny, nx) or a function, got {tuple(fields.shape)}; a "
                             "network holds one state, batches are networks of their own")  # fmt: skip
        values = self.differentiated(fields, x) if callable(fields) else self.source(fields)(x)
        u = torch.stack([values(name, 0, 0) for name in self.system.fields]).detach()
        rows = self.system.read_with(self.system.left, values, coords).detach()
        if not bool(torch.isfinite(u).all()):
            raise ValueError("the start is not finite everywhere")
        scale = size(u)
        fit = self.fitted(self.start, u, rows, x, root, coords, scale)
        if not fit.error < MOST:
            raise ValueError(f"the fit of the start leaves {fit.error:.0%} of it; use more iterations or weights, or a "
                             "smaller omega")  # fmt: skip
        notes = fit.theta.new_tensor([fit.error, self.dt, fit.iterations, fit.error])
        return State(fit.theta, float(time), (scale, notes), generator.get_state())

    def __call__(self, state: State) -> State:
        generator = torch.Generator(state.z.device)
        generator.set_state(state.rng)  # type: ignore[arg-type]
        x, root = self.nodes(generator)
        try:
            theta, notes = self.advance(self, state, x, root)
        except FloatingPointError as error:
            raise BlowUp(f"at t = {state.time:.6g}: {error}") from None
        if not bool(theta.abs().amax() < LARGEST):  # or not a number
            raise BlowUp(f"the weights blew up after t = {state.time:.6g}; use a smaller dt or a larger epsilon")
        *others, made = notes
        memory = (state.memory[0], theta.new_tensor([*others, float(state.memory[1][3]) + made]))
        return State(theta, state.time + self.dt, memory, generator.get_state())

    def read(self, state: State) -> Tensor:
        """What the equation steps, on its grid, ``(n, ny, nx)``."""
        positions, rows, shape = self.output
        return self.sample(state, positions, rows).reshape(-1, *shape)

    def differentiated(self, f: Callable[[Tensor], Tensor], x: Tensor) -> Derivative:
        """Derivatives of a function of positions in the directions of the domain."""
        offset = x.new_zeros(len(x), 2).requires_grad_()
        values = f(self.domain.jet(x, self.system.order).moved(offset))
        if values.shape != (len(self.system.fields), len(x)):
            raise ValueError(
                f"the start must give {(len(self.system.fields), len(x))} values, got {tuple(values.shape)}"
            )
        return differentiated(dict(zip(self.system.fields, values, strict=True)), offset)

    # -- sampling ----------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(self, state: State, positions: Tensor, rows: Sequence[Expr] = (), chunk: int = 4096) -> Tensor:
        """Values ``(rows, n)`` at positions ``(n, d)`` of expressions in the network's fields (default: these)."""
        put(self.net, state.z)
        asked = [expand(e) for e in rows or map(Field, self.system.fields)]
        order = max(map(depth, asked))
        found = []
        for part in positions.split(chunk):
            jet = self.net.jet(self.domain.jet(part, order)) * state.memory[0]
            found.append(self.system.read(asked, jet, self.coords(part, state.time)))
        return torch.cat(found, -1)

    def mean(self, state: State, rows: Sequence[Expr], samples: int | None = None) -> Tensor:
        """Means over the domain, ``(rows,)``, of expressions such as an energy."""
        x, weight = self.domain.nodes(samples or self.samples, torch.Generator().manual_seed(0))
        return (self.sample(state, x, rows) * weight).sum(-1)

    def nodes(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Nodes and roots of their weights."""
        x, weight = self.domain.nodes(self.samples, generator)
        return x, weight.sqrt()

    def coords(self, positions: Tensor, time: float) -> dict[str, Tensor]:
        """``x``, ``y`` and ``t``."""
        return {**self.domain.coords(positions), "t": positions.new_tensor(time)}

    # -- fitting -----------------------------------------------------------------------------------------------------
    def fitted(
        self, theta: Tensor, u: Tensor, rows: Tensor, x: Tensor, root: Tensor, coords, scale: Tensor
    ) -> Fit:  # fmt: skip
        """Weights nearest to u and L(u) at nodes, each in units of its root mean square."""
        left = () if self.plain else self.system.left
        target = torch.cat([u, rows]) if left else u
        factor, place = root / size(target)[:, None], self.domain.jet(x, max(map(depth, left), default=0))

        def whole(jet: Jet) -> Tensor:
            jet = jet * scale
            return torch.cat([jet.c[0].mT, self.system.read(left, jet, coords)]) if left else jet.c[0].mT

        def residual(theta: Tensor) -> tuple[Tensor, Tensor]:
            found, J = jacobian(put(self.net, theta), place, whole)
            return ((found - target) * factor).flatten(), (J * factor[..., None]).flatten(0, 1)

        if not self.projected:
            return levenberg_marquardt(residual, theta, self.iterations)
        named = self.net.named_parameters()
        head = torch.cat([torch.full((p.numel(),), name.startswith("head.")) for name, p in named]).to(theta.device)
        first = levenberg_marquardt(residual, theta, max(1, self.iterations // 3))
        last = levenberg_marquardt(residual, first.theta, self.iterations // 3, linear=head)
        return last._replace(iterations=first.iterations + 2 * last.iterations)

    def restarted(self, state: State) -> State:
        """The same field by weights that begin anew, where marching has made them ill-conditioned (Finzi et al. 2023,
        ICLR): steps become longer, and the field changes by the error of the fit, in the state's notes."""
        generator = torch.Generator(state.z.device)
        generator.set_state(state.rng)  # type: ignore[arg-type]
        x, root = self.nodes(generator)
        coords, scale = self.coords(x, state.time), state.memory[0]
        with torch.no_grad():
            jet = put(self.net, state.z).jet(self.domain.jet(x, self.system.order)) * scale
            u, rows = jet.c[0].mT, self.system.read(self.system.left, jet, coords)
        fit = self.fitted(self.start, u, rows, x, root, coords, scale)
        notes = fit.theta.new_tensor([fit.error, self.dt, fit.iterations, float(state.memory[1][3]) + fit.error])
        return state._replace(z=fit.theta, memory=(scale, notes))

    @property
    def plain(self) -> bool:
        """Whether L(u) = u."""
        return self.system.left == tuple(map(Field, self.system.fields))


def size(values: Tensor) -> Tensor:
    """Root mean squares of rows, of the largest for rows that are nothing beside it, such as a layer at rest."""
    rms = values.square().mean(-1).sqrt().clamp(min=torch.finfo(values.dtype).tiny)
    return torch.where(rms > 1e-3 * rms.amax(), rms, rms.amax())
