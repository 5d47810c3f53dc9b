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
from sciml.assim.network import FuXiDA, Memory
from sciml.instruments import Instrument, simulate
from sciml.nn.layers import in_bfloat16
from sciml.observations import names
from sciml.observe import Operator, Window, windows
from sciml.step import State, Step


class Truth(NamedTuple):
    """A training truth at the ends of its windows, ``(windows, n, *modes)``, and what was observed of it."""

    windows: Sequence[Window]
    ends: Tensor


def observed_truth(
    step: Step, state: State, n: int, steps: int, operator: Operator, network: Sequence[Instrument], seed: int,
    seen_by: Operator | None = None, states: Callable[[Tensor], Tensor] = lambda z: z,
) -> Truth:  # fmt: skip
    """``n`` windows of ``steps`` steps from ``state``, and what ``network`` observes of them with ``operator``.

    The model that is to assimilate them may be another one: ``seen_by`` is its operator, and ``states`` gives the truth
    as its states.
    """
    with torch.no_grad():
        whole, _ = trajectory(step, state, n * steps)
        obs = simulate(operator, network, whole, state.time, step.dt, seed)
        cut = windows(obs, seen_by or operator, state.time, step.dt, steps, n)
        return Truth(cut, states(whole[steps::steps]))


def adopt(analysis: FuXiDA, earlier: FuXiDA) -> None:
    """Start from the weights of another network of the same widths; planes that are new to it weigh nothing at first.

    Raises ``ValueError`` where the widths differ.
    """
    new, old = analysis.inputs.labels(), earlier.inputs.labels()
    known = [(new.index(label), i) for i, label in enumerate(old) if label in new]
    backgrounds = analysis.inputs.backgrounds, earlier.inputs.backgrounds
    columns = {
        "background": [(i, j) for i, j in known if i < backgrounds[0]],
        "observations": [(i - backgrounds[0], j - backgrounds[1]) for i, j in known if i >= backgrounds[0]],
        "condition": known,
    }
    with torch.no_grad():
        theirs = dict(earlier.net.named_parameters())
        for name, p in analysis.net.named_parameters():
            q = theirs.get(name)
            if q is not None and p.shape == q.shape:
                p.copy_(q)
            elif q is not None and p.ndim == 4 and p.shape[0] == q.shape[0] and name.endswith("coarsen.weight"):
                i, j = zip(*columns[name.split(".")[0]], strict=True)
                p.zero_()
                p[:, list(i)] = q[:, list(j)]
            elif name != "part":
                raise ValueError(f"the networks differ in {name}; start from one of the same widths")


