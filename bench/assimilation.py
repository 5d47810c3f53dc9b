"""Our filters and DAPPER's on the same truths, observations and first ensembles, in turn on the same core.

    python bench/assimilation.py [--cycles 2000] [--seeds 0 1 2] [--qg-cycles 40] [--python bench/.dapper/bin/python]

The Lorenz systems of cases/lorenz96.py, and the two-layer model of the test bed, 64 x 64 x 2 with 20 members, as
DAPPER's dynamics: every 16th point of the upper layer is observed at the end of five days. DAPPER's own environment is
made by `make bench/.dapper/installed`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

import sciml as sm
from sciml import testbed
from sciml.assim.base import trajectory
from sciml.observations import observations
from sciml.observe import level
from sciml.score import table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "cases"))


@dataclass(frozen=True)
class Options:
    cycles: int = 2000
    """Analyses of the Lorenz systems; a fifth is not scored."""
    seeds: tuple[int, ...] = (0, 1, 2)
    only: str = ""
    """Part of the names of the rows to run, such as "Lorenz 63" or "two layers"."""
    qg_cycles: int = 40
    """Analyses of the two-layer model; half is not scored."""
    python: Path = ROOT / "bench" / ".dapper" / "bin" / "python"
    """Interpreter that has DAPPER 1.7.1 and sciml."""


def dapper(o: Options, **experiment: Any) -> dict[str, Any]:
    """Errors of each analysis and seconds a cycle of DAPPER."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/in.npz", **experiment)
        line = [o.python, ROOT / "bench" / "dapper_worker.py", f"{folder}/in.npz", f"{folder}/out.json"]
        ended = subprocess.run(line, capture_output=True, text=True)
        if ended.returncode:
            sys.exit(f"DAPPER failed:\n{ended.stderr[-2000:]}")
        return json.loads(Path(f"{folder}/out.json").read_text())


def ours(step, analysis, windows, start, read, truth) -> tuple[np.ndarray, float]:
    """Errors of each analysis and seconds a cycle."""
    started = time.perf_counter()
    run = sm.cycle(step, analysis, windows, start, read)
    seconds = (time.perf_counter() - started) / len(windows)
    return (read(run.analysis) - truth).flatten(1).pow(2).mean(1).sqrt().numpy(), seconds


SETUPS = {
    "Lorenz 96": "Lorenz96.sakov2008",
    "Lorenz 96 of 10, half observed, R 1.5": "Lorenz96.bocquet2010",
    "Lorenz 63": "Lorenz63.sakov2012",
}
"""DAPPER's modules of our systems."""
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Lorenz 96: climatology": ("Climatology", {}),
    "Lorenz 96: OI of climatology": ("OptInterp", {}),
    "Lorenz 96: 3D-Var, 0.02 B": ("Var3D", dict(xB=0.02)),
    "Lorenz 96: EnKF, 40 members": ("EnKF", dict(upd_a="PertObs", infl=1.06)),
    "Lorenz 96: EnKF, 28 members": ("EnKF", dict(upd_a="PertObs", infl=1.08)),
    "Lorenz 96: DEnKF, 40 members": ("EnKF", dict(upd_a="DEnKF", infl=1.01)),
    "Lorenz 96: square root, 24 members": ("EnKF", dict(upd_a="Sqrt", infl=1.013, rot=True)),
    "Lorenz 96: square root, 28 members": ("EnKF", dict(upd_a="Sqrt", infl=1.02, rot=True)),
    "Lorenz 96: EnKF-N, 24 members": ("EnKF_N", dict(rot=True)),
    "Lorenz 96: EnKF-N, xN 2": ("EnKF_N", dict(rot=True, xN=2.0)),
    "Lorenz 96: LETKF, 7 members": ("LETKF", dict(infl=1.04, loc_rad=4, rot=True)),
    "Lorenz 96 of 10, half observed, R 1.5: EnKF-N, 8 members": ("EnKF_N", dict(rot=True, xN=1.3)),
    "Lorenz 63: climatology": ("Climatology", {}),
    "Lorenz 63: OI of climatology": ("OptInterp", {}),
    "Lorenz 63: 3D-Var, 0.1 B": ("Var3D", dict(xB=0.1)),
    "Lorenz 63: square root, 3 members": ("EnKF", dict(upd_a="Sqrt", infl=1.30)),
    "Lorenz 63: square root, 10 members": ("EnKF", dict(upd_a="Sqrt", infl=1.02, rot=True)),
    "Lorenz 63: EnKF, 100 members": ("EnKF", dict(upd_a="PertObs", infl=1.01)),
    "Lorenz 63: EnKF, 10 members": ("EnKF", dict(upd_a="PertObs", infl=1.04)),
    "Lorenz 63: EnKF-N, 3 members": ("EnKF_N", {}),
    "Lorenz 63: EnKF-N, 10 members": ("EnKF_N", dict(rot=True)),
}
"""DAPPER's methods for the rows of cases/lorenz96.py, with the settings that it lists. Its 4D-Var ends with an error in
1.7.1 (it calls the operator of the observations twice)."""


