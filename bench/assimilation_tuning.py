"""Settings of the ensemble filters and of 4D-Var on a training truth that no table reports.

    python bench/assimilation_tuning.py [--truth 2001] [--models perfect imperfect] [--members 40 20] [--only letkf]

Runs the methods of cases/qg_assimilate.py over days 100 to 250 of the training truth and prints the error of psi over
climatology, the mean of both layers, for every combination; the best ones are the defaults of that case (TUNED).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
import xarray as xr
from assimilation_ladder import observe

import sciml as sm
from sciml import evaluate
from sciml.assim.cycle import cycle, tune

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "cases"))

GRIDS = {
    ("letkf", "perfect"): {"radius": (30e3, 35e3, 40e3, 60e3), "inflation": (1.0, 1.03, 1.045, 1.06)},
    ("letkf", "imperfect"): {"radius": (30e3, 40e3, 60e3), "inflation": (1.1, 1.2, 1.35)},
    ("4dvar", "perfect"): {"lag": (3, 4), "model_error": (0.0,)},
    ("4dvar", "imperfect"): {"lag": (1, 2), "model_error": (0.0, 0.3)},
}


@dataclass(frozen=True)
class Options:
    truth: int = 2001
    """Seed of the training truth."""
    models: tuple[str, ...] = ("perfect", "imperfect")
    members: tuple[int, ...] = (40, 20)
    """Sizes of the ensembles."""
    only: str = ""
    """One method: letkf or 4dvar."""
    days: float = 250.0
    skip_days: float = 100.0
    seeds: tuple[int, ...] = (0,)
    """Of observation errors."""
    out: Path = ROOT / "runs" / "ladder"
    """Folder of the ladder's truths."""


def error_of(o: Options, folder: Path, method: str, model: str, members: int) -> Callable[..., float]:
    """The error that a combination of settings leaves."""
    import qg_assimilate as case

    files = dict(observations=folder / "observations0.nc", truth=folder / "truth.nc")

    def error(**settings: float) -> float:
        given = case.Options(method=method, model=model, days=o.days, members=members, **files, **settings)  # type: ignore[arg-type]
        setting = case.prepare(given)
        analysis, start = case.build(given, setting)[method]
        try:
            run = cycle(setting.step, analysis, setting.windows, start, setting.psi)
        except sm.BlowUp:
            return float("inf")
        skip = round(o.skip_days * case.DAY / setting.length)
        assert setting.truth is not None
        found = evaluate.skill(setting.psi, run, setting.truth, setting.climate, skip, run.spread)
        spread = found.get("spread_over_error", [])
        print(f"{method} {model} {members}: {settings} {found['analysis']} spread/error {spread}", flush=True)
        return float(np.mean(found["analysis"]))

    return error


def run(o: Options) -> None:
    torch.set_num_threads(1)
    folder = observe(o, o.truth)  # type: ignore[arg-type]
    with xr.open_dataset(folder / "truth.nc", decode_times=False) as ds:
        print(f"training truth {o.truth}: {ds.sizes['time'] - 1} windows")
    for (method, model), grid in GRIDS.items():
        if (o.only and o.only != method) or model not in o.models:
            continue
        for members in o.members if method == "letkf" else (1,):
            best, _ = tune(error_of(o, folder, method, model, max(2, members)), grid)
            print(f"best for {method}, {model} model, {members} members: {best}", flush=True)


if __name__ == "__main__":
    run(tyro.cli(Options, description=__doc__))
