"""Terms of a flow from a guess of them: terms are taken in and left out until the criterion falls no further."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from sciml.equation.expression import Expr
from sciml.prose.flow_fit import PENALTY, RefinedFlow, Window, eliminated, fitted, slopes, window_of
from sciml.prose.flow_scoring import parameter_values
from sciml.prose.flows import TERMS, layers_of, parameters, structure, terms_of

ROUNDS = 8
"""After so many changes the search ends, whatever the criterion says."""


def search_terms(
    guess: Sequence[Expr], frames: Tensor, eta: Tensor | None = None, *, candidates: Iterable[str] = TERMS,
    every: float = 1.0, steps_per_day: int | None = None,
) -> tuple[frozenset[str], RefinedFlow]:  # fmt: skip
    """Terms of a flow and its fit, from an equation that may be wrong in terms and coefficients.

    Its terms are fitted, then the least useful leave and those come in that a score test asks for, as
    long as the criterion of :mod:`~sciml.prose.flow_fit` falls. Raises ``ValueError`` as ``fit_flow`` does.

    Parameters
    ----------
    guess : a written flow with numbers, whose terms that have no name (:data:`~sciml.prose.flows.TERMS`) are ignored
    frames : streamfunctions ``(frames, layers, n, n)``, ``every`` so many days
    """
    layers = layers_of(guess)
    if frames.ndim != 4 or frames.shape[1] != layers or len(frames) < 2:
        raise ValueError(f"frames of a flow of {layers} layers must be (2 or more, {layers}, n, n), {frames.shape=}")
    known = (
        frozenset(candidates) - (set() if layers == 2 else {"shear"}) - (set() if eta is not None else {"topography"})
    )
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
    """With the terms that the score test asks for, or the first of them, where that is better."""
    layers, more = window.psi.shape[1], _asked_for(terms, best, known, window)
    for some in [more, more[:1]] if len(more) > 1 else [more] if more else []:
        start = best.values | dict.fromkeys((name for t in some for name in parameters(layers, t)), 0.0)
        trial, _ = fitted(structure(layers, terms.union(some)), window, start, filtering=False)
        if trial.bic < best.bic:
            return terms.union(some), trial
    return terms, best


def _asked_for(terms: frozenset[str], best: RefinedFlow, known: frozenset[str], window: Window) -> list[str]:
    """Terms one after the other, each that which lowers the cost most beside those before, as long as it pays.

    The score test of Rao (1948), Math. Proc. Camb. Phil. Soc. 44, 50: one evaluation for all terms.
    """
    layers, found = window.psi.shape[1], []
    cost, own = slopes(structure(layers, known), window, best.values), set(best.values)
    price, others = PENALTY * math.log(window.data), sorted(known - terms, key=TERMS.index)
    while others:
        now = cost.fall(own)
        net = {t: cost.fall(own.union(p)) - now - price * len(p) for t in others for p in [parameters(layers, t)]}
        term = max(others, key=lambda t: net[t])
        if not net[term] > 0:
            break
        found.append(term)
        others.remove(term)
        own |= set(parameters(layers, term))
    return found