def lorenz(o: Options) -> dict[str, dict[str, float]]:
    """The rows of the reference table that both have."""
    import lorenz96 as case

    rows, skip = {}, o.cycles // 5
    for row in case.TABLE:
        name = f"{row.system}: {row.name}"
        if name not in PEERS or o.only.lower() not in name.lower():
            continue
        system = case.SYSTEMS[row.system]
        step, read = sm.rk4(system.eq, system.dt), system.eq.read
        climate = case.climatology(system)
        method, options = PEERS[name]
        errors, seconds = [], []
        for seed in o.seeds:
            twin = case.twin(system, o.cycles, 100 * seed + 1)
            start = case.first(row, seed, twin)
            yy = torch.stack([w.value for w in twin.windows]).numpy()
            xx = torch.cat([read(twin.start.z)[None], twin.truth]).numpy()
            members = dict(N=row.members) if row.members > 1 else {}
            about = dict(kind="lorenz", setup=SETUPS[row.system], method=method, options=json.dumps(members | options))
            peer = dapper(o, **about, xx=xx, yy=yy, start=np.atleast_2d(read(start.z).numpy()))
            error, own = ours(step, row.build(system, climate, seed), twin.windows, start, read, twin.truth)
            errors.append((error[skip:].mean(), np.mean(peer["error"][skip:])))
            seconds.append((own, peer["seconds"]))
        rows[name] = line(np.array(errors), np.median(seconds, 0))
        print(table({name: rows[name]}), flush=True)
    return rows


DOUBLE, SINGLE = torch.float64, torch.float32
TWO_LAYERS = "two layers, LETKF"
PAIRS = {
    (1, 1, DOUBLE): "of each column",
    (2, 1, DOUBLE): "ours of each 2nd column",
    (2, 1, SINGLE): "ours of each 2nd column, in float32",
    (4, 1, SINGLE): "ours of each 4th column, in float32",
    (4, 4, DOUBLE): "of each 4 x 4 columns",
}
"""Distances in x and y of columns with weights of their own, ours (interpolated between them) and DAPPER's (blocks),
and the precision of our model and filter."""


