"""What the scenes of elasticity share: the march, finite elements beside it, output."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from common import Refused, make_room
from elastic_pictures import film, pictures
from neural import WRITTEN, identity, keep, resumed
from tqdm import tqdm

from sciml.data import write_netcdf
from sciml.insr.body import Body, Motion, displacement, surface
from sciml.insr.elastic import ElasticStep, elastic
from sciml.insr.hyperelastic import determinant
from sciml.insr.increment import QUASI_STATIC, Scheme
from sciml.rollout import BlowUp
from sciml.step import State


@dataclass(frozen=True)
class Scene:
    """A body, what is done to it, and the truth on the grid of :meth:`ElasticStep.read`."""

    body: Body
    end: float
    scheme: Scheme
    shape: tuple[int, ...]
    measure: Callable[[Run], float]
    """the headline error, of a run"""
    measured: str
    truth: Callable[[torch.Tensor, float], np.ndarray] | None = None
    """``(positions (n, d), time) -> (n, d)``"""
    start: Motion | None = None
    velocity: Motion | None = None
    scale: float | None = None
    rivals: Callable[[int, float], list[Row]] = lambda weights, seconds: []
    circle: tuple[float, float, float] | None = None
    """an obstacle to draw: its centre and radius"""
    magnify: float = 1.0
    """of displacements in pictures"""
    own: Callable[[Run], dict[str, Any]] = lambda run: {}
    """further results"""


class Run(NamedTuple):
    """A march: times and fields of outputs, and of every step time, four energies, depth and displacement of a corner,
    notes."""

    times: list[float]
    fields: list[torch.Tensor]
    volumes: list[torch.Tensor]
    track: list[list[float]]
    notes: list[list[float]]
    seconds: float
    weights: int

    def column(self, i: int) -> np.ndarray:
        return np.array([row[i] for row in self.track])

    @property
    def energy(self) -> np.ndarray:
        """Total, of every step."""
        return np.array([sum(row[1:5]) for row in self.track])


class Row(NamedTuple):
    """A solver in the table."""

    name: str
    numbers: int
    error: float
    seconds: float


# -- the march -------------------------------------------------------------------------------------------------------
def made(o, scene: Scene, size: Mapping[str, Any]) -> ElasticStep:
    """The step of a scene."""
    widths = (size["width"],) * size["depth"]
    net = displacement(scene.body, widths, size["omega"], o.seed)
    P = sum(p.numel() for p in net.parameters())
    return elastic(scene.body, net, scene.end / size["steps"], scene.scheme, scale=scene.scale, shape=scene.shape,
                   samples=math.ceil(size["samples"] * P / scene.body.d), iterations=size["iterations"],
                   tolerance=size["tolerance"], damping=size["damping"], most=size["most"])  # fmt: skip


def marched(o, scene: Scene, step: ElasticStep, steps: int, outputs: int, out: Path) -> Run:
    """From the start, or the last state in ``out``, to the end, with a state saved at each output."""
    saved = out / "state.safetensors"
    about = identity(o)
    started = time.process_time()
    make_room(out, WRITTEN, o)
    if o.resume:
        run, state = resumed(saved, about, Run)
    else:
        state = step.init(scene.start, seed=o.seed, velocity=scene.velocity)
        run = Run([], [], [], [], [], 0.0, len(state.z))
        run = noted(run, step, state)._replace(seconds=time.process_time() - started)
        keep(saved, run, state, about)
    bar = tqdm(total=steps, initial=len(run.track), unit="step", disable=None, delay=2)
    for i in range(len(run.track) + 1, steps + 1):
        started = time.process_time()
        try:
            state = step(state)
        except BlowUp as error:
            raise Refused(f"{error}; the last good state is in {saved}") from None
        seconds = run.seconds + time.process_time() - started
        run.track.append(tracked(scene, step, state))
        run.notes.append(state.memory[1].tolist())
        run = run._replace(seconds=seconds)
        if i * outputs // steps > (i - 1) * outputs // steps:
            run = noted(run, step, state)
            keep(saved, run, state, about)
        bar.update()
    bar.close()
    return run


def noted(run: Run, step: ElasticStep, state: State) -> Run:
    """With another output."""
    u, F = step.sample(state, step.grid())
    shape = step.shape
    return run._replace(times=[*run.times, state.time], fields=[*run.fields, u.mT.reshape(-1, *shape)],
                        volumes=[*run.volumes, determinant(F).reshape(shape)])  # fmt: skip


def tracked(scene: Scene, step: ElasticStep, state: State) -> list[float]:
    """Time, four energies, largest depth in obstacles and the displacement of the far corner along x."""
    corner = torch.tensor([scene.body.lengths], dtype=torch.float64)
    tip = float(step.sample(state, corner)[0][0, 0])
    return [state.time, *step.energies(state), depth(scene.body, step, state), tip]


def depth(body: Body, step: ElasticStep, state: State) -> float:
    """Largest distance of the surface inside an obstacle."""
    if not body.obstacles:
        return 0.0
    x = surface(body, 800, torch.Generator())[0]
    places = x + step.sample(state, x)[0]
    return max(0.0, *(-float(obstacle(places)[0].amin()) for obstacle in body.obstacles))


# -- a scene ---------------------------------------------------------------------------------------------------------
def finish(o, out: Path, scene: Scene, size: Mapping[str, Any]) -> dict[str, Any]:
    """March, compare, write; the numbers."""
    step = made(o, scene, size)
    run = marched(o, scene, step, size["steps"], size["outputs"], out)
    rows = [Row(f"neural field, {run.weights} weights", run.weights, scene.measure(run), run.seconds),
            *scene.rivals(run.weights, run.seconds)]  # fmt: skip
    results = {"weights": run.weights, scene.measured.replace(" ", "_"): rows[0].error, "seconds": run.seconds,
               "iterations": sum(n[1] for n in run.notes), "distance_from_minimum": max(n[0] for n in run.notes),
               "smallest_volume": min(float(v.min()) for v in run.volumes), **scene.own(run),
               "solvers": {r.name: r._asdict() for r in rows}}  # fmt: skip
    print(f"{scene.measured:48s}{'numbers':>9s}{'error':>11s}{'CPU (s)':>10s}")
    for r in rows:
        print(f"{r.name:48s}{r.numbers:9d}{r.error:11.2e}{r.seconds:10.2f}")
    shown = {n: v for n, v in results.items() if n not in ("solvers", "weights", "seconds")}
    print("\n".join(f"{n.replace('_', ' '):48s}{v:20.4g}" for n, v in shown.items()))
    write(out, scene, step, run)
    pictures(out, scene, step, run)
    if o.movie:
        film(out, scene, step, run)
    return results


def refined(solve: Callable[[int], Row | None], counts: Sequence[int], seconds: float) -> list[Row]:
    """Of the first of some meshes, and of the finest that takes no longer than ``seconds``."""
    rows: list[Row] = []
    for n in counts:
        if rows and 3 * rows[-1].seconds > seconds:
            break
        row = solve(n)
        if row is None or (rows and row.seconds > seconds):
            break
        rows.append(row)
    if not rows:
        return []
    first, last = rows[0], rows[-1]
    return [first._replace(name=f"{first.name} (equal memory)"), last._replace(name=f"{last.name} (equal time)")]


def write(out: Path, scene: Scene, step: ElasticStep, run: Run) -> None:
    """Fields, truth and energies, CF."""
    names = ("x", "y", "z")[: scene.body.d]
    axes = {n: (n, np.linspace(0, length, count), {"units": "m", "long_name": f"position at rest along {n}"})
            for n, length, count in zip(names, scene.body.lengths, scene.shape, strict=True)}  # fmt: skip
    static = scene.scheme == QUASI_STATIC
    units = "1" if static else "s"
    about = {"units": units, "axis": "T", "long_name": "load" if static else "time since the start"}
    coords = {"time": ("time", np.array(run.times), about), **axes,
              "step": ("step", run.column(0), {"units": units, "long_name": "the same, of every step"})}  # fmt: skip
    dims = ("time", "component", *names)
    ds = xr.Dataset({"neural_field": (dims, torch.stack(run.fields).numpy())}, coords, {"Conventions": "CF-1.11"})
    if scene.truth is not None:
        truth = [scene.truth(step.grid(), t).T.reshape(-1, *scene.shape) for t in run.times]
        ds["truth"] = (dims, np.stack(truth))
    for n in ds.data_vars:
        ds[n].attrs = {"units": "m", "long_name": f"displacement, {str(n).replace('_', ' ')}"}
    ds["volume"] = (("time", *names), torch.stack(run.volumes).numpy(),
                    {"units": "1", "long_name": "volume over that at rest"})  # fmt: skip
    joule = "J" if scene.body.d == 3 else "J m-1"
    for i, n in enumerate(("kinetic", "elastic", "contact", "external"), 1):
        ds[f"{n}_energy"] = ("step", run.column(i), {"units": joule, "long_name": f"{n} energy"})
    write_netcdf(ds, out / "fields.nc")
