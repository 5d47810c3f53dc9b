"""What the scenes of elasticity share: the march, finite elements beside it, output and pictures."""

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
from neural import WRITTEN, identity, keep, resumed
from tqdm import tqdm

from sciml import plot
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
    return results


def relative(scene: Scene, step_grid: torch.Tensor, field: torch.Tensor, t: float) -> float:
    """Error of displacements (L2) over the size of the truth."""
    if scene.truth is None:
        return 0.0
    truth = scene.truth(step_grid, t)
    return float(np.linalg.norm(field.flatten(1).mT.numpy() - truth) / max(np.linalg.norm(truth), 1e-300))


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


# -- pictures --------------------------------------------------------------------------------------------------------
def pictures(out: Path, scene: Scene, step: ElasticStep, run: Run) -> None:
    """The error or energies in time, and the deformed body."""
    plot.save((statics if scene.scheme == QUASI_STATIC else dynamics)(scene, step, run), out / "error.png")
    plot.save((solid if scene.body.d == 3 else plane)(scene, step, run), out / "fields.png")


def statics(scene: Scene, step: ElasticStep, run: Run):
    """Error, or volumes where there is only one, and elastic energy by load."""
    figure, axes = plot.pyplot().subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    known = [i for i, t in enumerate(run.times) if t > 0 and (scene.scheme != QUASI_STATIC or known_at(scene, t))]
    errors = [relative(scene, step.grid(), run.fields[i], run.times[i]) for i in known]
    if len(known) > 1:
        axes[0].semilogy([run.times[i] for i in known], errors, "o-", ms=4)
        axes[0].set(xlabel="load", ylabel="relative error of displacement", xlim=(0, 1.05))
    else:
        for name, of in (("smallest", torch.amin), ("largest", torch.amax)):
            axes[0].plot(run.times, [float(of(v)) for v in run.volumes], "o-", ms=4, label=name)
        axes[0].set(xlabel="load", ylabel="volume over that at rest")
        axes[0].legend(fontsize=8)
    axes[1].plot([0, *run.column(0)], [0, *run.column(2)], "o-", ms=4)
    axes[1].set(xlabel="load", ylabel="elastic energy (J)" if scene.body.d == 3 else "elastic energy (J m⁻¹)")
    return figure


def known_at(scene: Scene, t: float) -> bool:
    """Whether there is a truth at a load."""
    return scene.truth is not None and bool(np.isfinite(scene.truth(torch.zeros(1, scene.body.d).double(), t)).all())


def dynamics(scene: Scene, step: ElasticStep, run: Run):
    """Energies, and the tip or the depth."""
    figure, axes = plot.pyplot().subplots(2, figsize=(8, 6), sharex=True, layout="constrained")
    t, total = run.column(0), run.energy
    for i, name in ((1, "kinetic"), (2, "elastic"), (3, "contact")):
        if run.column(i).any():
            axes[0].plot(t, run.column(i) / total[0], lw=1, label=name)
    axes[0].plot(t, total / total[0], "k", lw=1.5, label="total")
    axes[0].set(ylabel="energy over that at the start")
    axes[0].legend(ncols=4, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.15), frameon=False)
    if scene.truth is not None:
        corner = torch.tensor([scene.body.lengths], dtype=torch.float64)
        axes[1].plot(t, run.column(6), lw=1, label="neural field")
        axes[1].plot(t, [scene.truth(corner, s)[0, 0] for s in t], "k:", lw=1, label="linear bar, exact")
        axes[1].set(ylabel="displacement of the free end (m)")
        axes[1].legend(ncols=2, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.15), frameon=False)
    else:
        axes[1].plot(t, run.column(5) / max(scene.body.lengths), lw=1)
        axes[1].set(ylabel="depth over the body's size")
    axes[1].set(xlabel="time (s)")
    return figure


