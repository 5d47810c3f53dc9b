r"""Random polynomial systems: forms of equations that no family of PROSE has, for training and for tests of discovery.

Every trajectory is bounded by construction. Exchanges of energy between two fields, :math:`\dot u_i = c u_j m`,
:math:`\dot u_j = -c u_i m` with a monomial m, leave :math:`|u|^2` as it is (Lorenz 1963 is of this kind); added to
them are

- either linear damping of every field and constant forcing, so that :math:`|u|^2` decays outside a ball;
- or cubic damping of every field and any linear and quadratic terms, which cubic damping exceeds in the large.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sciml.equation.expression import Expr, Field, Number, Param
from sciml.prose.compiled import field_names
from sciml.prose.system import System

Monomial = tuple[int, ...]
"""Numbers of the fields that are multiplied, in order; ``()`` is 1."""


def random_systems(count: int, *, seed: int, dims: Sequence[int] = (2, 3, 4)) -> list[System]:
    """``count`` polynomial systems of degree 2 or 3 with as many fields as drawn from ``dims``; names ``poly_0``, ...

    The same seed gives the same systems. Centres of coefficients have two decimals, damping between 0.1 and
    0.5, all others between 0.3 and 3 in size.

    Raises
    ------
    ValueError : for fewer than one system, no dims, or a dimension below 2
    """
    if count < 1 or not dims or min(dims) < 2:
        raise ValueError(f"give count of 1 or more and dims of 2 or more, got {count} and {tuple(dims)}")
    generator = torch.Generator().manual_seed(seed)
    return [_Draw(f"poly_{i}", generator).system(dims) for i in range(count)]


class _Draw:
    """One system under way: the coefficient of each monomial in each right-hand side."""

    def __init__(self, name: str, generator: torch.Generator):
        self.name, self.generator = name, generator
        self.centres: dict[str, float] = {}
        self.rows: list[dict[Monomial, Expr]] = []

    def system(self, dims: Sequence[int]) -> System:
        dim = dims[self.integer(len(dims))]
        self.rows = [{} for _ in range(dim)]
        cubic = self.integer(2) == 1
        for i in range(dim):
            self.rows[i][(i, i, i) if cubic else (i,)] = -self.coefficient(0.1, 0.5)
        for _ in range(1 + self.integer(dim)):
            self.exchange()
        for _ in range(1 + self.integer(dim)):
            self.free(self.integer(3 if cubic else 1))
        return System(self.name, tuple(_written(row, field_names(dim)) for row in self.rows), self.centres)

    def exchange(self) -> None:
        """Energy from one field to another at a rate that a third, or none, multiplies."""
        dim = len(self.rows)
        i, j = torch.randperm(dim, generator=self.generator)[:2].tolist()
        k = self.integer(dim + 1)
        m = () if k == dim else (k,)
        to, back = tuple(sorted((j, *m))), tuple(sorted((i, *m)))
        if to not in self.rows[i] and back not in self.rows[j]:
            c = self.coefficient(0.3, 2.0)
            self.rows[i][to], self.rows[j][back] = c, -c

    def free(self, degree: int) -> None:
        """A term of this degree anywhere."""
        row = self.rows[self.integer(len(self.rows))]
        m = tuple(sorted(self.integer(len(self.rows)) for _ in range(degree)))
        if m not in row:
            c = self.coefficient(0.3, 3.0)
            row[m] = c if self.integer(2) else -c

    def coefficient(self, low: float, high: float) -> Expr:
        name = f"c{len(self.centres)}"
        drawn = float(torch.rand(1, generator=self.generator, dtype=torch.float64))
        self.centres[name] = round(low + (high - low) * drawn, 2)
        return Param(name)

    def integer(self, below: int) -> int:
        return int(torch.randint(below, (1,), generator=self.generator))


def _written(row: dict[Monomial, Expr], fields: tuple[str, ...]) -> Expr:
    out: Expr = Number(0.0)
    for monomial, coefficient in row.items():
        term = coefficient
        for k in monomial:
            term = term * Field(fields[k])
        out = out + term
    return out
