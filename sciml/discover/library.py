r"""Candidate terms of an equation, written in its expression language.

A :class:`Library` is a list of expressions; ``+`` joins two of them and ``*`` multiplies each with each. It is read on
coefficients, term by term: derivatives are exact, products dealiased as in the model itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise

import numpy as np
import torch
from torch import Tensor

from sciml.equation.base import Equation, repeat
from sciml.equation.expression import (
    Apply,
    Expr,
    Field,
    J,
    Number,
    canonical,
    dx,
    dy,
    lap,
    leaves,
    mean_x,
    parse,
    parts,
)


@dataclass(frozen=True)
class Library:
    """Candidate terms, each once; texts are read with :func:`~sciml.equation.expression.parse`.

    Examples
    --------
    >>> library = sm.Library(("psi1", "lap(psi2)")) + sm.Library(("J(psi1, q1)",))
    >>> len(library), library.without("psi1").names
    (3, ('lap(psi2)', 'J(psi1, q1)'))
    """

    terms: tuple[Expr, ...]

    def __post_init__(self):
        if isinstance(self.terms, str):
            raise ValueError(f"a library is a tuple of terms, such as ('psi1', 'lap(psi2)'); got {self.terms!r}")
        read = [parse(t) if isinstance(t, str) else t for t in self.terms]
        object.__setattr__(self, "terms", tuple(dict.fromkeys(read)))

    def __len__(self) -> int:
        return len(self.terms)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(map(str, self.terms))

    def __add__(self, other: Library) -> Library:
        return Library((*self.terms, *other.terms))

    def __mul__(self, other: Library) -> Library:
        return Library(tuple(a * b for a in self.terms for b in other.terms))

    def without(self, *names: str) -> Library:
        """All but the terms of these names. Raises ``ValueError`` for one that is not there."""
        gone = [str(parse(n)) for n in names]
        if missing := set(gone) - set(self.names):
            raise ValueError(f"the library has no term {', '.join(sorted(missing))}")
        return Library(tuple(t for t in self.terms if str(t) not in gone))

    def values(self, eq: Equation, z: Tensor, t: float = 0.0) -> Tensor:
        """Coefficients ``(..., p, *modes)`` of all terms for states ``(..., n, *modes)`` of ``eq``.

        Raises ``ValueError`` for terms with fields that the equation does not have.
        """
        read = eq.reader(z, t)
        unknown = {t: leaves(e, Field) - read.fields.keys() for t, e in zip(self.names, self.terms, strict=True)}
        if bad := [f"{t} ({', '.join(sorted(u))})" for t, u in unknown.items() if u]:
            raise ValueError(f"terms with fields that the equation does not have: {'; '.join(bad)}")
        shape = *z.shape[:-3], *eq.grid.modes
        return torch.stack([read(e).expand(shape) for e in self.terms], -3)

    def table(self, eq: Equation, z: Tensor, t: float = 0.0) -> np.ndarray:
        """Values on the grid as a matrix ``(..., ny, nx, p)``, which is what pysindy takes as precomputed features:
        ``SINDy(feature_library=IdentityLibrary()).fit(table, t, x_dot=..., feature_names=library.names)``."""
        return eq.grid.ifft(self.values(eq, z, t)).movedim(-3, -1).cpu().numpy()


# -- libraries -------------------------------------------------------------------------------------------------------
def powers(field: str, degree: int) -> Library:
    """``1, u, u^2, ...`` to the given degree."""
    return Library(tuple(Field(field) ** n for n in range(degree + 1)))


def derivatives(field: str, order: int) -> Library:
    """``1, u_x, u_xx, ...`` in one dimension to the given order; even ones as powers of ``lap``."""
    u = Field(field)
    found = [repeat(lap, n // 2, u) for n in range(1, order + 1)]
    return Library((Number(1.0), *(dx(f) if n % 2 else f for n, f in enumerate(found, 1))))


def polynomial(field: str = "u", degree: int = 4, order: int = 4) -> Library:
    """``u^p d^k u / dx^k`` with p and k from 0, but for the constant: 24 terms for 4 and 4 (PDE-FIND's library, Rudy et
    al. 2017, Sci. Adv. 3, e1602614; the one of MEDIDA's first paper)."""
    found = powers(field, degree) * derivatives(field, order)
    return Library(tuple(t for t in found.terms if t != Number(1.0)))


def layered(eq: Equation, thickness: bool = False) -> Library:
    """Of flow in layers, for any of its layers: psi, its Laplacians and their gradients, advections
    ``J(psi_i, q_j)`` and ``J(psi_1, psi_2)``, products of psi, of PV and of velocities, hyperviscosity, a constant, and
    the fixed fields (relaxation, topography, sponge) with their advection. 32 terms and more for two layers.

    ``q`` is ``lap(psi)`` with a difference of psi and no term of its own: columns must not depend on each other. With
    ``thickness`` the psi of lower layers stands as ``psi1 - psi2`` and so on: errors of what is found then cannot leave
    a psi of all layers, which is a strong drag, or a negative one, on the largest scales, as these have next to no PV.
    Take it for a model that is to be run with noisy findings.
    """
    n = len(eq.prognostic)
    psi, q = ([Field(f"{name}{i + 1}") for i in range(n)] for name in ("psi", "q"))
    plain = [psi[0], *(a - b for a, b in pairwise(psi))] if thickness else psi
    linear = [a for p, own in zip(psi, plain, strict=True) for a in (own, lap(p), lap(lap(p)))]
    gradients = [d(a) for p in psi for a in (p, lap(p)) for d in (dx, dy)]
    advections = [J(a, b) for a in psi for b in q] + [J(a, b) for i, a in enumerate(psi) for b in psi[i + 1 :]]
    products = [a * b for fields in (psi, q) for a, b in combinations_with_replacement(fields, 2)]
    products += [dx(a) * dy(a) for a in psi] + [d(psi[0]) * d(psi[-1]) for d in (dx, dy)]
    viscous = [repeat(lap, 4, a) for a in q]
    return Library((*linear, *gradients, *advections, *products, *viscous, Number(1.0))) + fixed(eq)


def fixed(eq: Equation) -> Library:
    """The fields that never change: psi_R and eta, the advection of eta by the flow and by a mean flow, and the sponge
    on each layer's eddies."""
    found: list[Expr] = [Field(n) for n in ("psi_R", "eta") if n in eq.fixed]
    found += [d(Field("eta")) for d in (dx, dy) if "eta" in eq.fixed]
    for i in range(1, len(eq.prognostic) + 1):
        q = Field(f"q{i}")
        found += [J(Field(f"psi{i}"), Field("eta"))] if "eta" in eq.fixed else []
        found += [Field("sponge") * (q - mean_x(q))] if "sponge" in eq.fixed else []
    return Library(tuple(found))


def own(eq: Equation) -> Library:
    """The terms of an equation without their coefficients, sums taken apart."""
    found = (bare(part) for term in eq.terms for part in parts(term.expr, "add"))
    return Library(tuple(bare(piece) for e in found for piece in parts(e, "add")))


def bare(e: Expr) -> Expr:
    """A product without its numbers and parameters."""
    return canonical(Apply("mul", tuple(f for f in parts(e, "mul") if leaves(f, Field))))


def terms(eq: Equation, thickness: bool = False) -> Library:
    """A library for an equation: :func:`layered` for flow in layers (with differences of psi between them if
    ``thickness``), :func:`polynomial` for one field in one dimension. Raises ``ValueError`` for others; put one
    together with ``+`` and ``*``.

    Examples
    --------
    >>> "J(psi1, q2)" in sm.terms(sm.preset("eddy", nx=16)).names
    True
    """
    if all(f"psi{i + 1}" in eq.diagnostic for i in range(len(eq.prognostic))):
        return layered(eq, thickness)
    if len(eq.prognostic) == 1 and eq.grid.ny == 1:
        return polynomial(eq.prognostic[0])
    raise ValueError(f"no library is known for {type(eq).__name__}; put one together from library.Library((...))")


def coefficients(library: Library, truth: Equation, model: Equation, z: Tensor) -> np.ndarray:
    """What ``truth`` has over ``model`` in terms of the library, ``(n, p)``, from their tendencies of states ``z``.

    Exact up to rounding where the difference lies in the library; raises ``ValueError`` where it does not.
    """
    X = model.grid.ifft(library.values(model, z)).movedim(-3, -1).reshape(-1, len(library)).cpu().numpy()
    h = model.grid.ifft(truth.tendency(z) - model.tendency(z)).movedim(-3, 0)
    y = h.reshape(len(h), -1).cpu().numpy()
    scale = np.sqrt((X**2).mean(0))
    c = np.linalg.lstsq(X / scale, y.T, rcond=1e-12)[0].T
    size = np.sqrt((y**2).mean(1, keepdims=True))
    if np.any(np.sqrt(((y - c @ (X / scale).T) ** 2).mean(1, keepdims=True)) > 1e-5 * np.maximum(size, 1e-30)):
        raise ValueError("what the model lacks is not in the library; add the term")
    return np.where(np.abs(c) > 1e-5 * size, c / scale, 0.0)
