"""PROSE for ordinary differential equations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common import Refused, device, folder, main
from prose_training import Training, chosen, sized, train

from sciml.equation.tokens import Vocabulary
from sciml.prose import sets
from sciml.prose.learning import Course
from sciml.prose.model import Model, new
from sciml.prose.ordinary import SYSTEMS
from sciml.prose.symbols import Symbols
from sciml.prose.trajectories import Trajectories, generate
from sciml.prose.windows import Windows

FIELDS = tuple(f"u_{i}" for i in range(5))
LENGTH = 144


@dataclass(frozen=True)
class Options(Training):
    spread: float = 0.1
    """Half width of the ranges of parameters, as a factor of their centres."""
    data: Path | None = None
    """File of trajectories to train on, made where it is missing."""
    workers: int = 1
    """Processes that make trajectories."""


def made(o: Options, names: Sequence[str], equations: int, conditions: int) -> Trajectories:
    """Trajectories to train on, from a file where there is one."""
    if o.data is not None and o.data.exists():
        runs = sets.load(o.data, FIELDS)
        if runs.names != tuple(names):
            raise Refused(f"--data {o.data} holds {', '.join(runs.names)}; name these with --families, or another file")
        return runs
    each = partial(family_runs, tuple(names), -(-equations // len(names)), conditions, o.seed, o.spread)
    runs = sets.in_processes(each, len(names), o.workers)
    if o.data is not None:
        sets.save(runs, o.data)
    return runs


def family_runs(names: Sequence[str], equations: int, conditions: int, seed: int, spread: float, i: int):
    """Trajectories of one family, with a seed of its own."""
    return generate([SYSTEMS[names[i]]], equations, conditions, seed=1000 * seed + i, spread=spread)


def taught(o: Options, out: Path) -> Model:
    """A model trained on trajectories of the chosen families."""
    names = chosen(o.families, tuple(SYSTEMS))
    equations, conditions, updates = sized(o, quick=(30, 4, 20), default=(3000, 20, 8000), full=(25600, 20, 40000))
    where = device(o.device)
    runs = made(o, names, equations, conditions).to(where)
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
