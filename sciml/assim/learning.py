"""Training an analysis through its own cycles (Bocquet et al. 2024, arXiv 2408.04739; Xu et al. 2025 for the losses).

Many cycles run side by side on training truths; an update takes each of them some windows further, and the error is
differentiated through networks, model forecasts and observation operators of all of these (truncated back-propagation).
The states live on from update to update, so that the network learns from the errors that it makes itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sciml.assim.base import innovations, trajectory
from sciml.assim.network import Memory, NetworkAnalysis
from sciml.observations import names
from sciml.observe import Window
from sciml.step import State, Step


class Truth(NamedTuple):
    """A training truth at the ends of its windows, ``(windows, n, *modes)``, and what was observed of it."""

    windows: Sequence[Window]
    ends: Tensor


@dataclass
class Cycling:
    """The objective of :func:`sciml.train.fit` for a :class:`~sciml.assim.network.NetworkAnalysis`.

    The loss of a window is the error of the analysis plus ``forecast`` times the error of the forecast to the end of
    the next window: root mean squares of ``measures`` (functions of coefficients to fields of order 1, by level), so
    that large and small errors count alike; ``reliability`` weighs the likelihood of the stated analysis errors.

    Parameters
    ----------
    climate : states ``(samples, n, *modes)`` from which cycles start
    batch, cycles : cycles side by side, and windows through which an update is differentiated
    restart : chance that a cycle starts anew at an update
    drop, noisier : chance that a platform is left out of a window, and of errors up to twice as large
    """

    analysis: NetworkAnalysis
    step: Step
    truths: Sequence[Truth]
    climate: Tensor
    measures: Sequence[Callable[[Tensor], Tensor]]
    batch: int = 8
    cycles: int = 4
    restart: float = 0.05
    drop: float = 0.1
    noisier: float = 0.2
    forecast: float = 1.0
    reliability: float = 0.02
    autocast: bool = True
    seed: int = 0
    where: Tensor = field(init=False)
    """truth and next window of each cycle"""
    z: Tensor = field(init=False)
    memory: Memory | None = field(init=False)

    def __post_init__(self):
        lengths = [len(t.windows) for t in self.truths]
        if not lengths or min(lengths) < self.cycles + 1:
            raise ValueError(f"training truths need more than {self.cycles} windows, got {lengths}")
        rng = np.random.default_rng([self.seed, 1])
        self.where = torch.zeros(self.batch, 2, dtype=torch.int64)
        self.z = self.climate[torch.zeros(self.batch, dtype=torch.int64)].clone()
        self.memory = None
        for i in range(self.batch):
            self.anew(i, rng)

    def anew(self, i: int, rng: np.random.Generator) -> None:
        """Start cycle i again, somewhere else."""
        truth = int(rng.integers(len(self.truths)))
        self.where[i] = torch.tensor([truth, int(rng.integers(len(self.truths[truth].windows) - self.cycles))])
        self.z[i] = self.climate[int(rng.integers(len(self.climate)))]
        if self.memory is not None:
            self.memory.hidden[i] = 0

    def __call__(self, update: int) -> Tensor:
        rng = np.random.default_rng([self.seed, 2, update])
        for i, (truth, first) in enumerate(self.where.tolist()):
            if rng.random() < self.restart or first + self.cycles > len(self.truths[truth].windows):
                self.anew(i, rng)
        z, memory, losses = self.z, self.memory, []
        for c in range(self.cycles):
            now = [(self.truths[t], w + c) for t, w in self.where.tolist()]
            windows, ends = [t.windows[w] for t, w in now], torch.stack([t.ends[w] for t, w in now])
            states, _ = trajectory(self.step, State(z), windows[0].steps)
            if c:
                losses.append(self.forecast * self.error(states[-1] - ends))
            z, memory = self.analysed(windows, states, memory, rng)
            losses += [self.error(z - ends), self.reliability * self.unlikeliness(z - ends, memory)]
        self.where[:, 1] += self.cycles
        self.z, self.memory = z.detach(), Memory(*(m.detach() for m in memory)) if memory else None
        broken = ~torch.isfinite(torch.view_as_real(self.z)).flatten(1).all(1)
        for i in broken.nonzero()[:, 0].tolist():
            self.anew(i, rng)
        return torch.stack(losses).sum() / self.cycles

    def analysed(self, windows: Sequence[Window], states: Tensor, memory, rng) -> tuple[Tensor, Memory]:
        """One analysis of all cycles, each with a random part of its observations."""
        inputs, cells, departures = self.analysis.inputs, [], []
        for i, window in enumerate(windows):
            keep, factor = self.kept(window, rng), 1.0 + (rng.random() < self.noisier) * rng.random()
            d = innovations(window, window.equivalents(states[:, i]))
            more = torch.as_tensor(rng.standard_normal(len(window)), dtype=d.dtype, device=d.device)
            departures.append((d + (factor**2 - 1) ** 0.5 * more) / factor)
            cells.append(inputs.cells(window, keep, factor))
        with torch.autocast(states.device.type, torch.bfloat16, enabled=self.autocast):
            return self.analysis.increment(states, cells, departures, memory)

    def kept(self, window: Window, rng: np.random.Generator) -> np.ndarray:
        """Which observations a random network of platforms has."""
        platforms = names(window.obs, "platform")
        return (rng.random(len(platforms)) >= self.drop)[window.obs["platform"].values.astype(int)]

    def error(self, dz: Tensor) -> Tensor:
        """Mean over measures, cycles and levels of root mean squares."""
        return torch.stack([(m(dz).square().mean((-2, -1)) + 1e-8).sqrt().mean() for m in self.measures]).mean()

    def unlikeliness(self, dz: Tensor, memory: Memory) -> Tensor:
        """Negative logarithm of the Gaussian likelihood of the error with the stated standard deviation."""
        std = self.analysis.inputs.std[:, None, None]
        error, sigma = self.analysis.inputs.space.read(dz.detach()) / std, memory.sigma / std
        return (0.5 * (error / sigma).square() + sigma.log()).mean()

    def state(self) -> dict[str, Tensor]:
        kept = {"where": self.where, "z": self.z}
        return kept if self.memory is None else kept | {"hidden": self.memory.hidden, "sigma": self.memory.sigma}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.where, self.z = state["where"], state["z"]
        self.memory = Memory(state["hidden"], state["sigma"]) if "hidden" in state else None
