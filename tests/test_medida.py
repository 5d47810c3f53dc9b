"""MEDIDA from states to printed terms, on small flows whose truth takes other and smaller steps than the model."""

from __future__ import annotations

import json
import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from pysindy import STLSQ
from torch import Tensor

import sciml
from sciml.discover.discovery import Discovery, rounded
from sciml.discover.library import Library, coefficients, terms
from sciml.discover.medida import low_pass, medida, tiles
from sciml.discover.samples import Pair, advanced, columns, increments, pairs
from sciml.discover.sparse import Fit, Path, pysindy, relevance_vectors, selected
from sciml.discover.systems import EDDY, JET, SYSTEMS, System
from sciml.equation.kuramoto import KuramotoSivashinsky
from sciml.grid import Grid
from sciml.initial import random_pv
from sciml.step import ab3, etdrk4, rk4
from tests.conftest import relative


def stepped(dt: float):
    """How models are stepped."""
    return partial(etdrk4, dt=dt)


def seen(truth, scheme, z: Tensor, dt: float, steps: int = 1) -> Pair:
    """States and what becomes of them in ``steps`` steps of a model, in quarter steps of ``scheme``."""
    return Pair(z, advanced(scheme(truth, dt / 4), z, 4 * steps), steps)


def states(system: System, members: int, dt: float, steps: int, speed: float) -> Tensor:
    start = system.truth.init(random_pv(system.truth, 0, members=members, speed=speed))
    return advanced(etdrk4(system.truth, dt), start, steps)


def right(found: Discovery, system: System, pair: Pair) -> float:
    """Largest relative error of a coefficient; infinite where the terms are not the right ones."""
    truth, c = coefficients(found.library, system.truth, system.model, pair.before), found.coefficients()
    there = truth != 0
    assert there.any()
    return float(np.abs(c[there] / truth[there] - 1).max()) if ((c != 0) == there).all() else math.inf


# -- flows -----------------------------------------------------------------------------------------------------------
JET_DT, EDDY_DT = 0.15, 7200.0
start_third_order = partial(ab3, start=rk4)


@pytest.fixture(scope="module")
def jet_states() -> Tensor:
    return states(SYSTEMS["1"](16), members=24, dt=0.3, steps=100, speed=0.5)


@pytest.fixture(scope="module")
def jet_pairs(jet_states) -> list[Pair]:
    truth = SYSTEMS["1"](16).truth
    return [seen(truth, rk4, z, JET_DT) for z in jet_states.split(8)]


@pytest.fixture(scope="module")
def eddy_pairs() -> list[Pair]:
    system = SYSTEMS["drag"](24)
    z = states(system, members=12, dt=2 * EDDY_DT, steps=200, speed=0.05)
    return [seen(system.truth, start_third_order, z, EDDY_DT)]


@pytest.fixture(scope="module")
def drag(jet_pairs) -> Discovery:
    """What the model of case 6 lacks."""
    return medida(SYSTEMS["6"](16).model, stepped(JET_DT), jet_pairs, terms(SYSTEMS["6"](16).model))


# -- discovery without noise -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("case", JET)
def test_what_a_model_of_the_jet_lacks_is_found(case, jet_pairs):
    system = SYSTEMS[case](16)
    found = medida(system.model, stepped(JET_DT), jet_pairs, terms(system.model))
    assert right(found, system, jet_pairs[0]) < 0.005


@pytest.mark.parametrize("case", EDDY)
def test_what_a_model_of_eddies_lacks_is_found(case, eddy_pairs):
    system = SYSTEMS[case](24)
    found = medida(system.model, stepped(EDDY_DT), eddy_pairs, terms(system.model))
    assert right(found, system, eddy_pairs[0]) < 0.005


def test_each_round_mends_what_a_long_interval_spoils(jet_states):
    system = SYSTEMS["2"](16)
    pair = seen(system.truth, rk4, jet_states[:8], JET_DT, steps=6)
    library = terms(system.model)
    truth = coefficients(library, system.truth, system.model, pair.before)
    first, second, third = (
        np.linalg.norm(medida(system.model, stepped(JET_DT), [pair], library, rounds=n).coefficients() - truth)
        for n in (1, 2, 3)
    )
    assert second < 0.1 * first
    assert third < 0.1 * second


