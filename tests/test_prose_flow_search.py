"""Terms from a wrong guess; the score test against fits."""

import math

import pytest
import torch

from sciml.prose.flow_fit import PENALTY, fitted, slopes, window_of
from sciml.prose.flow_search import search_terms
from sciml.prose.flows import structure, written_member
from tests.test_prose_flow_fit import TERMS, VALUES, N, frames_of, noisy


@pytest.fixture(scope="module")
def seen():
    frames, eta = frames_of(written_member("one", 1, TERMS, VALUES), 8)
    return noisy(frames, 0.01), eta


def test_wrong_guess_is_put_right(seen):
    """A term too many, two missing, coefficients far off."""
    frames, eta = seen
    terms = (TERMS - {"drag", "viscosity"}) | {"hyperviscosity"}
    guess = written_member("guess", 1, terms, dict(F=7.0, beta=0.3, h=1.0, nu4=1e-4)).expressions
    found, fit = search_terms(guess, frames, eta, candidates=TERMS | {"jet1", "hyperviscosity"}, steps_per_day=4)
    assert found == TERMS
    assert fit.values["beta"] == pytest.approx(0.8, rel=0.02)
    assert fit.covariance.diagonal().sqrt().tolist() == pytest.approx(list(fit.errors.values()))


def test_score_test_foresees_the_fit(seen):
    """What a further term gains beside what its fit gains: much where it is missing, little where it is not there."""
    frames, eta = seen
    window, own = window_of(frames, eta, 1.0, 4), TERMS - {"drag"}
    best, window = fitted(structure(1, own), window, {n: v for n, v in VALUES.items() if n != "r"})
    price = PENALTY * math.log(window.data)

    def gains(terms, further, name, best):
        form = structure(1, terms | {further})
        trial, _ = fitted(form, window, best.values | {name: 0.0}, filtering=False)
        cost = slopes(form, window, best.values)
        return trial, cost.fall({*best.values, name}) - cost.fall(best.values), best.bic - trial.bic + price

    best, expected, gained = gains(own, "drag", "r", best)
    assert 10 * price < 0.3 * gained < expected < gained
    _, expected, gained = gains(TERMS, "jet2", "jet2", best)
    assert expected == pytest.approx(gained, rel=0.3, abs=0.5)
    assert gained < price


def test_frames_must_fit_the_guess():
    guess = written_member("guess", 1, ["viscosity"], {"nu": 1e-3}).expressions
    with pytest.raises(ValueError, match=r"must be \(2 or more, 1, n, n\)"):
        search_terms(guess, torch.zeros(8, 2, N, N))
