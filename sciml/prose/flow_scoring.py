"""Scores of written flows: their terms, their coefficients, their predictions, and the spread of these."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sciml.equation.expression import Apply, Coord, Expr, Field, J, Number, canonical, cos, dx, lap, leaves
from sciml.grid import Grid
from sciml.prose.flow_data import daily_steps, record
from sciml.prose.flow_fit import RefinedFlow, predict_flow
from sciml.prose.flow_solver import Place, coefficient_function, flow_solver
from sciml.prose.flows import JETS, TERMS, Written, coefficients, layers_of, structure, terms_of

WORST = 2.0
"""What an error counts that is larger, or not finite: unrelated flows of the same size differ by the root of 2."""
CLOSE = 0.05


# -- equations -------------------------------------------------------------------------------------------------------
def numbers(expressions: Sequence[Expr]) -> dict[Place, float]:
    """Coefficient of each term, by row and term, but for the advection and the Laplacian in q, which all flows have."""
    n = layers_of(expressions)
    own = {(i, J(Field(f"psi{i + 1}"), Field(f"q{i + 1}"))) for i in range(n)}
    own |= {(n + i, lap(Field(f"psi{i + 1}"))) for i in range(n)}
    own = {(row, canonical(e)) for row, e in own}
    found = coefficients(expressions)
    return {at: c.value if isinstance(c, Number) else math.nan for at, c in found.items() if at not in own}


def parameter_values(expressions: Sequence[Expr]) -> dict[str, float]:
    """Values of the parameters (:func:`~sciml.prose.flows.parameters`) of the terms that a written flow has.

    What several rows say is read from one of them, so that a flow whose rows contradict each other has values too.
    """
    n, found = layers_of(expressions), coefficients(expressions)

    def at(row: int, rest: Expr) -> float:
        c = found.get((row, canonical(rest)), Number(0.0))
        return c.value if isinstance(c, Number) else math.nan

    q, psi = Field("q1"), [Field(f"psi{i + 1}") for i in range(n)]
    radii = [-at(n + i, psi[i]) for i in range(n)]
    U = -at(0, dx(q)) if n == 2 else 0.0
    values = dict(zip(("F1", "F2") if n == 2 else ("F",), radii, strict=True))
    values |= {"U": U, "beta": -at(0, dx(psi[0])) - radii[0] * U, "r": -at(n - 1, lap(psi[-1]))}
    values |= {"nu": at(0, lap(q)), "nu4": -at(0, lap(lap(q))), "h": -at(n - 1, J(psi[-1], Field("eta")))}
    relaxation = at(0, psi[0])
    values |= {"s": relaxation} if n == 1 else {"kappa": relaxation / radii[0] if radii[0] else 0.0}
    return values | {name: -at(0, cos(m * Coord("y"))) for name, m in JETS.items()}
