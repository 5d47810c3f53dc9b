"""Data sets of solutions of partial differential equations, with the equations they solve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.equation.expression import Expr
from sciml.grid import Grid
from sciml.prose.partial import LENGTH, PDES, POINTS, SPAN, TIMES
from sciml.prose.states import Shape

ATTEMPTS = 10
"""Times that states whose solutions are rejected are drawn again."""


@dataclass(frozen=True)
class Fields:
    """Solutions ``u (samples, times, points)`` of the field u_0; ``u_1``, where there is one, is zero at first.

    Parameters
    ----------
    t, x : times and points (cell centres) of the periodic interval [0, 2], float64
    u : float32; cell averages for the families with shocks or fronts, values at the points for all others
    equation : index of each sample's equation in ``equations``
    equations : right-hand sides of all fields, with numbers
    family : index of each sample's family in ``names``
    """

    t: Tensor
    x: Tensor
    u: Tensor
    equation: Tensor
    equations: list[tuple[Expr, ...]]
    family: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.u)

    def to(self, device) -> Fields:
        moved = {name: getattr(self, name).to(device) for name in ("t", "x", "u", "equation", "family")}
        return replace(self, **moved)

    def select(self, index: Tensor) -> Fields:
        """The samples of these indices, or of a mask; all equations stay."""
        return replace(self, u=self.u[index], equation=self.equation[index], family=self.family[index])

    def split(self, part: float, seed: int) -> tuple[Fields, Fields]:
        """Two sets that share no equation; the second has about ``part`` of the equations, at random."""
        if not 0 < part < 1:
            raise ValueError(f"the part of the second set must be between 0 and 1, got {part}")
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.rand(len(self.equations), generator=generator) < part
        second = chosen.to(self.equation.device)[self.equation]
        return self.select(~second), self.select(second)


def generate_fields(
    families: Sequence[str] | None = None,
    equations: int = 1,
    conditions: int = 1,
    seed: int = 0,
    *,
    times: int = TIMES,
    until: float = SPAN,
    spread: float = 0.1,
    shape: Shape | None = None,
    batch: int = 256,
    device: str | torch.device = "cpu",
) -> Fields:
    """Solutions of random equations of some families from random states.

    A family's samples are the same whatever other families are asked for, and draws do not depend on the device.

    Parameters
    ----------
    families : names in :data:`~sciml.prose.partial.PDES`; all by default
    equations : equations drawn of each family, with parameters within ``spread`` times their centres
    conditions : initial states of each equation
    times, until : evenly spaced times from 0 to ``until``
    shape : takes the place of the families' shapes of initial states, such as
        :func:`~sciml.prose.states.gaussian_process` as a shift for tests; their ranges stay
    batch : samples that are solved at once

    Raises
    ------
    ValueError : for unknown families and counts below one, or where states cannot be found whose solutions are
        finite and within the family's bound
    """
    names = tuple(PDES if families is None else families)
    if unknown := [name for name in names if name not in PDES]:
        raise ValueError(f"no family {', '.join(unknown)}; there are {', '.join(PDES)}")
    if not names or len(set(names)) < len(names) or min(equations, conditions, batch) < 1 or times < 2:
        raise ValueError(
            "give different families, one equation, condition and sample per batch at least, and two times"
        )
    t = torch.linspace(0, until, times, dtype=torch.float64)
    made = [_family(name, equations, conditions, seed, t, spread, shape, batch, device) for name in names]
    return Fields(
        t,
        Grid(POINTS, 1, Lx=LENGTH).x[0],
        torch.cat([u for u, _ in made]),
        torch.arange(len(names) * equations).repeat_interleave(conditions),
        [e for _, written in made for e in written],
        torch.arange(len(names)).repeat_interleave(equations * conditions),
        names,
    ).to(device)


def _family(name, equations, conditions, seed, t, spread, shape, batch, device) -> tuple[Tensor, list]:
    pde = PDES[name]
    generator = torch.Generator().manual_seed(1000 * seed + list(PDES).index(name))
    params = pde.sample(equations, generator, spread)
    written = [pde.written({k: float(v[i]) for k, v in params.items()}) for i in range(equations)]
    params = {k: v.repeat_interleave(conditions) for k, v in params.items()}
    rows = torch.arange(equations * conditions).split(batch)
    parts = [solutions(pde, {k: v[r] for k, v in params.items()}, len(r), generator, t, shape, device) for r in rows]
    return torch.cat(parts), written


def solutions(pde, params, n: int, generator, t: Tensor, shape, device) -> Tensor:
    """Solutions ``(n, times, points)``, float32, of states drawn again until all are within bounds."""
    out = torch.full((n, len(t), POINTS), torch.nan, device=device)
    todo = torch.arange(n)
    for _ in range(ATTEMPTS):
        u = pde.initial(len(todo), generator, shape).to(device)
        solved = pde.solve({k: v[todo].to(device) for k, v in params.items()}, u, t)[:, :, 0]
        out[todo] = solved.float()
        todo = todo[~(out[todo].abs().amax((1, 2)) < pde.bound).cpu()]
        if not len(todo):
            return out
    raise ValueError(f"{len(todo)} solutions of {pde.name} are not finite or beyond {pde.bound} after {ATTEMPTS} draws")
