"""MEDIDA beside pysindy used directly, on the same quasi-geostrophic flow, of as many states seen with as much noise.

    python bench/medida_peers.py [--cases 1 2 4 6 9] [--noises 0 0.01 0.05] [--seeds 0]

All look for what a model lacks among the same candidates, columns and tendencies being of the same states (those whose
modes stand above the noise: `sciml.kriging.resolved`). pysindy

* of differences: the change of PV between states one interval apart over its length, less the model's tendency at both
  (bench/medida_climate.py), point by point, with and without MEDIDA's low-pass;
* in weak form (Messenger & Bortz 2021; pysindy's ``WeakPDELibrary``): uninterrupted series, of as many states in all as
  MEDIDA's triples, are integrated with test functions over boxes of three sizes in space and time.

MEDIDA has the triples, and the series as well. Of all thresholds of pysindy, and of sizes or filters, the one is taken
that comes nearest to the truth, which a user cannot know. MEDIDA chooses by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
import tyro
from medida_climate import direct, nearest
from torch import Tensor

from sciml.discover.discovery import Discovery
from sciml.discover.library import Library, coefficients, terms
from sciml.discover.moments import Moments, gathered, moments
from sciml.score import table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cases"))
import medida_qg as case

BOXES = ((4, 4), (8, 8), (16, 12))
"""Half-widths of test functions in points and in states"""
DOMAINS, BLOCKS = 200, 10
"""Test functions of each size in a series; blocks of a series that count as independent"""


@dataclass(frozen=True)
class Options:
    cases: tuple[str, ...] = ("1", "2", "4", "6", "9")
    """Of cases/medida_qg.py."""
    noises: tuple[float, ...] = (0.0, 0.01, 0.05)
    """As a factor of the standard deviation of psi."""
    seeds: tuple[int, ...] = (0,)
    """Of states and noise."""
    samples: int = 100
    """Triples of states."""
    length: int = 30
    """States of each series: there are as many in all as in the triples."""
    every: int = 2
    """Model steps between them."""


def weak(e: case.Experiment, library: Library, seen: Tensor, dt: float) -> Iterator[tuple[float, dict[str, Moments]]]:
    """Moments of the equations as pysindy integrates them, for each size of the boxes."""
    import pysindy as ps

    model, n = e.system.model, len(e.system.model.prognostic)
    grid, kept = model.grid, case.counted(e.system.truth)
    y, x = (a.flatten().numpy() for a in reversed(grid.axes()))
    inside = np.ones(len(y), dtype=bool) if kept is None else kept[:, 0].numpy()
    axes = np.stack(np.meshgrid(y[inside], x, dt * np.arange(len(seen)), indexing="ij"), -1)

    def fields(z: Tensor) -> np.ndarray:
        """PV, the model's tendency and the candidates of one run, ``(y, x, time, n + n + p)``."""
        parts = [grid.ifft(torch.cat((now, model.tendency(now), library.values(model, now)))) for now in z]
        return torch.stack(parts, -1).permute(1, 2, 3, 0).numpy()[inside]

    runs = [fields(seen[:, i]) for i in range(seen.shape[1])]
    np.random.seed(0)  # noqa: NPY002  # from here pysindy draws its boxes
    for points, times in BOXES:
        half = [points * grid.dy, points * grid.dx, times * dt]
        identity = ps.PolynomialLibrary(degree=1, include_bias=False)
        form = ps.WeakPDELibrary(identity, spatiotemporal_grid=axes, H_xt=half, K=DOMAINS, p=4)
        streams: dict[str, list[Moments]] = {f: [] for f in model.prognostic}
        for run in runs:
            whole = np.asarray(form.fit_transform(run))
            rates = np.asarray(form.convert_u_dot_integral(run[..., :n])) - whole[:, n : 2 * n]
            own = whole[:, 2 * n :].reshape(BLOCKS, -1, len(library.names))
            for i, f in enumerate(model.prognostic):
                streams[f].append(moments(library.names, own, rates[:, i].reshape(BLOCKS, -1)))
        yield np.inf, {f: gathered(parts) for f, parts in streams.items()}


def quality(library: Library, found: Discovery, exact: np.ndarray) -> dict[str, float]:
    """Terms missed and false, and the largest error of those found, in per cent."""
    terms = case.compared(library, found, exact)["terms"].values()
    hit = [t["error (%)"] for t in terms if t["true"] and t["found"]]
    return {"missed": sum(not t["found"] for t in terms), "false": sum(not t["true"] for t in terms),
            "largest error (%)": max(hit, default=np.nan)}  # fmt: skip


def rows(o: Options, name: str, noise: float, seed: int) -> Iterator[tuple[str, dict[str, float]]]:
    """What each method finds in one case."""
    triples = case.Options(case=name, noise=noise, samples=o.samples, seed=seed)
    many = max(1, 3 * o.samples // o.length)
    series = replace(triples, samples=many, length=o.length - 1, interval=o.every)
    e = case.experiment(triples)
    s, library = e.system, terms(e.system.model)
    exact = coefficients(library, s.truth, s.model, e.z[1, :2])
    pairs = case.pairs_of(triples, e.seen, e.interval)
    yield "MEDIDA, triples", quality(library, case.discovered(triples, e, library), exact)
    yield "differences", quality(library, direct(e, library, pairs, 0.8 * s.cut, case.counted(s.truth)), exact)
    e = case.experiment(series)
    yield "MEDIDA, series", quality(library, case.discovered(series, e, library), exact)
    forms = weak(e, library, e.seen, o.every * s.dt)
    yield "weak form", quality(library, nearest(e, library, forms), exact)


def run(o: Options) -> None:
    torch.set_num_threads(1)
    found: dict[str, dict[str, float]] = {}
    for noise, name, seed in product(o.noises, o.cases, o.seeds):
        for method, row in rows(o, name, noise, seed):
            found[f"{noise:.0%} noise, case {name}, seed {seed}, {method}"] = row
            print(table({next(reversed(found)): row}), flush=True)
    print(table(found))


if __name__ == "__main__":
    run(tyro.cli(Options, description=__doc__))
