"""Regression on moments against numpy, scipy, scikit-learn and pysindy on the rows themselves."""

from __future__ import annotations

import math
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from sciml.discover.moments import MOST, Moments, check, gathered, instrumented, moments, together
from sciml.discover.sparse import (
    FOLDS,
    backwards,
    bagged,
    least_squares,
    pysindy,
    relevance_vectors,
    selected,
    solve,
)  # fmt: skip


def names(p: int) -> list[str]:
    return [f"t{i}" for i in range(p)]


def rows(blocks=40, n=50, p=8, noise=0.3, seed=0, planted={1: 2.0, 4: -1.0}):
    """Correlated columns of very different sizes and what a few of them make of standard noise: ``x, y, c``."""
    rng = np.random.default_rng(seed)
    mixed = np.eye(p) + 0.8 * rng.standard_normal((p, p)) / math.sqrt(p)
    x = rng.standard_normal((blocks, n, p)) @ mixed * 10.0 ** rng.integers(-3, 4, p)
    c = np.zeros(p)
    for i, size in planted.items():
        c[i] = size / x[..., i].std()
    return x, x @ c + noise * rng.standard_normal((blocks, n)), c


def of(x, y) -> Moments:
    return moments(names(x.shape[-1]), x, y)


def flat(x, y) -> tuple[np.ndarray, np.ndarray]:
    """All rows, with columns and values of root mean square 1."""
    x, y = x.reshape(-1, x.shape[-1]), y.ravel()
    return x / np.sqrt((x**2).mean(0)), y / np.sqrt((y**2).mean())


# -- moments ---------------------------------------------------------------------------------------------------------
def test_moments_are_sums_over_the_rows():
    x, y, _ = rows()
    m = of(x, y)
    assert (len(m), m.rows) == (40, 2000)
    for b in (0, 17):
        for found, expected in ((m.xx, x[b].T @ x[b]), (m.xy, x[b].T @ y[b]), (m.yy, y[b] @ y[b]), (m.n, 50)):
            np.testing.assert_allclose(found[b], expected, rtol=1e-12)
    c = np.linspace(-1, 1, 8) / m.scale
    np.testing.assert_allclose(m.residual(c), ((y - x @ c) ** 2).sum(1), rtol=1e-10)
    np.testing.assert_allclose(m.scale, np.sqrt((x**2).mean((0, 1))))
    assert m.size == pytest.approx(np.sqrt((y**2).mean()))
    np.testing.assert_allclose(moments(names(8), x, y, 3 * y).whole, 9 * m.yy)


def test_columns_and_blocks_are_chosen():
    x, y, _ = rows()
    found, expected = of(x, y)[[3, 5]].columns([6, 2]), of(x[[3, 5]][..., [6, 2]], y[[3, 5]])
    assert found.names == ("t6", "t2")
    for a in ("n", "xx", "xy", "yy", "whole"):
        np.testing.assert_allclose(getattr(found, a), getattr(expected, a))


def parts(number: int, p: int = 3, blocks: int = 1):
    """A stream of parts; the values to explain are their numbers."""
    rng = np.random.default_rng(1)
    for i in range(number):
        yield of(rng.standard_normal((blocks, 4, p)), np.full((blocks, 4), float(i)))


@pytest.mark.parametrize(("number", "blocks"), [(1, 1), (MOST, 1), (1000, 1), (130, 7)])
def test_gathered_keeps_totals_and_order_in_few_blocks(number, blocks):
    m, everything = gathered(parts(number, blocks=blocks)), together(list(parts(number, blocks=blocks)))
    assert len(m) <= MOST + 1
    for a in ("n", "xx", "xy", "yy", "whole"):
        np.testing.assert_allclose(getattr(m, a).sum(0), getattr(everything, a)[0], rtol=1e-12)
    m = gathered(of(np.ones((1, 4, 1)), np.full((1, 4), float(i))) for i in range(number))
    sizes = m.n / 4
    np.testing.assert_allclose(m.xy[:, 0] / m.n, np.cumsum(sizes) - (sizes + 1) / 2)  # runs of neighbours, in order
    assert number <= MOST or sizes[:-1].max() <= 2 * sizes[:-1].min()


