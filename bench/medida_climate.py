"""The climate of a model before and after MEDIDA, beside the truth's, also with a forcing that it never saw.

    python cases/medida_qg.py --case 1 --out runs/medida_qg-1
    python bench/medida_climate.py --run runs/medida_qg-1

Truth, model and corrected model are run from the same state, over ``--length`` spin-ups of the case. Then the jet's
relaxation (the shear of the eddy flow) is made ``--change`` stronger in all three and they are run again. Prints how
far eddy kinetic energy, the spectrum of psi and the zonal mean flow are from the truth's, and how far a second run of
the truth from another state is: what sampling alone does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from sciml.discover.medida import advanced, load
from sciml.discover.systems import JET, SYSTEMS
from sciml.equation.qg import QuasiGeostrophic
from sciml.fill import ring_sum
from sciml.initial import random_pv
from sciml.score import table
from sciml.step import etdrk4


@dataclass(frozen=True)
class Options:
    run: Path
    """Folder of a run of cases/medida_qg.py."""
    length: float = 4.0
    """Length of the runs, in spin-ups of the case."""
    change: float = 0.3
    """How much stronger the forcing is that was never seen."""
    samples: int = 200
    """States that means are taken over."""
    seed: int = 5
    """Seed of the first state."""


def climate(eq: QuasiGeostrophic, z: Tensor, dt: float, length: float, samples: int) -> dict[str, np.ndarray]:
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
    """Of two climates, in per cent; spectra over the scales with 99.9 % of the variance, weighted by it."""
    eke = np.abs(one["EKE"] / truth["EKE"] - 1)
    spectrum = np.abs(one["spectrum"] - truth["spectrum"]).sum() / truth["spectrum"].sum()
    flow = np.sqrt(((one["flow"] - truth["flow"]) ** 2).mean() / (truth["flow"] ** 2).mean())
    parts = {"EKE 1": eke[0], "EKE 2": eke[1], "spectrum of psi 1": spectrum, "zonal mean flow": flow}
    return {n: 100 * float(v) for n, v in parts.items()}


def stronger(eq: QuasiGeostrophic, case: str, truth: QuasiGeostrophic, change: float) -> QuasiGeostrophic:
    """With the forcing of the truth raised by ``change`` of its own."""
    name = "relax_jet" if case in JET else "U1"
    return replace(eq, **{name: getattr(eq, name) + change * getattr(truth, name)})


def run(o: Options) -> None:
    torch.set_num_threads(1)
    options = json.loads((o.run / "summary.json").read_text())["options"]
    case, nx = options["case"], options["nx"] or 48
    s, found = SYSTEMS[case](nx), load(o.run / "discovery.json")
    rows = {}
    for name, change in (("as seen", 0.0), (f"forcing + {o.change:.0%}", o.change)):
        truth, model = (stronger(eq, case, s.truth, change) for eq in (s.truth, s.model))
        dt, length = 2 * s.dt, o.length * s.spin_up
        starts = [random_pv(truth, seed=o.seed + i, speed=0.3 if case in JET else None) for i in (0, 1)]
        a, b = (advanced(etdrk4(truth, dt), truth.init(q), int(s.spin_up / dt)) for q in starts)
        reference = climate(truth, a, dt, length, o.samples)
        others = {"truth again": (truth, b), "model": (model, a), "corrected": (model + found, a)}
        for other, (eq, z) in others.items():
            rows[f"{name}, {other}"] = distances(climate(eq, z, dt, length, o.samples), reference)
    print(table(rows))


if __name__ == "__main__":
    run(tyro.cli(Options, description=__doc__))