@dataclass
class Cycling:
    """The objective of :func:`sciml.train.fit` for a :class:`~sciml.assim.network.FuXiDA`.

    The loss of a window is the error of the analysis plus ``forecast`` times the error of the forecast to the end of
    the next window: root mean squares of ``measures`` (functions of coefficients to fields of order 1, by level), so
    that large and small errors count alike; ``reliability`` weighs the likelihood of the stated analysis errors.

    Parameters
    ----------
    climate : states ``(samples, n, *modes)`` from which cycles start
    batch, cycles : cycles side by side, and windows through which an update is differentiated
    through : first update that is differentiated through forecasts and observation operators; those before, three
        times as fast, see each analysis (and the memory) alone, and have no forecast loss
    restart : chance that a cycle starts anew at an update
    drop : pairs of how likely a cycle is, at an update, to lose platforms in this proportion in each window
    noisier : chance of errors up to twice as large in a window
    """

    analysis: FuXiDA
    step: Step
    truths: Sequence[Truth]
    climate: Tensor
    measures: Sequence[Callable[[Tensor], Tensor]]
    batch: int = 8
    cycles: int = 4
    through: int = 0
    restart: float = 0.05
    drop: tuple[tuple[float, float], ...] = ((0.8, 0.05), (0.15, 0.5), (0.05, 1.0))
    noisier: float = 0.2
    forecast: float = 1.0
    reliability: float = 0.02
    autocast: bool = True
    seed: int = 0
    where: Tensor = field(init=False)
    """truth and next window of each cycle"""
    z: Tensor = field(init=False)
    memory: Memory | None = field(init=False)
    last: Tensor | None = field(init=False, default=None)
    """errors of the last analyses, ``(batch, n, *modes)``"""

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
        rng, whole = np.random.default_rng([self.seed, 2, update]), update >= self.through
        for i, (truth, first) in enumerate(self.where.tolist()):
            if rng.random() < self.restart or first + self.cycles > len(self.truths[truth].windows):
                self.anew(i, rng)
        chances, proportions = zip(*self.drop, strict=True)
        dropped = rng.choice(proportions, self.batch, p=chances)
        z, memory, losses = self.z, self.memory, []
        for c in range(self.cycles):
            now = [(self.truths[t], w + c) for t, w in self.where.tolist()]
            cut, ends = [t.windows[w] for t, w in now], torch.stack([t.ends[w] for t, w in now])
            with torch.set_grad_enabled(whole and torch.is_grad_enabled()):
                states, _ = trajectory(self.step, State(z), cut[0].steps)
                expected = [w.equivalents(own) for w, own in zip(cut, states.unbind(1), strict=True)]
            if c and whole:
                losses.append(self.forecast * self.error(states[-1] - ends))
            z, memory = self.analysed(cut, states, expected, dropped, memory, rng)
            losses += [self.error(z - ends), self.reliability * self.unlikeliness(z - ends, memory)]
        self.last = (z - ends).detach()
        self.where[:, 1] += self.cycles
        self.z, self.memory = z.detach(), Memory(*(m.detach() for m in memory)) if memory else None
        broken = ~torch.isfinite(torch.view_as_real(self.z)).flatten(1).all(1)
        for i in broken.nonzero()[:, 0].tolist():
            self.anew(i, rng)
        return torch.stack(losses).sum() / self.cycles

    def analysed(
        self, cut: Sequence[Window], states: Tensor, expected: Sequence[Tensor], dropped: np.ndarray, memory, rng
    ) -> tuple[Tensor, Memory]:
        """One analysis of all cycles, each with a random part of its observations."""
        inputs, cells, departures = self.analysis.inputs, [], []
        for window, equivalents, part in zip(cut, expected, dropped, strict=True):
            platforms = rng.random(len(names(window.obs, "platform"))) >= part
            keep = platforms[window.obs["platform"].values.astype(int)]
            factor = 1.0 + (rng.random() < self.noisier) * rng.random()
            d = innovations(window, equivalents)
            more = torch.as_tensor(rng.standard_normal(len(window)), dtype=d.dtype, device=d.device)
            departures.append((d + (factor**2 - 1) ** 0.5 * more) / factor)
            cells.append(inputs.cells(window, keep, factor))
        with in_bfloat16(states.device, self.autocast):
            return self.analysis.increment(states, cells, departures, memory)

    def error(self, dz: Tensor) -> Tensor:
        """Mean over measures, cycles and levels of root mean squares."""
        return torch.stack([(m(dz).square().mean((-2, -1)) + 1e-8).sqrt().mean() for m in self.measures]).mean()

    def error_by_level(self) -> Tensor:
        """Medians over the cycles of the root mean square errors of the last analyses, over the climatological standard
        deviation."""
        inputs = self.analysis.inputs
        assert self.last is not None
        return (inputs.space.read(self.last) / inputs.scale()).square().mean((-2, -1)).sqrt().median(0).values

    def unlikeliness(self, dz: Tensor, memory: Memory) -> Tensor:
        """Negative logarithm of the Gaussian likelihood of the error with the stated standard deviation."""
        std = self.analysis.inputs.scale()
        error, sigma = self.analysis.inputs.space.read(dz.detach()) / std, memory.sigma / std
        return (0.5 * (error / sigma).square() + sigma.log()).mean()

    def state(self) -> dict[str, Tensor]:
        kept = {"where": self.where, "z": self.z}
        return kept if self.memory is None else kept | {"hidden": self.memory.hidden, "sigma": self.memory.sigma}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.where, self.z = state["where"], state["z"]
        self.memory = Memory(state["hidden"], state["sigma"]) if "hidden" in state else None
