"""What observations cannot be: rules on plain arrays, of which :func:`sciml.observations.check` makes flags."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np

FILLS = (-99.9, -99.99, -999.0, -999.9, -9999.0, -9999.9, -99999.0, -999999.0, -32768.0, -32767.0, -2147483648.0,
         9999.0, 99999.0, 32767.0, 214748.3647)  # fmt: skip
"""Numbers that stand for nothing even where a file does not say so."""
LIMITS = {"m": (-150.0, 150.0), "K": (2.0, 400.0), "m s-1": (-100.0, 100.0)}
"""Of sea level, temperatures and currents on Earth, by unit (or a hundred sigmas, if these are more); channels whose
median is beyond them, such as depths, have none. Differences of K may be negative."""
GROSS, FEW = 20.0, 10
"""Robust standard deviations from the median beyond which a value is a gross error; fewer values are not judged."""
REPEATED = 0.1
"""Share of a channel from which on one number, far from all others, stands for nothing"""


def impossible(value: np.ndarray, sigma: np.ndarray, unit: str) -> np.ndarray:
    """Where values of a channel are :data:`FILLS`, or beyond the :data:`LIMITS` of its unit."""
    with np.errstate(invalid="ignore", over="ignore"):
        out = np.isin(value.astype(np.float32), np.array(FILLS, np.float32)) | (np.abs(value) >= 1e10)
        there = value[np.isfinite(value) & ~out]
        low, high = LIMITS.get(unit, (-np.inf, np.inf))
        if not there.size or abs(np.median(there)) > high:
            return out
        if unit == "K" and not np.quantile(there, 0.9) > 50:
            low = -high  # differences
        return out | (value > np.fmax(high, 100 * sigma)) | (value < (low if low > 0 else -np.fmax(-low, 100 * sigma)))


def repeated(value: np.ndarray, gross: float = GROSS) -> np.ndarray:
    """Where values are one number, many times, that is ``gross`` robust standard deviations from the others: fills that
    nothing declares, which may be more than what is measured."""
    out = np.zeros(value.shape, bool)
    while True:
        numbers, count = np.unique(value[~out], return_counts=True)
        if not numbers.size or count.max() < max(FEW, REPEATED * value.size):
            return out
        own = value == numbers[count.argmax()]
        rest = value[~out & ~own]
        if rest.size < FEW:
            return out
        spread = 1.4826 * float(np.median(np.abs(rest - np.median(rest))))
        if not abs(numbers[count.argmax()] - np.median(rest)) > gross * spread > 0:
            return out
        out |= own


def outlying(value: np.ndarray, sigma: np.ndarray, gross: float = GROSS) -> np.ndarray:
    """Where values are more than ``gross`` robust standard deviations (or typical sigmas) from their median; where most
    are one number, such as no rain, the deviations of the others count, if they are not :data:`FEW`."""
    off = np.abs(value - np.median(value))
    others = off[off > 0]
    spread = np.median(others if others.size >= FEW and not np.median(off) else off)
    return off > gross * max(1.4826 * float(spread), float(np.median(sigma)))


def ascending(times: np.ndarray) -> np.ndarray:
    """Places of a longest part of a series that never falls (Fredman 1975): the others are the fewest to leave out."""
    if not times.size or bool(np.all(times[1:] >= times[:-1])):
        return np.arange(times.size)
    ends: list[Any] = []
    last, before = [], np.full(times.size, -1)
    for i, t in enumerate(times.tolist()):
        k = bisect_right(ends, t)
        before[i] = last[k - 1] if k else -1
        ends[k : k + 1], last[k : k + 1] = [t], [i]
    chain = [last[-1]]
    while before[chain[-1]] >= 0:
        chain.append(int(before[chain[-1]]))
    return np.array(chain[::-1])