def two_layer(o: Options, members: int = 20, radius: float = 2.5) -> dict[str, dict[str, float]]:
    """LETKF of the two-layer model, 64 x 64 x 2; ``radius`` in grid lengths."""
    eq = testbed.model()
    step, grid = testbed.stepper(eq), eq.grid

    psi = partial(streamfunction, eq)
    found: dict[tuple[int, int, torch.dtype], list] = {pair: [] for pair in PAIRS}
    for seed in o.seeds:
        near, states = first_states(step, seed, members, o.qg_cycles)
        truth = psi(states)
        scale = truth.std((0, 2, 3))
        jj, ii = (a.ravel() for a in np.meshgrid(np.arange(0, 64, 4), np.arange(0, 64, 4), indexing="ij"))
        sigma = 0.1 * float(scale[0])
        noise = torch.randn(o.qg_cycles, len(jj), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        y = truth[1:, 0, jj, ii] + sigma * noise
        length = testbed.WINDOW * step.dt
        x = grid.x0 + grid.dx * np.tile(ii, o.qg_cycles), grid.y0 + grid.dy * np.tile(jj, o.qg_cycles)
        when = np.repeat(length * np.arange(1, o.qg_cycles + 1), len(jj))
        obs = observations(y.flatten().numpy(), sigma, when, *x, channels=["psi"])
        s, half = scale.numpy()[:, None, None], o.qg_cycles // 2
        peers = {
            batch: dapper(
                o, kind="two_layer", method="LETKF", options=json.dumps(dict(N=members, infl=1.06, loc_rad=radius)),
                scale=scale.numpy(), xx=(truth.numpy() / s).reshape(len(truth), -1), yy=y.numpy() / float(scale[0]),
                start=psi(near.z).numpy() / s, where=jj * 64 + ii, sigma=sigma / float(scale[0]), batch=batch,
            )
            for batch in sorted({theirs for _, theirs, _ in PAIRS})
        }  # fmt: skip
        for every, batch, dtype in PAIRS:
            model = testbed.model(dtype=dtype)
            own_psi = partial(streamfunction, model)
            H = sm.Operator(model.grid, own_psi, (sm.Channel("psi", level(1), sigma),))
            cut = sm.windows(obs, H, 0.0, step.dt, testbed.WINDOW, o.qg_cycles)
            letkf = sm.LETKF(sm.Space(model.grid, own_psi, model.pv), radius * grid.dx, 1.06, every=every)
            start = sm.State(model.grid.complex(near.z))
            read = partial(scaled_psi, model, scale)
            error, t = ours(testbed.stepper(model), letkf, cut, start, read, truth[1:] / scale[:, None, None])
            peer, model_t = peers[batch], forecast_seconds(testbed.stepper(model), start)
            found[every, batch, dtype].append(
                (error[half:].mean(), np.mean(peer["error"][half:]), t, peer["seconds"], model_t, peer["model_seconds"])
            )
    rows = {}
    for pair, name in PAIRS.items():
        own, theirs, own_model, their_model = np.median(found[pair], 0)[2:]
        rows[f"{TWO_LAYERS} {name}"] = line(np.array(found[pair])[:, :2], np.array([own, theirs])) | {
            "ms model, ours": 1e3 * own_model, "ms model, DAPPER": 1e3 * their_model,
            "times faster without": (theirs - their_model) / (own - own_model),
        }  # fmt: skip
    return rows


def forecast_seconds(step: sm.Step, start: sm.State) -> float:
    """A window of an ensemble, each process's model timed in it."""
    spent = []
    for _ in range(5):
        started = time.perf_counter()
        with torch.no_grad():
            trajectory(step, start, testbed.WINDOW)
        spent.append(time.perf_counter() - started)
    return float(np.median(spent))


def streamfunction(eq: sm.TwoLayerQG, z: torch.Tensor) -> torch.Tensor:
    """psi on the grid."""
    return eq.grid.ifft(eq.psi(z))


def scaled_psi(eq: sm.TwoLayerQG, scale: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """psi of each layer over its ``scale``."""
    return streamfunction(eq, z) / scale[:, None, None]


def first_states(step: sm.Step, seed: int, members: int, cycles: int) -> tuple[sm.State, torch.Tensor]:
    """A truth, an ensemble around it that ten days have made unlike it, and the truth at the ends of the windows."""
    eq = step.equation
    z = testbed.spun_up(step, 300 + seed, 1200.0).z
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(members, *eq.read(z).shape, generator=generator, dtype=torch.float64)
    near = eq.init(eq.read(z) + 0.3 * eq.read(z).std((-2, -1), keepdim=True) * noise)
    _, near = trajectory(step, sm.State(near), 60)
    with torch.no_grad():
        _, state = trajectory(step, sm.State(z), 60)
        states = [state.z]
        for _ in range(cycles):
            _, state = trajectory(step, state, testbed.WINDOW)
            states.append(state.z)
    return sm.State(near.z), torch.stack(states)


def line(errors: np.ndarray, seconds: np.ndarray) -> dict[str, float]:
    """A row of the printed table from errors ``(seeds, 2)`` of ours and DAPPER's, and seconds a cycle of both."""
    (own, theirs), spread = errors.mean(0), np.ptp(errors, 0) / 2
    return {
        "ours": own, "+-": spread[0], "DAPPER": theirs, "+- ": spread[1], "ours/DAPPER": own / theirs,
        "ms ours": 1e3 * seconds[0], "ms DAPPER": 1e3 * seconds[1], "times faster": seconds[1] / seconds[0],
    }  # fmt: skip


def run(o: Options) -> None:
    torch.set_num_threads(1)
    if not o.python.exists():
        sys.exit(f"error: {o.python} does not exist; make it with `make bench/.dapper/installed`")
    print(table(lorenz(o) | (two_layer(o) if o.only in TWO_LAYERS else {})))


if __name__ == "__main__":
    run(tyro.cli(Options, description=__doc__))
