"""The ladder of assimilation methods on truths that nothing was tuned on.

    python bench/assimilation_ladder.py [--truths 11 12 ...] [--seeds 0 1 2] [--methods oi letkf ...]

Every truth is observed with other errors by each seed, which also draws the ensembles. Prints the mean of each score
over truths and seeds with a 95 % interval over truths (Student's t: seeds of one truth are averaged first), and the
ratio to 3D-Var (or to OI). What is there already is not run again, so that a stopped run goes on. A truth takes two
minutes on one core, an analysis run as long as cases/qg_assimilate.py says.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from collected import results
from scipy.stats import t as student

from sciml.data import write_netcdf
from sciml.score import table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "data"))


@dataclass(frozen=True)
class Options:
    truths: tuple[int, ...] = (11, 12, 13, 14, 15, 16, 17, 18)
    """Seeds of the truths; 0, 1001 to 1008 and 2001 are the sample, the climatology and the one for tuning."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of observation errors and ensembles."""
    methods: tuple[str, ...] = ("climatology", "oi", "3dvar", "letkf", "4dvar")
    days: float = 300.0
    """Length of each truth."""
    skip_days: float = 150.0
    """Days at the start that scores leave out."""
    arguments: str = ""
    """More arguments of cases/qg_assimilate.py, such as --arguments="--model imperfect"."""
    name: str = ""
    """Added to the methods' names in folders, for runs with other arguments."""
    out: Path = ROOT / "runs" / "ladder"
    """Folder for truths and results."""


def observe(o: Options, truth: int) -> Path:
    """Files of a truth and its observations by each seed."""
    import make_qg_satellite as maker

    folder = o.out / f"truth{truth}"
    missing = [s for s in o.seeds if not (folder / f"observations{s}.nc").exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        print(f"making truth {truth}", flush=True)
        states = maker.true_states(truth, o.days, 3600.0)
        write_netcdf(maker.truth_file(states, " ".join(sys.argv)), folder / "truth.nc")
        for s in missing:
            write_netcdf(maker.observed(states, 1000 * truth + s, " ".join(sys.argv)), folder / f"observations{s}.nc")
    return folder


def scores(o: Options, folder: Path, seed: int, method: str) -> dict[str, float] | None:
    """Of one run of the case; None where the filter diverged."""
    line = ["--method", method, "--seed", seed, "--observations", folder / f"observations{seed}.nc", "--truth"]
    line += [folder / "truth.nc", "--days", o.days, "--skip-days", o.skip_days, *shlex.split(o.arguments)]
    found = results("qg_assimilate", line, folder / f"{method}{o.name}-{seed}")
    if found is None:
        return None
    pairs = [("psi", "analysis"), ("psi", "background"), ("q", "analysis"), ("psi", "spread_over_error")]
    out = {f"{f} {n} {i + 1}": v for f, n in pairs for i, v in enumerate(found[f].get(n, []))}
    leads = dict(zip(found["forecast"]["days"], found["forecast"]["psi"], strict=True))
    return out | {f"psi day {d} {i + 1}": v for d in (30.0, 60.0) if d in leads for i, v in enumerate(leads[d])}


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval."""
    n = len(values)
    half = student.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return float(values.mean()), float(half)


def run(o: Options) -> None:
    torch.set_num_threads(1)
    found: dict[str, list[list[dict[str, float] | None]]] = {m: [] for m in o.methods}
    for truth in o.truths:
        folder = observe(o, truth)
        for m in o.methods:
            seeds = o.seeds[:1] if m == "climatology" else o.seeds
            found[m].append([scores(o, folder, s, m) for s in seeds])
    means = {}
    for m, truths in found.items():
        good = [[s for s in seeds if s] for seeds in truths]
        failed = sum(len(s) for s in truths) - sum(len(s) for s in good)
        print(f"{m}: {sum(len(s) for s in good)} runs, {failed} failed")
        if not all(good):
            continue
        means[m] = {k: np.array([np.mean([s[k] for s in seeds]) for seeds in good]) for k in good[0][0]}
    print(table({m: {k: interval(v)[0] for k, v in kinds.items()} for m, kinds in means.items()}))
    print("half widths of 95 % intervals over truths")
    print(table({m: {k: interval(v)[1] for k, v in kinds.items()} for m, kinds in means.items()}))
    base = next((b for b in ("3dvar", "oi") if b in means), None)
    if base:
        print(f"ratios to {base}, truth by truth, and half widths")
        keys = ("psi analysis 1", "psi analysis 2")
        rows = {m: {k: interval(v[k] / means[base][k]) for k in keys} for m, v in means.items()}
        print(
            table({m: {f"{k}{w}": r[k][i] for k in keys for i, w in enumerate(("", " +-"))} for m, r in rows.items()})
        )


if __name__ == "__main__":
    run(tyro.cli(Options, description=__doc__))
