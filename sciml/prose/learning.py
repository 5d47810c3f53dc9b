"""What PROSE minimises: relative error of its values, and the cross-entropy of the tokens it writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sciml.nn.prose import Prose
from sciml.prose.symbols import Symbols
from sciml.prose.trajectories import Trajectories, with_noise
from sciml.prose.windows import Samples, Windows
from sciml.train import share


class Corpus(Protocol):
    """Samples to learn from, with their equations in a table of symbols."""

    symbols: Symbols

    def __len__(self) -> int: ...

    def draw(self, indices: Tensor, generator: torch.Generator) -> tuple[Samples, Tensor]:
        """Samples of these indices, and the number of the equation of each."""
        ...


class Course:
    """Windows of trajectories with noise on what is seen, some of them shortened, and random times to predict.

    Parameters
    ----------
    noise : of the input, relative to each trajectory
    noisy_targets : noise on what is to be predicted as well, the convention of the published scores
    shortened : share of the windows of which only the last quarter to all is seen
    asked : number of times to predict, drawn for every batch; all of them where it is 0
    """

    def __init__(
        self, runs: Trajectories, symbols: Symbols, windows: Windows, *, noise: float = 0.02,
        noisy_targets: bool = False, shortened: float = 0.2, asked: int = 32,
    ):  # fmt: skip
        if not bool(torch.isfinite(runs.u).all()):
            raise ValueError("some trajectories are not finite; generate them again with a smaller bound")
        self.runs, self.symbols, self.windows = runs, symbols, windows
        self.noise, self.noisy_targets, self.shortened, self.asked = noise, noisy_targets, shortened, asked

    def __len__(self) -> int:
        return len(self.runs)

    def draw(self, indices: Tensor, generator: torch.Generator) -> tuple[Samples, Tensor]:
        w, t, u = self.windows, self.runs.t, self.runs.u[indices]
        noisy = with_noise(u, self.noise, generator)
        tokens = None
        if self.shortened:
            n = w.points // w.group
            fewer = torch.randint(n // 4, n + 1, (len(u),), generator=generator, device=u.device)
            drawn = torch.rand(len(u), generator=generator, device=u.device)
            tokens = torch.where(drawn < self.shortened, fewer, n)
        data, seen, scale = w.see(t[: w.points], noisy[:, : w.points], tokens)
        times = torch.arange(w.points, len(t), device=u.device)
        if self.asked:
            times = times[torch.randperm(len(times), generator=generator, device=u.device)[: self.asked]]
        answers = (noisy if self.noisy_targets else u)[:, times]
        queries = w.ask(t[times]).expand(len(u), -1, -1)
        return Samples(data, seen, queries, answers, scale), self.runs.equation[indices]


class Teaching:
    """The objective of :func:`sciml.train.fit`: ``weight * relative squared error + cross-entropy``.

    Parameters
    ----------
    guesses : probabilities that the network is told the equation, its skeleton, a corrupted one, or nothing
    weight : of the error of values (6 in arXiv 2309.16816, 5 in 2404.12355)
    symbolic : weight of the cross-entropy; 0 makes a network that predicts values only
    parts : a batch is sorted by the length of equations and cut into so many parts, which saves padding
    """

    def __init__(
        self, net: Prose, corpus: Corpus, *, batch: int = 64, guesses: Sequence[float] = (0.2, 0.2, 0.3, 0.3),
        weight: float = 6.0, symbolic: float = 1.0, parts: int = 2, seed: int = 0, bfloat16: bool = True,
    ):  # fmt: skip
        if len(corpus) == 0:
            raise ValueError("there is nothing to learn from; generate trajectories first")
        self.net, self.corpus, self.batch, self.weight, self.symbolic = net, corpus, batch, weight, symbolic
        self.parts, self.seed, self.bfloat16 = parts, seed, bfloat16
        self.device = corpus.symbols.written.device
        self.guesses = torch.tensor(guesses, device=self.device)

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        pass

    def __call__(self, update: int) -> Tensor:
        rank, ranks = share()
        generator = torch.Generator(self.device).manual_seed((self.seed << 32) + update * ranks + rank)
        indices = torch.randint(len(self.corpus), (self.batch,), generator=generator, device=self.device)
        samples, equation = self.corpus.draw(indices, generator)
        guess = torch.multinomial(self.guesses, self.batch, replacement=True, generator=generator)
        variant = torch.randint(1 << 20, (self.batch,), generator=generator, device=self.device)
        order = self.corpus.symbols.lengths[equation].argsort()
        losses = [
            self.loss(Samples(*(s[rows] for s in samples)), equation[rows], guess[rows], variant[rows])
            for rows in order.chunk(self.parts)
        ]
        return torch.stack(losses).mean()

    def loss(self, samples: Samples, equation: Tensor, guess: Tensor, variant: Tensor) -> Tensor:
        told = self.corpus.symbols.told(equation, guess, variant)
        given, following = self.corpus.symbols.target(equation)
        with torch.autocast(told.device.type, torch.bfloat16, enabled=self.bfloat16):
            fused, mask = self.net.encode(samples.data, samples.seen, told)
            values = self.net.values(fused, mask, samples.queries).float()
            logits = self.net.logits(fused, mask, given) if self.symbolic else None
        error = relative_square(values * samples.scale, samples.answers).mean()
        if logits is None:
            return self.weight * error
        return self.weight * error + self.symbolic * F.cross_entropy(
            logits.flatten(0, 1), following.flatten(), ignore_index=0
        )


def relative_square(values: Tensor, truth: Tensor) -> Tensor:
    """``||v - u||^2 / (||u||^2 + 1e-5)`` of each sample; Liu et al. (2023), section 3.3."""
    axes = tuple(range(1, truth.ndim))
    return (values - truth).square().sum(axes) / (truth.square().sum(axes) + 1e-5)
