"""Pictures of the ODE case: errors by family, trajectories with the equations found, sweeps."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from prose_evaluation import Forecast, Tests
from torch import Tensor

from sciml.equation.expression import Apply, Expr, Number, canonical
from sciml.plot import pyplot
from sciml.prose.ordinary import SENSITIVITY
from sciml.prose.scoring import limited, relative_error

BARS = {
    "network, none": "C0", "decoded, none": "C1", "refined, none": "C3", "right terms, refined": "C2",
    "SINDy, right terms": "0.45", "SINDy, generic": "0.75",
}  # fmt: skip


def flagged(name: str) -> str:
    return name + ("*" if SENSITIVITY[name].chaotic else "")


def errors(ds: xr.Dataset):
    """Medians by family: prediction by the network, equations integrated, refined, and SINDy's."""
    families = ds["family"].values
    figure, ax = pyplot().subplots(figsize=(max(8, 3 + 0.75 * len(families)), 4.4), layout="constrained")
    width, x = 0.8 / len(BARS), np.arange(len(families))
    for i, (method, colour) in enumerate(BARS.items()):
        values = 100 * ds["integrated_median"].sel(forecast=method).values
        ax.bar(x + (i - (len(BARS) - 1) / 2) * width, values, width, color=colour, label=method)
    ax.plot(x, 100 * ds["integrated_median"].sel(forecast="persistence"), "k_", ms=20, label="persistence")
    ax.set(yscale="log", ylim=(0.05, 150), ylabel="median error in [2, 6], %", xlim=(-0.6, len(x) - 0.4))
    ax.set_xticks(x, [flagged(n) for n in families], rotation=30, ha="right")
    ax.grid(axis="y", alpha=0.3)
    ax.set_axisbelow(True)
    ax.legend(fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return figure


class Shown(NamedTuple):
    """A window of a family with what was made of it without a guess; values ``(T, D)``, the fit at all times."""

    name: str
    t: Tensor
    truth: Tensor
    window: Tensor
    predicted: Tensor
    fit: tuple[Tensor, Tensor] | None
    equation: tuple[Expr, ...] | None
    error: float

    @classmethod
    def of(cls, name: str, tests: Tests, found: Mapping[str, Forecast], runs: int = 60) -> Shown:
        dim = int(tests.dims[0])
        truth, window = tests.runs.u[0, :, :dim], tests.window[0, :, :dim]
        predicted, fits = found["network, none"].values[0], found["refined, none"].fits
        error = float(limited(relative_error(found["refined, none"].values[:1], tests.truth[:1, :, :dim])))
        best = fits[0] if fits else None
        if best is None:
            return cls(name, tests.runs.t, truth, window, predicted, None, None, error)
        values, spread = best.predict(tests.runs.t, runs, torch.Generator().manual_seed(0))
        return cls(name, tests.runs.t, truth, window, predicted, (values[0], spread[0]), best.written(), error)


def trajectories(cases: Sequence[Shown]):
    """Truth, noisy window, prediction, refined with its spread, with the equation that was found."""
    rows = -(-len(cases) // 2)
    figure, axes = pyplot().subplots(rows, 2, figsize=(12, 3.4 * rows), squeeze=False, layout="constrained")
    for ax, one in zip(axes.flat, cases, strict=False):
        panel(ax, one)
    for ax in axes.flat[len(cases) :]:
        ax.axis("off")
    for ax in axes[-1]:
        ax.set_xlabel("t")
    handles = [pyplot().Line2D([], [], **style) for style in STYLES.values()]
    figure.legend(handles, list(STYLES), loc="outside upper center", ncols=4, frameon=False)
    return figure


STYLES = {
    "truth": dict(color="0.5", lw=3, alpha=0.5),
    "noisy window": dict(color="k", marker=".", ms=4, lw=0),
    "network, nothing told": dict(color="k", lw=1, ls="--"),
    "refined equation, 68 %": dict(color="k", lw=1.2),
}


def panel(ax, one: Shown) -> None:
    """A colour for each component."""
    points, t, size = len(one.window), one.t.numpy(), float(one.truth.abs().max())
    for i in range(one.truth.shape[1]):
        style = {name: options | {"color": f"C{i}"} for name, options in STYLES.items()}
        ax.plot(t, one.truth[:, i], **style["truth"], zorder=1)
        ax.plot(t[:points], one.window[:, i], **style["noisy window"], zorder=2)
        ax.plot(t[points:], one.predicted[:, i], **style["network, nothing told"], zorder=3)
        if one.fit is not None:
            middle, spread = (np.clip(np.nan_to_num(v[:, i].numpy(), nan=9e9), -9 * size, 9 * size) for v in one.fit)
            ax.plot(t, middle, **style["refined equation, 68 %"], zorder=4)
            ax.fill_between(t, middle - spread, middle + spread, color=f"C{i}", alpha=0.25, lw=0, zorder=0)
    ax.axvline(t[points - 1], color="k", lw=0.6, ls=":")
    ax.set(ylim=np.array([-0.1, 0.1]) * size + limits(one.truth), xlim=(0, float(t[-1])))
    error = f"error {100 * one.error:.2g} %" if one.error < 1 else "no forecast"
    ax.set_title(f"{flagged(one.name)}, {error}\n{text(one.equation)}", fontsize=8, loc="left")


def limits(truth: Tensor) -> np.ndarray:
    return np.array([float(truth.min()), float(truth.max())])


def text(equation: Sequence[Expr] | None, width: int = 105) -> str:
    """The right-hand sides with numbers of three digits, a line each."""
    if equation is None:
        return "no equation"
    lines = [f"u{i}' = {short(e)}".replace("u_", "u") for i, e in enumerate(equation)]
    return "\n".join(textwrap.shorten(line, width, placeholder=" ...") for line in lines)


def short(e: Expr) -> Expr:
    """With numbers of three significant digits."""
    if isinstance(e, Number):
        return Number(float(f"{e.value:.3g}"))
    return canonical(Apply(e.op, tuple(short(a) for a in e.args))) if isinstance(e, Apply) else e


def sweeps(ds: xr.Dataset):
    """Means over families against noise, points seen, and ranges of parameters."""
    figure, axes = pyplot().subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    curves(axes[0], 100 * ds["noise"], ds["noise_error"], "reader", "noise, %", "error of prediction in [2, 6], %")
    if "noise_fitted" in ds:
        curves(axes[1], 100 * ds["noise"], ds["noise_fitted"], "fitted", "noise, %", "error of integrated equations, %")
    else:
        curves(axes[1], 100 * ds["noise"], ds["noise_expression"], "told", "noise, %", "error of expressions, %")
    curves(axes[2], ds["seen"], ds["seen_error"], "reader", "points seen", "error of prediction, %")
    curves(
        axes[3],
        ds["spread"],
        ds["spread_error"],
        "reader",
        "range of parameters / training's",
        "error of prediction, %",
    )
    return figure


def curves(ax, x: xr.DataArray, errors: xr.DataArray, dim: str, xlabel: str, ylabel: str) -> None:
    for name in errors[dim].values:
        ax.plot(x, 100 * errors.sel({dim: name}).mean("family"), "o-", ms=4, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None), xticks=x.values)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)