def test_gathered_in_flat_memory():
    def peak(number: int) -> int:
        tracemalloc.start()
        gathered(parts(number, p=30))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(2000) < 1.5 * peak(200)


def test_a_term_that_few_folds_hold_is_found():
    x = np.random.default_rng(0).standard_normal((16, 50, 3))
    x[2:, :, 0] *= 1e-3
    assert selected(of(x, x[..., 0] + 1e-4 * x[..., 1]))[0].active.tolist() == [0]


def test_instruments_remove_the_bias_of_noisy_columns():
    def simulated(seed):
        rng = np.random.default_rng(seed)
        truth = rng.standard_normal((30, 40, 2)) @ [[1.0, 0.5], [0.0, 1.0]]
        x, z = (truth + 0.5 * rng.standard_normal(truth.shape) for _ in range(2))
        return x, z, truth @ [1.0, -0.7] + 0.1 * rng.standard_normal((30, 40))

    plain, clean = [], []
    for seed in range(100):
        x, z, y = simulated(seed)
        plain.append(solve(of(x, y)))
        clean.append(solve(instrumented(moments([*"abab"], np.concatenate([x, z], -1), y))))
    assert np.all(np.abs(np.mean(plain, 0) - [1.0, -0.7]) > 0.15)
    assert np.all(np.abs(np.mean(clean, 0) - [1.0, -0.7]) < 4 * np.std(clean, 0) / 10)
    Z = z.reshape(-1, 2)
    first = Z @ np.linalg.lstsq(Z, x.reshape(-1, 2), rcond=None)[0]
    np.testing.assert_allclose(clean[-1], np.linalg.lstsq(first, y.ravel(), rcond=None)[0])


def test_instruments_do_not_depend_on_units():
    """Columns in SI units are 40 orders of magnitude apart."""
    rng, size = np.random.default_rng(0), np.array([1e3, 1e-38, 1e-7])
    truth = rng.standard_normal((20, 30, 3))
    x, z = (truth + 0.3 * rng.standard_normal(truth.shape) for _ in range(2))
    y = truth @ [1.0, -0.7, 0.2]
    one, other = (instrumented(moments([*"abcabc"], np.concatenate([x * s, z * s], -1), y)) for s in (1.0, size))
    np.testing.assert_allclose(solve(other) * size, solve(one), rtol=1e-9)
    check(other)


@pytest.mark.parametrize("together", [0.0, 1.0])
def test_errors_of_instrumented_coefficients_cover_the_truth(together):
    """Columns that are alike within a block to the part ``together``."""
    rng, inside = np.random.default_rng(2), []
    for _ in range(300):
        truth = rng.standard_normal((40, 30, 2)) + together * rng.standard_normal((40, 1, 2))
        x, z = (truth + 0.5 * rng.standard_normal(truth.shape) for _ in range(2))
        y = truth @ [1.0, -0.7] + 0.1 * rng.standard_normal((40, 30))
        fit = least_squares(instrumented(moments([*"abab"], np.concatenate([x, z], -1), y)))
        inside.append(np.abs(fit.coefficients - [1.0, -0.7]) < 1.96 * fit.std)
    assert 0.925 < np.mean(inside) < 0.975


@pytest.mark.parametrize(("change", "message"), [
    (lambda x: x[..., 2] - 3 * x[..., 5], r"columns t0, t2, t5 are linearly dependent"),
    (lambda x: 0 * x[..., 0], "columns t0 vanish"),
])  # fmt: skip
def test_columns_that_cannot_be_told_apart_are_named(change, message):
    x, y, _ = rows()
    x /= x.std((0, 1))
    x[..., 0] = change(x)
    with pytest.raises(ValueError, match=message):
        check(of(x, y))


