"""PROSE for quasi-geostrophic flows: the coming 10 days, and the equation, from eight noisy daily maps.

A network sees eight daily maps of psi with 2 % noise, of a flow of one or two layers whose terms and coefficients are
unknown, and the map of the bottom. It predicts psi of the next 10 days and writes the equation (Liu, Zhang & Schaeffer
2024, Neural Networks 180, 106707, who have no such flows). Its equation is then refined: fitted through the solver to
the maps, with terms taken in and left out by a criterion. Flows are new ones of the families of the training, in turn.

Beside it, without a network: the same search from no terms, elimination from all terms, and MEDIDA (which is told how q
follows from psi, so that only its tendencies count); the true equation from the last map as seen and as filtered;
persistence; and with --twin a network that never saw an equation. The refined equation also makes an ensemble, of its
own standard errors.

Without --train the weights in data/weights/prose_qg.safetensors are used.

Expected with those weights (means of 31 flows): errors of psi at day 10 of 0.55 for the network, 0.54 for its equation,
0.012 for the refined equation, 0.024 for the true one from the last map as seen, 1.27 for persistence. The network has
all terms right in 26 % of the flows, every search in all of them, with half of the coefficients within 0.4 %. The
search from its guess takes 0.69 of the time of that from all terms, that from no terms 0.82, and all find the same.
Truth and fits share a grid and a solver; with --finer 2 the truth has a finer one, the refined equation an error of
0.038, nearly all true terms, and others for what the maps do not resolve (all right in 2 of 31 flows).
Run time on one core: 45 s for quick, 6 minutes for default; with --train also for data and training.

Writes table.nc, errors.png, maps.png, terms.png and summary.json; with --train the weights and their log as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import prose_flow_pictures
import prose_flows
import torch
from common import Range, Refused, device, goes_with, main
from prose_flows import MEAN, TOLD, Scores
from prose_training import CHECKPOINT, ONLY_TRAINING, Training, chosen, of_case, room, sized, train

from sciml import score
from sciml.cluster import in_processes
from sciml.data import write_netcdf
from sciml.equation.expression import Field, dx, lap, leaves
from sciml.equation.tokens import Vocabulary
from sciml.prose.flow_data import Flows, generate_flows
from sciml.prose.flows import FLOWS
from sciml.prose.learning import Course
from sciml.prose.model import PROSE, new
from sciml.prose.symbols import Symbols, one_of
from sciml.prose.symmetry import Shifts, free_axes
from sciml.prose.windows import Maps

FIELDS = ("q1", "q2", "psi1", "psi2", "eta")
LENGTH = 160
PSI, Q = Field("psi1"), Field("q1")
FURTHER = one_of(PSI, dx(PSI), lap(PSI), lap(Q), lap(lap(Q)))
"""Terms that are added to corrupted skeletons."""
ROOT = Path(__file__).parent.parent
WEIGHTS = ROOT / "data" / "weights" / "prose_qg.safetensors"
MEMBERS = {"quick": 4, "default": 32, "full": 128}
CHUNK = 100
"""Members that are drawn with one seed."""

TABLES = ("table.nc", "errors.png", "maps.png", "terms.png", "summary.json")


@dataclass(frozen=True)
class Options(Training):
    n: Annotated[int, Range(16, 512)] = 32
    """Points along an axis."""
    workers: Annotated[int, Range(1, 1_024)] = 1
    """Processes that run flows."""
    members: Annotated[int, Range(1, 100_000)] | None = None
    """Flows to test on, of all families in turn (default: 32; quick 4, full 128)."""
    finer: Annotated[int, Range(1, 8)] = 1
    """Points of the truth's grid for one of the maps', along an axis; with 1 truth and fits share a solver."""
    twin: Path | None = None
    """File of weights of a network that saw data only, trained with --no-symbols, to compare with."""
    draws: Annotated[int, Range(2, 10_000)] = 24
    """Members of the ensemble of each flow."""
    library: bool = True
    """Search from no terms and from all terms as well, without the network's equation."""


def some_flows(names: Sequence[str], members: int, windows: int, seed: int, n: int, i: int) -> Flows:
    """Flows of up to :data:`CHUNK` members of all families in turn, with a seed of their own."""
    generator = torch.Generator().manual_seed(100_000 * seed + i)
    number = min(CHUNK, members - CHUNK * i)
    drawn = [FLOWS[names[k % len(names)]].sample(1, generator)[0] for k in range(number)]
    return generate_flows(drawn, windows, seed=100_000 * seed + i, n=n)