def test_a_model_with_what_was_found_misses_almost_nothing(drag, jet_pairs):
    model = SYSTEMS["6"](16).model
    before, after = (increments(etdrk4(m, JET_DT), jet_pairs[0])[:, 1].abs().max() for m in (model, model + drag))
    assert float(after) < 1e-3 * float(before)


def test_where_the_model_is_the_truth_nothing_is_found(jet_states):
    truth, step = SYSTEMS["1"](16).truth, stepped(JET_DT)
    pair = Pair(jet_states, advanced(step(truth), jet_states, 1))
    found = medida(truth, step, [pair], terms(truth))
    assert not found.terms
    assert str(found).splitlines()[1] == "d q2/dt lacks nothing"


# -- discovery with noise --------------------------------------------------------------------------------------------
def test_terms_are_found_in_noise_of_a_percent(jet_states):
    """States 1 apart, away from the sponge; the state before each pair gives instruments."""
    system, dt, steps = SYSTEMS["2"](16), 0.2, 5
    truth, grid = system.truth, system.truth.grid
    generator = torch.Generator().manual_seed(1)

    def noisy(z: Tensor) -> Tensor:
        psi = grid.ifft(truth.psi(z))
        noise = torch.randn(psi.shape, dtype=torch.float64, generator=generator)
        return truth.pv(psi + 0.01 * psi.std((-2, -1), keepdim=True) * noise)

    run = [jet_states]
    for _ in range(2):
        run.append(seen(truth, rk4, run[-1], dt, steps).after)
    earlier, before, after = map(noisy, run)
    away = (grid.ifft(truth.fixed["sponge"]) < 0.05).expand(grid.shape)
    data = [Pair(before, after, steps, earlier)]
    found = medida(system.model, stepped(dt), data, terms(system.model), cuts=(1.5,), where=away)
    assert right(found, system, data[0]) < 0.05
    expected = coefficients(found.library, truth, system.model, jet_states)
    assert np.all(np.abs(found.coefficients() - expected) <= 4 * found.std())


def test_the_low_pass_is_chosen_by_what_is_explained(jet_pairs):
    """Noise in large wavenumbers only."""
    system = SYSTEMS["6"](16)
    grid, z = system.model.grid, jet_pairs[0].after
    generator = torch.Generator().manual_seed(2)
    noise = grid.fft(torch.randn(8, 2, *grid.shape, dtype=torch.float64, generator=generator))
    data = [jet_pairs[0]._replace(after=z + 0.01 * noise * (grid.K2.sqrt() > 0.6))]
    found = medida(system.model, stepped(JET_DT), data, terms(system.model), cuts=(math.inf, 0.4), fields=("q2",))
    assert found.cuts == {"q2": 0.4}
    assert [t.name for t in found.terms] == ["found lap(psi2)"]


# -- what is found, in words and in files ----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def in_si_units(eddy_pairs) -> Discovery:
    model = SYSTEMS["drag"](24).model
    return medida(model, stepped(EDDY_DT), eddy_pairs, terms(model), rounds=1)


def test_text_has_error_bars(drag):
    first, second = str(drag).splitlines()
    assert first == "d q1/dt lacks nothing"
    assert re.fullmatch(r"d q2/dt lacks \+(2\.9|3\.0)\d*\(\d+\)e-01 lap\(psi2\)   \(explains 100.0% .*\)", second)


def test_text_has_sums_in_brackets(jet_pairs):
    model, library = SYSTEMS["3"](16).model, Library(("psi1 - psi2", "psi_R"))  # type: ignore[arg-type]
    text = str(medida(model, stepped(JET_DT), jet_pairs, library, fields=["q1"]))
    assert re.fullmatch(r"d q1/dt lacks \S+ \(psi1 - psi2\)  \S+ psi_R   .*", text)