@pytest.mark.parametrize(("call", "message"), [
    (lambda x, y: check(of(x[:1, :15], y[:1, :15])), "15 rows cannot determine 8 coefficients"),
    (lambda x, y: of(np.where(np.isin(np.arange(8), (2, 5)), np.nan, x), y), "not finite: t2, t5;"),
    (lambda x, y: of(x, y + np.inf), "not finite: the values to explain"),
    (lambda x, y: of(x, y[:, 1:]), r"\(40, 50, 8\) and values \(40, 49\) do not fit"),
    (lambda x, y: moments(names(7), x, y), r"do not fit: \(blocks, rows, 7\)"),
    (lambda x, y: gathered([]), "there are no samples"),
    (lambda x, y: together([of(x, y), moments("abcdefgh", x, y)]), "moments of different columns"),
    (lambda x, y: selected(of(x[:1], y[:1])), "at least 2 blocks"),
    pytest.param(lambda x, y: gathered([of(x[:3], y[:3]), moments("abcdefgh", x[:3], y[:3])]), "different columns"),
])  # fmt: skip
def test_data_without_sense_are_refused(call, message):
    x, y, _ = rows()
    with pytest.raises(ValueError, match=message):
        call(x, y)


# -- least squares ---------------------------------------------------------------------------------------------------
def test_least_squares_equals_numpy():
    x, y, _ = rows()
    X, Y = x.reshape(-1, 8), y.ravel()
    c, rest = np.linalg.lstsq(X / X.std(0), Y, rcond=None)[:2]
    fit = least_squares(of(x, y))
    np.testing.assert_allclose(fit.coefficients * X.std(0), c, rtol=1e-10)
    np.testing.assert_allclose(solve(of(x, y)), fit.coefficients, rtol=1e-10)
    assert fit.unexplained == pytest.approx(float(rest[0]) / float(Y @ Y))
    some = least_squares(of(x, y), np.array([5, 1]))
    assert some.active.tolist() == [1, 5]
    np.testing.assert_allclose(some.coefficients[[5, 1]], np.linalg.lstsq(X[:, [5, 1]], Y, rcond=None)[0])
    assert not least_squares(of(x, y), np.array([])).active.size


def test_covariance_is_the_sandwich_of_the_rows():
    x, y, _ = rows()
    y = y + np.random.default_rng(3).standard_normal((40, 1))
    X, Y = x.reshape(-1, 8), y.ravel()
    bread = np.linalg.inv(X.T @ X)
    residual = (Y - X @ (bread @ X.T @ Y)).reshape(40, 50)
    meat = sum(np.outer(g, g) for g in (a.T @ r for a, r in zip(x, residual, strict=True)))
    expected = bread @ meat @ bread * 40 / (40 - 8)
    size = np.sqrt(np.diag(expected))
    found = least_squares(of(x, y))
    np.testing.assert_allclose(found.covariance / np.outer(size, size), expected / np.outer(size, size), atol=1e-8)
    np.testing.assert_allclose(found.std, size, rtol=1e-8)


def test_with_few_blocks_rows_count_as_independent():
    x, y, _ = rows(blocks=8)
    X, found = x.reshape(-1, 8), least_squares(of(x, y))
    variance = ((y.ravel() - X @ found.coefficients) ** 2).sum() / (400 - 8)
    np.testing.assert_allclose(found.std, np.sqrt(variance * np.diag(np.linalg.inv(X.T @ X))), rtol=1e-8)


def test_errors_cover_the_truth_where_residuals_of_a_block_are_alike():
    rng, inside, naive = np.random.default_rng(4), [], []
    for _ in range(400):
        x = rng.standard_normal((40, 30, 2)) + rng.standard_normal((40, 1, 2))
        y = x @ [1.0, 0.0] + rng.standard_normal((40, 30)) + rng.standard_normal((40, 1))
        fit, X = least_squares(of(x, y)), x.reshape(-1, 2)
        wrong = np.abs(fit.coefficients - [1.0, 0.0])
        inside.append(wrong < 1.96 * fit.std)
        naive.append(wrong < 1.96 * np.sqrt(np.diag(np.linalg.inv(X.T @ X)) * fit.unexplained * (y**2).mean()))
    assert 0.91 < np.mean(inside) < 0.97
    assert np.mean(naive) < 0.7


