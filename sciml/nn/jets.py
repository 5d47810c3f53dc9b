r"""Jets: truncated Taylor expansions in position, carried through a network in one forward pass.

.. math:: f(x + s) = \sum_{|a| \le p} c_a s^a + O(s^{p+1}), \qquad \partial^a f = a!\, c_a,

with s in one to three dimensions and p the order. Sums, products, linear layers and functions of one variable map jets
to jets exactly (Griewank & Walther 2008, chapter 13), so that all derivatives of a network cost about as many
evaluations as there are coefficients, and one backward pass differentiates all of them with respect to the weights.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

Index = tuple[int, ...]
Series = Callable[[Tensor, int], list[Tensor]]
"""``(z, p) -> [f(z), f'(z), ..., f^(p)(z) / p!]``"""


@cache
def indices(dims: int, order: int) -> tuple[Index, ...]:
    """All multi-indices up to an order, the lowest orders first."""
    every = itertools.product(range(order + 1), repeat=dims)
    return tuple(sorted((a for a in every if sum(a) <= order), key=lambda a: (sum(a), [-i for i in a])))


@cache
def place(dims: int, order: int) -> dict[Index, int]:
    return {a: i for i, a in enumerate(indices(dims, order))}


@cache
def terms(dims: int, order: int, least: int) -> tuple[Tensor, Tensor, Tensor]:
    """Positions of the factors and of the product of all terms up to an order, of first factors from order ``least``.

    The second factor needs orders up to ``order - least`` only.
    """
    at, second = place(dims, order), indices(dims, order - least)
    found = [(at[a], at[b], at[c]) for a in indices(dims, order) if sum(a) >= least for b in second
             if (c := tuple(map(sum, zip(a, b, strict=True)))) in at]  # fmt: skip
    first, other, out = torch.tensor(found).T
    return first, other, out


@dataclass(frozen=True)
class Jet:
    """Coefficients ``c (K, ..., n)`` of n functions at the points of the other axes, K of :func:`indices`."""

    c: Tensor
    dims: int
    order: int

    def derivative(self, *a: int) -> Tensor:
        """``d^|a| f / dx^a``, ``(..., n)``."""
        a = (*a, *(0,) * (self.dims - len(a)))
        if any(a[self.dims :]):
            return torch.zeros_like(self.c[0])  # nothing varies in a dimension that is not there
        found = place(self.dims, self.order).get(a[: self.dims])
        if found is None:
            raise ValueError(f"a jet of order {self.order} has no derivative {a}")
        return math.prod(map(math.factorial, a)) * self.c[found]

    def __getitem__(self, columns) -> Jet:
        """Some of the functions."""
        return Jet(self.c[..., columns], self.dims, self.order)

    def __add__(self, other: Jet | Tensor | float) -> Jet:
        if isinstance(other, Jet):
            return Jet(self.c + other.c, self.dims, self.order)
        value = self.c[:1] + other
        return Jet(torch.cat([value, self.c[1:].expand(-1, *value.shape[1:])]), self.dims, self.order)

    def __mul__(self, other: Jet | Tensor | float) -> Jet:
        if not isinstance(other, Jet):
            return Jet(self.c * other, self.dims, self.order)
        return product(self, other)

    def sum(self) -> Jet:
        """Of all functions, as one."""
        return Jet(self.c.sum(-1, keepdim=True), self.dims, self.order)

    def moved(self, s: Tensor) -> Tensor:
        """The polynomials' values ``(..., n)`` at s ``(..., dims)``."""
        return sum(c * math.prod(s[..., i : i + 1] ** p for i, p in enumerate(a) if p)
                   for c, a in zip(self.c, indices(self.dims, self.order), strict=True))  # type: ignore[return-value]  # fmt: skip

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Jet:
        """``W f + b``."""
        out = Jet(self.c @ weight.mT, self.dims, self.order)
        return out if bias is None else out + bias

    def apply(self, series: Series) -> Jet:
        """A function of one variable of each, by Horner's rule in the part without the constant."""
        f = series(self.c[0], self.order)
        out, counts = f[-1][None], [len(indices(self.dims, p)) for p in range(self.order + 1)]
        for p in range(1, self.order + 1):
            first, other, at = (i.to(self.c.device) for i in terms(self.dims, p, 1))
            rest = torch.zeros_like(self.c[: counts[p]]).index_add(0, at, self.c[first] * out[other])
            out = torch.cat([f[-1 - p][None], rest[1:]])
        return Jet(out, self.dims, self.order)


def product(a: Jet, b: Jet) -> Jet:
    """Pointwise, with broadcasting of the other axes."""
    first, other, at = (i.to(a.c.device) for i in terms(a.dims, a.order, 0))
    pairs = a.c[first] * b.c[other]
    return Jet(pairs.new_zeros(len(a.c), *pairs.shape[1:]).index_add(0, at, pairs), a.dims, a.order)


def concatenated(jets: Sequence[Jet]) -> Jet:
    """The functions of all."""
    return Jet(torch.cat([j.c for j in jets], -1), jets[0].dims, jets[0].order)


def coordinates(positions: Tensor, dims: int, order: int) -> Jet:
    """The coordinates ``(..., d)`` themselves as functions of the first ``dims`` of them."""
    c = positions.new_zeros(len(indices(dims, order)), *positions.shape)
    c[0] = positions
    for i in range(dims if order else 0):
        c[1 + i, ..., i] = 1.0
    return Jet(c, dims, order)


# -- functions of one variable ---------------------------------------------------------------------------------------
def waves(first: Tensor, second: Tensor, order: int, rate: float = 1.0) -> list[Tensor]:
    """Of a function whose second derivative is ``-rate^2`` times it, from it and its first derivative over rate."""
    cycle = (first, second, -first, -second)
    return [cycle[p % 4] * (rate**p / math.factorial(p)) for p in range(order + 1)]


def sine(z: Tensor, order: int, omega: float = 1.0) -> list[Tensor]:
    """``sin(omega z)``."""
    return waves(torch.sin(omega * z), torch.cos(omega * z), order, omega)


def cosine(z: Tensor, order: int, omega: float = 1.0) -> list[Tensor]:
    """``cos(omega z)``."""
    return waves(torch.cos(omega * z), -torch.sin(omega * z), order, omega)


def tanh(z: Tensor, order: int) -> list[Tensor]:
    """From ``f' = 1 - f^2``, coefficient by coefficient."""
    f = [torch.tanh(z)]
    for p in range(order):
        square = torch.stack([f[i] * f[p - i] for i in range(p + 1)]).sum(0)
        f.append(((1.0 if p == 0 else 0.0) - square) / (p + 1))
    return f


def exponential(z: Tensor, order: int) -> list[Tensor]:
    f = torch.exp(z)
    return [f / math.factorial(p) for p in range(order + 1)]


def reciprocal(z: Tensor, order: int) -> list[Tensor]:
    return [(-1.0) ** p * z ** -(p + 1) for p in range(order + 1)]


@dataclass(frozen=True)
class Activation:
    """A function of one variable and its Taylor series."""

    function: Callable[[Tensor], Tensor]
    series: Series

    def __call__(self, z: Tensor) -> Tensor:
        return self.function(z)


TANH = Activation(torch.tanh, tanh)


def sines(omega: float) -> Activation:
    """``sin(omega z)``."""
    return Activation(lambda z: torch.sin(omega * z), partial(sine, omega=omega))
