"""Runs DAPPER on experiments that ``assimilation.py`` has written; needs an environment with DAPPER 1.7.1 and sciml.

    python dapper_worker.py EXPERIMENT.npz RESULT.json

The experiment holds truth, observations and the first ensemble; DAPPER draws nothing of its own but rotations.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from typing import Any

import numpy as np

warnings.filterwarnings("ignore")


def lorenz(data: dict[str, Any]):
    """DAPPER's own models and set-ups: Sakov & Oke (2008), Bocquet et al. (2010), Sakov et al. (2012)."""
    from importlib import import_module

    return import_module(f"dapper.mods.{data['setup']}").HMM


def two_layer(data: dict[str, Any]):
    """Our model as the dynamics: states are psi ``(2, ny, nx)``, a time step is one window."""
    import dapper.mods as modelling
    import torch
    from dapper.tools.localization import nd_Id_localization

    from sciml import testbed
    from sciml.assim.base import trajectory
    from sciml.step import State

    torch.set_num_threads(1)
    eq = testbed.model()
    step, shape = testbed.stepper(eq), (2, *eq.grid.shape)

    def model(x: np.ndarray, t: float, dt: float) -> np.ndarray:
        began = time.perf_counter()
        z = eq.pv(torch.as_tensor(np.reshape(x, (-1, *shape)) * data["scale"][:, None, None]))
        with torch.no_grad():
            end = trajectory(step, State(z), testbed.WINDOW)[1]
            psi = eq.grid.ifft(eq.psi(end.z)).numpy() / data["scale"][:, None, None]
        data["model_seconds"] += time.perf_counter() - began
        return psi.reshape(np.shape(x))

    where, size = data["where"].astype(int), int(np.prod(shape))
    obs = modelling.partial_Id_Obs(size, where)
    obs["noise"] = modelling.GaussRV(C=float(data["sigma"]) ** 2 * np.eye(len(where)))
    batch = (2, int(data["batch"]), int(data["batch"]))
    obs["localizer"] = nd_Id_localization(shape, batch, where, periodic=True)
    chronology = modelling.Chronology(dt=1.0, dko=1, Ko=len(data["yy"]) - 1, BurnIn=0)
    start = modelling.RV(M=size, func=lambda N: data["start"][:N].reshape(N, -1))
    return modelling.HiddenMarkovModel({"M": size, "model": model, "noise": 0}, obs, chronology, start)


def main(experiment: str, result: str) -> None:
    import dapper.da_methods as methods
    import dapper.mods as modelling
    from dapper.tools.seeding import set_seed

    data: dict[str, Any] = dict(np.load(experiment, allow_pickle=False)) | {"model_seconds": 0.0}
    HMM = {"lorenz": lorenz, "two_layer": two_layer}[str(data["kind"])](data)
    HMM.tseq.Ko = len(data["yy"]) - 1
    HMM.tseq.BurnIn = 0
    data["xx"] = np.concatenate([data["xx"][:1], np.repeat(data["xx"][1:], HMM.tseq.dko, axis=0)])
    first, size = data["start"], data["xx"].shape[1]
    HMM.X0 = modelling.RV(M=size, func=lambda N: first[:N].reshape(N, -1))
    if len(first) == 1:  # of a method with one state
        HMM.X0 = modelling.GaussRV(mu=first[0], C=1e-3 * np.eye(size))
    name, options = str(data["method"]), json.loads(str(data["options"]))
    method = getattr(methods, name)(**options)
    set_seed(1)
    started = time.perf_counter()
    method.assimilate(HMM, data["xx"], data["yy"], liveplots=False)
    seconds = (time.perf_counter() - started) / len(data["yy"])
    error = method.stats.err.rms.a
    with open(result, "w") as file:
        json.dump({"error": [float(e) for e in np.asarray(error)], "seconds": seconds,
                   "model_seconds": data["model_seconds"] / len(data["yy"])}, file)  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
