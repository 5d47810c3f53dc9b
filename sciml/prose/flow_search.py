"""Terms of a flow from a guess of them: terms are taken in and left out until the criterion falls no further."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from sciml.equation.expression import Expr
from sciml.prose.flow_fit import PENALTY, RefinedFlow, Window, eliminated, fitted, gains, window_of
from sciml.prose.flow_scoring import parameter_values
from sciml.prose.flows import TERMS, layers_of, parameters, structure, terms_of

ROUNDS = 8
"""After so many changes the search ends, whatever the criterion says."""
TRIED = 3
"""Terms that are tried before none is taken in."""


def search_terms(
    guess: Sequence[Expr], frames: Tensor, eta: Tensor | None = None, *, candidates: Iterable[str] = TERMS,
    every: float = 1.0, steps_per_day: int | None = None,
) -> tuple[frozenset[str], RefinedFlow]:  # fmt: skip
    """Terms of a flow and its fit, from an equation that may be wrong in terms and coefficients.

    Parameters
    ----------
    guess : a written flow with numbers, whose terms that have no name (:data:`~sciml.prose.flows.TERMS`) are ignored
    frames : streamfunctions ``(frames, layers, n, n)``, ``every`` so many days

    Its terms are fitted, then the least useful leave and those come in that a score test (:func:`gains`) asks for, as
    long as the criterion of :mod:`~sciml.prose.flow_fit` falls. Raises ``ValueError`` as ``fit_flow`` does.
    """
    layers = layers_of(guess)
    if frames.ndim != 4 or frames.shape[1] != layers or len(frames) < 2:
        raise ValueError(f"frames of a flow of {layers} layers must be (2 or more, {layers}, n, n), {frames.shape=}")
    known = frozenset(candidates) - (set() if layers == 2 else {"shear"}) - (set() if eta is not None else {"topography"})
    terms = (terms_of(guess) & known) | (set() if layers == 1 else {"radius"})
    window = window_of(frames, eta, every, steps_per_day)
    best, window = _first(terms, window, parameter_values(guess))
    for _ in range(ROUNDS):
        more, best = _extended(*eliminated(terms, best, window), known, window)
        if more == terms:
            break
        terms = more
        best, window = fitted(structure(layers, terms), window, best.values)
    return terms, best


def _first(terms: frozenset[str], window: Window, guess: Mapping[str, float]) -> tuple[RefinedFlow, Window]:
    """The fit from the guess, or without it where that leads nowhere."""
    form = structure(window.psi.shape[1], terms)
    own = {name for term in terms for name in parameters(window.psi.shape[1], term)}
    found = fitted(form, window, {n: v for n, v in guess.items() if n in own and v}, rough=True)
    return found if math.isfinite(found[0].bic) else fitted(form, window)


def _extended(
    terms: frozenset[str], best: RefinedFlow, known: frozenset[str], window: Window
) -> tuple[frozenset[str], RefinedFlow]:
    """One term more, where that is better."""
    layers = window.psi.shape[1]
    others = sorted(known - terms, key=TERMS.index)
    sets = [parameters(layers, term) for term in others]
    expected = gains(structure(layers, known), window, best.values, sets)
    price = PENALTY * math.log(window.data)
    net = {term: gain - price * len(own) for term, gain, own in zip(others, expected, sets, strict=True)}
    for term in sorted(net, key=lambda term: -net[term])[:TRIED]:
        if net[term] <= 0:
            break
        start = best.values | dict.fromkeys(parameters(layers, term), 0.0)
        trial, _ = fitted(structure(layers, terms | {term}), window, start, filtering=False)
        if trial.bic < best.bic:
            return terms | {term}, trial
    return terms, best
