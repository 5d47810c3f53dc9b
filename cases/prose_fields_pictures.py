"""Pictures of the PROSE-PDE case: errors by family, fields, and what changes with noise, frames and initial states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from torch import Tensor

from sciml import plot

if TYPE_CHECKING:
    from prose_fields import Refined, Unseen

COLOURS = {"known": "#b0b0b0", "skeleton": "#56b4e9", "corrupted": "#e69f00", "none": "#000000"}
MARKERS = {"known": "o", "skeleton": "s", "corrupted": "D", "none": "x"}
SMALLEST = 1e-4
SHOWN = (
    "burgers",
    "kdv",
    "cahn_hilliard",
    "inviscid_burgers",
    "fokker_planck",
    "logistic",
    "wave",
    "advection",
    "heat",
)
"""Families that are drawn first."""


def errors(ds: xr.Dataset):
    """A row for each family: predictions and forecasts on the left, equations on the right."""
    plt = plot.pyplot()
    order = np.argsort(ds["prediction"].sel(guess="none").values)
    rows = np.arange(len(order))
    figure, axes = plt.subplots(
        1, 2, figsize=(12, 1.8 + 0.34 * len(order)), sharey=True, layout="constrained", width_ratios=(1.2, 1)
    )
    for ax, name in zip(axes, ("prediction", "symbols"), strict=True):
        for guess, colour in COLOURS.items():
            values = ds[name].sel(guess=guess).values[order]
            face = {"color": colour} if guess == "none" else {"mfc": "none", "mec": colour}
            ax.plot(values.clip(SMALLEST), rows, MARKERS[guess], ls="", ms=6, label=f"network, {guess}", **face)
    left = {"integrated": ("decoded (none), integrated", "v", "#cc79a7"), "refined": ("refined", "*", "#d00000"),
            "sindy": ("weak SINDy, integrated", "+", "#009e73"), "persistence": ("last frame", "|", "#777777"),
            "twin": ("network without equations", "1", "#0072b2")}  # fmt: skip
    right = {"refined_symbols": left["refined"], "sindy_symbols": left["sindy"]}
    for ax, drawn in zip(axes, (left, right), strict=True):
        for name, (label, marker, colour) in drawn.items():
            if name in ds:
                values = ds[name].sel(guess="none") if "guess" in ds[name].dims else ds[name]
                ax.plot(values.values[order].clip(SMALLEST), rows, marker, ls="", ms=7, color=colour, label=label)
        ax.set(xscale="log", xlim=(SMALLEST * 0.8, 1.3), ylim=(-0.6, len(order) - 0.4))
        ax.grid(alpha=0.3)
        ax.xaxis.set_major_formatter(lambda v, _: f"{100 * v:g} %")
    axes[0].set_yticks(rows, [str(f).replace("_", " ") for f in ds["family"].values[order]])
    axes[0].set(xlabel="relative L2 error of t in [1, 2]", title="fields")
    axes[1].set(xlabel="relative error of the right-hand side at t = 1 (0.01 %: that or less)", title="equations")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
    return figure


def examples(test: Unseen, better: Refined, values: Tensor, most: int = 4):
    """A window of each of a few families: truth, prediction and refined equation in x and t, and what they miss."""
    import cmocean  # noqa: F401

    plt = plot.pyplot()
    names = sorted(test.runs.names, key=lambda n: (SHOWN.index(n) if n in SHOWN else len(SHOWN), n))[:most]
    t, x = test.runs.t.cpu().numpy(), test.runs.x.cpu().numpy()
    figure, axes = plt.subplots(len(names), 5, figsize=(14, 0.8 + 2.5 * len(names)), sharex=True, sharey=True,
                                squeeze=False, layout="constrained")  # fmt: skip
    for row, name in zip(axes, names, strict=True):
        k = next(k for k, i in enumerate(better.windows) if test.runs.names[int(test.family[i])] == name)
        i = better.windows[k]
        truth, seen = test.runs.u[i].cpu().numpy(), test.seen[i].cpu().numpy()
        network = np.concatenate([seen, values[i].cpu().numpy()])
        panels = [truth, network, network - truth, better.values[k].numpy(), better.values[k].numpy() - truth]
        after = slice(len(seen), None)
        off = [np.nanmax(np.abs(p[after]), initial=1e-3) for p in (panels[2], panels[4])]
        low, high = truth.min(), truth.max()
        limits = [(low, high), (low, high), (-off[0], off[0]), (low, high), (-off[1], off[1])]
        for j, (ax, panel, (least, top)) in enumerate(zip(row, panels, limits, strict=True)):
            difference = j in (2, 4)
            cmap = plt.get_cmap("cmo.balance" if difference else "cmo.thermal").with_extremes(bad="#dddddd")
            mesh = ax.pcolormesh(x, t, panel, cmap=cmap, vmin=least, vmax=top, rasterized=True)
            ticks = [least, (least + top) / 2, top]
            texts = [f"{v:.2g}" if abs(v) > 0.005 * (top - least) else "0" for v in ticks]
            figure.colorbar(mesh, ax=ax).set_ticks(ticks, labels=texts)
            ax.axhline(float(t[len(seen)]), color="k" if difference else "w", lw=0.8, ls="--")
        row[0].set_ylabel(f"{name.replace('_', ' ')}\n\nt")
        for ax, a in ((row[2], panels[2]), (row[4], panels[4])):
            size = np.linalg.norm(a[after]) / np.linalg.norm(truth[after])
            text = f"{100 * size:.2g} %" if np.isfinite(size) else "no solution"
            ax.text(0.03, 0.95, text, transform=ax.transAxes, va="top", bbox=dict(fc="w", ec="none", alpha=0.8, pad=2))
    titles = "truth", "seen, and network", "network - truth", "refined equation", "refined - truth"
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    for ax in axes[-1]:
        ax.set_xlabel("x")
    return figure


def sweeps(ds: xr.Dataset):
    """Errors with noise, with fewer frames, and from other initial states."""
    plt = plot.pyplot()
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.4), sharey=True, layout="constrained")
    for ax, name, x in ((axes[0], "noise", 100 * ds["noise"]), (axes[1], "shown", ds["frames"])):
        for guess in ds["swept"].values:
            for kind, style in (("prediction", "-"), ("symbols", ":")):
                y = ds[f"{name}_{kind}"].sel(swept=guess).values
                label = f"{'prediction' if kind == 'prediction' else 'equation'}, {guess}"
                ax.semilogy(
                    x, y.clip(SMALLEST), style, marker=MARKERS[str(guess)], color=COLOURS[str(guess)], label=label
                )
    axes[0].set(xlabel="noise of what is seen (%)", ylabel="relative error")
    axes[1].set(xlabel="frames seen (the last ones)", xticks=ds["frames"].values)
    axes[1].invert_xaxis()
    place, width = np.arange(ds.sizes["guess"]), 0.2
    mean = ds.mean("family")
    names = "prediction", "shifted_prediction", "symbols", "shifted_symbols"
    for i, name in enumerate(names):
        kind, shifted = ("equation", "prediction")["prediction" in name], "shifted" in name
        axes[2].bar(
            place + (i - 1.5) * width, mean[name].values.clip(SMALLEST), width, edgecolor="w",
            color="#0072b2" if kind == "prediction" else "#e69f00", hatch="//" if shifted else "",
            label=f"{kind}, {'Gaussian process' if shifted else 'own states'}",
        )  # fmt: skip
    axes[2].set_xticks(place, list(ds["guess"].values))
    axes[2].set(xlabel="guess", title="initial states")
    axes[0].set_title("noise")
    axes[1].set_title("length")
    for ax in axes:
        ax.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
        ax.grid(alpha=0.3, axis="y", which="both")
        ax.yaxis.set_minor_formatter(lambda v, _: f"{100 * v:g} %" if f"{v:.0e}"[0] in "25" else "")
        ax.yaxis.set_major_formatter(lambda v, _: f"{100 * v:g} %")
    return figure
