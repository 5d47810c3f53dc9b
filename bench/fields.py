"""Filling gaps: interpolators and neural fields on the same sensors of one flow, error against cost.

    python bench/fields.py [--sensors 0.25] [--updates 2000] [--width 256] [--seeds 0 1 2]

psi of the relaxation jet (upper layer) is seen at random points of its grid, without noise. Given are rms errors of psi
and of its Laplacian over their standard deviations, seconds, and by wavenumber the error over the truth: one where a
scale is missing. The plain network and the one on Fourier features, of MEDIDA, are trained alike (Adam, as published:
``--width 1000 --updates 200000``, which takes a day for each). Climates and training use other states of the flow.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from sciml import plot, plot_terms
from sciml.discover.samples import advanced
from sciml.discover.systems import SYSTEMS
from sciml.field import MLP, FourierFeatures, NeuRBF, Siren, fit_adam, fit_last_layer, fit_projected, neural
from sciml.fill import Interpolator, cubic, error_by_wavenumber, radial, spectral
from sciml.grid import Grid
from sciml.initial import random_pv
from sciml.kriging import climatological_spectrum, kriging
from sciml.nn.encodings import PowerLaw, gaussian_waves, strongest_waves
from sciml.score import table
from sciml.step import etdrk4


@dataclass(frozen=True)
class Options:
    sensors: float = 0.25
    """Part of the points that are seen."""
    nx: int = 48
    """Points in x; twice as many in y."""
    updates: int = 2000
    """Of the networks that are trained by Adam."""
    width: int = 256
    """Of their four layers."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the state, the sensors and the networks."""
    only: tuple[str, ...] = ()
    """Methods (default: all)."""
    out: Path = Path("runs/fields")
    """Folder for the picture."""


def states(o: Options, seed: int) -> tuple[Tensor, Tensor]:
    """psi of the upper layer ``(ny, nx)``, and others from before ``(n, ny, nx)``."""
    s = SYSTEMS["1"](o.nx)
    step, kept = etdrk4(s.truth, 2 * s.dt), []
    z = advanced(step, s.truth.init(random_pv(s.truth, seed=seed, speed=0.3)), int(s.spin_up / step.dt))
    for _ in range(34):
        z = advanced(step, z, int(s.apart / step.dt))
        kept.append(s.truth.grid.ifft(s.truth.psi(z)[0]))
    return kept[-1], torch.stack(kept[:-1])


def methods(o: Options, grid: Grid, known: Tensor, seed: int) -> dict[str, Interpolator]:
    def waves(n: int) -> FourierFeatures:
        longest, _ = strongest_waves(grid, grid.invK2, min(1200, grid.nx * grid.ny // 3))
        return FourierFeatures(grid, n, longest, PowerLaw(grid))

    sizes, adam = (o.width,) * 4, partial(fit_adam, updates=o.updates, lr=1e-3)
    modes = (4 * torch.pi * o.sensors * grid.nx * grid.ny / (grid.Lx * grid.Ly)) ** 0.5
    networks: dict[str, tuple[Callable, Callable]] = {
        "plain network, Adam": (lambda n: MLP(grid, n, sizes, seed=seed), adam),
        "Fourier features, Adam": (
            lambda n: FourierFeatures(grid, n, gaussian_waves(500, 2 * torch.pi, seed), widths=sizes, seed=seed), adam),
        "SIREN, Adam": (lambda n: Siren(grid, n, seed=seed), adam),
        "radial basis network, projected": (lambda n: NeuRBF(grid, n, seed=seed), fit_projected),
        "waves, closed form": (waves, fit_last_layer),
    }  # fmt: skip
    return {
        "cubic": cubic(grid),
        "radial": radial(grid),
        "spectral": spectral(grid, 0.8 * modes),
        "kriging": kriging(grid, climatological_spectrum(grid, known)),
        **{name: neural(grid, net, fit) for name, (net, fit) in networks.items()},
    }


def run(o: Options) -> None:
    torch.set_num_threads(1)
    grid, rows, ratios = SYSTEMS["1"](o.nx).truth.grid, {}, {}
    x, y = torch.broadcast_tensors(*grid.axes())
    places, k = torch.stack([x.flatten(), y.flatten()], -1), torch.zeros(0)
    for seed in o.seeds:
        truth, known = states(o, seed)
        chosen = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
        chosen = chosen[: round(o.sensors * len(places))]
        for name, fill in methods(o, grid, known, seed).items():
            if o.only and name not in o.only:
                continue
            started = time.monotonic()
            found = fill(places[chosen], truth.flatten()[chosen])
            spent = time.monotonic() - started
            laplacian = [grid.ifft(-grid.K2 * grid.fft(f)) for f in (found, truth)]
            errors = [float((a - b).std() / b.std()) for a, b in ((found, truth), laplacian)]
            rows.setdefault(name, []).append((*errors, spent))
            k, ratio = error_by_wavenumber(grid, found, truth)
            ratios.setdefault(name, []).append(ratio.numpy())
            print(f"seed {seed}, {name}: {errors[0]:.4f} {errors[1]:.3f}, {spent:.1f} s", flush=True)
    kinds = ("psi", "Laplacian", "seconds")
    print(table({n: dict(zip(kinds, np.mean(r, 0).tolist(), strict=True)) for n, r in rows.items()}))
    spread = {n: dict(zip(kinds, np.ptp(r, 0).tolist(), strict=True)) for n, r in rows.items()}
    print(f"largest less smallest over seeds\n{table(spread)}")
    o.out.mkdir(parents=True, exist_ok=True)
    shown = {n: np.mean(r, 0) for n, r in ratios.items()}
    plot.save(plot_terms.spectral_bias(k.numpy(), shown), o.out / f"error_spectra-{o.sensors:g}.png")


if __name__ == "__main__":
    run(tyro.cli(Options, description=__doc__))
