"""A model, corrected in three ways from the same noisy data: its forecasts and climate, also under another forcing.

    python bench/medida_climate.py [--case 2] [--noise 0.05] [--seeds 0 1 2]

The data are those of cases/medida_qg.py. The model is corrected by

* what MEDIDA finds,
* pysindy used directly: differences of the states in time, less the model's mean tendency at both, are regressed on the
  same library by its sequentially thresholded least squares; of all thresholds, with and without MEDIDA's low-pass, the
  one is taken that comes nearest to the truth, which a user cannot know,
* a network (five periodic convolutions of psi, PV and place) that is trained on the increments of which MEDIDA makes an
  equation; the learning rate is chosen on a fifth of them that it does not see.

The library has ``psi1 - psi2`` in place of ``psi2`` (``thickness``). With both layers apart, errors of two coefficients
that ought to cancel leave a psi in the tendency of PV. The largest scales have next to no PV, and for them this is a
strong negative drag: such a corrected model blows up (``--apart``).

Each is run as a forecast and for a climate; then the forcing of all (the field that the jet is relaxed to, the shear of
the eddy flow) is made ``--change`` stronger. ``truth again`` is the truth from another state: what sampling alone does.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from sciml.discover.discovery import Discovery
from sciml.discover.library import Library, coefficients, terms
from sciml.discover.medida import low_pass, tiles
from sciml.discover.moments import Moments, gathered
from sciml.discover.samples import Pair, advanced, columns, increments
from sciml.discover.sparse import pysindy
from sciml.discover.systems import JET
from sciml.equation.qg import QuasiGeostrophic
from sciml.fill import ring_sum
from sciml.initial import random_pv
from sciml.nn.layers import PeriodicConv, in_bfloat16
from sciml.score import table
from sciml.step import etdrk4
from sciml.train import fit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cases"))
import medida_qg as case

RATES, THRESHOLDS = (3e-4, 1e-3), (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
SKILFUL, EVERY = 0.5, 20
"""error of v over its standard deviation at which a forecast is no longer skilful; steps between looks at it"""


@dataclass(frozen=True)
class Options:
    case: str = "2"
    """Of cases/medida_qg.py."""
    noise: float = 0.05
    """As a factor of the standard deviation of psi."""
    seeds: tuple[int, ...] = (0,)
    """Of states, noise and network."""
    samples: int = 100
    """Pairs that are learned from."""
    length: float = 2.0
    """Length of the climates, in spin-ups of the case."""
    change: float = 0.3
    """How much stronger the forcing is that was never seen."""
    updates: int = 1000
    """Of the network."""
    apart: bool = False
    """Keep psi of each layer in the library."""
    nx: int | None = None
    """Points in x (default: the case's)."""
    states: Path | None = None
    """File of the truth's states, made if it is not there (name of the first seed; others are added to it)."""


# -- corrections -----------------------------------------------------------------------------------------------------
def direct(e: case.Experiment, library: Library, data: list[Pair], cut: float, where: Tensor | None) -> Discovery:
    """pysindy on differences in time, of the threshold and filter that come nearest to the truth."""
    model = e.system.model

    def differences(c: float) -> dict[str, Moments]:
        streams: dict[str, list[Moments]] = {f: [] for f in model.prognostic}
        for pair in data:
            rate = (pair.after - pair.before) / (pair.steps * e.system.dt)
            rate = rate - (model.tendency(pair.before) + model.tendency(pair.after)) / 2
            x = model.grid.ifft(low_pass(model, c) * columns(library, model, pair.before, pair.after))
            y = model.grid.ifft(low_pass(model, c) * rate)
            for i, f in enumerate(model.prognostic):
                streams[f] += tiles(library.names, x, y[:, i], y[:, i], where)
        return {f: gathered(parts) for f, parts in streams.items()}

    return nearest(e, library, [(c, differences(c)) for c in (cut, np.inf)])


def nearest(e: case.Experiment, library: Library, data: Iterable[tuple[float, dict[str, Moments]]]) -> Discovery:
    """What pysindy finds that comes nearest to the truth, of moments made in several ways and of all thresholds."""
    import pysindy as ps

    exact = coefficients(library, e.system.truth, e.system.model, e.z[1, :2])
    best: tuple[float, Discovery] | None = None
    for c, own in data:
        for threshold in THRESHOLDS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of thresholds that leave nothing
                fits = {f: pysindy(m, ps.STLSQ(threshold=threshold, alpha=1e-6)) for f, m in own.items()}
            found = Discovery(library, fits, {}, dict.fromkeys(fits, c), dict(e.system.model.units))
            error = float(np.linalg.norm(found.coefficients() - exact))
            if best is None or error < best[0]:
                best = error, found
    assert best is not None
    return best[1]


class Corrector(nn.Module):
    """``(samples, channels, ny, nx) -> (samples, n, ny, nx)``, all of order one."""

    def __init__(self, inputs: int, outputs: int, width: int = 32):
        super().__init__()
        sizes = [inputs, width, width, width, width, outputs]
        parts: list[nn.Module] = []
        for a, b in pairwise(sizes):
            parts += [PeriodicConv(a, b, 5), nn.SiLU()]
        self.layers = nn.Sequential(*parts[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def network(e: case.Experiment, data: list[Pair], cut: float, where: Tensor, updates: int, seed: int) -> Callable:
    """A tendency ``f(equation, z, t)`` learned from the increments."""
    model, grid, smooth = e.system.model, e.system.model.grid, low_pass(e.system.model, cut)
    place = 2 * torch.pi * (grid.axes()[1] - grid.y0) / grid.Ly
    place = torch.stack([torch.sin(place), torch.cos(place)]).expand(2, *grid.shape)

    def fields(z: Tensor) -> Tensor:
        return grid.ifft(torch.cat([model.psi(z), z], -3))

    inputs = torch.cat([fields(p.before) for p in data])
    wanted = grid.ifft(smooth * torch.cat([increments(e.step(model), p) for p in data]))
    scale, size = inputs.std((0, 2, 3), keepdim=True), wanted[..., where].std((0, 2))[:, None, None]

    def features(f: Tensor) -> Tensor:
        return torch.cat([f / scale, place.expand(*f.shape[:-3], -1, -1, -1)], -3).float()

    x, y = features(inputs), (wanted / size).float()
    kept = len(x) * 4 // 5

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with in_bfloat16("cpu"):
            out = net(x)
        return ((out.float() - y)[..., where] ** 2).mean()

    tried: list[tuple[float, Corrector]] = []
    for rate in RATES:
        torch.manual_seed(seed)
        net, rng = Corrector(x.shape[1], y.shape[1]), torch.Generator().manual_seed(seed)

        def objective(update: int, net=net, rng=rng) -> Tensor:
            i = torch.randint(kept, (8,), generator=rng)
            shift = int(torch.randint(grid.nx, (), generator=rng))
            return loss(net, x[i].roll(shift, -1), y[i].roll(shift, -1))

        net.load_state_dict(fit(net, objective, updates, lr=rate))
        with torch.no_grad():
            tried.append((float(loss(net, x[kept:], y[kept:])), net))
        print(f"network, learning rate {rate:g}: held-out error {tried[-1][0]:.3f} of the variance", flush=True)
    best = min(tried, key=lambda t: t[0])[1]

    def tendency(eq, z: Tensor, t: float) -> Tensor:
        with torch.no_grad(), in_bfloat16("cpu"):
            f = fields(z)
            out = best(features(f.reshape(-1, *f.shape[-3:]))).double().reshape(*f.shape[:-3], -1, *grid.shape)
        return smooth * grid.fft(out * size)

    return tendency


# -- scores ----------------------------------------------------------------------------------------------------------
def climate(eq: QuasiGeostrophic, z: Tensor, dt: float, length: float, samples: int = 200) -> dict[str, np.ndarray]:
    """Means over a run, its first quarter left out: eddy kinetic energy and zonal mean flow of the layers, and the
    spectrum of the upper psi."""
    step, grid, every = etdrk4(eq, dt), eq.grid, max(1, int(length / dt / samples))
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for i in range(samples):
        z = advanced(step, z, every)
        if i >= samples // 4:
            u, v = eq.velocity(z)
            mean = u.mean(-1)
            energy = 0.5 * ((u - mean[..., None]) ** 2 + v**2).mean((-2, -1))
            found.append((energy, mean, ring_sum(grid, grid.weight * eq.psi(z)[0].abs() ** 2)))
    eke, flow, spectrum = (torch.stack(a).mean(0).numpy() for a in zip(*found, strict=True))
    return {"EKE": eke, "flow": flow, "spectrum": spectrum}


def distances(one: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> dict[str, float]:
    """Of two climates, in per cent: of energies, of the whole spectrum weighted by its variance, of the mean flow."""
    eke = np.abs(one["EKE"] / truth["EKE"] - 1)
    spectrum = np.abs(one["spectrum"] - truth["spectrum"]).sum() / truth["spectrum"].sum()
    flow = np.sqrt(((one["flow"] - truth["flow"]) ** 2).mean() / (truth["flow"] ** 2).mean())
    parts = {"EKE 1": eke[0], "EKE 2": eke[1], "spectrum of psi 1": spectrum, "zonal mean flow": flow}
    return {n: 100 * float(v) for n, v in parts.items()}


def skilful(eq: QuasiGeostrophic, truth: QuasiGeostrophic, start: Tensor, dt: float, most: int = 80) -> float:
    """Time for which the error of the upper v is below ``SKILFUL`` of its standard deviation, mean over states."""
    one, two, lead = start, start, torch.zeros(len(start))
    good = torch.ones(len(start), dtype=torch.bool)
    for _ in range(most):
        one, two = advanced(etdrk4(eq, dt), one, EVERY), advanced(etdrk4(truth, dt / 2), two, 2 * EVERY)
        a, b = (truth.velocity(z)[1][:, 0] for z in (one, two))
        good &= (a - b).square().mean((-2, -1)).sqrt() < SKILFUL * b.std((-2, -1))
        lead += good * EVERY * dt
        if not good.any():
            break
    return float(lead.mean())


def stronger(eq: QuasiGeostrophic, name: str, change: float) -> QuasiGeostrophic:
    """With another forcing."""
    which = "psi_R" if name in JET else "U1"
    return replace(eq, **{which: (1 + change) * getattr(eq, which)})


def experiment(o: Options, seed: int) -> dict[str, dict[str, Any]]:
    states = o.states and o.states.with_stem(f"{o.states.stem}-{seed}")
    own = case.Options(case=o.case, noise=o.noise, samples=o.samples, seed=seed, nx=o.nx, states=states)
    e = case.experiment(own)
    s, data, where = e.system, case.pairs_of(own, e.seen, e.interval), case.counted(e.system.truth)
    cut = 0.8 * s.cut
    everywhere = torch.ones(s.model.grid.shape, dtype=torch.bool)
    library = terms(s.model, thickness=not o.apart)
    found, plain = case.discovered(own, e, library), direct(e, library, data, cut, where)
    learned = network(e, data, cut, everywhere if where is None else where, o.updates, seed)
    print(f"seed {seed}\nMEDIDA: {found}\npysindy: {plain}", flush=True)
    rows = {}
    for name, change in (("as seen", 0.0), (f"forcing + {o.change:.0%}", o.change)):
        truth, model = stronger(s.truth, o.case, change), stronger(s.model, o.case, change)
        starts = [random_pv(truth, seed=seed + 100 + i, speed=0.3 if o.case in JET else None) for i in (0, 1)]
        a, b = (advanced(etdrk4(truth, 2 * s.dt), truth.init(q), int(s.spin_up / s.dt / 2)) for q in starts)
        reference = climate(truth, a, 2 * s.dt, o.length * s.spin_up)
        later = torch.stack([advanced(etdrk4(truth, 2 * s.dt), z, int(s.apart / s.dt)) for z in (a, b)])
        others: dict[str, tuple[QuasiGeostrophic, Tensor]] = {
            "truth again": (truth, b), "model": (model, a), "MEDIDA": (model + found, a),
            "pysindy": (model + plain, a), "network": (model.with_tendency(learned), a),
        }  # fmt: skip
        for other, (eq, z) in others.items():
            started = time.monotonic()
            own_climate = climate(eq, z, 2 * s.dt, o.length * s.spin_up)
            lead = skilful(eq, truth, later, s.dt) if other != "truth again" else np.nan
            rows[f"{name}, {other}"] = distances(own_climate, reference) | {"skilful time": lead}
            print(f"{name}, {other}: {time.monotonic() - started:.0f} s", flush=True)
    return rows


def run(o: Options) -> None:
    torch.set_num_threads(1)
    runs = [experiment(o, seed) for seed in o.seeds]
    for seed, rows in zip(o.seeds, runs, strict=True):
        print(f"seed {seed}\n{table(rows)}")
    if len(runs) > 1:
        means = {row: {k: float(np.mean([one[row][k] for one in runs])) for k in runs[0][row]} for row in runs[0]}
        print(f"means\n{table(means)}")


if __name__ == "__main__":
    run(tyro.cli(Options, description=__doc__))
