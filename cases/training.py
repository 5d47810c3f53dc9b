"""Training within a case: one loop with a log that a resumed training goes on with, its picture, averaged weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import Refused
from torch import nn

from sciml import plot
from sciml.files import load_tensors, refusing, replacing
from sciml.train import Objective, fit, share

SHOWN = "training loss"


def taught(
    net: nn.Module, objective: Objective, updates: int, out: Path, *, name: str = "training",
    measured: Callable[[], Mapping[str, float]] = dict, seconds: float | None = None, shown: str = SHOWN,
    labels: Mapping[str, str] | None = None, **options: Any,
) -> dict[str, float]:  # fmt: skip
    """Train, from ``name``.checkpoint in ``out`` if it is there, and leave the averaged weights in ``net``.

    ``measured`` is called at each line of the log ``name``.csv (update, loss, seconds of the process, and these); the
    columns that ``labels`` names are drawn in ``name``.png. ``seconds`` by the clock, where given, end the training
    instead of ``updates``. Returns the last line, with all updates.
    """
    if seconds and share()[1] > 1:
        raise Refused("several processes have several clocks: give --updates instead of --minutes")
    log, checkpoint, started = out / f"{name}.csv", out / f"{name}.checkpoint", time.process_time()
    done = load_tensors(checkpoint)[1]["update"] if checkpoint.exists() else 0
    rows = [r for r in read(log) if r["update"] <= done]
    before = rows[-1]["seconds"] if rows else 0.0

    def note(update: int, loss: float) -> None:
        spent = before + time.process_time() - started
        rows.append({"update": update, "loss": loss, "seconds": spent, **measured()})
        lines = [",".join(rows[0]), *(",".join(f"{v:.7g}" for v in row.values()) for row in rows)]
        with replacing(log) as partial:
            partial.write_text("\n".join(lines) + "\n")

    clock = elapsed(seconds or math.inf)

    def part(update: int) -> float:
        nonlocal done
        done = update
        return clock(update)

    limit = {} if seconds is None else {"done": part}
    averaged = fit(net, objective, 10**7 if seconds else updates, checkpoint=checkpoint, log=note, **limit, **options)
    net.load_state_dict(averaged, strict=False)
    net.eval()
    columns = labels or {"loss": name}
    if rows:
        values = np.array([[row[c] for c in columns] for row in rows])
        figure = plot.series([row["update"] for row in rows], values, list(columns.values()), shown, "update")
        plot.save(figure, out / f"{name}.png")
    return (rows[-1] if rows else {"loss": math.nan}) | {"updates": done if seconds else updates}


def elapsed(seconds: float) -> Callable[[int], float]:
    """Which part of ``seconds`` has passed since it was first asked."""
    began: list[float] = []

    def part(update: int) -> float:
        began.append(time.monotonic())
        return (began[-1] - began[0]) / seconds

    return part


def read(log: Path) -> list[dict[str, float]]:
    """Rows of a log, none where there is none."""
    if not log.exists():
        return []
    with refusing(log):
        first, *lines = log.read_text().splitlines()
        return [dict(zip(first.split(","), map(float, line.split(",")), strict=True)) for line in lines]
