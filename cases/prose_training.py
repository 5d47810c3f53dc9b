"""What the PROSE cases share: options of a training, the training itself, guesses told to the network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from common import Common, Refused
from torch import Tensor

from sciml.optimisers import adamw, muon
from sciml.prose.learning import Course, Teaching
from sciml.prose.model import PROSE
from sciml.train import fit

OPTIMISERS = {"adamw": adamw, "muon": muon}


@dataclass(frozen=True)
class Training(Common):
    train: bool = False
    """Train instead of using the shipped weights."""
    weights: Path | None = None
    """File of weights to use, or to write with --train (default: shipped, or model.safetensors in --out)."""
    start: Path | None = None
    """File of weights of the same size to train further."""
    size: Literal["small", "middle", "published"] = "small"
    """Size of the network to train: about 2, 14 or 104 million weights."""
    families: tuple[str, ...] = ()
    """Families of equations, by name (default: those the weights were trained for; with --train all)."""
    equations: int | None = None
    """Equations to train on."""
    conditions: int | None = None
    """Initial states of each equation to train on."""
    updates: int | None = None
    """Updates of a training."""
    minutes: float | None = None
    """Length of a training by the clock, as a factor of a minute, instead of --updates."""
    batch: int = 64
    """Samples in an update."""
    lr: float = 1e-3
    """Largest learning rate, as a factor of one."""
    optimiser: Literal["adamw", "muon"] = "adamw"
    """AdamW, or Muon for matrices."""
    symbols: bool = True
    """Whether the network reads and writes equations; without it, it is a twin that sees data only."""
    noise: float = 0.02
    """Noise of what is seen, as a factor of the norm."""
    bfloat16: bool = True
    """Compute in bfloat16 where that is exact enough."""
    every: int = 1
    """Write equations for every so many of the samples only, as writing takes most of the time."""
    asked: int | None = None
    """Times to predict in each sample of an update, drawn anew for each (default: as the case has it)."""
    resume: bool = False
    """Go on with an interrupted training in --out."""


def sized(o: Training, **presets: tuple[int, int, int]) -> tuple[int, int, int]:
    """Equations, conditions and updates: as asked for, else of the preset."""
    equations, conditions, updates = presets[o.preset]
    chosen = o.equations or equations, o.conditions or conditions, o.updates or updates
    if min(chosen) < 1 or o.batch < 1:
        raise Refused("--equations, --conditions, --updates and --batch must be 1 or more")
    return chosen


def chosen(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The families asked for, in their own order, or all."""
    if unknown := set(names) - set(known):
        raise Refused(f"--families: there is no {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return tuple(n for n in known if not names or n in names)


def further(path: Path, model: PROSE) -> dict[str, Tensor]:
    """Weights to start from, of a network of the same size and view."""
    earlier = PROSE.load(path)
    if earlier.net.config != model.net.config or earlier.view != model.view:
        raise Refused(f"--start {path}: a network of another size or view of the data; train from the beginning")
    return earlier.net.state_dict()


def train(o: Training, out: Path, model: PROSE, course: Course, updates: int, **about) -> PROSE:
    """Train and save: all four guesses are told in turn by chance; a twin is told nothing, and writes nothing."""
    torch.backends.cuda.matmul.allow_tf32 = True
    if o.start is not None:
        model.net.load_state_dict(further(o.start, model))
    course.asked = course.asked if o.asked is None else o.asked
    net = model.net.to(course.u.device)
    guesses = (0.2, 0.2, 0.3, 0.3) if o.symbols else (0.0, 0.0, 0.0, 1.0)
    teaching = Teaching(net, course, batch=o.batch, guesses=guesses, symbolic=float(o.symbols), every=o.every,
                        seed=o.seed,
                        bfloat16=o.bfloat16)  # fmt: skip
    checkpoint, log, started = out / "training.safetensors", out / "training.csv", time.monotonic()
    if not o.resume:
        checkpoint.unlink(missing_ok=True)
        log.write_text("update,loss,seconds\n")

    def note(update: int, loss: float) -> None:
        with log.open("a") as file:
            file.write(f"{update},{loss:.6g},{time.monotonic() - started:.1f}\n")

    began: list[float] = []

    def done(update: int) -> float:
        """Which part of the time given is over."""
        began.append(time.monotonic())
        return (began[-1] - began[0]) / (60 * (o.minutes or 1.0))

    limit = o.minutes is not None
    every = 200 if limit else max(1, min(500, updates // 20))
    averaged = fit(
        net, teaching, 10**7 if limit else updates, lr=o.lr, warm_up=min(500, max(1, updates // 10)),
        weight_decay=1e-4, average=0.998, checkpoint=checkpoint, every=every, log=note,
        optimiser=OPTIMISERS[o.optimiser], done=done if limit else None,
    )  # fmt: skip
    net.load_state_dict(averaged)
    net.eval()
    model = replace(
        model,
        about={
            **model.about,
            **about,
            "symbols": o.symbols,
            "noise": o.noise,
            "seed": o.seed,
            "updates": len(began) - 1 if limit else updates,
            "batch": o.batch,
            "start": o.start and o.start.name,
        },
    )
    model.save(o.weights or out / "model.safetensors")
    checkpoint.unlink(missing_ok=True)
    return model