def flows(o: Options, names: Sequence[str], members: int, windows: int, seed: int) -> Flows:
    """Flows of many members, by several processes; they do not depend on how many."""
    each = partial(some_flows, tuple(names), members, windows, seed, o.n)
    return Flows.joined(in_processes(each, -(-members // CHUNK), o.workers))


def taught(o: Options, out: Path) -> PROSE:
    """A model trained on flows of the chosen families."""
    names = chosen(o.families, tuple(FLOWS))
    members, windows, updates = sized(o, quick=(8, 2, 20), default=(1000, 4, 4000), full=(8000, 8, 40000))
    where = device(o.device)
    runs = flows(o, names, members, windows, o.seed).to(where)
    vocabulary = Vocabulary(FIELDS)
    symbols = Symbols.of(vocabulary, runs.equations, runs.family.cpu(), further=FURTHER, length=LENGTH).to(where)
    view = Maps(n=o.n)
    turn = Shifts(free_axes(runs.equations, ("y", "x")).to(where))
    named = torch.tensor([any("eta" in leaves(e) for e in system) for system in runs.equations], device=where)
    course = Course(runs.t, runs.frames, runs.equation, symbols, view, context=runs.eta, noise=o.noise, asked=2,
                    shortened=0.0, turn=turn, named=named)  # fmt: skip
    model = new(view, vocabulary, o.size, length=LENGTH, seed=o.seed)
    return train(o, out, model, course, updates, names=list(names), n=o.n)


def checked(o: Options) -> int:
    """Number of members. Raises ``Refused`` for options that cannot be."""
    members = MEMBERS[o.preset] if o.members is None else o.members
    if o.n % 4:
        raise Refused(f"--n must be a multiple of 4, got {o.n}")
    chosen(o.families, tuple(FLOWS))
    return members


def headline(s: Scores) -> dict[str, dict[str, float]]:
    """Mean errors of every method by lead."""
    return {
        name: {f"day {day}": float(own[:, day - 1].mean()) for day in (1, 2, 5, 10)}
        | {"median day 10": float(np.median(own[:, -1]))}
        for name, own in prose_flows.errors(s).items()
    }


def results(s: Scores) -> dict:
    """What goes to the summary."""
    spread, error = (np.sqrt((np.stack([p[k].numpy() for p in s.spread]) ** 2).mean(0)) for k in (0, 1))
    found = prose_flows.identification(s)
    return {
        "flows": len(s.flows), "errors": headline(s), "equations": found,
        "spread over error": {f"day {d}": float(spread[d - 1] / error[d - 1]) for d in (1, 5, 10)},
        "seconds": {**s.latency, **{n: own["seconds"] for n, own in found.items() if n not in TOLD}},
    }  # fmt: skip


def run(o: Options, out: Path) -> dict[str, Any]:
    goes_with(o, o.train, "--train", *ONLY_TRAINING)
    members = checked(o)
    twin = None if o.twin is None else of_case(o.twin, Maps, FIELDS, device(o.device), symbols=False)
    model = None if o.train else of_case(o.weights or WEIGHTS, Maps, FIELDS, device(o.device))
    if model is not None:
        chosen(o.families, model.about.get("names", tuple(FLOWS)))
    room(o, out, TABLES)
    model = model or taught(o, out)
    if twin is not None and twin.view != model.view:
        raise Refused(f"--twin {o.twin}: it sees other maps than the network beside it")
    names = chosen(o.families, model.about.get("names", tuple(FLOWS)))
    assert isinstance(model.view, Maps)
    seen = Scores(*prose_flows.unseen(names, members, o.seed, model.view.n, o.noise, o.finer))
    s = prose_flows.compared(model, twin, seen, o.draws, o.library)
    numbers = results(s)
    print(score.table({name: row for name, row in numbers["errors"].items() if name != MEAN}))
    print(score.table({name: row for name, row in numbers["equations"].items() if name != TOLD[2]}))
    write_netcdf(prose_flows.dataset(s), out / "table.nc")
    prose_flow_pictures.draw(out, s)
    (out / CHECKPOINT).unlink(missing_ok=True)
    ratio = numbers["spread over error"]["day 10"]
    print(f"{len(s.flows)} flows; spread over error at day 10: {ratio:.2f}")
    return numbers


if __name__ == "__main__":
    main(run, Options)
