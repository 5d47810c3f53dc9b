"""MEDIDA on the maps of a flow: what a model of its advection alone lacks, as a written flow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from sciml.discover.library import Library
from sciml.discover.medida import medida
from sciml.discover.samples import pairs
from sciml.equation.expression import Coord, Expr, Field, J, Number, cos, dx, lap, wrap
from sciml.grid import Grid
from sciml.prose.flow_data import daily_steps
from sciml.prose.flows import JETS, Written, as_equation, three_digits
from sciml.step import rk4

CUTS = (4.0, 6.0, 8.0, np.inf)
"""Low-passes; MEDIDA takes the one that explains most of held-out increments."""


def library(layers: int, topography: bool) -> Library:
    """All terms of tendencies that the families have, but for the advection."""
    q, psi = [[Field(f"{name}{i + 1}") for i in range(layers)] for name in ("q", "psi")]
    found: list[Expr] = [dx(p) for p in psi] + [lap(psi[-1]), *psi] + [cos(m * Coord("y")) for m in JETS.values()]
    found += [e for a in q for e in (lap(a), lap(lap(a)))] + ([dx(q[0])] if layers == 2 else [])
    return Library((*found, J(psi[-1], Field("eta")))) if topography else Library(tuple(found))


def medida_flow(
    inversion: Sequence[Expr], frames: Tensor, eta: Tensor | None = None, *, every: float = 1.0,
    steps_per_day: int | None = None, noisy: bool = True, rounds: int = 4,
) -> Written:  # fmt: skip
    """The flow that :func:`~sciml.discover.medida.medida` finds in frames ``(frames, layers, n, n)``.

    MEDIDA sees states, which are ``q``: it is told how q follows from psi (``inversion``, the last rows of the true
    flow), which the other methods have to find.
    """
    layers, grid = len(inversion), Grid(frames.shape[-1], device=str(frames.device))
    advection = [-J(Field(f"psi{i + 1}"), Field(f"q{i + 1}")) for i in range(layers)]
    model = as_equation((*advection, *inversion), grid, eta)
    steps = round(every * (steps_per_day or daily_steps(grid)))
    data = pairs(model.pv(frames.double()), steps, noisy=noisy)
    found = medida(model, lambda eq: rk4(eq, every / steps), data, library(layers, eta is not None), cuts=CUTS,
                   rounds=rounds)  # fmt: skip
    rows = [a + sum((t.expr for t in found.terms if t.field == f), Number(0.0))
            for a, f in zip(advection, model.prognostic, strict=True)]  # fmt: skip
    return tuple(three_digits(wrap(e)) for e in (*rows, *inversion))