def test_text_has_units_where_the_equation_has_them(in_si_units):
    assert re.search(r"d q2/dt lacks -2\.8\d*\(\d+\)e-07 s-1 lap\(psi2\) ", str(in_si_units))


@pytest.mark.parametrize(("value", "std", "text"), [
    (-5.8312e-7, 2e-9, "-5.83(2)e-07"),
    (0.3, 0.004, "+3.00(4)e-01"),
    (1.25, 0.25, "+1.2(2)"),
    (12345.6, 7.0, "+1.2346(7)e+04"),
    (1e-3, 0.5, "+1(500)e-03"),
    (-0.196, 0.0, "-0.196"),
    (0.3, math.nan, "+0.3"),
    (0.0, 1.0, "+0"),
    (-0.09999, 5e-4, "-1.000(5)e-01"),
])  # fmt: skip
def test_numbers_show_their_error_in_the_last_digit(value, std, text):
    assert rounded(value, std) == text


def test_files_give_the_terms_back(in_si_units, tmp_path):
    path = tmp_path / "found.json"
    in_si_units.save(path)
    model = SYSTEMS["drag"](24).model
    again = Discovery.load(path)
    assert again.terms == in_si_units.terms
    assert str(again) == str(in_si_units)
    assert str(model + again) == str(model + in_si_units)
    np.testing.assert_array_equal(again.std(), in_si_units.std())
    held = json.loads(path.read_text())
    own = held["found"]["q2"]
    assert held["library"] == list(in_si_units.library.names)
    assert held["found"]["q1"]["coefficients"] == {}
    assert own["coefficients"] == {"lap(psi2)": in_si_units.fits["q2"].coefficients[4]}
    assert own["std"]["lap(psi2)"] == in_si_units.fits["q2"].std[4] > 0
    assert own["units"] == {"lap(psi2)": "s-1"}
    assert (own["cut"], own["unexplained"]) == (None, in_si_units.fits["q2"].unexplained)


DAMAGED = ["", "{}", '{"found": {"q2": {}}}', '{"found": {"q2": {"coefficients": {"lap(": 1}}}}']


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_files_are_refused(text, tmp_path):
    path = tmp_path / "found.json"
    with pytest.raises(ValueError, match="is missing"):
        Discovery.load(path)
    path.write_text(text)
    with pytest.raises(ValueError, match="is damaged"):
        Discovery.load(path)


def test_members_of_an_ensemble_are_samples():
    eq = sciml.preset("eddy", nx=16)
    z = eq.init(random_pv(eq, seed=0, members=3))[None] * torch.arange(1.0, 6.0)[:, None, None, None, None]
    (first, _), one = pairs(z, 1, batch=2), [pairs(z[:, m], 1, batch=2)[0] for m in range(3)]
    assert first.before.shape == (6, 2, *eq.grid.modes)
    for m in range(3):
        assert torch.equal(first.before[m::3], one[m].before)
        assert torch.equal(first.after[m::3], one[m].after)


# -- pieces ----------------------------------------------------------------------------------------------------------
def test_pairs_are_neighbours_in_a_run():
    z = torch.arange(12.0)
    clean, noisy = pairs(z, 3, every=2, batch=4), pairs(z, 3, every=3, noisy=True)
    assert [p.before.tolist() for p in clean] == [[0, 2, 4, 6], [8, 10]]
    assert [p.after.tolist() for p in clean] == [[1, 3, 5, 7], [9, 11]]
    assert all(p.steps == 3 and p.earlier is None for p in clean)
    assert noisy[0].earlier is not None
    assert [a.tolist() for a in (noisy[0].earlier, noisy[0].before, noisy[0].after)] == [
        [0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]  # fmt: skip


def test_increments_are_the_tendency_that_is_missing(jet_states):
    """To the first order in the interval, and columns to the second."""
    system = SYSTEMS["5"](16)
    errors = []
    for dt in (0.02, 0.01):
        pair = seen(system.truth, rk4, jet_states[:4], dt)
        h, middle = increments(etdrk4(system.model, dt), pair), advanced(rk4(system.truth, dt / 2), pair.before, 1)
        errors.append(relative(h, system.truth.tendency(pair.before) - system.model.tendency(pair.before)))
        library = terms(system.model)
        means = columns(library, system.model, pair.before, pair.after)
        assert relative(means, library.values(system.model, middle)) < 2 * dt**2
    assert errors[0] < 0.02
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.1)


