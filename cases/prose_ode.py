"""PROSE for ordinary differential equations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from common import device, folder, main
from prose_training import Training, chosen, sized, train

from sciml.equation.tokens import Vocabulary
from sciml.prose.learning import Course
from sciml.prose.model import Model, new
from sciml.prose.ordinary import SYSTEMS
from sciml.prose.symbols import Symbols
from sciml.prose.trajectories import generate
from sciml.prose.windows import Windows

FIELDS = tuple(f"u_{i}" for i in range(5))
LENGTH = 144


@dataclass(frozen=True)
class Options(Training):
    spread: float = 0.1
    """Half width of the ranges of parameters, as a factor of their centres."""


def taught(o: Options, out: Path) -> Model:
    """A model trained on trajectories of the chosen families."""
    names = chosen(o.families, tuple(SYSTEMS))
    equations, conditions, updates = sized(
        o, quick=(30, 4, 20), default=(3000, 20, 8000), full=(25600, 20, 40000)
    )
    where = device(o.device)
    runs = generate([SYSTEMS[n] for n in names], equations, conditions, seed=o.seed, spread=o.spread).to(where)
    vocabulary = Vocabulary(FIELDS)
    symbols = Symbols.of(vocabulary, runs.equations, runs.family.cpu(), length=LENGTH).to(where)
    view = Windows(5)
    course = Course(runs.t, runs.u, runs.equation, symbols, view, noise=o.noise)
    model = new(view, vocabulary, o.size, length=LENGTH, seed=o.seed)
    return train(o, out, model, course, updates, names=list(names), spread=o.spread)


def run(o: Options) -> None:
    out = folder(o.out or Path("runs") / "prose_ode")
    if o.train:
        taught(o, out)


if __name__ == "__main__":
    main(run, Options)
