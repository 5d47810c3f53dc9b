"""What PROSE minimises: relative error of its values, and the cross-entropy of the tokens it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sciml.nn.layers import in_bfloat16
from sciml.nn.prose import Transformer
from sciml.prose.symbols import Symbols
from sciml.prose.trajectories import with_noise
from sciml.prose.windows import Samples, View
from sciml.train import share


class Corpus(Protocol):
    """Samples to learn from, with their equations in a table of symbols."""

    symbols: Symbols

    def __len__(self) -> int: ...

    def draw(self, indices: Tensor, generator: torch.Generator) -> tuple[Samples, Tensor]:
        """Samples of these indices, and the number of the equation of each."""
        ...


Turn = Callable[[Tensor, Tensor | None, Tensor, torch.Generator], tuple[Tensor, Tensor | None]]


class Course:
    """Windows of runs ``u (N, T, ...)`` with noise on what is seen, some of them shortened, and times to predict.

    Parameters
    ----------
    t, u, equation : times ``(T,)``, runs, and the number of each run's equation ``(N,)`` in ``symbols``
    context : what is known of each equation beside the runs, such as a map of topography
    noise : of the input, relative to each run
    noisy_targets : noise on what is to be predicted as well, the convention of the published scores
    shortened : share of the windows of which only the last quarter to all is seen
    asked : number of times to predict, drawn for every batch; all of them where it is 0
    turn : ``(u, context, equation, generator) -> u, context``, a symmetry of the equations drawn at random
    named : whether each equation depends on its context; the others are shown that of an equation drawn at random, so
        that no network can know them by it
    """

    def __init__(
        self, t: Tensor, u: Tensor, equation: Tensor, symbols: Symbols, view: View, *, context: Tensor | None = None,
        noise: float = 0.02, noisy_targets: bool = False, shortened: float = 0.2, asked: int = 32,
        turn: Turn | None = None, named: Tensor | None = None,
    ):  # fmt: skip
        if not bool(torch.isfinite(u).all()):
            raise ValueError("some runs are not finite; generate them again with a smaller bound")
        if len(t) <= view.points:
            raise ValueError(f"runs of {len(t)} times leave nothing to predict after the {view.points} that are seen")
        self.t, self.u, self.equation, self.symbols, self.view, self.context = t, u, equation, symbols, view, context
        self.noise, self.noisy_targets, self.shortened = noise, noisy_targets, shortened
        self.asked, self.turn, self.named = asked, turn, named

    def __len__(self) -> int:
        return len(self.u)

    def draw(self, indices: Tensor, generator: torch.Generator) -> tuple[Samples, Tensor]:
        view, u, equation = self.view, self.u[indices], self.equation[indices]
        context = None if self.context is None else self.context[self._shown(equation, len(self.context), generator)]
        if self.turn is not None:
            u, context = self.turn(u, context, equation, generator)
        noisy = with_noise(u.flatten(2), self.noise, generator).view_as(u)
        times = self._times(generator)
        window, t = noisy[:, : view.points], self.t[: view.points]
        data, seen, scale = view.see(t, window, self._tokens(window, generator), context)
        answers = view.answers((noisy if self.noisy_targets else u)[:, times])
        return Samples(data, seen, view.ask(self.t[times], window, context), answers, scale), equation

    def _shown(self, equation: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Of ``n`` contexts, the number of the one that each sample is shown."""
        if self.named is None:
            return equation
        drawn = torch.randint(n, equation.shape, generator=generator, device=equation.device)
        return torch.where(self.named[equation], equation, drawn)

    def _times(self, generator: torch.Generator) -> Tensor:
        first, device = self.view.points, self.u.device
        if not self.asked:
            return torch.arange(first, len(self.t), device=device)
        drawn = torch.randperm(len(self.t) - first, generator=generator, device=device)
        return first + drawn[: self.asked]

    def _tokens(self, window: Tensor, generator: torch.Generator) -> Tensor | None:
        """How many of the last tokens of each window are seen."""
        if not self.shortened:
            return None
        n = self.view.steps
        fewer = torch.randint(max(1, n // 4), n + 1, (len(window),), generator=generator, device=window.device)
        drawn = torch.rand(len(window), generator=generator, device=window.device)
        return torch.where(drawn < self.shortened, fewer, n)


class Teaching:
    """The objective of :func:`sciml.train.fit`: ``weight * relative squared error + cross-entropy``.

    A batch is sorted by the length of equations and cut into parts, each with tokens of its own number, which saves
    half of the padding.

    Parameters
    ----------
    guesses : probabilities that the network is told the equation, its skeleton, a corrupted one, or nothing
    weight : of the error of values (6 in arXiv 2309.16816, 5 in 2404.12355)
    symbolic : weight of the cross-entropy; 0 makes a network that predicts values only
    every : tokens are written for every so many of the samples only, as they take most of the time
    parts : share of the batch in each part
    """

    def __init__(
        self, net: Transformer, corpus: Corpus, *, batch: int = 64, guesses: Sequence[float] = (0.2, 0.2, 0.3, 0.3),
        weight: float = 6.0, symbolic: float = 1.0, every: int = 1, parts: Sequence[float] = (0.7, 0.3), seed: int = 0,
        bfloat16: bool = True,
    ):  # fmt: skip
        if len(corpus) == 0:
            raise ValueError("there is nothing to learn from; generate data first")
        self.net, self.corpus, self.batch, self.weight, self.symbolic = net, corpus, batch, weight, symbolic
        self.seed, self.bfloat16, self.every = seed, bfloat16, every
        self.device = corpus.symbols.written.device
        self.guesses = torch.tensor(guesses, device=self.device)
        self.parts = parts_of(corpus.symbols.lengths, batch, parts, net.config.length)

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        pass

    def __call__(self, update: int) -> Tensor:
        rank, ranks = share()
        generator = torch.Generator(self.device).manual_seed(mixed(self.seed, update * ranks + rank))
        indices = torch.randint(len(self.corpus), (self.batch,), generator=generator, device=self.device)
        samples, equation = self.corpus.draw(indices, generator)
        guess = torch.multinomial(self.guesses, self.batch, replacement=True, generator=generator)
        variant = torch.randint(1 << 20, (self.batch,), generator=generator, device=self.device)
        order, symbols, losses = self.corpus.symbols.lengths[equation].argsort(), self.corpus.symbols, []
        for rows, (n, length) in zip(order.split([n for n, _ in self.parts]), self.parts, strict=True):
            told = symbols.told(equation[rows], guess[rows], variant[rows], length if self.symbolic else 1)
            own = Samples(*(s[rows] for s in samples))
            losses.append(n / self.batch * self.loss(own, told, *symbols.target(equation[rows], length)))
        return torch.stack(losses).sum()

    def loss(self, own: Samples, told: Tensor, given: Tensor, following: Tensor) -> Tensor:
        with in_bfloat16(told.device, self.bfloat16):
            fused, mask = self.net.encode(own.data, own.seen, told)
            values = self.net.values(fused, mask, own.queries).float()
            some = slice(None, None, self.every)
            logits = self.net.logits(fused[some], mask[some], given[some]) if self.symbolic else None
        error = self.weight * relative_square(values * own.scale, own.answers).mean()
        if logits is None:
            return error
        following = following[some].flatten()
        return error + self.symbolic * F.cross_entropy(logits.flatten(0, 1), following, ignore_index=0)


def parts_of(lengths: Tensor, batch: int, shares: Sequence[float], longest: int) -> list[tuple[int, int]]:
    """Number of samples and of tokens in each part of a sorted batch: what its share of the equations needs, and a
    tenth more of them, so that hardly any is cut."""
    if abs(sum(shares) - 1) > 1e-6 or min(shares) <= 0:
        raise ValueError(f"the shares of the parts must be positive and add up to 1, got {tuple(shares)}")
    counts = [round(batch * s) for s in shares[:-1]]
    counts, ordered, upto, out = [*counts, batch - sum(counts)], lengths.sort().values, 0.0, []
    for count, own in zip(counts, shares, strict=True):
        upto += own
        at = min(int(len(ordered) * (upto + 0.1)), len(ordered) - 1)
        out.append((count, min(-(-(int(ordered[at]) + 1) // 8) * 8, longest)))
    return [(n, length) for n, length in out if n]


def relative_square(values: Tensor, truth: Tensor) -> Tensor:
    """``||v - u||^2 / (||u||^2 + 1e-5)`` of each sample; Liu et al. (2023), section 3.3."""
    axes = tuple(range(1, truth.ndim))
    return (values - truth).square().sum(axes) / (truth.square().sum(axes) + 1e-5)


def mixed(*numbers: int) -> int:
    """A seed of 32 bits, which is what generators of a CPU take, from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
