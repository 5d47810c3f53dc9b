"""Scores of an assimilation run against the truth, which no analysis sees: errors relative to climatology, forecasts
from the analyses, reliability of the ensemble, consistency of the assumed errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml import score
from sciml.assim.base import Analysed
from sciml.assim.cycle import Record
from sciml.observations import names
from sciml.observe import Window
from sciml.step import State, Step

Read = Callable[[Tensor], Tensor]
"""coefficients ``(..., n, *modes)`` to the fields ``(..., lev, y, x)`` that are scored"""
BLOCK = 15
"""cycles in a block of the bootstrap: errors of analyses of five-day windows are correlated by 0.2 after 12"""


def root_mean_square(fields: Tensor) -> Tensor:
    """Over the last two axes."""
    return fields.pow(2).mean((-2, -1)).sqrt()


def climatology(read: Read, climate: Tensor) -> tuple[Tensor, Tensor]:
    """Mean field and standard deviation of each layer, of snapshots ``(samples, n, *modes)``."""
    mean = climate.mean(0)
    return read(mean), read(climate - mean).std((0, 2, 3))


def skill(
    read: Read, record: Record, truth: Tensor, climate: Tensor, skip: int, spread: Tensor | None = None
) -> dict[str, Any]:
    """Errors of analysis and background over the climatological standard deviation, by layer, with 95 % intervals of a
    block bootstrap; anomaly correlation; with ``spread (cycles, lev, y, x)`` of the fields that are read, its size and
    its ratio to the error, and the CRPS of normal distributions of that spread.

    ``truth (cycles, n, *modes)`` at the ends of the windows; the first ``skip`` cycles do not count.
    """
    if truth.shape != record.analysis.shape or not 0 <= skip < len(truth):
        wanted, given = tuple(record.analysis.shape), tuple(truth.shape)
        raise ValueError(f"truth must be {wanted}, like the analyses, and skip less than {len(truth)}: {given}, {skip}")
    mean, std = climatology(read, climate)
    out: dict[str, Any] = {}
    anomaly = read(truth[skip:]) - mean
    for name, z in (("analysis", record.analysis), ("background", record.background)):
        error = root_mean_square(read(z[skip:] - truth[skip:])) / std
        out[name] = error.mean(0).tolist()
        intervals = [score.block_bootstrap(e.cpu().numpy(), BLOCK, seed=0) for e in error.mT]
        out[f"{name}_interval"] = [[max(0.0, low), high] for low, high in intervals]
        out[f"{name}_correlation"] = score.correlation((read(z[skip:]) - mean).cpu(), anomaly.cpu()).mean(0).tolist()
    if spread is not None:
        size = root_mean_square(spread[skip:]) / std
        error = root_mean_square(read(record.analysis[skip:] - truth[skip:])) / std
        out["spread"] = size.mean(0).tolist()
        out["spread_over_error"] = (size.pow(2).mean(0) / error.pow(2).mean(0)).sqrt().tolist()
        fields = (f.cpu().numpy() for f in (read(record.analysis[skip:]), spread[skip:], read(truth[skip:])))
        out["crps_gaussian"] = (score.crps_gaussian(*fields).mean((0, 2, 3)) / std.cpu().numpy()).tolist()
    return out


def ensemble_scores(read: Read, truth: Tensor, climate: Tensor) -> Callable[[int, Analysed], dict[str, Any] | None]:
    """For ``cycle(each=...)``: CRPS over the climatological standard deviation and rank histogram of every layer."""
    _, std = climatology(read, climate)

    def each(i: int, result: Analysed) -> dict[str, Any] | None:
        if result.state.z.ndim == 3:
            return None
        members, true = read(result.state.z).cpu().numpy(), read(truth[i]).cpu().numpy()
        crps = score.crps(members, true).mean((-2, -1)) / std.cpu().numpy()
        ranks = [score.rank_histogram(members[:, j, ::4, ::4], true[j, ::4, ::4]).tolist() for j in range(len(true))]
        return {"crps": crps.tolist(), "ranks": ranks}

    return each


def forecasts(
    step: Step, read: Read, record: Record, truth: Tensor, climate: Tensor, skip: int, steps: int, windows: int
) -> list[list[float]]:
    """Error over the climatological standard deviation after 0, 1 .. ``windows`` windows of ``steps`` steps, by layer,
    of forecasts from all analyses that have a truth that late."""
    _, std = climatology(read, climate)
    starts = len(truth) - windows
    if starts <= skip:
        raise ValueError(f"forecasts of {windows} windows need more than {skip + windows} cycles, got {len(truth)}")
    state, errors = State(record.analysis[skip:starts]), []
    for lead in range(windows + 1):
        error = root_mean_square(read(state.z - truth[skip + lead : starts + lead])) / std
        errors.append(error.mean(0).tolist())
        with torch.no_grad():
            for _ in range(steps if lead < windows else 0):
                state = step(state)
    return errors


def consistency(windows: Sequence[Window], record: Record, skip: int) -> dict[str, dict[str, float]]:
    """Desroziers' ratios of each channel: ``observation`` is the observation error variance that departures imply over
    the stated one, ``innovation`` that of the innovations over the stated observation error variance; for ensembles
    ``expected`` adds the ensemble's, which should equal ``innovation``."""
    parts: dict[str, list[np.ndarray]] = {}
    for window, d in zip(windows[skip:], record.departures[skip:], strict=True):
        columns = torch.stack([d.background, d.analysis, d.spread, window.sigma]).cpu().numpy()
        channels, known = window.obs["channel"].values, names(window.obs, "channel")
        for c in np.unique(channels):
            parts.setdefault(known[c], []).append(columns[:, channels == c])
    out = {}
    for key, columns in parts.items():
        omb, oma, spread, sigma = np.concatenate(columns, 1)
        out[key] = score.desroziers(omb, oma, sigma)
        if spread.any():
            out[key]["expected"] = float(np.mean(1 + spread**2 / sigma**2))
    return out


def innovation_rms(windows: Sequence[Window], record: Record, skip: int) -> float:
    """Root mean square of observed minus background, in units of the observation error."""
    found = [d.background / w.sigma for w, d in zip(windows[skip:], record.departures[skip:], strict=True)]
    return float(torch.cat(found).pow(2).mean().sqrt()) if any(len(d) for d in found) else math.nan
