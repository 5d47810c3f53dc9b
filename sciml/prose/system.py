"""A family of equations: right-hand sides whose parameters are drawn from a box around their centres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sciml.equation.base import substituted
from sciml.equation.expression import Expr


@dataclass(frozen=True)
class System:
    r"""Evolution equations :math:`\dot u_i = f_i(u; p)` of one form, with uncertain parameters p.

    Parameters
    ----------
    rhs : one expression for each of the fields ``u_0``, ``u_1``, ..., in parameters of ``centres`` and ``choices``
    centres : parameters drawn uniformly within ``spread`` times their size of these values
    choices : parameters drawn from a few values, such as exponents
    bound : trajectories that grow beyond this are rejected
    """

    name: str
    rhs: tuple[Expr, ...]
    centres: Mapping[str, float] = field(default_factory=dict)
    choices: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    bound: float = 1e3

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(f"u_{i}" for i in range(len(self.rhs)))

    def sample(self, n: int, generator: torch.Generator, spread: float = 0.1) -> dict[str, Tensor]:
        """Values of all parameters in ``n`` equations, float64 ``(n,)``, as tokens can say them (:func:`rounded`)."""
        out = {}
        for name, centre in self.centres.items():
            uniform = 2 * torch.rand(n, generator=generator, dtype=torch.float64) - 1
            out[name] = rounded(centre + spread * abs(centre) * uniform)
        for name, values in self.choices.items():
            out[name] = torch.tensor(values, dtype=torch.float64)[torch.randint(len(values), (n,), generator=generator)]
        return out

    def written(self, values: Mapping[str, float]) -> tuple[Expr, ...]:
        """The right-hand sides with numbers in place of the parameters."""
        return tuple(substituted(e, values) for e in self.rhs)


def rounded(values: Tensor) -> Tensor:
    """Values to three significant digits, the nearest float64 to each decimal."""
    return torch.tensor([float(f"{v:.3g}") for v in values.reshape(-1).tolist()], dtype=torch.float64).view(
        values.shape
    )


def held_out(names: Sequence[str], family: Tensor, equations: Sequence[Any], fraction: float, seed: int) -> Tensor:
    """Equations to keep for tests, boolean ``(equations,)``: about ``fraction`` of the different ones of each family.

    Equal equations stay together. Raises ``ValueError`` for a fraction outside (0, 1), and for a family that has one
    equation only.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be between 0 and 1, got {fraction}")
    generator, held = torch.Generator().manual_seed(seed), torch.zeros(len(equations), dtype=torch.bool)
    for number, name in enumerate(names):
        groups: dict[Any, list[int]] = {}
        for i in (family == number).nonzero()[:, 0].tolist():
            groups.setdefault(equations[i], []).append(i)
        if len(groups) == 1:
            raise ValueError(f"family {name!r} has one equation only, which two sets cannot share; draw more")
        order, members = torch.randperm(len(groups), generator=generator).tolist(), list(groups.values())
        for k in order[: min(max(1, round(fraction * len(groups))), len(groups) - 1)]:
            held[members[k]] = True
    return held
