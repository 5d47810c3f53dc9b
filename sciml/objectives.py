"""What training minimises: errors of maps from fields to fields, and of emulators over several of their own steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from sciml.files import digest
from sciml.losses import Loss, relative_l2
from sciml.nn.layers import in_bfloat16
from sciml.step import Step
from sciml.surrogate import Learned, Surrogate, Windows, often
from sciml.train import Tensors, fit, share


def drawn(seed: int, update: int, n: int, batch: int) -> np.ndarray:
    """Samples of an update: n of them are used once before any is used again, in an order from ``seed``."""
    places = np.arange(update * batch, (update + 1) * batch)
    orders = {e: np.random.default_rng([seed, int(e)]).permutation(n) for e in np.unique(places // n)}
    return np.array([orders[p // n][p % n] for p in places])


def checked(losses: Tensor, update: int, samples: Sequence[int]) -> Tensor:
    """Their mean; ``FloatingPointError`` that names update and samples where one is not finite."""
    if not bool(torch.isfinite(losses).all()):
        broken = [int(s) for s, ok in zip(samples, torch.isfinite(losses), strict=True) if not ok]
        shown = ", ".join(map(str, broken[:8])) + (" and others" if len(broken) > 8 else "")
        raise FloatingPointError(
            f"the loss of update {update} is not finite (samples {shown}): look at these, or use a smaller lr"
        )
    return losses.mean()


@dataclass
class Supervised:
    """The objective of :func:`sciml.train.fit` for pairs of fields ``x (n, inputs, ...) -> y (n, outputs, ...)``.

    The loss is of fields in their own units if ``unscaled``, otherwise of the network's outputs. ``autocast`` computes
    convolutions in bfloat16, where the processor can. The order of samples follows from ``seed`` and the update.
    """

    learned: Learned
    x: Tensor
    y: Tensor
    loss: Loss
    batch: int = 8
    unscaled: bool = True
    autocast: bool = False
    seed: int = 0

    def __post_init__(self):
        if len(self.x) != len(self.y) or len(self.x) < self.batch:
            raise ValueError(f"got {len(self.x)} inputs and {len(self.y)} targets for batches of {self.batch}")
        if self.x.ndim != self.y.ndim or self.x.shape[2:] != self.y.shape[2:]:
            raise ValueError(f"inputs and targets are (samples, channels, *points) on the same points, got "
                             f"{tuple(self.x.shape)} and {tuple(self.y.shape)}")  # fmt: skip
        inputs, outputs = self.learned.inputs, self.learned.outputs
        self.inputs = inputs.scaled(self.x).float()
        self.targets = (self.y if self.unscaled else outputs.scaled(self.y)).float()

    def __call__(self, update: int) -> Tensor:
        rank, processes = share()
        samples = drawn(self.seed, update * processes + rank, len(self.x), self.batch)
        with in_bfloat16(self.inputs.device, self.autocast):
            out = self.learned.net(self.inputs[samples])
        if out.shape[1:] != self.targets.shape[1:]:
            raise ValueError(f"the network gives {tuple(out.shape[1:])} for a sample, targets have "
                             f"{tuple(self.targets.shape[1:])}")  # fmt: skip
        out = self.learned.outputs.unscaled(out) if self.unscaled else out
        return checked(self.loss(out, self.targets[samples]), update, samples)  # type: ignore[arg-type]

    def state(self) -> Tensors:
        return {}

    def restore(self, state: Tensors) -> None:
        """There is none."""


@dataclass
class Emulation:
    """The objective of :func:`sciml.train.fit` for emulators: their error over ``ahead(update)`` of their own steps.

    The loss is the mean of those of all steps, of fields in units of their standard deviations, of the waves that the
    surrogate's grid keeps. Each stretch is shifted
    at random around the box where ``shifted``, which changes nothing for an equation whose parameters are constant.
    """

    surrogate: Surrogate
    windows: Windows
    loss: Loss
    batch: int = 8
    ahead: Callable[[int], int] = lambda update: 1
    shifted: bool = True
    autocast: bool = False
    seed: int = 0

    def __call__(self, update: int) -> Tensor:
        steps, rng = self.ahead(update), np.random.default_rng([self.seed, share()[0], update])
        count = self.windows.count(steps)
        if count < self.batch:
            raise ValueError(f"the runs have {count} stretches of {steps} steps, fewer than a batch of {self.batch}")
        samples = rng.choice(count, self.batch, replace=False).tolist()
        truth = self.surrogate.states.scaled(self.windows(samples, steps)).float()
        truth = self.surrogate.kept(truth)
        if self.shifted:
            truth = truth.roll([int(rng.integers(n)) for n in truth.shape[-2:]], (-2, -1))
        z, losses = truth[:, 0], []
        for i in range(1, steps + 1):
            with in_bfloat16(z.device, self.autocast):
                z = self.surrogate.advanced(z)
            losses.append(self.loss(z, truth[:, i]))
        return checked(torch.stack(losses).mean(0), update, samples)

    def state(self) -> Tensors:
        return {}

    def restore(self, state: Tensors) -> None:
        """There is none."""


def emulator(
    net: nn.Module, runs: Sequence[xr.Dataset], every: int = 1, updates: int = 2000, *, lr: float = 1e-3,
    batch: int = 8, ahead: int = 3, loss: Loss = relative_l2, name: str = "q", conserving: bool = True,
    step: Step | None = None, autocast: bool = True, seed: int = 0, checkpoint: str | Path | None = None,
) -> Surrogate:  # fmt: skip
    """Train ``net`` to step ``every`` records of runs ``(time, [lev,] y, x)`` on a periodic grid; the last third of the
    updates goes over ``ahead`` of its own steps. Members of an ensemble are runs of their own.

    Where ``conserving``, means over the domain stay as they are at the start, as those of PV do in a periodic box, and
    fields are scaled without subtracting a mean; otherwise means change, and fields are centred. With a classical
    ``step`` of the fields the network, of twice as many inputs, learns to correct it. Raises ``ValueError`` for runs
    that do not fit and a ``checkpoint`` of others, ``FloatingPointError`` for losses that are not finite.

    Examples
    --------
    >>> eq = sm.preset("eddy", nx=16)
    >>> run = sm.rollout(sm.ab3(eq, 14400.0), 72, every=6)(sm.random_pv(eq, seed=0))
    >>> net = sm.MgNO(2, 2, width=8, layers=1)
    >>> emulator = sm.emulator(net, [sm.to_dataset(run, eq)], updates=3)  # thousands, for use
    >>> emulator.dt, sm.rollout(emulator, 2)(sm.random_pv(eq, seed=1)).fields.shape
    (86400.0, torch.Size([3, 2, 16, 16]))
    """
    if wrong := {n: v for n, v in dict(every=every, updates=updates, batch=batch, ahead=ahead).items() if v < 1}:
        raise ValueError(f"{', '.join(wrong)} must be at least 1, got {', '.join(map(str, wrong.values()))}")
    windows, grid, dt = Windows.of(runs, every, name)
    if not windows.count(ahead):
        raise ValueError(f"runs of {windows.runs.shape[1]} times are too short for {ahead} steps of {every} times each")
    names = tuple(f"{name}{i + 1}" for i in range(windows.runs.shape[2]))
    learned = Learned(net, *windows.scalings(not conserving, step, often(step, grid, dt)))
    surrogate = Surrogate(learned, grid, dt, names, conserving, step)
    objective = Emulation(
        surrogate, windows, loss, batch, lambda u: 1 if u < 2 * updates // 3 else ahead, autocast=autocast, seed=seed
    )
    about = {
        "seed": seed, "batch": batch, "ahead": ahead, "every": every, "dt": dt, "conserving": conserving,
        "loss": getattr(loss, "__name__", type(loss).__name__), "corrects": surrogate.every,
        "data": digest({"runs": windows.runs.cpu(), "scale": learned.outputs.std}),
    }  # fmt: skip
    warm_up = min(100, 1 + updates // 10)
    averaged = fit(net, objective, updates, lr=lr, warm_up=warm_up, checkpoint=checkpoint, about=about)
    net.load_state_dict(averaged, strict=False)
    net.eval()
    return surrogate