def record(ds: xr.Dataset, names: Sequence[str], learned: int):
    """A record's variables with the run of the equations found, and what of it was forecast."""
    figure, axes = pyplot().subplots(
        len(names), 1, figsize=(9, 1.2 + 1.6 * len(names)), sharex=True, squeeze=False, layout="constrained"
    )
    t = ds["time"].values
    for ax, name in zip(axes[:, 0], names, strict=True):
        fit, std = (ds[f"{name}_{kind}"].values for kind in ("fit", "std"))
        ax.plot(t, ds[name], ".", color="0.35", ms=3.5, label="record")
        ax.plot(t, fit, "C3", lw=1.2, label="equations found")
        ax.fill_between(t, fit - std, fit + std, color="C3", alpha=0.25, lw=0, label="standard error")
        if learned < len(t):
            ax.axvline(
                (t[learned - 1] + t[learned]) / 2, color="k", lw=0.8, ls="--", label="end of what was learned from"
            )
        low, high = np.nanmin(ds[name]), np.nanmax(ds[name])
        ax.set(ylabel=measured(ds[name]), ylim=(low - 0.2 * (high - low), high + 0.2 * (high - low)))
    axes[0, 0].legend(fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    axes[-1, 0].set(xlabel=measured(ds["time"]), xlim=(t[0], t[-1]))
    return figure


def measured(values: xr.DataArray) -> str:
    """Its name and unit, if it has one."""
    unit = values.attrs["units"]
    return str(values.name) if unit == "1" else f"{values.name} ({unit})"