# -- relevance vectors -----------------------------------------------------------------------------------------------
def test_relevance_vectors_equal_those_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y, _ = rows(blocks=10, n=30, p=12, noise=1.0)
    X, Y = flat(x, y)
    own = relevance_vectors(of(x, y), most=1e5, tolerance=1e-6)
    none = dict(alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0)
    ard = linear_model.ARDRegression(max_iter=3000, tol=1e-9, threshold_lambda=1e5, fit_intercept=False, **none)
    ard.fit(X, Y)
    back, kept = np.sqrt((x**2).mean((0, 1)) / (y**2).mean()), np.flatnonzero(ard.coef_)
    assert own.active.tolist() == kept.tolist()
    assert 2 <= len(kept) < 12
    np.testing.assert_allclose(own.coefficients * back, ard.coef_, atol=1e-5)
    np.testing.assert_allclose((own.std * back)[kept], np.sqrt(np.diag(ard.sigma_)), rtol=1e-3)


def test_evidence_is_the_marginal_likelihood():
    """log N(y | 0, I / beta + X A^-1 X'); the precisions are read off the inverse of the covariance."""
    x, y, _ = rows(blocks=10, n=15, p=6)
    X, Y = flat(x, y)
    fit = relevance_vectors(of(x, y))
    kept, back = fit.active, np.sqrt((x**2).mean((0, 1)) / (y**2).mean())
    precision = np.linalg.inv((fit.covariance * np.outer(back, back))[np.ix_(kept, kept)])
    gram = X[:, kept].T @ X[:, kept]
    beta = precision[0, 1] / gram[0, 1]
    alpha = np.diag(precision - beta * gram)
    dense = np.eye(150) / beta + X[:, kept] / alpha @ X[:, kept].T
    assert fit.evidence == pytest.approx(multivariate_normal(np.zeros(150), dense).logpdf(Y), rel=1e-6)
    for other in (0.9, 1.1):  # and it is a maximum
        dense = np.eye(150) / beta + X[:, kept] / (other * alpha) @ X[:, kept].T
        assert multivariate_normal(np.zeros(150), dense).logpdf(Y) < fit.evidence


def test_fewer_rows_that_count_make_larger_errors():
    x, y, _ = rows(p=3, planted={0: 1.0, 1: 1.0, 2: 1.0})
    all_of_them, half = (relevance_vectors(of(x, y), effective=e) for e in (1.0, 0.5))
    np.testing.assert_allclose(half.std / all_of_them.std, math.sqrt(2), rtol=0.01)


# -- pysindy ---------------------------------------------------------------------------------------------------------
def optimiser(name: str):
    import pysindy as ps

    return {
        "STLSQ": lambda: ps.STLSQ(threshold=0.1),
        "SR3": lambda: ps.SR3(reg_weight_lam=0.01),
        "SSR": lambda: ps.SSR(),
        "SSR without a ridge": lambda: ps.SSR(alpha=0.0),
        "EnsembleOptimizer": lambda: ps.EnsembleOptimizer(ps.STLSQ(threshold=0.1), library_ensemble=True),
    }[name]()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", [
    "STLSQ", "SR3", "SSR", "SSR without a ridge", "EnsembleOptimizer",
])  # fmt: skip
def test_pysindy_on_moments_equals_pysindy_on_the_rows(name, seed):
    x, y, c = rows(p=12, seed=seed)
    X, Y = flat(x, y)
    direct = optimiser(name).fit(X, Y[:, None]).coef_[0]
    fit = pysindy(of(x, y), optimiser(name))
    assert fit.active.tolist() == np.flatnonzero(direct).tolist() == np.flatnonzero(c).tolist()
    plain = np.linalg.lstsq(X[:, fit.active], Y, rcond=None)[0]
    back = np.sqrt((x**2).mean((0, 1)) / (y**2).mean())
    np.testing.assert_allclose((fit.coefficients * back)[fit.active], plain)
    np.testing.assert_allclose(direct[fit.active], plain, atol=0.03 if name == "SR3" else 1e-6)


