"""MEDIDA on the Kuramoto-Sivashinsky equation: what a model lacks, biased data, damped increments, much data."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch
from torch import Tensor

from sciml.discover.library import coefficients, terms
from sciml.discover.medida import medida
from sciml.discover.samples import Pair, advanced
from sciml.equation.kuramoto import KuramotoSivashinsky
from sciml.grid import Grid
from sciml.step import etdrk4
from tests.test_medida import seen, stepped

KS_DT = 0.01


@pytest.fixture(scope="module")
def waves() -> Tensor:
    """States of the Kuramoto-Sivashinsky equation."""
    grid = Grid(128, 1, Lx=22.0)
    x = 2 * math.pi * (grid.x + torch.linspace(0, 3, 24)[:, None, None, None]) / grid.Lx
    shift = torch.linspace(0, 2, 24)[:, None, None, None]
    eq = KuramotoSivashinsky(grid=grid)
    return advanced(etdrk4(eq, 0.1), eq.init(torch.cos(x) * (1 + torch.sin(x + shift))), 1000)


@pytest.mark.parametrize("change", [dict(c=0.5), dict(a=0.5, c=0.5), dict(d=0.1)], ids=str)
def test_what_a_model_of_waves_lacks_is_found(change, waves):
    """``u u_x``, ``u_xxxx`` in part, and ``u_xxx`` too much."""
    grid = Grid(128, 1, Lx=22.0)
    truth, model = KuramotoSivashinsky(grid=grid), KuramotoSivashinsky(grid=grid, **change)
    pair = seen(truth, etdrk4, waves, KS_DT)
    found = medida(model, stepped(KS_DT), [pair], terms(model))
    names = {"c": ("lap(lap(u))", -1), "a": ("u*dx(u)", -1), "d": ("dx(lap(u))", 1)}
    expected = {names[p][0]: names[p][1] * (value if p == "d" else 1 - value) for p, value in change.items()}
    kept = dict(zip(found.library.names, found.coefficients()[0], strict=True))
    assert len(found.library) == 24
    assert {n: c for n, c in kept.items() if c} == pytest.approx(expected, rel=0.01)


def test_a_twin_takes_off_the_bias_of_what_is_seen(waves):
    """States are seen through a blur, which makes false terms; what it does to the corrected model shows how much."""
    grid = Grid(128, 1, Lx=22.0)
    truth, model = KuramotoSivashinsky(grid=grid), KuramotoSivashinsky(grid=grid, c=0.5)
    blur, library = torch.exp(-0.02 * grid.K2), terms(KuramotoSivashinsky(grid=grid))

    def blurred(eq, z: Tensor) -> list[Pair]:
        return [Pair(blur * z, blur * advanced(etdrk4(eq, KS_DT), z, 4), 4)]

    def twin(eq) -> list[Pair]:
        return blurred(eq, advanced(etdrk4(eq, KS_DT), blur * waves, 50))

    exact = coefficients(library, truth, model, waves)
    errors = [
        np.abs(medida(model, stepped(KS_DT), blurred(truth, waves), library, twin=t).coefficients() - exact).max()
        for t in (None, twin)
    ]
    assert errors[0] > 0.02
    assert errors[1] < 0.3 * errors[0]
    with pytest.raises(ValueError, match="rows cannot be taken off"):
        medida(model, stepped(KS_DT), blurred(truth, waves), library, twin=lambda eq: blurred(eq, waves[:8]))


def test_rounds_undo_the_damping_of_increments_by_a_gain(waves):
    """Analyses that go 0.4 of the way to the truth, made again with each corrected model."""
    grid = Grid(128, 1, Lx=22.0)
    truth, model = KuramotoSivashinsky(grid=grid), KuramotoSivashinsky(grid=grid, c=0.5)
    later = advanced(etdrk4(truth, KS_DT), waves, 1)

    def assimilated(eq) -> list[Pair]:
        background = advanced(etdrk4(eq, KS_DT), waves, 1)
        return [Pair(waves, background + 0.4 * (later - background), 1)]

    library = terms(model)
    found = [medida(model, stepped(KS_DT), assimilated, library, rounds=n).coefficients()[0] for n in (1, 2, 6)]
    hyperviscosity = [-c[library.names.index("lap(lap(u))")] for c in found]
    assert hyperviscosity == pytest.approx([0.5 * (1 - 0.6**n) for n in (1, 2, 6)], rel=0.04)


def test_memory_does_not_grow_with_the_data(waves):
    model = KuramotoSivashinsky(grid=Grid(128, 1, Lx=22.0), c=0.5)
    library, pair = terms(model), seen(KuramotoSivashinsky(grid=model.grid), etdrk4, waves, KS_DT)

    def peak(number: int) -> int:
        tracemalloc.start()
        medida(model, stepped(KS_DT), [pair] * number, library, rounds=1)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)
    assert peak(80) < 1.3 * peak(10)
