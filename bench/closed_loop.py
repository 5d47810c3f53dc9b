"""The closed loop over several seeds, each a truth, observation errors and an ensemble of its own.

    python bench/closed_loop.py [--seeds 0 1 2] [--arguments="--method letkf"] [--name=-letkf]
    python bench/closed_loop.py --tune                 inflation of the filter, on a truth that no seed above has

Runs that are there already are not made again.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from collected import results

from sciml import BlowUp, testbed
from sciml.score import table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cases"))
import closed_loop as case
import loop_world

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Options:
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the case."""
    arguments: str = ""
    """More arguments of cases/closed_loop.py."""
    name: str = ""
    """Added to the names of folders, for runs with other arguments."""
    tune: bool = False
    """Compare inflations of the filter instead."""
    inflations: tuple[float, ...] = (1.02, 1.05, 1.1, 1.2)
    """To compare."""
    out: Path = ROOT / "runs" / "loops"
    """Folder of the runs."""


def rows(found: dict[str, Any]) -> dict[str, float]:
    """The numbers of one seed, flat."""
    out: dict[str, float] = {"right terms": float(found["found"]["right terms"])}
    out |= {f"{n}, error (%)": r["error (%)"] for n, r in found["found"]["terms"].items() if r["error (%)"] is not None}
    for method, own in found["closed"].items():
        out |= {f"{method}, {n}": v for n, v in own.items()}
    for method, own in found["scores"].items():
        for model, s in own.items():
            out |= {f"{method}, {model}, analysis {i + 1}": v for i, v in enumerate(s["analysis"])}
            out |= {f"{method}, {model}, 10 days {i + 1}": v for i, v in enumerate(s["forecast"][2])}
    for how, own in found["climate"].items():
        out |= {f"{how}, {model}, {n}": v for model, d in own.items() for n, v in d.items()}
    names = ("upper", "lower")
    out |= dict(zip((f"increments and what is missing, {n}" for n in names), found[case.HELD], strict=True))
    for model, own in found.get("prose", {}).items():
        out |= {f"PROSE, {model}, {n}": v["value"] if isinstance(v, dict) else v for n, v in own.items()}
    return out


def tuned(o: Options) -> None:
    """Errors of the filter with each inflation on the truth of seed 5, as a row for each model."""
    own, scale = case.checked(case.Options(seed=5))
    w = loop_world.world(own, scale.learn, 6)
    found: dict[str, dict[str, float]] = {"imperfect": {}, "perfect": {}}
    for inflation in o.inflations:
        loop_world.INFLATION = inflation
        for name, eq in (("imperfect", w.model), ("perfect", w.truth)):
            try:
                record = loop_world.cycled(own, w, testbed.stepper(eq), "letkf", late=False)  # type: ignore[arg-type]
                error = w.psi(record.analysis - w.states[: w.learn])[scale.learn // 3 :].pow(2).mean((0, 2, 3)).sqrt()
                found[name][f"{inflation:g}"] = float((error / w.std).mean())
            except BlowUp:
                found[name][f"{inflation:g}"] = np.nan
    print(table(found))


def run(o: Options) -> None:
    torch.set_num_threads(1)
    if o.tune:
        tuned(o)
        return
    every = {}
    for seed in o.seeds:
        line = ["--seed", seed, *shlex.split(o.arguments)]
        if found := results("closed_loop", line, o.out / f"seed{seed}{o.name}"):
            every[f"seed {seed}"] = rows(found)
    if failed := [str(seed) for seed in o.seeds if f"seed {seed}" not in every]:
        print(f"{len(failed)} of {len(o.seeds)} seeds failed and are not in the table: {', '.join(failed)}")
    names = dict.fromkeys(n for own in every.values() for n in own)
    print(table({n: {seed: own.get(n, np.nan) for seed, own in every.items()} for n in names}))


if __name__ == "__main__":
    run(tyro.cli(Options, description=__doc__))
