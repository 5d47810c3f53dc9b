"""MEDIDA on many cases and seeds: how often the right terms, how far off their coefficients, how honest their errors.

    python bench/medida.py [--cases 1 2 ... drag ...] [--seeds 0 1 2] [--arguments="--noise 0.05"] [--name=-noise5]

Each run is one of cases/medida_qg.py, with other random states, sensors and noise by seed. What is there already is
not run again; cases on the same flow share its states.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from collected import results

from sciml.discover.systems import JET, SYSTEMS
from sciml.score import table

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Options:
    cases: tuple[str, ...] = tuple(SYSTEMS)
    """Cases of cases/medida_qg.py."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of states, sensors and noise."""
    arguments: str = ""
    """More arguments of the case, such as --arguments="--noise 0.05"."""
    name: str = ""
    """Added to the names of folders, for runs with other arguments."""
    out: Path = ROOT / "runs" / "medida"
    """Folder for results."""


def result(o: Options, case: str, seed: int) -> dict | None:
    """Of one run; None where it failed."""
    states = o.out / f"{'jet' if case in JET else 'eddy'}{o.name}-{seed}.safetensors"
    line = ["--case", case, "--seed", seed, "--states", states, *shlex.split(o.arguments)]
    return results("medida_qg", line, o.out / f"{case}{o.name}-{seed}")


def row(runs: list[dict | None]) -> dict[str, float]:
    """Runs with the right terms; of true terms that were found the largest and median errors and how many lie within
    two standard errors; terms missed and false ones; forecast error of the corrected model over the model's."""
    good = [r for r in runs if r]
    terms = [t for r in good for t in r["terms"].values()]
    found = [t for t in terms if t["true"] and t["found"]]
    errors = np.array([t["error (%)"] for t in found])
    gain = [r["forecast"]["corrected"]["psi"][-1][0] / r["forecast"]["model"]["psi"][-1][0]
            for r in good if "forecast" in r]  # fmt: skip
    return {
        "runs": len(runs),
        "right": sum(r["right terms"] for r in good),
        "missed": sum(not t["found"] for t in terms),
        "false": sum(not t["true"] for t in terms),
        "median error (%)": float(np.median(errors)) if len(errors) else np.nan,
        "largest error (%)": float(errors.max()) if len(errors) else np.nan,
        "within 2 std": float(np.mean([t["errors of std"] < 2 for t in found])) if found else np.nan,
        "forecast error": float(np.mean(gain)) if gain else np.nan,
    }


def run(o: Options) -> None:
    o.out.mkdir(parents=True, exist_ok=True)
    print(table({c: row([result(o, c, s) for s in o.seeds]) for c in o.cases}))


if __name__ == "__main__":
    run(tyro.cli(Options, description=__doc__))
