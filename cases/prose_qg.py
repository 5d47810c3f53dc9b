"""PROSE for quasi-geostrophic flows of unknown terms and coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from common import device, folder, main
from prose_training import Training, chosen, sized, train

from sciml.equation.expression import Field, dx, lap
from sciml.equation.tokens import Vocabulary
from sciml.prose.flow_data import Flows, generate_flows
from sciml.prose.flows import FLOWS
from sciml.prose.learning import Course
from sciml.prose.model import Model, new
from sciml.prose.symbols import Symbols, one_of
from sciml.prose.symmetry import Shifts, free_axes
from sciml.prose.windows import Maps

FIELDS = ("q1", "q2", "psi1", "psi2", "eta")
LENGTH = 160
PSI, Q = Field("psi1"), Field("q1")
FURTHER = one_of(PSI, dx(PSI), lap(PSI), lap(Q), lap(lap(Q)))
"""Terms that are added to corrupted skeletons."""
CHUNK = 100
"""Members that are drawn with one seed."""


@dataclass(frozen=True)
class Options(Training):
    n: int = 32
    """Points along an axis."""
    workers: int = 1
    """Processes that run flows."""


def some_flows(names: Sequence[str], members: int, windows: int, seed: int, n: int, i: int) -> Flows:
    """Flows of up to :data:`CHUNK` members of all families in turn, with a seed of their own."""
    generator = torch.Generator().manual_seed(100_000 * seed + i)
    number = min(CHUNK, members - CHUNK * i)
    drawn = [FLOWS[names[k % len(names)]].sample(1, generator)[0] for k in range(number)]
    return generate_flows(drawn, windows, seed=100_000 * seed + i, n=n)


def flows(o: Options, names: Sequence[str], members: int, windows: int, seed: int) -> Flows:
    """Flows of many members, by several processes; they do not depend on how many."""
    each = partial(some_flows, tuple(names), members, windows, seed, o.n)
    parts = range(-(-members // CHUNK))
    if o.workers < 2:
        return Flows.joined([each(i) for i in parts])
    with ProcessPoolExecutor(o.workers, get_context("spawn")) as pool:
        return Flows.joined(list(pool.map(each, parts)))


def taught(o: Options, out: Path) -> Model:
    """A model trained on flows of the chosen families."""
    names = chosen(o.families, tuple(FLOWS))
    members, windows, updates = sized(o, quick=(8, 2, 20), default=(1000, 4, 4000), full=(8000, 8, 40000))
    where = device(o.device)
    runs = flows(o, names, members, windows, o.seed).to(where)
    vocabulary = Vocabulary(FIELDS)
    symbols = Symbols.of(vocabulary, runs.equations, runs.family.cpu(), further=FURTHER, length=LENGTH).to(where)
    view = Maps(n=o.n)
    turn = Shifts(free_axes(runs.equations, ("y", "x")).to(where))
    course = Course(runs.t, runs.frames, runs.equation, symbols, view, context=runs.eta, noise=o.noise, asked=2,
                    shortened=0.0, turn=turn)  # fmt: skip
    model = new(view, vocabulary, o.size, length=LENGTH, seed=o.seed)
    return train(o, out, model, course, updates, names=list(names), n=o.n)


def run(o: Options) -> None:
    out = folder(o.out or Path("runs") / "prose_qg")
    if o.train:
        taught(o, out)


if __name__ == "__main__":
    main(run, Options)
