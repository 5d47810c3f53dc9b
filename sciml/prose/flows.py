r"""Quasi-geostrophic flows whose terms and coefficients vary: equations of one and of two layers.

One layer, and two layers of which the upper has the mean flow U:

.. math::
    \dot q_1 &= -J(\psi_1, q_1) - \beta \psi_{1,x} - r \nabla^2 \psi_1 + s \psi_1 - j_m \cos m y
        + \nu \nabla^2 q_1 - \nu_4 \nabla^4 q_1 - h J(\psi_1, \eta), \qquad q_1 = \nabla^2 \psi_1 - F \psi_1, \\
    \dot q_1 &= -J(\psi_1, q_1) - U q_{1,x} - (\beta + F_1 U) \psi_{1,x}
        + \kappa F_1 (\psi_1 - \psi_2) - j_m \cos m y + \dots, \qquad q_1 = \nabla^2 \psi_1 + F_1 (\psi_2 - \psi_1), \\
    \dot q_2 &= -J(\psi_2, q_2) - (\beta - F_2 U) \psi_{2,x} - r \nabla^2 \psi_2
        - \kappa F_2 (\psi_1 - \psi_2) + j_m \tfrac{F_2}{F_1} \cos m y - h J(\psi_2, \eta) + \dots

(Vallis 2017, chapter 5, whose interface relaxes towards a jet as in the preset ``relaxation_jet``).

**Units.** A length of 1 is the side of the box over :math:`2 \pi`, a time of 1 is a day. In a box of side B metres a
speed is :math:`B / (2 \pi \cdot 86400)` m/s, beta :math:`2 \pi / (86400 B)` m-1 s-1, F :math:`(2 \pi / B)^2` m-2,
viscosity :math:`(B / 2 \pi)^2 / 86400` m2/s: for B = 8000 km, 0.3 is 4.4 m/s and beta = 1.3 is 1.2e-11 m-1 s-1.

**Written equations.** A member is a tuple of expressions with numbers only: the tendency of each ``q``, then each
``q`` as it follows from the streamfunctions, ``("-J(psi1, q1) - 0.5*dx(psi1)", "-4*psi1 + lap(psi1)")``. The
deformation radius is thus written where it belongs, and :func:`as_equation` needs nothing else (but the map ``eta``).
The domain mean of every field is zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor

from sciml.equation.base import Equation, Term, courant, substituted
from sciml.equation.expression import (
    Apply,
    Coord,
    Expr,
    Field,
    J,
    Number,
    Param,
    canonical,
    cos,
    dx,
    lap,
    leaves,
    parts,
    wrap,
)  # fmt: skip
from sciml.equation.readings import NotLinear, multipliers
from sciml.grid import Grid
from sciml.prose.system import rounded

Written = tuple[Expr, ...]
"""Tendencies of q1, q2, ..., then q1, q2, ... themselves in terms of the streamfunctions."""

JETS = {"jet1": 1, "jet2": 2, "jet3": 3}
"""Terms ``cos(m y)`` and their m."""

TERMS = ("radius", "beta", "shear", "drag", "relaxation", *JETS, "viscosity", "hyperviscosity", "topography")
"""Names of all terms besides the advection."""


# -- equations in parameters -----------------------------------------------------------------------------------------
def structure(layers: int, terms: Iterable[str]) -> Written:
    """The written equation of these terms, with ``Param`` s for its coefficients (:func:`parameters`).

    Raises ``ValueError`` for unknown terms, for two layers without "radius", and for one layer with "shear".
    """
    terms = frozenset(terms)
    if layers not in (1, 2):
        raise ValueError(f"a flow has 1 or 2 layers, got {layers}")
    if unknown := terms - set(TERMS):
        raise ValueError(f"unknown terms {sorted(unknown)}; there are {', '.join(TERMS)}")
    if layers == 2 and "radius" not in terms:
        raise ValueError("two layers are coupled by their deformation radius: add the term 'radius'")
    if layers == 1 and "shear" in terms:
        raise ValueError("shear is a difference between two layers; one layer has none")
    return _one_layer(terms) if layers == 1 else _two_layers(terms)


def parameters(layers: int, term: str) -> tuple[str, ...]:
    """Names of the parameters that a term brings along."""
    own = {"radius": ("F",) if layers == 1 else ("F1", "F2"), "shear": ("U",), "drag": ("r",), "viscosity": ("nu",)}
    own |= {"relaxation": ("s",) if layers == 1 else ("kappa",), "hyperviscosity": ("nu4",), "topography": ("h",)}
    return own.get(term, (term,))


def _one_layer(terms: frozenset[str]) -> Written:
    q, psi = Field("q1"), Field("psi1")
    rhs = -J(psi, q) + _damping(terms, q)
    if "beta" in terms:
        rhs = rhs - Param("beta") * dx(psi)
    if "relaxation" in terms:
        rhs = rhs + Param("s") * psi
    for name in [jet for jet in JETS if jet in terms]:
        rhs = rhs - Param(name) * _wave(name)
    rhs = rhs + _bottom(terms, psi)
    return rhs, lap(psi) - Param("F") * psi if "radius" in terms else lap(psi)


def _two_layers(terms: frozenset[str]) -> Written:
    F, rhs, inversion = (Param("F1"), Param("F2")), [], []
    psi = Field("psi1"), Field("psi2")
    for i, sign in ((0, 1), (1, -1)):
        q, own, other = Field(f"q{i + 1}"), psi[i], psi[1 - i]
        gradient = (Param("beta"),) if "beta" in terms else ()
        gradient += (sign * F[i] * Param("U"),) if "shear" in terms else ()
        row = -J(own, q) + _damping(terms, q) - sum(gradient, Number(0.0)) * dx(own)
        if "relaxation" in terms:
            row = row + Param("kappa") * F[i] * own - Param("kappa") * F[i] * other
        for name in [jet for jet in JETS if jet in terms]:
            row = row - sign * (F[i] / F[0]) * Param(name) * _wave(name)
        rhs.append(row)
        inversion.append(lap(own) - F[i] * own + F[i] * other)
    if "shear" in terms:
        rhs[0] = rhs[0] - Param("U") * dx(Field("q1"))
    rhs[1] = rhs[1] + _bottom(terms, psi[1])
    return (*rhs, *inversion)


def _wave(name: str) -> Expr:
    return cos(JETS[name] * Coord("y"))


def _damping(terms: frozenset[str], q: Expr) -> Expr:
    nu = Param("nu") * lap(q) if "viscosity" in terms else Number(0.0)
    return nu - Param("nu4") * lap(lap(q)) if "hyperviscosity" in terms else nu


def _bottom(terms: frozenset[str], psi: Expr) -> Expr:
    drag = -Param("r") * lap(psi) if "drag" in terms else Number(0.0)
    return drag - Param("h") * J(psi, Field("eta")) if "topography" in terms else drag


# -- members ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Member:
    """One equation of a family."""

    family: str
    terms: frozenset[str]
    values: Mapping[str, float]
    """parameters before the coefficients were rounded to three digits, by name"""
    expressions: Written

    @property
    def layers(self) -> int:
        return len(self.expressions) // 2


@dataclass(frozen=True)
class FlowFamily:
    """Flows of some layers, of which some terms are always there and the others by chance.

    Parameters
    ----------
    always : terms of every member; either viscosity or hyperviscosity is added to them, and drag to a shear
    chances : probability of each optional term; "jet" stands for one of :data:`JETS`, together with relaxation
    ranges : bounds of each parameter, drawn with an even logarithm (see :data:`RANGES`)
    """

    name: str
    layers: int
    always: tuple[str, ...] = ()
    chances: Mapping[str, float] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def sample(self, n: int, generator: torch.Generator) -> list[Member]:
        """``n`` members, their coefficients rounded to three significant digits."""
        return [self._member(generator) for _ in range(n)]

    def _member(self, generator: torch.Generator) -> Member:
        def uniform() -> float:
            return float(torch.rand((), generator=generator, dtype=torch.float64))

        terms = {*self.always, "viscosity" if uniform() < 0.5 else "hyperviscosity"}
        terms |= {name for name, chance in self.chances.items() if uniform() < chance}
        if "jet" in terms:
            terms = (terms - {"jet"}) | {"relaxation", f"jet{1 + int(3 * uniform())}"}
        if "shear" in terms:
            terms |= {"drag"}
        values = {}
        for name in (p for term in TERMS if term in terms for p in parameters(self.layers, term)):
            low, high = (RANGES | dict(self.ranges))["jet" if name in JETS else name]
            values[name] = low * (high / low) ** uniform()
        return written_member(self.name, self.layers, terms, self._tied(values, uniform))

    def _tied(self, values: dict[str, float], uniform) -> dict[str, float]:
        """Parameters that are drawn relative to others: F2 to F1, the speed of a jet to its forcing, signs."""
        out = dict(values)
        if "F2" in out:
            out["F2"] *= out["F1"]
        if "U" in out:
            out["U"] *= 1 if uniform() < 0.7 else -1
        rate = out["s"] if "s" in out else out.get("kappa", 0.0) * out.get("F1", 0.0)
        for name in [jet for jet in JETS if jet in out]:
            out[name] *= rate / JETS[name] * (1 if uniform() < 0.5 else -1)
        return out


RANGES = {
    "F": (1.0, 16.0), "F1": (2.0, 12.0), "F2": (0.25, 1.0), "beta": (0.1, 2.0), "U": (0.08, 0.3), "r": (0.01, 0.1),
    "s": (0.03, 0.3), "kappa": (0.01, 0.1), "jet": (0.1, 0.4), "nu": (1e-3, 5e-3), "nu4": (1e-5, 1e-4),
    "h": (0.2, 1.5),
}  # fmt: skip
"""Bounds of the parameters; F2 as a fraction of F1, jets as the speed that relaxation tends to."""

_SOME = {"beta": 0.6, "drag": 0.5, "relaxation": 0.25, "jet": 0.25}
FLOWS = {
    family.name: family
    for family in (
        FlowFamily("barotropic", 1, chances=_SOME),
        FlowFamily("reduced_gravity", 1, ("radius",), chances=_SOME),
        FlowFamily("topographic", 1, ("topography",), chances={**_SOME, "radius": 0.5}),
        FlowFamily("two_layer", 2, ("radius",), chances={**_SOME, "shear": 0.6, "topography": 0.4}),
    )
}
"""The families by name."""


def written_member(family: str, layers: int, terms: Iterable[str], values: Mapping[str, float]) -> Member:
    """The member of these terms and parameter values."""
    terms = frozenset(terms)
    expressions = tuple(three_digits(substituted(e, values)) for e in structure(layers, terms))
    return Member(family, terms, dict(values), expressions)


def three_digits(e: Expr) -> Expr:
    """The expression with all its numbers rounded to three significant digits."""
    if isinstance(e, Number):
        return Number(float(rounded(torch.tensor([e.value], dtype=torch.float64))))
    return canonical(Apply(e.op, tuple(three_digits(a) for a in e.args))) if isinstance(e, Apply) else e


# -- reading written equations ---------------------------------------------------------------------------------------
def split(term: Expr) -> tuple[Expr, Expr]:
    """Coefficient (numbers and parameters) and the rest of one term of a sum."""
    factors = parts(term, "mul")
    constant = [not leaves(a) and not leaves(a, Coord) for a in factors]
    coefficient = [a for a, c in zip(factors, constant, strict=True) if c]
    rest = [a for a, c in zip(factors, constant, strict=True) if not c]
    return _product(coefficient), _product(rest)


def _product(factors: list[Expr]) -> Expr:
    return canonical(Apply("mul", tuple(factors))) if factors else Number(1.0)


def coefficients(expressions: Sequence[Expr]) -> dict[tuple[int, Expr], Expr]:
    """Coefficient of every term of a written equation, by row and term without its coefficient."""
    found: dict[tuple[int, Expr], Expr] = {}
    for row, e in enumerate(expressions):
        for coefficient, rest in map(split, parts(e, "add")):
            found[row, rest] = wrap(found.get((row, rest), Number(0.0)) + coefficient)
    return {at: c for at, c in found.items() if c != Number(0.0)}


def number(found: Mapping[tuple[int, Expr], Expr], row: int, rest: Expr) -> float:
    """A coefficient of these, 0 where there is none; not a number where it depends on place."""
    c = found.get((row, canonical(rest)), Number(0.0))
    return c.value if isinstance(c, Number) else math.nan


def terms_of(expressions: Sequence[Expr], tolerance: float = 0.02) -> frozenset[str]:
    """Names of the terms (:data:`TERMS`) that a written equation with numbers has.

    Of two layers with shear, beta is there where the gradients of potential vorticity differ from those of the shear
    alone by more than ``tolerance`` of their size (coefficients are rounded).
    """
    n, at = layers_of(expressions), partial(number, coefficients(expressions))
    psi, q = [Field(f"psi{i + 1}") for i in range(n)], [Field(f"q{i + 1}") for i in range(n)]
    sizes = {"radius": at(n, psi[0]), "shear": at(0, dx(q[0])) if n == 2 else 0.0, "drag": at(n - 1, lap(psi[-1]))}
    sizes |= {"relaxation": at(0, psi[0]), "viscosity": at(0, lap(q[0])), "hyperviscosity": at(0, lap(lap(q[0])))}
    sizes |= {"topography": at(n - 1, J(psi[-1], Field("eta"))), **{name: at(0, _wave(name)) for name in JETS}}
    gradient = [-at(i, dx(psi[i])) for i in range(n)]
    sheared = [at(n + i, psi[i]) * sizes["shear"] * (1 - 2 * i) for i in range(n)]
    beta = sum(g - s for g, s in zip(gradient, sheared, strict=True))
    sizes["beta"] = beta if abs(beta) > tolerance * sum(map(abs, gradient)) else 0.0
    return frozenset(name for name, size in sizes.items() if size != 0)


def layers_of(expressions: Sequence[Expr]) -> int:
    """Number of layers of a written equation; raises ``ValueError`` where it has an odd number of rows, or none."""
    if not expressions or len(expressions) % 2:
        raise ValueError(
            f"a written flow has one tendency and one inversion a layer, an even number of rows; got {len(expressions)}"
        )
    return len(expressions) // 2


# -- stepping --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class WrittenFlow(Equation):
    """A written flow as an equation of the package; made by :func:`as_equation`."""

    expressions: Written
    eta: Tensor | None = None

    @property
    def prognostic(self) -> tuple[str, ...]:
        return tuple(f"q{i + 1}" for i in range(len(self.expressions) // 2))

    @cached_property
    def stretch(self) -> Tensor:
        """q from psi, ``(n, n, *modes)`` float64."""
        n = len(self.prognostic)
        psi = [f"psi{i + 1}" for i in range(n)]
        return torch.stack([inversion_row(e, psi, self.grid) for e in self.expressions[n:]])

    @cached_property
    def invert(self) -> Tensor:
        return inverted(self.stretch)

    @property
    def diagnostic(self):
        return {f"psi{i + 1}": row for i, row in enumerate(self.invert)}

    @cached_property
    def fixed(self):
        return {} if self.eta is None else {"eta": self.grid.fft(self.grid.real(self.eta))}

    @property
    def own_terms(self) -> Iterable[Term]:
        for name, e in zip(self.prognostic, self.expressions, strict=False):
            yield from (Term(name, str(split(part)[1]), part) for part in parts(e, "add"))

    def psi(self, z: Tensor) -> Tensor:
        """Coefficients of the streamfunctions of a state."""
        return (self.grid.real(self.invert) * z.unsqueeze(-4)).sum(-3)

    def pv(self, psi: Tensor) -> Tensor:
        """State of streamfunctions on the grid, ``(..., n, ny, nx)``."""
        return (self.grid.real(self.stretch) * self.init(psi).unsqueeze(-4)).sum(-3)

    def cfl(self, z: Tensor, dt: float) -> float:
        return courant(self.grid, self.psi(z), dt)


def as_equation(expressions: Sequence[Expr], grid: Grid, eta: Tensor | None = None) -> WrittenFlow:
    """The written flow as an equation that every stepper takes; ``eta`` is the map of the topography ``(ny, nx)``.

    Raises ``ValueError`` where the inversion is not linear in the streamfunctions or has no inverse, where fields are
    unknown, and where parameters have no numbers.
    """
    n = layers_of(expressions)
    if named := set().union(*(leaves(e, Param) for e in expressions)):
        raise ValueError(f"the parameters {sorted(named)} have no values; substitute numbers for them first")
    flow = WrittenFlow(grid=grid, expressions=tuple(expressions), eta=eta)
    known = {f"{name}{i + 1}" for name in ("q", "psi") for i in range(n)} | ({"eta"} if eta is not None else set())
    if unknown := set().union(*(leaves(e) for e in expressions[:n])) - known:
        hint = "; give the map eta" if "eta" in unknown else ""
        raise ValueError(f"the written flow names unknown fields {sorted(unknown)}; known: {sorted(known)}{hint}")
    _ = flow.invert
    return flow


def inversion_row(e: Expr, psi: Sequence[str], grid: Grid) -> Tensor:
    """Multipliers ``(n, *modes)`` of the streamfunctions in one ``q``."""
    try:
        found = multipliers(e, grid)
    except (NotLinear, KeyError) as error:
        raise ValueError(f"q = {e} is not linear in the streamfunctions: {error}") from None
    if unknown := set(found) - set(psi):
        raise ValueError(f"q = {e} names {sorted(unknown)}; it may name {', '.join(psi)} only")
    zero = torch.zeros_like(grid.K2)
    return torch.stack([found.get(name, zero).real.expand_as(zero) for name in psi])


def inverted(stretch: Tensor) -> Tensor:
    """Inverse of matrices ``(..., n, n, *modes)``; zero for the domain mean, which no flow has."""
    A = stretch.movedim((-4, -3), (-2, -1)).clone()
    A[..., 0, 0, :, :] = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    try:
        inverse = torch.linalg.inv(A)
    except RuntimeError:
        raise ValueError("q does not determine the streamfunction: the written inversion is singular") from None
    keep = torch.ones(A.shape[-4:-2], dtype=A.dtype, device=A.device)
    keep[0, 0] = 0
    return (inverse * keep[..., None, None]).movedim((-2, -1), (-4, -3))