def test_bagging_counts_how_often_a_column_is_kept():
    x, y, _ = rows(p=6, noise=1.0, planted={1: 1.0, 4: 0.06})
    m = of(x, y)
    often = bagged(m, lambda own: selected(own, errors=1.0)[0], samples=40)
    assert often[1] == 1
    assert 0.1 < often[4] < 1
    assert np.all(often[[0, 2, 3, 5]] < often[4])
    np.testing.assert_array_equal(often, bagged(m, lambda own: selected(own, errors=1.0)[0], samples=40))


# -- the path --------------------------------------------------------------------------------------------------------
def test_path_leaves_out_what_matters_least():
    x, y, _ = rows(p=6, noise=1.0)
    X, Y = flat(x, y)

    def left(chosen):
        return ((Y - X[:, chosen] @ np.linalg.lstsq(X[:, chosen], Y, rcond=None)[0]) ** 2).sum()

    path = backwards(of(x, y))
    assert [len(s) for s in path] == list(range(7))
    for fewer, more in pairwise(path):
        assert set(fewer) < set(more)
        assert left(fewer) == pytest.approx(min(left(np.delete(more, i)) for i in range(len(more))))


def test_held_out_shares_are_those_of_cross_validation_on_the_rows():
    x, y, _ = rows(blocks=19, p=5)
    fit, path = selected(of(x, y))
    folds = np.array_split(np.arange(19), FOLDS)
    assert path.held_out.shape == (6, FOLDS)
    for i, chosen in enumerate(path.sets):
        for j, fold in enumerate(folds):
            rest = np.setdiff1d(np.arange(19), fold)
            X, Y = x[rest][..., chosen].reshape(-1, i) if i else np.zeros((len(rest) * 50, 0)), y[rest].ravel()
            c = np.linalg.lstsq(X / X.std(0), Y, rcond=None)[0] / X.std(0)
            wrong = ((y[fold] - x[fold][..., chosen] @ c) ** 2).mean() / (y**2).mean()
            assert path.held_out[i, j] == pytest.approx(wrong, rel=1e-6)
    np.testing.assert_allclose(path.mean, path.held_out.mean(1))
    assert fit.active.tolist() == sorted(path.sets[path.chosen])


@pytest.mark.parametrize("planted", [{3: 1.0, 11: -0.5, 25: 0.3}, {7: 0.3}, {}], ids=["three", "one", "none"])
def test_the_terms_are_found_among_thirty(planted):
    """These and no others, in each of eight draws."""
    for seed in range(8):
        x, y, c = rows(p=30, n=30, noise=0.5, seed=seed, planted=planted)
        fit, path = selected(of(x, y))
        assert fit.active.tolist() == np.flatnonzero(c).tolist()
        assert len(fit.active) == path.chosen
        assert np.all(np.abs(fit.coefficients - c)[fit.active] < 5 * fit.std[fit.active])


@pytest.mark.parametrize("find", [lambda m: selected(m)[0], relevance_vectors, least_squares])
def test_where_nothing_is_to_be_explained_nothing_is_found(find):
    x, y, _ = rows()
    fit = find(of(x, 0 * y))
    assert not fit.active.size
    assert fit.unexplained == 0


def test_what_is_small_beside_the_whole_is_left_alone():
    """Two terms of a thousandth and of a ten thousandth of the whole; the limit is a square of 1e-7 of the whole."""
    x, _, c = rows(planted={1: 1e-3, 4: 1e-4}, noise=0.0)
    m = moments(names(8), x, x @ c, np.random.default_rng(5).standard_normal(x.shape[:2]))
    assert selected(m, least=1e-7)[0].active.tolist() == [1]
    assert selected(m, least=1e-9)[0].active.tolist() == [1, 4]
    assert not selected(m, least=1e-5)[0].active.size
