"""Settings of the LETKF, of the hybrid and of 4D-Var on training truths that no table reports.

    python bench/assimilation_tuning.py [--truths 2001 2002 2003] [--models perfect imperfect] [--only letkf]

Runs the methods of cases/qg_assimilate.py over days 100 to 250 of the training truths and prints the error of psi over
climatology for every combination, the mean of layers and truths. Of those within LEVEL of the least error the one whose
spread is nearest to its error is chosen for the LETKF with the perfect model, for others the one of the least error;
they are the defaults of that case (TUNED in cases/methods.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from assimilation_ladder import observe

import sciml as sm
from sciml import evaluate
from sciml.assim.cycle import cycle, tune

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "cases"))

GRIDS = {
    ("letkf", "perfect"): {"radius": (30e3, 35e3, 40e3, 50e3), "inflation": (1.015, 1.025, 1.035, 1.045, 1.06)},
    ("letkf", "imperfect"): {"radius": (20e3, 30e3, 40e3), "inflation": (1.05, 1.1, 1.2)},
    ("hybrid", "perfect"): {"radius": (25e3,), "inflation": (1.045, 1.06), "network_weight": (0.4, 0.5, 0.6)},
    ("hybrid", "imperfect"): {"radius": (25e3, 30e3), "inflation": (1.05, 1.1), "network_weight": (0.4, 0.7)},
    ("4dvar", "perfect"): {"lag": (3, 4), "model_error": (0.0,)},
    ("fuxida4dvar", "perfect"): {"lag": (2, 3), "iterations": (3, 6)},
    ("4dvar", "imperfect"): {"lag": (2, 3), "model_error": (0.0, 0.3, 0.6)},
}
LEVEL = 0.05
"""Part of the least error by which errors may differ and count as level"""


@dataclass(frozen=True)
class Options:
    truths: tuple[int, ...] = (2001, 2002, 2003)
    """Seeds of the training truths."""
    models: tuple[str, ...] = ("perfect", "imperfect")
    members: tuple[int, ...] = (40,)
    """Sizes of the ensembles of letkf; hybrid has its own."""
    radius: tuple[float, ...] = ()
    """Localisation lengths of letkf to try, m (default: those in GRIDS)."""
    inflation: tuple[float, ...] = ()
    """Inflations of letkf to try (default: those in GRIDS)."""
    only: str = ""
    """One method: letkf, hybrid, fuxida4dvar or 4dvar."""
    days: float = 250.0
    skip_days: float = 100.0
    seeds: tuple[int, ...] = (0,)
    """Of observation errors."""
    out: Path = ROOT / "runs" / "ladder"
    """Folder of the ladder's truths."""


def error_of(
    o: Options, folders: list[Path], method: str, model: str, members: int, spreads: dict[tuple[float, ...], float]
) -> Callable[..., float]:
    """The error that a combination of settings leaves, the mean over truths and layers; of ensembles the spread over
    the error goes into ``spreads``."""
    import qg_assimilate as case

    def error(**settings: float) -> float:
        found = np.array([of_one(folder, settings) for folder in folders])
        spreads[tuple(settings.values())] = float(found[:, 1].mean())
        return float(found[:, 0].mean())

    def of_one(folder: Path, settings: dict[str, float]) -> tuple[float, float]:
        files = dict(observations=folder / "observations0.nc", truth=folder / "truth.nc")
        given = case.Options(method=method, model=model, days=o.days, members=members, **files, **settings)  # type: ignore[arg-type]
        setting = case.prepare(given)
        analysis, start = case.build(given, setting)[method]
        try:
            run = cycle(setting.step, analysis, setting.windows, start, setting.psi)
        except sm.BlowUp:
            return float("inf"), float("nan")
        skip = round(o.skip_days * case.DAY / setting.length)
        assert setting.truth is not None
        found = evaluate.skill(setting.psi, run, setting.truth, setting.climate, skip, run.spread)
        spread = found.get("spread_over_error", [])
        numbers = " ".join(f"{v:.3f}" for v in [*found["analysis"], *spread])
        print(f"{method} {model} {members}: {settings} {folder.name}: error, spread/error {numbers}", flush=True)
        return float(np.mean(found["analysis"])), float(np.mean(spread or np.nan))

    return error


def honest(errors: dict[tuple, float], spreads: dict[tuple[float, ...], float]) -> tuple[float, ...]:
    """Of the settings whose errors are level, the one whose spread is nearest to its error."""
    level = [s for s, error in errors.items() if error <= (1 + LEVEL) * min(errors.values())]
    return min(level, key=lambda s: abs(np.log(spreads[s])))


def run(o: Options) -> None:
    torch.set_num_threads(1)
    folders = [observe(o, truth) for truth in o.truths]  # type: ignore[arg-type]
    for (method, model), grid in GRIDS.items():
        if (o.only and o.only != method) or model not in o.models:
            continue
        if method == "letkf":
            grid = {"radius": o.radius or grid["radius"], "inflation": o.inflation or grid["inflation"]}
        for members in o.members if method == "letkf" else (1,):
            spreads: dict[tuple[float, ...], float] = {}
            best, errors = tune(error_of(o, folders, method, model, max(2, members), spreads), grid)
            for values, error in sorted(errors.items(), key=lambda pair: pair[1]):
                print(f"{dict(zip(grid, values, strict=True))}: error {error:.4f}, spread/error {spreads[values]:.2f}")
            if (method, model) == ("letkf", "perfect"):
                best = dict(zip(grid, honest(errors, spreads), strict=True))
            print(f"best for {method}, {model} model, {members} members: {best}", flush=True)


if __name__ == "__main__":
    run(tyro.cli(Options, description=__doc__))
