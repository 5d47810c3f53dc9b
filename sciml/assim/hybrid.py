r"""A network and a classical method together: the hybrid gain of Penny (2014, MWR 142, 2031).

Both make an analysis of the same background, and their means are weighted:

.. math:: \bar x_a = (1 - w) \bar x_{classical} + w x_{network}

The network keeps a small ensemble, whose own mean is poor, from diverging; the ensemble's anomalies know what the flow
makes of errors. Of 4D-Var a few iterations are enough: what they leave is another error than the network's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from sciml.assim.base import Analysed, mean_of
from sciml.observe import Window
from sciml.step import State, Step


class Memory(NamedTuple):
    """Of both parts."""

    classical: Any
    network: Any


@dataclass(frozen=True)
class Hybrid:
    """A classical analysis whose mean is drawn to that of a method with one state.

    Parameters
    ----------
    classical : analysis of an ensemble, such as :class:`~sciml.assim.local.LETKF`, or of one state, such as
        :class:`~sciml.assim.variational.FourDVar`
    network : analysis of one state, such as :class:`~sciml.assim.network.FuXiDA`
    weight : of the network, 0 to 1
    """

    classical: Callable[..., Analysed]
    network: Callable[..., Analysed]
    weight: float = 0.5

    def __post_init__(self):
        if not 0 <= self.weight <= 1:
            raise ValueError(f"the weight of the network must be from 0 to 1, got {self.weight}")

    def __call__(self, background: State, window: Window, step: Step, memory: Memory | None = None) -> Analysed:
        kept = memory or Memory(None, None)
        found = self.classical(background, window, step, kept.classical)
        ensemble = background.z.ndim > 3
        one = self.network(mean_of(background) if ensemble else background, window, step, kept.network)
        z = found.state.z
        shift = self.weight * (one.state.z - (z.mean(0) if ensemble else z))
        state, both = found.state._replace(z=z + shift), Memory(found.memory, one.memory)
        unknown = torch.full_like(one.background_equivalents, torch.nan)  # the weighted mean has no trajectory
        return found._replace(state=state, memory=both, analysis_equivalents=unknown)
