"""What the PROSE cases share: options of a training, the training itself, guesses told to the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from common import Common, Range, Refused, Share, make_room
from torch import Tensor
from training import taught

from sciml.optimisers import adamw, muon
from sciml.prose.learning import Course, Teaching
from sciml.prose.model import PROSE

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
    equations: Annotated[int, Range(1, 10_000_000)] | None = None
    """Equations to train on."""
    conditions: Annotated[int, Range(1, 10_000_000)] | None = None
    """Initial states of each equation to train on."""
    updates: Annotated[int, Range(1, 100_000_000)] | None = None
    """Updates of a training."""
    minutes: Annotated[float, Range(0, 1e5, open=True)] | None = None
    """Length of a training by the clock, as a factor of a minute, instead of --updates."""
    batch: Annotated[int, Range(1, 100_000)] = 64
    """Samples in an update."""
    lr: Annotated[float, Range(0, 1, open=True)] = 1e-3
    """Largest learning rate, as a factor of one."""
    optimiser: Literal["adamw", "muon"] = "adamw"
    """AdamW, or Muon for matrices."""
    symbols: bool = True
    """Whether the network reads and writes equations; without it, it is a twin that sees data only."""
    noise: Share = 0.02
    """Noise of what is seen, as a factor of the norm."""
    bfloat16: bool = True
    """Compute in bfloat16 where that is exact enough, and the processor has it."""
    every: Annotated[int, Range(1, 100_000)] = 1
    """Write equations for every so many of the samples only, as writing takes most of the time."""
    asked: Annotated[int, Range(1, 1_000)] | None = None
    """Times to predict in each sample of an update, drawn anew for each (default: as the case has it)."""
    resume: bool = False
    """Go on with an interrupted training in --out."""


ONLY_TRAINING = ("start", "size", "equations", "conditions", "updates", "minutes", "batch", "lr", "optimiser",
                 "symbols", "bfloat16", "every", "asked", "resume")  # fmt: skip
"""Options that a training reads"""
CHECKPOINT = "training.checkpoint"
"""Of a training, until its network has been evaluated"""
WRITTEN = ("model.safetensors", "training.*")
"""What a training writes"""


def sized(o: Training, **presets: tuple[int, int, int]) -> tuple[int, int, int]:
    """Equations, conditions and updates: as asked for, else of the preset. Weights to start from are read, so that what
    is wrong with them is said before data are made."""
    if o.start is not None:
        network(o.start)
    given = o.equations, o.conditions, o.updates
    equations, conditions, updates = (b if a is None else a for a, b in zip(given, presets[o.preset], strict=True))
    return equations, conditions, updates


def network(path: Path, device: str = "cpu") -> PROSE:
    """Of a file."""
    if not path.exists():
        raise Refused(f"there are no weights {path}; train a network with --train, or name its file with --weights")
    return PROSE.load(path, device)


def room(o: Training, out: Path, tables: Sequence[str]) -> None:
    """For a training or a comparison; refuses trainings that would replace weights or have nothing to go on from."""
    if o.train and o.minutes is not None and o.updates is not None:
        raise Refused("--minutes and --updates exclude each other")
    if o.weights is not None and o.weights.is_dir():
        raise Refused(f"--weights {o.weights} is a folder, not a file")
    if o.train and o.weights is not None and o.weights.exists() and not (o.overwrite or o.resume):
        raise Refused(f"--weights {o.weights} is there; a training would replace it: add --overwrite, or name another")
    if o.resume and not (out / CHECKPOINT).exists():
        raise Refused(f"--resume: there is no {CHECKPOINT} in {out}")
    make_room(out, (*tables, *WRITTEN) if o.train else tables, replace(o, weights=None) if o.train else o)


def of_case(path: Path, view: type, fields: Sequence[str], device: str = "cpu", symbols: bool = True) -> PROSE:
    """The network of a file, of one kind of data; with ``symbols``, or the twin that was trained without."""
    model = network(path, device)
    if (
        not isinstance(model.view, view)
        or tuple(model.vocabulary.fields) != tuple(fields)
        or "names" not in model.about
    ):
        raise Refused(f"{path} holds a network for other data; those of this case are made with --train")
    if bool(model.about.get("symbols", True)) != symbols:
        raise Refused(f"{path} was trained with --{'no-' if symbols else ''}symbols; --twin takes weights of "
                      "--no-symbols, --weights others")  # fmt: skip
    return model


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
    last = taught(
        net, teaching, updates, out, seconds=None if o.minutes is None else 60 * o.minutes, lr=o.lr,
        warm_up=min(500, max(1, updates // 10)), weight_decay=1e-4, average=0.998, optimiser=OPTIMISERS[o.optimiser],
        every=200 if o.minutes else max(1, min(500, updates // 20)),
        about={"seed": o.seed, "batch": o.batch, "noise": o.noise, "symbols": o.symbols},
    )  # fmt: skip
    model = replace(
        model,
        about={
            **model.about,
            **about,
            "symbols": o.symbols,
            "noise": o.noise,
            "seed": o.seed,
            "updates": last["updates"],
            "batch": o.batch,
            "start": o.start and o.start.name,
        },
    )
    model.save(o.weights or out / "model.safetensors")
    return model
