"""Pictures of elastic bodies: errors and energies in time, the deformed body at some times, and a film of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sciml import plot
from sciml.insr.elastic import ElasticStep
from sciml.insr.increment import QUASI_STATIC

if TYPE_CHECKING:
    from elastic import Run, Scene


def pictures(out: Path, scene: Scene, step: ElasticStep, run: Run) -> None:
    """The error or energies in time, and the deformed body."""
    plot.save((statics if scene.scheme == QUASI_STATIC else dynamics)(scene, step, run), out / "error.png")
    plot.save((solid if scene.body.d == 3 else plane)(scene, step, run), out / "fields.png")


def relative(scene: Scene, grid: torch.Tensor, field: torch.Tensor, t: float) -> float:
    """Error of displacements (L2) over the size of the truth."""
    if scene.truth is None:
        return 0.0
    truth = scene.truth(grid, t)
    return float(np.linalg.norm(field.flatten(1).mT.numpy() - truth) / max(np.linalg.norm(truth), 1e-300))


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


def when(scene: Scene, t: float) -> str:
    """Title of an output."""
    return f"load {t:.2g}" if scene.scheme == QUASI_STATIC else f"t = {t:.3g} s"


def colours(run: Run, chosen: Sequence[int]):
    """Symmetric, of the change of volume at some outputs."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    span = max(float((run.volumes[i] - 1).abs().max()) for i in chosen) or 1.0
    return ScalarMappable(Normalize(-span, span), "RdBu_r")


def places(scene: Scene, step: ElasticStep, run: Run) -> list[np.ndarray]:
    """Of the grid's points at all outputs, ``(d, *shape)``, with displacements magnified."""
    x = step.grid().mT.reshape(-1, *scene.shape).numpy()
    return [x + scene.magnify * field.numpy() for field in run.fields]


def plane(scene: Scene, step: ElasticStep, run: Run):
    """The deformed body at some times, coloured by its change of volume."""
    wide, last = scene.body.lengths[0] > 3 * scene.body.lengths[1], len(run.times) - 1
    chosen = sorted(set(np.linspace(max(0, last - 4) if wide else 0, last, 5 if wide else 6).round().astype(int)))
    rows, columns = (len(chosen), 1) if wide else (2, math.ceil(len(chosen) / 2))
    every = places(scene, step, run)
    frame, colour = framed([every[i] for i in chosen], scene), colours(run, chosen)
    tall = 2.6 * proportion(frame) + 0.6
    figure, axes = plot.pyplot().subplots(rows, columns, figsize=(9, rows) if wide else (3 * columns + 1, tall * rows),
                                          sharex=True, sharey=True, squeeze=False, layout="constrained")  # fmt: skip
    for ax in axes.flat[len(chosen) :]:
        ax.axis("off")
    for ax, i in zip(axes.flat, chosen, strict=False):
        section(ax, every[i], run.volumes[i].numpy(), colour, scene)
        ax.set_title(when(scene, run.times[i]), fontsize=9)
        ax.set(aspect="equal", **frame)
    for ax in axes[-1]:
        ax.set_xlabel(x_label(scene))
    for ax in axes[:, 0]:
        ax.set_ylabel("y (m)")
    figure.colorbar(colour, ax=axes, label="relative change of volume", shrink=0.8)
    return figure


def x_label(scene: Scene) -> str:
    return "x (m)" if scene.magnify == 1 else f"x (m), displacements times {scene.magnify:g}"


def section(ax, at: np.ndarray, volume: np.ndarray, colour, scene: Scene) -> None:
    """A plane body, lines of the grid at rest, and the obstacle."""
    ax.pcolormesh(*at, volume - 1, shading="gouraud", cmap=colour.cmap, norm=colour.norm)
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


def proportion(frame: dict[str, tuple[float, float]]) -> float:
    """Height over width."""
    (left, right), (low, high) = frame.values()
    return (high - low) / (right - left)


def solid(scene: Scene, step: ElasticStep, run: Run):
    """The surface of the deformed body at some loads, coloured by its change of volume."""
    chosen = sorted(set(np.linspace(0, len(run.times) - 1, 4).round().astype(int)))
    figure = plot.pyplot().figure(figsize=(3.0 * len(chosen) + 1, 5.2), layout="constrained")
    every, colour = places(scene, step, run), colours(run, chosen)
    axes = [figure.add_subplot(1, len(chosen), k + 1, projection="3d") for k in range(len(chosen))]
    for ax, i in zip(axes, chosen, strict=True):
        surfaces(ax, every[i], run.volumes[i].numpy(), colour, scene)
        ax.set_title(when(scene, run.times[i]), y=1.12)
    axes[-1].set_zlabel("z (m)", labelpad=8)  # type: ignore[attr-defined]
    figure.colorbar(colour, ax=axes, label="relative change of volume", shrink=0.6)
    return figure


def surfaces(ax, at: np.ndarray, volume: np.ndarray, colour, scene: Scene) -> None:
    """The six faces of a solid body."""
    for axis in range(3):
        for side in (0, -1):
            face, shade = np.take(at, side, axis + 1), colour.to_rgba(np.take(volume, side, axis) - 1)
            ax.plot_surface(*face, facecolors=shade, rstride=2, cstride=2, edgecolor="0.3", lw=0.2, shade=False)
    ax.set(xlabel="x (m)", ylabel="y (m)", xticks=[0, 1], yticks=[0, 1])
    ax.set_box_aspect(scene.body.lengths, zoom=1.05)
    ax.view_init(18, -60)


def film(out: Path, scene: Scene, step: ElasticStep, run: Run) -> None:
    """The deformed body at all outputs."""
    every, colour = places(scene, step, run), colours(run, range(len(run.times)))
    if scene.body.d == 3:
        figure = plot.pyplot().figure(figsize=(4.5, 5.5), layout="constrained")
        ax, frame, body, where = figure.add_subplot(projection="3d"), {"zlabel": "z (m)"}, surfaces, "right"
    else:
        frame, body = framed(every, scene), section
        figure, ax = plot.pyplot().subplots(figsize=(6.5, 1.9 + 5 * proportion(frame)), layout="constrained")
        frame, where = frame | {"aspect": "equal", "xlabel": x_label(scene), "ylabel": "y (m)"}, "bottom"
    figure.colorbar(colour, ax=ax, label="relative change of volume", shrink=0.8, location=where)

    def draw(i: int) -> None:
        ax.clear()
        body(ax, every[i], run.volumes[i].numpy(), colour, scene)
        ax.set(title=when(scene, run.times[i]), **frame)

    plot.film(figure, draw, len(run.times), out / "movie.gif", frames_per_second=6)
