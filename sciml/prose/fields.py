"""Data sets of solutions of partial differential equations, with the equations they solve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.equation.expression import Expr
from sciml.grid import Grid
from sciml.prose.partial import LENGTH, PDE, POINTS, SPAN, TIMES
from sciml.prose.states import Shape
from sciml.prose.trajectories import Trajectories

DRAWN = 256
"""Initial states drawn at once, whatever the batch that is solved."""


@dataclass(frozen=True)
class Fields(Trajectories):
    """Solutions ``u (N, T, 128)`` of the field u_0; ``u_1``, where an equation has one, is zero at first.

    Values at the points x, or averages over cells around them for the families with shocks or fronts. Everything else
    is as in :class:`~sciml.prose.trajectories.Trajectories`, a point taking the place of a field.
    """

    x: Tensor
    """points ``(128,)``, cell centres, float32"""

    def to(self, device: torch.device | str) -> Fields:
        moved = {name: getattr(self, name).to(device) for name in ("t", "u", "equation", "family", "dims", "x")}
        return replace(self, **moved)


@torch.no_grad()
def generate_fields(
    families: Iterable[PDE], equations: int, conditions: int, *, seed: int, spread: float = 0.1,
    times: Tensor | None = None, shape: Shape | None = None, device: torch.device | str = "cpu",
    batch: int | None = None, tries: int = 10,
) -> Fields:  # fmt: skip
    """Solutions of ``equations`` equations, families in turn, from ``conditions`` initial states each.

    The draws are the same on every device and for every batch; the steps of finite volumes are those of the fastest
    sample of a batch, which changes such solutions within their error. A solution that is not finite or beyond the
    bound of its family starts again from another state.

    Parameters
    ----------
    families : such as ``PDES.values()`` of :mod:`~sciml.prose.partial`
    times : ``(T,)``, evenly spaced, from the initial time on; 64 from 0 to 2 by default, as PROSE-PDE has them
    shape : takes the place of the families' own initial shapes, such as
        :func:`~sciml.prose.states.gaussian_process` as a shift for tests; the range of values stays the family's
    batch : solutions computed at once; by default 32 on CPUs, where they stay in cache, else 4096
    tries : initial states drawn before a solution is given up

    Raises
    ------
    ValueError : for no families, fewer equations than families, times that are not evenly spaced, and where a solution
        is beyond the bound from ``tries`` initial states
    """
    families, times = list(families), torch.linspace(0, SPAN, TIMES, dtype=torch.float64) if times is None else times
    if not families or conditions < 1 or equations < len(families):
        raise ValueError(
            f"{equations} equations with {conditions} states each of {len(families)} families: give one family, one "
            "state, and an equation for each family at least"
        )
    generator, family = torch.Generator().manual_seed(seed), torch.arange(equations) % len(families)
    u = torch.zeros(equations, conditions, len(times), POINTS, device=device)
    written: list[tuple[Expr, ...]] = [()] * equations
    for i, pde in enumerate(families):
        mine = (family == i).nonzero()[:, 0]
        params = pde.sample(len(mine), generator, spread)
        for k, j in enumerate(mine.tolist()):
            written[j] = pde.written({name: float(p[k]) for name, p in params.items()})
        run = _Runs(pde, times.double(), shape, device, batch, tries)
        repeated = {name: p.repeat_interleave(conditions) for name, p in params.items()}
        u[mine.to(device)] = run(repeated, len(mine) * conditions, generator).unflatten(0, (len(mine), conditions))
    index, dims = torch.arange(equations).repeat_interleave(conditions), torch.tensor([len(e) for e in written])
    x, names = Grid(POINTS, 1, Lx=LENGTH).x[0].float(), tuple(pde.name for pde in families)
    return Fields(times.float(), u.flatten(0, 1), index, written, family, dims, names, x).to(device)


@dataclass(frozen=True)
class _Runs:
    """Bounded solutions of one family, in batches."""

    pde: PDE
    times: Tensor
    shape: Shape | None
    device: torch.device | str
    batch: int | None
    tries: int

    def __call__(self, params: Mapping[str, Tensor], n: int, generator: torch.Generator) -> Tensor:
        out, left = torch.empty(n, len(self.times), POINTS, device=self.device), torch.arange(n)
        size = self.batch or (32 if torch.device(self.device).type == "cpu" else 4096)
        for _ in range(self.tries):
            counts = [len(part) for part in left.split(DRAWN)]
            u0 = torch.cat([self.pde.initial(count, generator, self.shape) for count in counts])
            pieces = zip(left.split(size), u0.split(size), strict=True)
            left = left[~torch.cat([self._run(params, start, index, out) for index, start in pieces])]
            if not len(left):
                return out
        where = {name: round(float(p[left[0]]), 6) for name, p in params.items()}
        raise ValueError(
            f"{len(left)} of {n} solutions of {self.pde.name!r} are not finite or larger than {self.pde.bound:g} from "
            f"{self.tries} initial states, for example with {where}; raise bound or tries, or lessen spread or the "
            "last of times"
        )

    def _run(self, params: Mapping[str, Tensor], u0: Tensor, index: Tensor, out: Tensor) -> Tensor:
        """Solve and store; whether each solution is good, on the CPU."""
        at = {name: p[index].to(self.device) for name, p in params.items()}
        u = self.pde.solve(at, u0.to(self.device), self.times)[:, :, 0]
        out[index.to(self.device)] = u.float()
        return (u.abs() < self.pde.bound).all(-1).all(-1).cpu()  # false for nan too
