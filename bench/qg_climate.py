"""Climate of the eddy set-up at 64^2 beside pyqg 0.7.2: ten 360-day years, means over the last five, two seeds each.

    python bench/qg_climate.py [--years 10] [--spinup-years 5] [--seeds 0 1] [--exact]

Both codes start from pyqg's random initial condition and average once a day. Prints the means, their spread over seeds
and the difference. Spectra are compared ring by ring where they hold energy, and as an integral of their difference.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from peer import Peer

import sciml as sm
from sciml.record import Means

DAY, YEAR = 86400.0, 360 * 86400.0
NX, DT = 64, 7200.0
FLUXES = ("KEflux", "APEflux", "APEgenspec", "KEfrictionspec")


def initial(seed: int) -> torch.Tensor:
    """pyqg's own start, from a seed."""
    rng = np.random.default_rng(seed)
    q1 = 1e-7 * rng.random((NX, NX)) + 1e-6 * np.ones((NX, 1)) * rng.random((1, NX))
    return torch.as_tensor(np.stack([q1, np.zeros_like(q1)]))


def ours(seed: int, years: float, spinup: float, exact: bool) -> dict[str, np.ndarray]:
    changes = {"dealias": 1.5} if exact else {}
    eq = sm.TwoLayerQG.preset("eddy", NX, **changes)
    step = sm.ab3(eq, DT)
    state, means = step.init(initial(seed)), Means()
    for i in range(round(years * YEAR / DT)):
        state = step(state)
        if state.time > spinup * YEAR and i % round(DAY / DT) == 0:
            means = means.plus(sm.spectra.diagnostics(eq, state.z, DT))
    return {n: v.numpy() for n, v in means.mean().items()}


def theirs(peer: Peer, seed: int, years: float, spinup: float) -> dict[str, np.ndarray]:
    """pyqg's two-dimensional means on the same rings; its spectra of squares are of |.|^2, without the 1/2."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pyqg.nc"
        peer(do="climate", nx=NX, dt=DT, seed=seed, years=years, spinup_years=spinup, file=str(file))
        ds = xr.load_dataset(file)
    grid = sm.Grid(NX, Lx=1e6, dealias=1.0)
    out = {n: np.asarray(ds[n].values) for n in ("EKE", "APEgen", "EKEdiss")}
    for name in ("KEspec", "Ensspec", *FLUXES):
        density = torch.as_tensor(ds[name].values).mT * grid.weight
        out[name] = sm.spectra.isotropic(grid, density)[1].numpy() * (0.5 if name in ("KEspec", "Ensspec") else 1.0)
    return out


def compare(a: list[dict], b: list[dict]) -> list[tuple[str, float, float, float, float]]:
    """Name, our mean, pyqg's mean, relative difference, and half the larger spread of two seeds, relative."""
    rows = []
    k = 2 * math.pi / 1e6 * np.arange(a[0]["KEspec"].shape[-1])

    def row(name, pick):
        x, y = np.array([pick(r) for r in a]), np.array([pick(r) for r in b])
        scale = np.abs(y.mean())
        rows.append((name, x.mean(), y.mean(), (x.mean() - y.mean()) / scale, max(np.ptp(x), np.ptp(y)) / 2 / scale))

    for lev in (0, 1):
        row(f"EKE, layer {lev + 1}", lambda r, lev=lev: r["EKE"][lev])
    row("APE generation", lambda r: r["APEgen"])
    row("drag", lambda r: r["EKEdiss"])
    for name in ("KEspec", "Ensspec"):
        for lev in (0, 1):
            row(f"{name} centroid, layer {lev + 1}", lambda r, n=name, lev=lev: (r[n][lev] * k).sum() / r[n][lev].sum())
    for name in FLUXES:
        row(f"sum |{name}|", lambda r, n=name: np.abs(r[n]).sum() * k[1])
    return rows


def spectral_differences(a: list[dict], b: list[dict]) -> list[tuple[str, float, float]]:
    """Name, integral of |difference| of the means over integral of |pyqg's mean|, and the same between pyqg's seeds."""
    rows = []
    for name in ("KEspec", "Ensspec", *FLUXES):
        x, y = np.mean([r[name] for r in a], 0), np.mean([r[name] for r in b], 0)
        size = np.abs(y).sum(-1)
        between = np.abs(b[0][name] - b[-1][name]).sum(-1) / 2 / size
        for lev, (d, s) in enumerate(
            zip(np.atleast_1d(np.abs(x - y).sum(-1) / size), np.atleast_1d(between), strict=True)
        ):
            rows.append((name + (f", layer {lev + 1}" if x.ndim == 2 else ""), float(d), float(s)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--years", type=float, default=10)
    parser.add_argument("--spinup-years", type=float, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--exact", action="store_true", help="products on a 3/2 grid instead of aliased ones")
    o = parser.parse_args()
    torch.set_num_threads(1)
    peer = Peer("pyqg")
    b = [theirs(peer, s, o.years, o.spinup_years) for s in o.seeds]
    peer.close()
    a = [ours(s, o.years, o.spinup_years, o.exact) for s in o.seeds]
    print("| quantity | sciml | pyqg | difference | spread of seeds |\n|---|---|---|---|---|")
    for name, x, y, d, s in compare(a, b):
        print(f"| {name} | {x:.4g} | {y:.4g} | {100 * d:+.1f} % | {100 * s:.1f} % |")
    print("\n| spectrum | integral of difference | the same between pyqg's two seeds |\n|---|---|---|")
    for name, d, s in spectral_differences(a, b):
        print(f"| {name} | {100 * d:.1f} % | {100 * s:.1f} % |")


if __name__ == "__main__":
    main()
