r"""A network together with a classical method.

With a small ensemble, the hybrid gain of Penny (2014, MWR 142, 2031): the ensemble's filter gives anomalies and an
analysis of its mean, the network another analysis of the same mean:

.. math:: \bar x_a = (1 - w) \bar x_{filter} + w x_{network}

The network keeps a few members, whose own mean is poor, from diverging; their anomalies know what the flow makes of
errors.

With 4D-Var: a few iterations from the network's analysis, which is their background, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from sciml.assim.base import Analysed, mean_of
from sciml.assim.variational import FourDVar, Past
from sciml.observe import Window
from sciml.step import State, Step


class Memory(NamedTuple):
    """Of both parts."""

    filter: Any
    network: Any


@dataclass(frozen=True)
class Hybrid:
    """Analysis of an ensemble whose mean is drawn to that of a method with one state.

    Parameters
    ----------
    filter : analysis of an ensemble, such as :class:`~sciml.assim.local.LETKF`
    network : analysis of one state, such as :class:`~sciml.assim.network.FuXiDA`
    weight : of the network, 0 to 1
    """

    filter: Callable[..., Analysed]
    network: Callable[..., Analysed]
    weight: float = 0.5

    def __post_init__(self):
        if not 0 <= self.weight <= 1:
            raise ValueError(f"the weight of the network must be from 0 to 1, got {self.weight}")

    def __call__(self, background: State, window: Window, step: Step, memory: Memory | None = None) -> Analysed:
        kept = memory or Memory(None, None)
        many = self.filter(background, window, step, kept.filter)
        one = self.network(mean_of(background), window, step, kept.network)
        shift = self.weight * (one.state.z - many.state.z.mean(0))
        state = many.state._replace(z=many.state.z + shift)
        return many._replace(state=state, memory=Memory(many.memory, one.memory))


class Cycled(NamedTuple):
    """What a network's own cycle and 4D-Var behind it keep."""

    state: State
    """the network's analysis"""
    network: Any
    past: Past


@dataclass(frozen=True)
class LearnedStart:
    """4D-Var whose background is the analysis that a network made at the start of the assimilated windows.

    The network cycles on its own, so that its analyses have seen earlier observations only and none counts twice.

    Parameters
    ----------
    variational : 4D-Var with the covariance of the errors of the network's analyses
    network : analysis of one state, such as :class:`~sciml.assim.network.FuXiDA`
    """

    variational: FourDVar
    network: Callable[..., Analysed]

    def __call__(self, background: State, window: Window, step: Step, memory: Cycled | None = None) -> Analysed:
        start, kept, past = memory or (background, None, None)
        one = self.network(start, window, step, kept)
        found = self.variational(start, window, step, past)
        return found._replace(memory=Cycled(one.state, one.memory, found.memory))
