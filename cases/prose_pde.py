"""PROSE for partial differential equations in one dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common import device, folder, main
from prose_training import Training, chosen, sized, train

from sciml.equation.expression import Field, dx, lap
from sciml.equation.tokens import Vocabulary
from sciml.prose import sets
from sciml.prose.fields import generate_fields
from sciml.prose.learning import Course
from sciml.prose.model import Model, new
from sciml.prose.partial import PDES
from sciml.prose.symbols import Symbols, one_of
from sciml.prose.symmetry import Shifts, free_axes
from sciml.prose.windows import Lines

FIELDS = ("u_0", "u_1")
LENGTH = 48
U = Field("u_0")
FURTHER = one_of(U, U**2, U**3, dx(U), lap(U), dx(U**2))
"""Terms that are added to corrupted skeletons."""


@dataclass(frozen=True)
class Options(Training):
    spread: float = 0.1
    """Half width of the ranges of parameters, as a factor of their centres."""
    workers: int = 1
    """Processes that solve equations."""


def family_runs(names: Sequence[str], equations: int, conditions: int, seed: int, spread: float, i: int):
    """Solutions of one family, with a seed of its own."""
    return generate_fields([PDES[names[i]]], equations, conditions, seed=1000 * seed + i, spread=spread)


def taught(o: Options, out: Path) -> Model:
    """A model trained on solutions of the chosen families."""
    names = chosen(o.families, tuple(PDES))
    equations, conditions, updates = sized(o, quick=(40, 2, 20), default=(800, 10, 6000), full=(10240, 50, 60000))
    where = device(o.device)
    each = partial(family_runs, tuple(names), -(-equations // len(names)), conditions, o.seed, o.spread)
    runs = sets.in_processes(each, len(names), o.workers).to(where)
    vocabulary = Vocabulary(FIELDS)
    symbols = Symbols.of(vocabulary, runs.equations, runs.family.cpu(), further=FURTHER, length=LENGTH).to(where)
    view = Lines()
    turn = Shifts(free_axes(runs.equations, ("x",)).to(where))
    course = Course(runs.t, runs.u, runs.equation, symbols, view, noise=o.noise, asked=16, turn=turn)
    model = new(view, vocabulary, o.size, length=LENGTH, seed=o.seed)
    return train(o, out, model, course, updates, names=list(names), spread=o.spread)


def run(o: Options) -> None:
    out = folder(o.out or Path("runs") / "prose_pde")
    if o.train:
        taught(o, out)


if __name__ == "__main__":
    main(run, Options)
