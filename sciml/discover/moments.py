"""Moments of a linear regression: all that least squares needs of any amount of data, block by block."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

MOST = 128
"""Blocks are merged in pairs of neighbours when there are more."""


@dataclass(frozen=True)
class Moments:
    """Of rows ``(x, y)``, gathered in ``B`` blocks that count as independent.

    Parameters
    ----------
    names : of the p columns of X
    n : rows of each block, ``(B,)``
    xx, xy, yy : sums of ``x x'``, ``x y`` and ``y^2``, ``(B, p, p)``, ``(B, p)`` and ``(B,)``
    """

    names: tuple[str, ...]
    n: np.ndarray
    xx: np.ndarray
    xy: np.ndarray
    yy: np.ndarray
    whole: np.ndarray
    """sums of squares of what y is a part of, such as a tendency of which y is what a model lacks, ``(B,)``"""

    def __len__(self) -> int:
        return len(self.n)

    @property
    def rows(self) -> float:
        return float(self.n.sum())

    @property
    def scale(self) -> np.ndarray:
        """Root mean square of each column."""
        return np.sqrt(np.einsum("bii->i", self.xx) / max(self.rows, 1))

    @property
    def size(self) -> float:
        """Root mean square of y."""
        return float(np.sqrt(self.yy.sum() / max(self.rows, 1)))

    def __getitem__(self, blocks) -> Moments:
        """Some of the blocks."""
        arrays = (a[blocks] for a in (self.n, self.xx, self.xy, self.yy, self.whole))
        return Moments(self.names, *arrays)

    def columns(self, chosen: Sequence[int]) -> Moments:
        """Some of the columns."""
        i = list(chosen)
        names = tuple(self.names[j] for j in i)
        return replace(self, names=names, xx=self.xx[:, i][:, :, i], xy=self.xy[:, i])

    def standardised(self) -> tuple[Moments, np.ndarray]:
        """With columns and y of root mean square 1, and what coefficients are to be multiplied with to go back."""
        s, size = np.where(self.scale > 0, self.scale, 1.0), self.size or 1.0
        xx, xy = self.xx / np.outer(s, s), self.xy / (s * size)
        return replace(self, xx=xx, xy=xy, yy=self.yy / size**2, whole=self.whole / size**2), size / s

    def less(self, bias: Moments) -> Moments:
        """With the products ``x y`` of ``bias``, from as many rows in as many blocks, taken off."""
        if self.names != bias.names or not np.array_equal(self.n, bias.n):
            raise ValueError(f"moments of {bias.rows:g} rows cannot be taken off those of {self.rows:g}")
        return replace(self, xy=self.xy - bias.xy)

    def residual(self, c: np.ndarray) -> np.ndarray:
        """Sum of ``(y - x'c)^2`` in each block."""
        return np.maximum(self.yy - 2 * self.xy @ c + self.xx @ c @ c, 0.0)


def moments(names: Sequence[str], x: np.ndarray, y: np.ndarray, whole: np.ndarray | None = None) -> Moments:
    """Of columns ``x (blocks, rows, p)`` and ``y (blocks, rows)``, a part of ``whole`` (default: y).

    Raises ``ValueError`` for shapes that do not fit and numbers that are not finite, naming the columns.
    """
    if x.ndim != 3 or x.shape[:2] != y.shape or x.shape[2] != len(names):
        raise ValueError(
            f"columns {x.shape} and values {y.shape} do not fit: (blocks, rows, {len(names)}) and (blocks, rows)"
        )
    bad = [n for i, n in enumerate(names) if not np.isfinite(x[..., i]).all()]
    if bad or not np.isfinite(y).all():
        raise ValueError(f"not finite: {', '.join(bad) or 'the values to explain'}; check the observations")
    n = np.full(len(x), float(x.shape[1]))
    xt = x.swapaxes(1, 2)
    return Moments(
        tuple(names),
        n,
        xt @ x,
        (xt @ y[..., None])[..., 0],
        (y**2).sum(1),
        ((y if whole is None else whole) ** 2).sum(1),
    )


class Gathering:
    """Blocks of a stream, merged evenly in the order in which they come where there are too many: memory does not grow
    with the data."""

    def __init__(self):
        self._kept: list[Moments] = []
        self._pending: list[Moments] = []
        self._unit = 1

    def add(self, part: Moments) -> None:
        for i in range(len(part)):
            self._pending.append(part[i : i + 1])
            if len(self._pending) == self._unit:
                self._kept.append(together(self._pending))
                self._pending = []
            if len(self._kept) > MOST:
                self._pending = self._kept[-1:] if len(self._kept) % 2 else []
                self._kept = [together(self._kept[j : j + 2]) for j in range(0, len(self._kept) - 1, 2)]
                self._unit *= 2

    def moments(self) -> Moments:
        """Of all that was added. Raises ``ValueError`` if that is nothing, or if columns differ."""
        kept = self._kept + ([together(self._pending)] if self._pending else [])
        if not kept:
            raise ValueError("there are no samples to learn from")
        if len({k.names for k in kept}) > 1:
            raise ValueError("moments of different columns cannot be added")
        arrays = zip(*((k.n, k.xx, k.xy, k.yy, k.whole) for k in kept), strict=True)
        return Moments(kept[0].names, *(np.concatenate(a) for a in arrays))


def gathered(parts: Iterable[Moments]) -> Moments:
    """All blocks of a stream in one: see :class:`Gathering`."""
    gathering = Gathering()
    for part in parts:
        gathering.add(part)
    return gathering.moments()


def instrumented(m: Moments) -> Moments:
    r"""Two-stage least squares: of columns :math:`[X, Z]` those of X, as far as instruments Z determine them,

    .. math:: \hat X = Z (Z'Z)^{-1} Z'X .

    Where the errors of Z have nothing to do with those of X and y, these make no bias (Wooldridge 2010, Econometric
    Analysis, chapter 5).
    """
    p = len(m.names) // 2
    z, size = slice(p, None), np.where(m.scale > 0, m.scale, 1.0)
    xx = m.xx.sum(0) / np.outer(size, size)  # in SI units columns are 40 orders of magnitude apart
    first = np.linalg.pinv(xx[z, z], rcond=1e-13, hermitian=True) @ xx[z, :p] * size[:p] / size[z, None]
    return replace(m, names=m.names[:p], xx=first.T @ m.xx[:, z, :p], xy=m.xy[:, z] @ first)


def together(parts: Sequence[Moments]) -> Moments:
    """One block of several moments of the same columns."""
    if len({p.names for p in parts}) > 1:
        raise ValueError("moments of different columns cannot be added")
    sums = (sum(a.sum(0, keepdims=True) for a in arrays)
            for arrays in zip(*((p.n, p.xx, p.xy, p.yy, p.whole) for p in parts), strict=True))  # fmt: skip
    return Moments(parts[0].names, *sums)  # type: ignore[arg-type]


def check(m: Moments, tolerance: float = 1e-9) -> None:
    """Raise ``ValueError`` for columns that vanish or depend on each other, naming them, and for too few rows."""
    if m.rows < 2 * len(m.names):
        raise ValueError(f"{m.rows:g} rows cannot determine {len(m.names)} coefficients; give more samples")
    scale = m.scale
    if zero := [n for n, s in zip(m.names, scale, strict=True) if s == 0]:
        raise ValueError(f"the columns {', '.join(zero)} vanish; leave them out")
    gram = m.xx.sum(0) / m.rows / np.outer(scale, scale)
    values, vectors = np.linalg.eigh(gram)
    if values[0] < tolerance * values[-1]:
        names = [m.names[i] for i in np.flatnonzero(np.abs(vectors[:, 0]) > 0.05)]
        raise ValueError(f"the columns {', '.join(names)} are linearly dependent; leave one of them out")
