"""Pictures of predictions of flows, and of the terms that were found in them."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from prose_flows import (
    EMPTY,
    FILTERED,
    LEADS,
    MEAN,
    MEDIDA,
    RAW,
    REFINED,
    SEARCHED,
    STILL,
    TOLD,
    TWIN,
    WRITTEN,
    Scores,
    errors,
    text,
    true_terms,
)  # fmt: skip

from sciml import plot
from sciml.prose import flow_scoring as scoring
from sciml.prose.flows import TERMS, Written

LOOK = {
    TOLD[0]: "C0-o", TOLD[1]: "C0--", TOLD[2]: "C0:", TWIN: "C4-", WRITTEN: "C1-", REFINED: "C3-o", MEAN: "C3--",
    EMPTY: "C2--", SEARCHED: "C2-", RAW: "k--", FILTERED: "k-", STILL: "0.6",
}  # fmt: skip
DAYS = (5, 10)
NAMED = {TOLD[0]: "network", REFINED: "refined", EMPTY: "from\nno terms", SEARCHED: "from\nall terms", MEDIDA: "MEDIDA"}
WIDTH = 150
"""Characters in a line of equations."""


def draw(out: Path, s: Scores) -> None:
    plot.save(error_lines(s), out / "errors.png")
    plot.save(term_shares(s), out / "terms.png")
    plot.save(maps(s), out / "maps.png")


def error_lines(s: Scores):
    """Error against lead time by method; spread and error of the ensemble."""
    figure, (left, right) = plot.pyplot().subplots(1, 2, figsize=(12, 4.8), width_ratios=(3, 2), layout="constrained")
    days = np.arange(1, LEADS + 1)
    for name, own in errors(s).items():
        look = LOOK[name]
        style = {"color": look} if look.startswith("0") else {"color": look[0] if look[0] == "k" else look[:2]}
        line = look[len(style["color"]) :].rstrip("o") or "-"
        left.semilogy(days, own.mean(0), line, marker="o" if look.endswith("o") else "", ms=4, label=name, **style)
    left.set(xlabel="days after the last map", ylabel="error of psi over its size", xlim=(1, LEADS),
             title=f"mean of {len(s.flows)} flows")  # fmt: skip
    left.grid(alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    spread, error = (np.stack([pair[k].numpy() for pair in s.spread]) for k in (0, 1))
    points = right.scatter(spread.ravel(), error.ravel(), c=np.tile(days, len(spread)), s=10, cmap="viridis")
    both = np.log10(np.maximum(np.concatenate([spread, error]), 1e-4))
    ends = 10.0 ** np.array([np.floor(both.min()), np.ceil(both.max())])
    right.loglog(ends, ends, "k:", lw=1)
    right.loglog(np.sqrt((spread**2).mean(0)), np.sqrt((error**2).mean(0)), "C3-", lw=2, label="root mean square")
    right.set(xlim=ends, ylim=ends, xlabel="spread of the ensemble", ylabel="error of its mean", aspect="equal",
              title="refined equation")  # fmt: skip
    for axis in (right.xaxis, right.yaxis):
        axis.set_minor_formatter(plot.pyplot().NullFormatter())
    right.legend(fontsize=8, loc="upper left")
    figure.colorbar(points, ax=right, label="days after the last map")
    return figure


def term_shares(s: Scores):
    """Precision and recall of every term by method."""
    true, names = true_terms(s), [name for name in NAMED if name in s.found]
    tables = [scoring.term_table([f.terms for f in s.found[n]]) for n in names]
    shares = [scoring.precision_recall(table, true) for table in tables]
    count = (np.stack([table.sum(0) for table in tables], 1), np.repeat(true.sum(0)[:, None], len(names), 1))
    some = np.flatnonzero(np.any([table.any(0) for table in [true, *tables]], 0))
    figure, axes = plot.pyplot().subplots(
        1, 2, figsize=(9.5, 1.6 + 0.36 * len(some)), sharey=True, layout="constrained"
    )
    titles = ("precision: found, and true", "recall: true, and found")
    for ax, values, of, title in zip(axes, zip(*shares, strict=True), count, titles, strict=True):
        table = np.where(of > 0, np.stack(values, 1), np.nan)[some]
        ax.imshow(table, vmin=0, vmax=1, cmap="Blues", aspect="auto", alpha=0.75)
        for (row, column), share in np.ndenumerate(table):
            told = names[column] == MEDIDA and TERMS[some[row]] == "radius"
            shown = "told" if told else "none" if np.isnan(share) else f"{share:.2f}"
            ax.text(column, row, shown, ha="center", va="center", fontsize=9)
        ax.set_xticks(range(len(names)), [NAMED[n] for n in names])
        ax.set_yticks(range(len(some)), [f"{TERMS[k]} ({true[:, k].sum()})" for k in some])
        ax.set(title=title)
    axes[0].set_ylabel(f"term (in how many of {len(s.flows)} flows)")
    figure.colorbar(axes[0].images[0], ax=axes, label="share of flows")
    return figure


def maps(s: Scores):
    """Truth, network, refined equation and persistence of two members, with the equations beneath."""
    import cmocean  # noqa: F401

    chosen = sorted({0, min(3, len(s.flows) - 1)})
    columns = {"truth": None, "network": TOLD[0], "refined equation": REFINED, "persistence": STILL}
    plt = plot.pyplot()
    figure = plt.figure(figsize=(11, 7.2 * len(chosen)))
    blocks = figure.add_gridspec(len(chosen), 1, hspace=0.08)
    for row, i in enumerate(chosen):
        grid = blocks[row].subgridspec(
            3, 5, height_ratios=(1, 1, 0.62), width_ratios=(1, 1, 1, 1, 0.05), wspace=0.06, hspace=0.16
        )
        truth, family = s.ahead(i), s.flows.names[int(s.flows.family[int(s.flows.equation[i])])]
        size = float(truth[[day - 1 for day in DAYS], 0].abs().max())
        for r, day in enumerate(DAYS):
            for c, (title, name) in enumerate(columns.items()):
                ax = figure.add_subplot(grid[r, c])
                shown = truth if name is None else s.predictions[name][i]
                image = ax.imshow(shown[day - 1, 0], origin="lower", cmap="cmo.balance", vmin=-size, vmax=size,
                                  extent=(0, 2 * np.pi, 0, 2 * np.pi))  # fmt: skip
                error = "" if name is None else f", error {_error(s, i, name, day):.2f}"
                last, turns = r == len(DAYS) - 1, ((0, np.pi, 2 * np.pi), ("0", "π", "2π"))
                ax.set_xticks(turns[0], turns[1] if last else ())
                ax.set_yticks(turns[0], () if c else turns[1])
                ax.set(title=f"{title}{error}")
                ax.title.set_fontsize(10)
                if c == 0:
                    ax.set_ylabel(f"{family.replace('_', ' ')}, day {day}")
        figure.colorbar(image, cax=figure.add_subplot(grid[:2, 4]), label="streamfunction of the upper layer, scaled")
        ax = figure.add_subplot(grid[2, :])
        ax.axis("off")
        ax.text(0, 0.92, beneath(s, i), va="top", family="monospace", fontsize=7.2, transform=ax.transAxes)
    return figure


def _error(s: Scores, i: int, name: str, day: int) -> float:
    return float(scoring.relative_errors(s.predictions[name][i], s.ahead(i))[day - 1])


def beneath(s: Scores, i: int) -> str:
    """The true equation and those found."""
    rows = {"true": s.truth(i), **{NAMED[n]: s.found[n][i].expressions for n in (TOLD[0], REFINED)}}
    return "\n".join(_lines(name, e) for name, e in rows.items())


def _lines(name: str, expressions: Written) -> str:
    rows, margin = text(expressions).split("; "), " " * 10
    wrapped = [textwrap.wrap(row, WIDTH, subsequent_indent="          ", break_long_words=False) for row in rows]
    lines = [line for row in wrapped for line in row]
    return "\n".join((f"{name}:".ljust(10) if k == 0 else margin) + line for k, line in enumerate(lines))
