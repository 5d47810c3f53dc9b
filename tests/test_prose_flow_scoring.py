"""Scores of written flows against scikit-learn, hand-made numbers, and statistics of ensembles."""

import math

import numpy as np
import pytest
import torch

from sciml.equation.expression import parse
from sciml.grid import Grid
from sciml.prose import flow_scoring as scoring
from sciml.prose.flow_fit import fit_flow, predict_flow
from sciml.prose.flows import FLOWS, TERMS, structure, terms_of, written_member
from tests.test_prose_flow_fit import TERMS as OWN
from tests.test_prose_flow_fit import VALUES, N, frames_of, noisy


@pytest.fixture(scope="module")
def one():
    member = written_member("one", 1, OWN, VALUES)
    return (member, *frames_of(member, 11))


@pytest.fixture(scope="module")
def fit(one):
    _, frames, eta = one
    return fit_flow(structure(1, OWN), noisy(frames[:8]), eta, start=VALUES, steps_per_day=4)


# -- equations -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", FLOWS)
def test_values_are_those_that_were_written(family):
    for member in FLOWS[family].sample(20, torch.Generator().manual_seed(1)):
        found = scoring.parameter_values(member.expressions)
        gradient = 0.02 * abs(member.values.get("F1", 0) * member.values.get("U", 0))  # rounding of their sum
        for name, value in member.values.items():
            assert found[name] == pytest.approx(value, rel=0.02, abs=gradient if name == "beta" else 0), name
        absent = {n for n in found if n not in member.values} - {"beta"}
        assert all(found[n] == 0 for n in absent)


def test_coefficients_by_row_and_term():
    truth = [parse("-J(psi1, q1) - 0.5*dx(psi1) + 0.2*psi1"), parse("lap(psi1) - 4*psi1")]
    found = [parse("-J(psi1, q1) - 0.6*dx(psi1) - 3*lap(psi1)"), parse("lap(psi1) - 3*psi1")]
    assert sorted(scoring.numbers(truth).values()) == [-4, -0.5, 0.2]
    assert sorted(scoring.coefficient_errors(found, truth)) == pytest.approx([0.2, 0.25, 1.0])
    assert sorted(scoring.coefficient_errors(found, truth, rows=1)) == pytest.approx([0.2, 1.0])
    assert scoring.coefficient_errors(truth, found).max() == 1, "a wrong sign is no worse than none"
    assert scoring.same_named_terms(truth, truth)
    assert not scoring.same_named_terms(found, truth)


def test_terms_of_all_rows_count():
    """Viscosity in one of two layers has its name, and is not the true term."""
    member = written_member("two", 2, ["radius", "viscosity"], {"F1": 2.0, "F2": 1.0, "nu": 1e-3})
    half = (member.expressions[0], parse("-J(psi2, q2)"), *member.expressions[2:])
    assert terms_of(half) == member.terms
    assert not scoring.same_named_terms(half, member.expressions)


def test_precision_and_recall():
    from sklearn.metrics import precision_score, recall_score

    rng = np.random.default_rng(0)
    found, truth = rng.random((2, 30, len(TERMS))) < 0.4
    truth[:, 3] = found[:, 4] = False
    precision, recall = scoring.precision_recall(found, truth)
    assert precision == pytest.approx(precision_score(truth, found, average=None, zero_division=1))
    assert recall == pytest.approx(recall_score(truth, found, average=None, zero_division=1))
    assert scoring.term_table([frozenset({"drag"})]).sum() == 1


# -- predictions -----------------------------------------------------------------------------------------------------
def test_errors_are_bounded():
    truth = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    given = truth * torch.tensor([1.1, -5.0, math.nan])[:, None, None, None]
    assert scoring.relative_errors(given, truth).tolist() == pytest.approx([0.1, 2, 2], rel=1e-5)


def test_equations_that_cannot_be_stepped_count_as_worst(one):
    _, frames, _ = one
    for row, q in (("-J(psi1, q1) - psi1*psi1", "lap(psi1)"), ("-J(psi1, q1)", "psi1*psi1")):
        out = scoring.stepped([parse(row), parse(q)], frames[0], 2)
        assert scoring.relative_errors(out, frames[:2]).tolist() == [2, 2]


def test_filter_of_the_true_equation(one):
    """Takes most of the noise away, and nothing where there is none."""
    member, frames, eta = one
    seen = noisy(frames[:8])
    state = scoring.filtered(member.expressions, seen, eta, steps_per_day=4)
    assert (state - frames[7]).norm() < 0.4 * (seen[7] - frames[7]).norm()
    clean = scoring.filtered(member.expressions, frames[:8], eta)
    assert torch.allclose(clean, frames[7], rtol=0, atol=1e-3 * float(frames.abs().max()))


def test_ensemble_starts_as_wide_as_the_state_is_doubtful(fit, one):
    generator, eta = torch.Generator().manual_seed(0), one[2]
    drawn = scoring.ensemble(fit, structure(1, OWN), 1, 200, generator, eta, every=1e-6, steps_per_day=1)
    assert drawn.shape == (1, 200, 1, N, N)
    grid = Grid(N)
    expected = (fit.doubt * grid.real(grid.weight)).sum()
    assert float(drawn[0].var(0).mean()) == pytest.approx(float(expected), rel=0.1)
    assert float((drawn[0].mean(0) - fit.state).abs().max()) < 5 * float(expected / 200) ** 0.5


def test_ensemble_without_doubt_is_the_prediction(fit, one):
    from dataclasses import replace

    eta, form = one[2], structure(1, OWN)
    sure = replace(fit, covariance=0 * fit.covariance, doubt=0 * fit.doubt)
    exact = replace(sure, values=dict(zip(sorted(VALUES), [VALUES[n] for n in sorted(VALUES)], strict=True)))
    drawn = scoring.ensemble(exact, form, 2, 2, torch.Generator().manual_seed(0), eta)
    ahead = predict_flow(one[0].expressions, fit.state, 2, eta)
    assert torch.allclose(drawn, ahead[:, None].expand_as(drawn), rtol=0, atol=1e-12)


def test_spread_covers_the_error(fit, one):
    _, frames, eta = one
    drawn = scoring.ensemble(fit, structure(1, OWN), 3, 20, torch.Generator().manual_seed(0), eta, steps_per_day=4)
    wide, error = scoring.spread(drawn, frames[8:])
    assert 0.5 < float(wide[-1] / error[-1]) < 2.5


def test_spread_is_the_error_of_a_reliable_ensemble():
    drawn = torch.randn(1, 2000, 5, 1, 1, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth, members = drawn[:, :, 0], drawn[:, :, 1:]
    pairs = [scoring.spread(members[:, i], truth[:, i]) for i in range(2000)]
    wide, error = (torch.stack([p[k] * truth[:, i].norm() for i, p in enumerate(pairs)]) for k in (0, 1))
    assert float(wide.square().mean() / error.square().mean()) == pytest.approx(1, abs=0.02)
