"""The learned analysis under observing networks it never saw, and over thousands of cycles.

    python bench/fuxida.py networks [--truths 8] [--weights FILE]
    python bench/fuxida.py long [--cycles 2000] [--weights FILE]

networks: mean error over truths of analysis and background over the climatological standard deviation, with the half
width of a 95 % interval over truths, and the worst ratio of an analysis to its own background. long: the error in parts
of one run, with that of no analysis at all. Truths are of seeds that no training uses. A core does each in minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
import xarray as xr
from scipy.stats import t as student

from sciml import evaluate, testbed
from sciml.assim.base import trajectory
from sciml.assim.cycle import cycle
from sciml.assim.network import FuXiDA
from sciml.instruments import simulate
from sciml.observations import names, without
from sciml.observe import windows
from sciml.score import table
from sciml.step import State

ROOT = Path(__file__).resolve().parents[1]
SEED = 777


@dataclass(frozen=True)
class Options:
    what: tyro.conf.Positional[Literal["networks", "long"]]
    truths: int = 8
    """Number of truths of networks."""
    cycles: int | None = None
    """Windows of each truth (default 60; long 2000)."""
    skip: int = 30
    """Windows at the start that do not count."""
    model: Literal["perfect", "imperfect"] = "perfect"
    """The model that assimilates."""
    weights: Path | None = None
    """Weights (default: those in data/weights)."""


def drop(*platforms: str) -> Callable[[xr.Dataset], xr.Dataset]:
    """Observations without those of some platforms."""

    def apply(obs: xr.Dataset) -> xr.Dataset:
        for p in platforms:
            obs = without(obs, p)
        return obs

    return apply


def noisier(obs: xr.Dataset) -> xr.Dataset:
    """Errors twice as large, and stated so."""
    sigma = obs["sigma"].values
    more = np.sqrt(3) * sigma * np.random.default_rng(SEED).standard_normal(len(sigma))
    value = obs["value"].values + more
    return obs.assign(value=("obs", value, obs["value"].attrs), sigma=("obs", 2 * sigma, obs["sigma"].attrs))


def without_channel(name: str) -> Callable[[xr.Dataset], xr.Dataset]:
    """Observations without those of a channel."""
    return lambda obs: obs.isel(obs=np.flatnonzero(obs["channel"].values != names(obs, "channel").index(name)))


NETWORKS: dict[str, tuple[bool, Callable[[xr.Dataset], xr.Dataset]]] = {
    "full": (False, lambda obs: obs),
    "half the platforms": (False, drop("altimeter_1", "altimeter_3", "radiometer")),
    "other tracks and clouds": (True, lambda obs: obs),
    "twice the noise": (False, noisier),
    "without tb_lower": (False, without_channel("tb_lower")),
    "swath only": (False, drop("altimeter_1", "altimeter_2", "altimeter_3", "radiometer")),
    "radiometer only": (False, drop("altimeter_1", "altimeter_2", "altimeter_3", "swath")),
    "nothing": (False, lambda obs: obs.isel(obs=slice(0, 0))),
}
"""Whether the satellites fly elsewhere, and what is done to their observations."""


def true_run(seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States of the perfect model over ``n`` windows at every step, and at the ends of windows."""
    step = testbed.stepper(testbed.model())
    with torch.no_grad():
        states, _ = trajectory(step, testbed.spun_up(step, seed, 3600.0), n * testbed.WINDOW)
    return states, states[testbed.WINDOW :: testbed.WINDOW]


def observed(states: torch.Tensor, seed: int, elsewhere: bool) -> xr.Dataset:
    H = testbed.operator(testbed.model())
    satellites = testbed.network(H, np.random.default_rng(seed) if elsewhere else None)
    return simulate(H, satellites, states, 0.0, testbed.DT, seed)


def errors(o: Options, obs: xr.Dataset, ends: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Of analyses and of backgrounds, ``(cycles, lev)``."""
    eq = testbed.model(o.model)
    step, H = testbed.stepper(eq), testbed.operator(eq)
    with xr.open_dataset(ROOT / "data" / "qg_satellite_climatology.nc") as ds:
        climate = testbed.states(eq, torch.as_tensor(ds["q"].values))
    name = f"fuxida_qg{'' if o.model == 'perfect' else '_imperfect'}.safetensors"
    shown = testbed.shown(eq)
    space = shown[0]
    analysis = FuXiDA.load(o.weights or ROOT / "data" / "weights" / name, *shown)
    cut = windows(obs, H, 0.0, testbed.DT, testbed.WINDOW, len(ends))
    run = cycle(step, analysis, cut, State(climate.mean(0)), space.read, progress="cycles")
    truth = testbed.states(eq, testbed.model().read(ends))
    _, std = evaluate.climatology(space.read, climate)
    found = [evaluate.root_mean_square(space.read(z - truth)) / std for z in (run.analysis, run.background)]
    return found[0].numpy(), found[1].numpy()


def networks(o: Options) -> None:
    """Print errors under each network."""
    n = o.cycles or 60
    found: dict[str, list[np.ndarray]] = {name: [] for name in NETWORKS}
    worst = dict.fromkeys(NETWORKS, 0.0)
    for truth in range(o.truths):
        states, ends = true_run(SEED + truth, n)
        for name, (elsewhere, change) in NETWORKS.items():
            analysis, background = errors(o, change(observed(states, SEED + truth, elsewhere)), ends)
            found[name].append(np.concatenate([analysis[o.skip :].mean(0), background[o.skip :].mean(0)]))
            worst[name] = max(worst[name], float((analysis[o.skip :] / background[o.skip :]).max()))
        print(f"truth {truth + 1} of {o.truths}", flush=True)
    keys = ("analysis 1", "analysis 2", "background 1", "background 2")
    rows = {}
    for name, values in found.items():
        mean, half = np.mean(values, 0), interval(np.array(values))
        rows[name] = dict(zip(keys, mean, strict=True)) | {"+- 1": half[0], "+- 2": half[1]}
        rows[name]["worst ratio"] = worst[name]
    print(table(rows))


def interval(values: np.ndarray) -> np.ndarray:
    """Half widths of 95 % intervals of means over truths."""
    n = len(values)
    return student.ppf(0.975, n - 1) * values.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full(values.shape[1], np.nan)


def long(o: Options) -> None:
    """Print errors in tenths of a long run."""
    n = o.cycles or 2000
    states, ends = true_run(SEED, n)
    analysis, background = errors(o, observed(states, SEED, False), ends)
    parts = zip(np.array_split(analysis, 10), np.array_split(background, 10), strict=True)
    first = 0
    rows = {}
    for a, b in parts:
        rows[f"cycles {first} to {first + len(a)}"] = dict(
            zip(("analysis 1", "analysis 2", "background 1", "background 2"), [*a.mean(0), *b.mean(0)], strict=True)
        ) | {"largest": float(a.max())}
        first += len(a)
    print(table(rows))


if __name__ == "__main__":
    torch.set_num_threads(1)
    chosen = tyro.cli(Options, description=__doc__)
    sys.exit((networks if chosen.what == "networks" else long)(chosen))
