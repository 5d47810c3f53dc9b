r"""The fifteen families of ordinary differential equations of PROSE, as its published code has them.

Liu, Zhang & Schaeffer (2024), *PROSE: Predicting multiple operators and symbolic expressions using multimodal
transformers*, Neural Networks 180, 106707, and its code. Every right-hand side is a sum of coefficients times
monomials, so that an equation with numbers put in is in canonical order as it stands. The fields are ``u_0``, ``u_1``,
...; every number has three significant digits at most, as the tokens of PROSE have no more: 1/3 is 0.333.

The published systems differ from the classical ones of the same name in places:

- Aizawa: ``(x^2 + y^2)(1 + e z)`` of the classical form is ``x^2`` here; its parameter e is drawn but not used.
- Dadras and Halvorsen: time runs slower, by the factors 1/2 and 1/4.
- Chen-Lee: ``b = -10`` is fixed.
- Duffing: the first field is the time, with the tendency 1; it starts anywhere, so that the forcing has any phase.
- Double pendulum: of ``2 w_2^2 cos(d)`` in the second acceleration there is half only, so that energy is not conserved.
  Gravity g and length l are drawn; the coefficients -3g/l, -g/l and 4g/l are rounded one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from sciml.equation.base import Term
from sciml.equation.expression import Expr, Field, Param, cos, leaves, parse, parts, sin
from sciml.equation.lorenz import Ordinary
from sciml.prose.compiled import check, compiled, field_names
from sciml.prose.system import System, rounded

SUBSTEPS = {"chen_lee": 48, "double_pendulum": 32, "lorenz63": 12, "lorenz96_4": 16, "lorenz96_5": 16}
"""Steps of the fourth-order Runge-Kutta method in each interval of 6/191 that keep the error after six units of time
below 1e-6 of the size of a trajectory (chaotic ones: of most), where 8 are not enough."""


def _system(name: str, rhs: str, bound: float = 1e3, **centres: float) -> System:
    """A system from text in x, y, z for the fields u_0, u_1, u_2."""
    for letter, field in (("x", "u_0"), ("y", "u_1"), ("z", "u_2")):
        rhs = rhs.replace(letter, field)
    return System(name, tuple(parse(e, tuple(centres)) for e in rhs.split(";")), centres, bound=bound)


def lorenz96(dim: int) -> System:
    """``du_i = (u_{i+1} - u_{i-2}) u_{i-1} - u_i + F``, cyclic; Lorenz (1996), eq. 1; at least 4 fields."""
    if dim < 4:
        raise ValueError(f"the Lorenz 96 system needs at least 4 fields, got {dim}")
    u = [Field(name) for name in field_names(dim)]
    rhs = [u[(i + 1) % dim] * u[i - 1] - u[i - 2] * u[i - 1] - u[i] + Param("F") for i in range(dim)]
    return System(f"lorenz96_{dim}", tuple(rhs), {"F": 8.0})


@dataclass(frozen=True)
class Pendulum(System):
    """The double pendulum of equal masses and lengths; angles u_0, u_1 from the vertical, their rates u_2, u_3.

    Its parameters are g and l, m s-2 and m, of which equations have ``a = -3g/l``, ``b = -g/l`` and ``c = 4g/l``,
    each rounded to three digits.
    """

    def sample(self, n: int, generator: torch.Generator, spread: float = 0.1) -> dict[str, Tensor]:
        """Values of a, b and c in ``n`` equations with g and l drawn, float64 ``(n,)``."""
        drawn = super().sample(n, generator, spread)
        return {name: rounded(times * drawn["g"] / drawn["l"]) for name, times in PENDULUM_COEFFICIENTS.items()}

    def written(self, values: Mapping[str, float]) -> tuple[Expr, ...]:
        """The right-hand sides with numbers in place of a, b, c, which may be given as g and l."""
        if "g" in values:
            ratio = values["g"] / values["l"]
            values = {k: float(f"{times * ratio:.3g}") for k, times in PENDULUM_COEFFICIENTS.items()}
        return super().written(values)


PENDULUM_COEFFICIENTS = {"a": -3.0, "b": -1.0, "c": 4.0}
"""Multiples of g/l in the equations of the double pendulum."""


def double_pendulum() -> Pendulum:
    """With ``d = u_0 - u_1``; its two accelerations have the common denominator ``3 - cos(2 d)``."""
    th1, th2, w1, w2 = (Field(name) for name in field_names(4))
    a, b, c = (Param(name) for name in PENDULUM_COEFFICIENTS)
    sine, cosine, scale = sin(th1 - th2), cos(th1 - th2), (3 - cos(2 * th1 - 2 * th2)) ** -1
    first = a * sin(th1) + b * sin(th1 - 2 * th2) - 2 * sine * w2**2 - 2 * sine * cosine * w1**2
    second = 4 * w1**2 + c * cos(th1) + cosine * w2**2
    return Pendulum("double_pendulum", (w1, w2, first * scale, sine * second * scale), {"g": 9.81, "l": 1.0})


def _systems() -> list[System]:
    return [
        _system("thomas", "sin(y) - b*x; sin(z) - b*y; sin(x) - b*z", b=0.17),
        _system("lorenz63", "s*y - s*x; r*x - x*z - y; x*y - b*z", s=10, r=28, b=8 / 3),
        _system(
            "aizawa",
            "x*z - b*x - d*y; d*x + y*z - b*y; c + a*z - 0.333*z**3 - x**2 + f*z*x**3",
            a=0.95, b=0.7, c=0.6, d=3.5, f=0.1,
        ),
        _system("chen_lee", "a*x - y*z; -10*y + x*z; d*z + 0.333*x*y", a=5, d=-0.38),
        _system(
            "dadras",
            "0.5*y - a*x + b*y*z; c*y - 0.5*x*z + 0.5*z; d*x*y - e*z",
            a=1.25, b=1.15, c=0.75, d=0.8, e=4,
        ),
        _system("rossler", "-y - z; x + a*y; b + x*z - c*z", a=0.1, b=0.1, c=14),
        _system(
            "halvorsen",
            "a*x - y - z - 0.25*y**2; a*y - z - x - 0.25*z**2; a*z - x - y - 0.25*x**2",
            a=-0.35,
        ),
        _system(
            "rabinovich_fabrikant",
            "y*z - y + x**2*y + g*x; 3*x*z + x - x**3 + g*y; a*z - 2*x*y*z",
            bound=1e5, a=-2 * 0.98, g=0.1,
        ),
        _system("sprott_b", "a*y*z; x - b*y; c - x*y", a=0.4, b=1.2, c=1),
        _system("sprott_linz_f", "y + z; a*y - x; x**2 - z", a=0.5),
        _system("four_wing", "a*x + y*z; b*x + c*y - x*z; -z - x*y", a=0.2, b=0.01, c=-0.4),
        _system(
            "duffing",
            "1; z; d*z + a*y + b*y**3 + c*cos(o*x)",
            a=-1, b=-5, c=8, d=-0.02, o=0.5,
        ),
        lorenz96(4),
        lorenz96(5),
        double_pendulum(),
    ]  # fmt: skip


SYSTEMS: dict[str, System] = {system.name: system for system in _systems()}
"""The families by name; the first twelve have three fields."""


class Sensitivity(NamedTuple):
    """How errors of a state grow.

    Parameters
    ----------
    exponent : largest Lyapunov exponent, median of 40 initial states, each over 100 units of time from t = 26 on
    growth : largest factor of a small error of the state at t = 0 in [2, 6], median of those states
    """

    exponent: float
    growth: float

    @property
    def chaotic(self) -> bool:
        """Whether the Lyapunov time is shorter than the six units of a trajectory, or an error grows by e^2 in them."""
        return self.exponent > 1 / 6 or self.growth > math.e**2


SENSITIVITY = {
    "thomas": Sensitivity(0.005, 1.6), "lorenz63": Sensitivity(0.90, 1.8), "aizawa": Sensitivity(-0.27, 1.0),
    "chen_lee": Sensitivity(0.15, 15), "dadras": Sensitivity(0.10, 10), "rossler": Sensitivity(0.06, 1.2),
    "halvorsen": Sensitivity(0.17, 26), "rabinovich_fabrikant": Sensitivity(0.006, 2.4),
    "sprott_b": Sensitivity(0.006, 2.6), "sprott_linz_f": Sensitivity(0.12, 4.9), "four_wing": Sensitivity(0.07, 1.4),
    "duffing": Sensitivity(0.03, 9.8), "lorenz96_4": Sensitivity(0.002, 30), "lorenz96_5": Sensitivity(0.46, 23),
    "double_pendulum": Sensitivity(0.02, 20),
}  # fmt: skip
"""Measured at the centres of the parameters, from initial states in [-2, 2]^D. Lorenz 63 spends much of its first six
units near an unstable fixed point; four-field Lorenz 96 becomes periodic, but after a sensitive transient."""


@dataclass(frozen=True, kw_only=True)
class Written(Ordinary):
    """A system of ordinary differential equations from its right-hand sides; made by :func:`as_equation`."""

    name: str
    rhs: tuple[Expr, ...]

    @property
    def prognostic(self):
        return field_names(len(self.rhs))

    @property
    def own_terms(self):
        for field, e in zip(self.prognostic, self.rhs, strict=True):
            for term in parts(e, "add"):
                yield Term(field, str(term), term)

    @cached_property
    def _compiled(self):
        return compiled(self.rhs)

    def tendency(self, z: Tensor, t: float = 0.0) -> Tensor:
        if self.extra or self.tendencies:
            return super().tendency(z, t)
        return self.init(self._compiled(self.read(z), {}))


def as_equation(rhs: Sequence[Expr], name: str) -> Written:
    """Right-hand sides of ``u_0``, ``u_1``, ... as an equation that every stepper takes; each summand is a term.

    Raises
    ------
    ValueError : where an expression names other fields, parameters without values, coordinates or derivatives
    """
    check(rhs)
    if params := set().union(*(leaves(e, Param) for e in rhs)):
        raise ValueError(f"parameters {sorted(params)} have no values; put numbers in with System.written")
    return Written(name=name, rhs=tuple(rhs))
