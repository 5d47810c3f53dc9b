"""What a run of neural-field time stepping leaves: fields with the truth, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from sciml import plot
from sciml.data import write_netcdf

if TYPE_CHECKING:
    from neural import Problem, Run


def write(out: Path, p: Problem, run: Run) -> None:
    """Fields and truth, CF."""
    attrs = {"units": p.time_units, "axis": "T", "long_name": "time since the start"}
    coords = {"time": ("time", np.array(run.times), attrs), **p.coords()}
    truth = torch.stack([p.seen(p.equation, p.truth(t)) for t in run.times])
    dims, both = ("time", "component", *p.coords()), {"neural_field": torch.stack(run.fields), "truth": truth}
    ds = xr.Dataset({n: (dims, v.numpy()) for n, v in both.items()}, coords, {"Conventions": "CF-1.11"})
    for n in both:
        ds[n].attrs = {"units": p.units, "long_name": f"{p.name}, {n.replace('_', ' ')}"}
    ds["error"] = ("time", np.array(run.errors), {"units": "1", "long_name": "error over the size of the truth"})
    write_netcdf(ds, out / "fields.nc")


def pictures(out: Path, p: Problem, run: Run) -> None:
    """The error in time, and fields."""
    plt = plot.pyplot()
    figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    ax.semilogy(run.times, run.errors, "o-", ms=3, label="error")
    estimates = [n[3] for n in run.notes]
    if np.isfinite(estimates[1:]).any():  # they are, where least squares measure an error
        ax.semilogy(run.times, estimates, "k--", label="its running estimate")
        ax.semilogy(run.times[1:], [n[0] for n in run.notes[1:]], "k:", label="residual of least squares")
    ax.set(xlabel=f"time ({p.time_units})" if p.time_units != "1" else "time", ylabel=f"relative error of {p.name}")
    ax.legend()
    plot.save(figure, out / "error.png")
    shown = (lines if run.fields[0].shape[-2] == 1 else maps)(p, run)
    plot.save(shown, out / "fields.png")


def lines(p: Problem, run: Run):
    """Fields at five times and errors below, in one dimension."""
    x = p.equation.grid.axes()[0][0].numpy()
    figure, axes = plot.pyplot().subplots(2, figsize=(8, 6), sharex=True, layout="constrained")
    for i in np.linspace(0, len(run.times) - 1, 5).round().astype(int):
        truth, field, _ = (a[0, 0] for a in compared(p, run, i))
        (line,) = axes[0].plot(x, field, label=f"t = {run.times[i]:.3g}")
        axes[0].plot(x, truth, "k:", lw=1)
        axes[1].semilogy(x, np.abs(field - truth) + 1e-12, color=line.get_color(), lw=0.8)
    axes[0].set(ylabel=p.name, title="neural field, and truth (dotted)")
    axes[0].legend(fontsize=8)
    axes[1].set(xlabel="x", ylabel="absolute error")
    return figure


def compared(p: Problem, run: Run, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, neural field and error at an output."""
    truth, found = p.seen(p.equation, p.truth(run.times[i])).numpy(), run.fields[i].numpy()
    return truth, found, found - truth


def when(p: Problem, t: float) -> str:
    """A time with its unit; long times in days."""
    if p.time_units == "s" and t > 1e5:
        return f"{t / 86400:.3g} days"
    return f"{t:.3g}" + ("" if p.time_units == "1" else f" {p.time_units}")


def maps(p: Problem, run: Run):
    """Truth, neural field and error at the end, a row for each component."""
    import cmocean  # noqa: F401

    places = xr.Dataset(coords=p.coords())
    (y, y_label), (x, x_label) = (plot.length_axis(places, n) for n in p.coords())  # type: ignore[arg-type]
    columns = compared(p, run, -1)
    n = len(columns[0])
    figure, axes = plot.pyplot().subplots(n, 3, figsize=(12, 3.6 * n), squeeze=False, layout="constrained")
    named = p.components or ("",) * n
    for row, *fields, component in zip(axes, *columns, named, strict=True):
        top, part = np.abs(fields[0]).max() or 1.0, f"{component}, " if component else ""
        for ax, values, limit, title in zip(row, fields, (top, top, np.abs(fields[2]).max() or 1.0),
                                            ("truth", "neural field", "error"), strict=True):  # fmt: skip
            mesh = ax.pcolormesh(x, y, values, cmap="cmo.balance", vmin=-limit, vmax=limit, rasterized=True)
            ax.set(aspect="equal", xlabel=x_label, ylabel=y_label, title=f"{part}{title}")
            if title != "truth":  # whose colours are those of the neural field
                label = f"{p.name}{plot.unit(xr.DataArray(attrs={'units': p.units}))}"
                figure.colorbar(mesh, ax=ax, label=label if title != "error" else f"error of {label}")
    figure.suptitle(f"t = {when(p, run.times[-1])}")
    return figure


def film(out: Path, p: Problem, run: Run) -> None:
    """Truth, neural field and error at all outputs; colours are those of the end."""
    if run.fields[0].shape[-2] == 1:
        figure, draw = moving_lines(p, run)
    else:
        figure = maps(p, run)
        panels = [ax for ax in figure.axes if ax.get_title()]

        def draw(i: int) -> None:
            fields = np.stack(compared(p, run, i), 1)  # components, then columns, as the panels
            for ax, values in zip(panels, fields.reshape(-1, *fields.shape[2:]), strict=True):
                ax.collections[0].set_array(values)
            figure.suptitle(f"t = {when(p, run.times[i])}")

    plot.film(figure, draw, len(run.times), out / "movie.gif", frames_per_second=6)


def moving_lines(p: Problem, run: Run):
    """The figure of a film in one dimension, and what draws a frame in it."""
    x = p.equation.grid.axes()[0][0].numpy()
    every = [[a[0, 0] for a in compared(p, run, i)] for i in range(len(run.times))]
    figure, axes = plot.pyplot().subplots(2, figsize=(8, 6), sharex=True, layout="constrained")
    drawn = [axes[0].plot(x, every[0][0], "k:", lw=1, label="truth")[0],
             axes[0].plot(x, every[0][1], label="neural field")[0], axes[1].plot(x, every[0][2])[0]]  # fmt: skip
    low, high = (f([f(fields[:2]) for fields in every]) for f in (np.min, np.max))
    edge, largest = 0.05 * (high - low), max(np.abs(fields[2]).max() for fields in every) or 1.0
    axes[0].set(ylabel=p.name, ylim=(low - edge, high + edge))
    axes[0].legend(fontsize=8, loc="upper right")
    axes[1].set(xlabel="x", ylabel="error", ylim=(-1.1 * largest, 1.1 * largest))

    def draw(i: int) -> None:
        for line, values in zip(drawn, every[i], strict=True):
            line.set_ydata(values)
        axes[0].set_title(f"t = {when(p, run.times[i])}")

    return figure, draw
