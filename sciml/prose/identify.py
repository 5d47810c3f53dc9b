"""From what the network writes to fitted equations: candidates of many windows, the best of each after refinement."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.equation.expression import Expr
from sciml.prose.model import Written
from sciml.prose.rank import fit_each, information
from sciml.prose.refine import Refined, freed
from sciml.prose.scoring import readable
from sciml.prose.smoothing import smoothed

System = tuple[Expr, ...]


def candidates(written: Sequence[Written], dim: int) -> list[System]:
    """Equations of ``dim`` components that were written for one window, of different structures, best first."""
    found: dict[System, System] = {}
    for w in written:
        if (system := readable(w.tokens, dim)) is not None:
            found.setdefault(freed(system)[0], system)
    return list(found.values())


def best_fits(choices: Sequence[Sequence[System]], t: Tensor, u: Tensor, **options) -> list[Refined | None]:
    """The fit of lowest :func:`~sciml.prose.rank.information` to each window of u ``(B, n, D)``; None without any that
    can be fitted.

    All candidates of all windows are fitted, those of one structure together; ``options`` are those of
    :func:`~sciml.prose.refine.fit`. The size of the noise is estimated once for each window
    (:func:`~sciml.prose.smoothing.smoothed`), so that misfits can be compared.
    """
    flat = [(b, system) for b, mine in enumerate(choices) for system in mine]
    index = torch.tensor([b for b, _ in flat], dtype=torch.long, device=u.device)
    u, t = u.double(), t.double()
    sigma = smoothed(t, u)[1][:, 0]
    fits = fit_each([system for _, system in flat], t, u[index], sigma[index], **options)
    best: list[Refined | None] = [None] * len(choices)
    for (b, _), one in zip(flat, fits, strict=True):
        known = best[b]
        if information(one)[0].isinf():
            continue
        if known is None or information(one)[0] < information(known)[0]:
            best[b] = one
    return best