def plane(scene: Scene, step: ElasticStep, run: Run):
    """The deformed body at some times, coloured by its change of volume."""
    x, wide = step.grid().mT.reshape(2, *scene.shape).numpy(), scene.body.lengths[0] > 3 * scene.body.lengths[1]
    last = len(run.times) - 1
    chosen = sorted(set(np.linspace(max(0, last - 4) if wide else 0, last, 5 if wide else 6).round().astype(int)))
    rows, columns = (len(chosen), 1) if wide else (2, math.ceil(len(chosen) / 2))
    bodies = [x + scene.magnify * run.fields[i].numpy() for i in chosen]
    (left, right), (low, high) = framed(bodies, scene).values()
    tall = 2.6 * (high - low) / (right - left) + 0.6
    figure, axes = plot.pyplot().subplots(rows, columns, figsize=(9, rows) if wide else (3 * columns + 1, tall * rows),
                                          sharex=True, sharey=True, squeeze=False, layout="constrained")  # fmt: skip
    span = max(float((run.volumes[i] - 1).abs().max()) for i in chosen) or 1.0
    for ax in axes.flat[len(chosen) :]:
        ax.axis("off")
    for ax, i, at in zip(axes.flat, chosen, bodies, strict=False):
        mesh = ax.pcolormesh(*at, run.volumes[i].numpy() - 1, shading="gouraud", cmap="RdBu_r", vmin=-span, vmax=span)
        outlined(ax, at, scene)
        static = scene.scheme == QUASI_STATIC
        ax.set_title(f"{'load' if static else 't ='} {run.times[i]:.3g}{'' if static else ' s'}", fontsize=9)
        ax.set(aspect="equal", **framed(bodies, scene))
    for ax in axes[-1]:
        ax.set_xlabel("x (m)" if scene.magnify == 1 else f"x (m), displacements times {scene.magnify:g}")
    for ax in axes[:, 0]:
        ax.set_ylabel("y (m)")
    figure.colorbar(mesh, ax=axes, label="relative change of volume", shrink=0.8)  # type: ignore[possibly-unbound]
    return figure


def outlined(ax, at: np.ndarray, scene: Scene) -> None:
    """Lines of the grid at rest, and the obstacle."""
    columns, rows = (max(1, (n - 1) // 8) for n in scene.shape)
    for line in (*at.transpose(1, 2, 0)[::columns], *at.transpose(2, 1, 0)[::rows]):
        ax.plot(*line.T, "k", lw=0.4)
    if scene.circle is not None:
        a, b, r = scene.circle
        ax.add_patch(plot.pyplot().Circle((a, b), r, color="0.5"))


def framed(bodies: Sequence[np.ndarray], scene: Scene) -> dict[str, tuple[float, float]]:
    """Limits that take in all."""
    low, high = (np.array(f([f(at, (1, 2)) for at in bodies], 0)) for f in (np.min, np.max))
    if scene.circle is not None:
        a, b, r = scene.circle
        low, high = np.minimum(low, [a - r, b - r]), np.maximum(high, [a + r, b + r])
    edge = 0.04 * (high - low).max() * np.ones(2) if scene.circle else 0.04 * (high - low)
    return {"xlim": (low[0] - edge[0], high[0] + edge[0]), "ylim": (low[1] - edge[1], high[1] + edge[1])}


def solid(scene: Scene, step: ElasticStep, run: Run):
    """The surface of the deformed body at some loads, coloured by its change of volume."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    chosen = sorted(set(np.linspace(0, len(run.times) - 1, 4).round().astype(int)))
    figure = plot.pyplot().figure(figsize=(3.0 * len(chosen) + 1, 5.2), layout="constrained")
    x, span = step.grid().mT.reshape(3, *scene.shape).numpy(), max(float((v - 1).abs().max()) for v in run.volumes)
    colours, lengths = ScalarMappable(Normalize(-span, span), "RdBu_r"), scene.body.lengths
    axes = []
    for k, i in enumerate(chosen):
        ax = figure.add_subplot(1, len(chosen), k + 1, projection="3d")
        at, volume = x + run.fields[i].numpy(), run.volumes[i].numpy() - 1
        for axis in range(3):
            for side in (0, -1):
                face = np.take(at, side, axis + 1)
                shade = colours.to_rgba(np.take(volume, side, axis))
                ax.plot_surface(*face, facecolors=shade, rstride=2, cstride=2, edgecolor="0.3", lw=0.2, shade=False)
        ax.set_title(f"load {run.times[i]:.2g}", y=1.12)
        ax.set(xlabel="x (m)", ylabel="y (m)", xticks=[0, 1], yticks=[0, 1])
        ax.set_box_aspect(lengths, zoom=1.05)  # type: ignore[arg-type]
        ax.view_init(18, -60)
        axes.append(ax)
    axes[-1].set_zlabel("z (m)", labelpad=8)
    figure.colorbar(colours, ax=axes, label="relative change of volume", shrink=0.6)
    return figure
