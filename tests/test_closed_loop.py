"""The closed loop's case: what it refuses, the worlds it makes, and what it says of what it found."""

import json
from importlib import import_module

import numpy as np
import pytest
import torch

import sciml as sm
from sciml import testbed
from sciml.discover.library import coefficients
from sciml.equation.expression import parse
from tests.case_fixtures import refused
from tests.conftest import relative


@pytest.fixture(scope="module")
def case():
    """The modules of the case (conftest puts cases/ on the path)."""
    return import_module("closed_loop"), import_module("loop_world"), import_module("loop_corrections")


@pytest.fixture(scope="module")
def small(case):
    loop, world, _ = case
    options, _ = loop.checked(loop.Options(preset="quick", members=4, drag=0.4))
    return options, world.world(options, 7, 6)


@pytest.mark.parametrize(("line", "message"), [
    ("--drag 0", "--drag must be from 0.1 to 2, got 0"),
    ("--drag nan", "--drag must be from 0.1 to 2, got nan"),
    ("--topography 3", "--topography must be from -1 to 2, got 3"),
    ("--members 1", "--members must be from 2 to 90, got 1"),
    ("--learn 6", "--learn must be from 7 to 2000, got 6"),
    ("--test 0", "--test must be from 6 to 2000, got 0"),
    ("--change inf", "--change must be from 0 to 2, got inf"),
    ("--drag 1 --topography 1", "is the perfect model, which lacks nothing"),
])  # fmt: skip
def test_what_cannot_be_done_is_refused(line, message, call, tmp_path):
    refused(call(*line.split(), "--preset", "quick", "--out", tmp_path, case="closed_loop"), message)
    assert not list(tmp_path.iterdir())


def test_the_model_lacks_what_was_planted_and_nothing_else(small):
    _, w = small
    library = sm.terms(w.model).without("1")
    c = coefficients(library, w.truth, w.model, w.climate[:2])
    rows = {library.names[j]: c[i, j] for i, j in np.argwhere(c)}
    assert rows == {"lap(psi2)": pytest.approx(-0.6 * 5.787e-7), "J(psi2, eta)": pytest.approx(-1.0)}
    assert not c[0].any()


def test_the_seed_makes_the_world(case, small):
    loop, world, _ = case
    options, w = small
    again = world.world(options, 7, 6)
    assert torch.equal(again.states, w.states)
    assert np.array_equal(again.obs["value"], w.obs["value"])
    other = world.world(loop.checked(loop.Options(preset="quick", seed=1))[0], 7, 6)
    assert relative(other.states, w.states) > 0.5
    assert relative(world.world(loop.checked(loop.Options(preset="quick", seed=6))[0], 7, 6).states, w.states) > 0.5
    assert len(w.states) == 13


def test_another_drag_scales_what_was_found_as_drag(case, small):
    _, world, _ = case
    options, w = small
    c = -0.6 * float(w.truth.rek)
    found = (sm.Term("q2", "found lap(psi2)", parse(f"{c!r}*lap(psi2)")), sm.Term("q2", "found J(psi2, eta)",
             parse("-1.0*J(psi2, eta)")))  # fmt: skip
    corrected, z = w.model + found, w.climate[:1]
    for how in ("shear", "drag"):
        truth, other = (world.changed(options, eq, w.truth, how) for eq in (w.truth, corrected))
        assert relative(truth.tendency(z), w.truth.tendency(z)) > 1e-3, "another climate"
        assert relative(other.tendency(z), truth.tendency(z)) < 1e-10


def test_terms_become_parameters_where_they_are_those_of_the_model(case, small):
    """The same tendencies, by the fast path; other terms stay as they are."""
    _, world, _ = case
    options, w = small
    z = w.climate[:2]
    more = (sm.Term("q2", "found lap(psi2)", parse("-2e-7*lap(psi2)")), sm.Term("q1", "found dx(psi1)",
            parse("1e-12*dx(psi1)")), sm.Term("q2", "found J(psi2, eta)", parse("-0.9*J(psi2, eta)")))  # fmt: skip
    for eq, left in ((w.model, []), (w.truth, []), (w.model + more, ["found dx(psi1)"])):
        for how in ("shear", "drag"):
            other = world.changed(options, eq, w.truth, how)
            folded = world.folded(other)
            assert [t.name for t in folded.extra] == left
            assert relative(folded.tendency(z), other.tendency(z)) < 1e-10


def test_an_untrained_corrector_leaves_the_model_as_it_is(case, small):
    _, world, corrections = case
    options, w = small
    record = world.cycled(options, w, testbed.stepper(w.model), "fuxida", late=False)
    before, after, rate = corrections.increments(w, record)
    corrector = corrections.trained(options, w, before, after, rate, updates=0)
    step, plain = corrector.step(w.model), testbed.stepper(w.model)
    state = sm.State(w.climate[:2])
    assert torch.equal(step(state).z, plain(state).z)
    assert abs(corrections.held(w, record)[1]) <= 1


@pytest.mark.slow
def test_prose_reads_drag_topography_and_radius_of_true_maps(case, small):
    _, _, corrections = case
    _, w = small
    fit = corrections.read(w, w.states[:3])
    rough = float(w.truth.grid.ifft(w.truth.fixed["eta"]).std()) * testbed.DAY
    assert fit.values["h"] / rough == pytest.approx(1.0, abs=0.1)
    assert fit.values["r"] / testbed.DAY == pytest.approx(5.787e-7, rel=0.15)


def test_gaps_are_closed_by_the_perfect_model(case):
    _, world, _ = case
    one = lambda e: world.Score([e, e], [[e, e]] * 3, [0.0, 5.0, 10.0])  # noqa: E731
    found = world.closed({"imperfect": one(0.8), "corrected": one(0.4), "perfect": one(0.3)})
    assert found["analysis error falls by (%)"] == pytest.approx(50)
    assert found["10-day forecast gap closed (%)"] == pytest.approx(80)


def test_what_was_found_stands_beside_what_is_missing(finished):
    folder, printed = finished("closed_loop")
    results = json.loads((folder / "summary.json").read_text())["results"]
    assert {"q2: lap(psi2)", "q2: J(psi2, eta)"} <= set(results["found"]["terms"])
    assert results["found"]["terms"]["q2: J(psi2, eta)"]["true"] == pytest.approx(-1)
    assert "d q2/dt lacks" in printed
    assert set(results["scores"]["fuxida"]) == {"imperfect", "corrected", "perfect"}


@pytest.mark.slow
def test_the_quick_loop_finds_both_terms(call, tmp_path):
    """As the README shows of the default: what was planted, nothing else, and a better cycle by the network."""
    assert call("--preset", "quick", "--no-neural", "--out", tmp_path, case="closed_loop").status == 0
    results = json.loads((tmp_path / "summary.json").read_text())["results"]
    assert results["found"]["right terms"]
    assert results["found"]["largest error (%)"] < 25
    assert results["closed"]["fuxida"]["analysis error falls by (%)"] > 15
