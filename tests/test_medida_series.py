"""Discovery from uninterrupted series of states: the weights that noise asks for, and what they gain over pairs."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from sciml.discover.library import coefficients, terms
from sciml.discover.medida import medida
from sciml.discover.samples import Pair, Series, advanced, increments, pairs, sines
from sciml.discover.systems import SYSTEMS
from sciml.initial import random_pv
from sciml.step import etdrk4, rk4
from tests.conftest import relative
from tests.test_medida import right

DT, NOISE = 0.2, 0.03
SYSTEM = SYSTEMS["2"](16)
TERMS = terms(SYSTEM.model)
stepped = partial(etdrk4, dt=DT)


@pytest.fixture(scope="module")
def run() -> Tensor:
    """Of the truth, ``(times, members, n, *modes)``, two steps of the model apart, taken in other and smaller ones."""
    start = SYSTEM.truth.init(random_pv(SYSTEM.truth, 0, members=8, speed=0.5))
    states = [advanced(etdrk4(SYSTEM.truth, 0.3), start, 100)]
    for _ in range(12):
        states.append(advanced(rk4(SYSTEM.truth, DT / 2), states[-1], 4))
    return torch.stack(states)


@pytest.fixture(scope="module")
def seen(run) -> Tensor:
    grid = SYSTEM.truth.grid
    psi, generator = grid.ifft(SYSTEM.truth.psi(run)), torch.Generator().manual_seed(1)
    noise = torch.randn(psi.shape, dtype=torch.float64, generator=generator)
    return SYSTEM.truth.pv(psi + NOISE * psi.std((-2, -1), keepdim=True) * noise)


def found(data):
    away = (SYSTEM.truth.grid.ifft(SYSTEM.truth.fixed["sponge"]) < 0.05).expand(SYSTEM.truth.grid.shape)
    return medida(SYSTEM.model, stepped, data, TERMS, cuts=(1.0,), where=away)


@pytest.mark.parametrize("n", [1, 2, 5, 14])
def test_weights_make_the_noise_of_states_white(n):
    differences = torch.eye(n + 1, dtype=torch.float64).diff(dim=0)
    noise = sines(n) @ differences
    np.testing.assert_allclose(noise @ noise.T, torch.eye(n), atol=1e-13)


def test_a_series_of_two_states_is_a_pair(run):
    step, states = stepped(SYSTEM.model), run[:2, :3]
    pair, series = Pair(states[0], states[1], 2), Series(states.transpose(0, 1), 2)
    for a, b in zip(pair.rows(SYSTEM.model, step, TERMS), series.rows(SYSTEM.model, step, TERMS), strict=True):
        assert relative(math.sqrt(2) * b, a) < 1e-12


def test_rows_are_weighted_sums_of_the_pairs_in_a_series(run):
    step, states = stepped(SYSTEM.model), run[:4, :2]
    each = torch.stack([increments(step, Pair(a, b, 2)) for a, b in itertools.pairwise(states)], 1)
    h, x, rate = Series(states.transpose(0, 1), 2).rows(SYSTEM.model, step, TERMS)
    assert (h.shape[:2], x.shape[:3], rate.shape[:2]) == ((2, 3), (2, 3, len(TERMS)), (2, 3))
    for k in range(3):
        weights = sines(3)[k].to(each)
        assert relative(h[:, k], sum(w * each[:, j] for j, w in enumerate(weights))) < 1e-12


def test_instruments_are_of_other_states_than_increments_and_columns(run):
    """A state in the middle of three moves the instruments of that interval alone."""
    step, states = stepped(SYSTEM.model), run[:3, :2].transpose(0, 1)
    other = states.clone()
    other[:, 1] *= 1.1
    p = len(TERMS)
    (h, x, rate), (h2, x2, rate2) = (Series(z, 2, noisy=True).rows(SYSTEM.model, step, TERMS) for z in (states, other))
    assert x.shape[2] == 2 * p
    assert torch.equal(h, h2)
    assert torch.equal(rate, rate2)
    assert torch.equal(x[:, :, :p], x2[:, :, :p])
    assert relative(x2[:, :, p:], x[:, :, p:]) > 0.01


def test_what_a_model_lacks_is_found_in_series_without_noise(run):
    data = pairs(run, 2, length=4, interval=2 * DT)
    lacking = medida(SYSTEM.model, stepped, data, TERMS, rounds=3)
    assert right(lacking, SYSTEM, Pair(run[0], run[1])) < 0.005


def test_noise_harms_series_less_than_pairs_of_the_same_states(run, seen):
    """Both have the right terms; errors of all coefficients, root mean square."""
    exact = coefficients(TERMS, SYSTEM.truth, SYSTEM.model, run[0])
    there = exact != 0
    errors = {}
    for length in (1, 12):
        lacking = found(pairs(seen, 2, noisy=True, length=length))
        c = lacking.coefficients()
        if length > 1:
            assert ((c != 0) == there).all()
        errors[length] = float(np.sqrt(np.mean((c[there] / exact[there] - 1) ** 2)))
    assert errors[12] < 0.05
    assert errors[12] < 0.5 * errors[1]


def test_series_share_no_state_but_their_ends(run):
    z = torch.arange(12.0)
    (first, second) = pairs(z, 3, length=4, batch=1)
    assert isinstance(first, Series)
    assert isinstance(second, Series)
    assert (first.states.tolist(), second.states.tolist()) == ([[0, 1, 2, 3, 4]], [[4, 5, 6, 7, 8]])
    every = pairs(z, 3, length=4, every=2, batch=9)[0]
    assert isinstance(every, Series)
    assert every.states[:, 0].tolist() == [0, 2, 4, 6]
    members = pairs(run, 2, length=6)[0]
    assert isinstance(members, Series)
    assert members.states.shape == (16, 7, 2, *SYSTEM.truth.grid.modes)
    assert torch.equal(members.states[3], run[:7, 3])


@pytest.mark.parametrize(("make", "message"), [
    (lambda z: pairs(z[:4], 2, length=4), "a series needs 5 consecutive states, got 4"),
    (lambda z: pairs(z, 2, length=0), "whole numbers from 1, got 2, 0, 8 and 0"),
    (lambda z: found(pairs(z, 2, length=4, interval=0.3)), "the states are 0.3 apart, 2 steps of 0.2 are 0.4"),
    (lambda z: found(pairs(z, 2, length=4, interval=0.3, noisy=True)), "the states are 0.6 apart, 4 steps of 0.2"),
    (lambda z: found(pairs(torch.where(torch.arange(13)[:, None, None, None, None] == 5, torch.nan, z), 2, length=3)),
     "8 states are not finite, the first of sample 8"),
])  # fmt: skip
def test_series_that_cannot_be_are_refused(make, message, run):
    with pytest.raises(ValueError, match=message):
        make(run)