def test_the_low_pass_falls_steeply():
    eq = KuramotoSivashinsky(grid=Grid(32, 1))
    assert low_pass(eq, 5.0)[[0, 2, 5, 8], 0].tolist() == pytest.approx([1, 0.99934, math.exp(-1), 0], abs=1e-4)
    assert bool((low_pass(eq, math.inf) == 1).all())


def test_tiles_hold_the_points_that_count(rng):
    x, y, whole = (torch.randn(3, *n, 10, 9, dtype=torch.float64, generator=rng) for n in ((2,), (), ()))
    where = torch.arange(90).reshape(10, 9) % 4 > 0
    where[:3, :3] = False  # a tile without points
    blocks = tiles(["a", "b"], x, y, whole, where)
    assert sum(map(len, blocks)) == 3 * 15
    X, Y, W = x[..., where], y[..., where], whole[..., where]
    sums = torch.tensor(3 * X.shape[-1]), torch.einsum("spn,sqn->pq", X, X), torch.einsum("spn,sn->p", X, Y)
    for name, expected in zip(("n", "xx", "xy", "yy", "whole"), (*sums, (Y**2).sum(), (W**2).sum()), strict=True):
        np.testing.assert_allclose(sum(getattr(m, name).sum(0) for m in blocks), expected.numpy())


def test_a_corrected_model_that_is_not_stable_ends_the_rounds(jet_pairs):
    """The first round finds a viscosity of the eighth order that makes small eddies grow."""
    model, wrong = SYSTEMS["6"](16).model, 1e9
    calls = 0

    def wild(m) -> tuple[Fit, Path]:
        nonlocal calls
        calls += 1
        fit, path = selected(m)
        c = np.where(np.char.startswith(m.names, "lap(lap(lap("), wrong, 0.0)
        return (Fit(m.names, c, fit.covariance, fit.unexplained) if calls <= 2 else fit), path

    with pytest.warns(UserWarning, match="round 2 is left out, the model with what was found fails: not finite"):
        found = medida(model, stepped(JET_DT), jet_pairs[:1], terms(model), fields=["q2"], select=wild)
    assert set(found.coefficients()[0]) == {0.0, wrong}


def test_only_the_equations_asked_for_are_given_but_all_are_corrected(jet_pairs):
    """What q2 lacks shows in q1 after some steps, and would be a false term there."""
    model = SYSTEMS["6"](16).model
    whole, asked = (medida(model, stepped(JET_DT), jet_pairs, terms(model), fields=f) for f in (None, ["q2"]))
    assert list(asked.fits) == list(asked.cuts) == list(asked.paths) == ["q2"]
    assert asked.coefficients().shape == asked.std().shape == (1, 35)
    assert np.array_equal(asked.coefficients()[0], whole.coefficients()[1])
    q1 = medida(model, stepped(JET_DT), jet_pairs, terms(model), fields=["q1"])
    assert np.array_equal(q1.coefficients()[0], whole.coefficients()[0])


@pytest.mark.parametrize("select", [relevance_vectors, lambda m: pysindy(m, STLSQ(threshold=0.03, alpha=1e-6))])
def test_other_ways_to_keep_terms(select, jet_pairs):
    """Without noise both keep what is nothing, too, but the term is there."""
    system = SYSTEMS["6"](16)
    found = medida(system.model, stepped(JET_DT), jet_pairs, terms(system.model), select=select, fields=["q2"])
    at = found.library.names.index("lap(psi2)")
    exact = coefficients(found.library, system.truth, system.model, jet_pairs[0].before)[1, at]
    assert found.coefficients()[0, at] == pytest.approx(exact, rel=0.02)
    assert found.paths["q2"].sets[0].tolist() == found.fits["q2"].active.tolist()


def test_low_passes_that_leave_too_little_are_left_out(jet_pairs):
    model = SYSTEMS["6"](16).model
    with pytest.warns(UserWarning, match="the low-pass at 0.1 is left out: the columns .* are linearly dependent"):
        found = medida(model, stepped(JET_DT), jet_pairs, terms(model), cuts=(0.1, math.inf), rounds=1)
    assert set(found.cuts.values()) == {math.inf}


# -- refusals --------------------------------------------------------------------------------------------------------
def spoilt(pair: Pair) -> Pair:
    after = pair.after.clone()
    after[3, 1, 2, 2] = math.nan
    return pair._replace(after=after)


@pytest.mark.parametrize(("call", "message"), [
    (lambda find, p: find([p, spoilt(p)]), "1 states are not finite, the first of sample 11 "),
    (lambda find, p: find([p._replace(earlier=math.nan * p.before)]), "8 states are not finite, .* sample 0 "),
    (lambda find, p: find(iter([p])), "this iterator can be read once; give a list"),
    (lambda find, p: find([p], where=torch.ones(4, 4, dtype=torch.bool)), r"where must be \(32, 16\)"),
    (lambda find, p: find([p], cuts=(math.nan,)), "cuts must be positive"),
    (lambda find, p: find([]), "there are no samples"),
    (lambda find, p: find([p], cuts=()), "cuts must be positive"),
    (lambda find, p: find([p], cuts=(1.5, 0.0)), "cuts must be positive"),
    (lambda find, p: find([p], rounds=0), "rounds at least 1"),
    (lambda find, p: find([p], fields=["q3"]), "the model has no q3; its fields are q1, q2"),
    (lambda find, p: find([p], where=torch.zeros(32, 16, dtype=torch.bool)), "there are no samples"),
    (lambda find, p: find([p], terms=("psi1", "psi2", "psi1 - psi2")), "are linearly dependent"),
    (lambda find, p: find([p], terms=("psi1", "mean_x(dx(psi1))")), r"columns mean_x\(dx\(psi1\)\) vanish"),
    (lambda find, p: find([p], terms=("omega",)), "does not have: omega"),
    (lambda find, p: pairs(p.before[:1], 1), "a pair needs 2 consecutive states, got 1"),
    (lambda find, p: pairs(p.before[:2], 1, noisy=True), "a pair needs 3 consecutive states, got 2"),
])  # fmt: skip
def test_what_cannot_be_done_is_refused(call, message, jet_pairs):
    model = SYSTEMS["6"](16).model

    def find(data, terms=("psi1", "psi2"), **options):
        return medida(model, stepped(JET_DT), data, Library(terms), **options)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=message):
        call(find, jet_pairs[0])


def test_known_truths_are_in_the_file(tmp_path):
    library = Library(("psi1", "psi2", "lap(psi2)"))
    fits = {f: Fit(library.names, np.array(c), np.zeros((3, 3)), 0.1) for f, c in
            {"q1": (1.1, 0.0, 0.0), "q2": (0.0, 0.0, 3.0), "q3": (0.0, 0.0, 0.0)}.items()}  # fmt: skip
    found = Discovery(library, fits, {}, dict.fromkeys(fits, math.inf), {})
    truth = np.array([[1.0, -2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert found.distance(truth) == pytest.approx({"q1": math.sqrt((0.1**2 + 1) / 2), "q2": math.inf, "q3": 0.0})
    found.save(tmp_path / "found.json", truth)
    written = json.loads((tmp_path / "found.json").read_text())["found"]
    assert written["q1"]["truth"] == {"psi1": 1.0, "psi2": -2.0}
    assert written["q2"]["distance"] is None
    assert np.array_equal(Discovery.load(tmp_path / "found.json").coefficients(), found.coefficients())
