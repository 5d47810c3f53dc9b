"""What the cases of operator learning share: networks by name, their training within a budget, logs."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from common import Refused
from torch import Tensor, nn
from training import taught

from sciml.files import refusing, replacing
from sciml.nn.mgno import MgNO
from sciml.nn.unet import UNet
from sciml.surrogate import NETWORKS
from sciml.train import Objective, share

# -- networks --------------------------------------------------------------------------------------------------------
PERIODIC = ("periodic", "periodic")


@dataclass(frozen=True)
class FNOConfig:
    """Of :class:`FNO`, as neuraloperator names them."""

    inputs: int = 1
    outputs: int = 1
    n_modes: tuple[int, ...] = (24, 24)
    hidden_channels: int = 32
    n_layers: int = 4
    positional: bool = False


class FNO(nn.Module):
    """neuraloperator's Fourier neural operator (Li et al. 2021, ICLR), with its own defaults for all else."""

    def __init__(self, inputs: int = 1, outputs: int = 1, **options):
        super().__init__()
        try:
            from neuralop.models import FNO as Theirs  # type: ignore[import-not-found]
        except ImportError:
            raise Refused("fno needs neuraloperator: make bench/.neuralop/installed, and run this with "
                          "bench/.neuralop/bin/python") from None  # fmt: skip
        self.config = c = FNOConfig(inputs, outputs, **options)
        grid = "grid" if c.positional else None
        self.net = Theirs(n_modes=c.n_modes, in_channels=inputs, out_channels=outputs, n_layers=c.n_layers,
                          hidden_channels=c.hidden_channels, positional_embedding=grid)  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # transforms need single precision
            return self.net(x.float())

    def about(self) -> dict:
        return asdict(self.config)


NETWORKS["FNO"] = FNO
Builder = Callable[..., nn.Module]
NAMES: dict[str, Builder] = {"mgno": MgNO, "unet": UNet, "fno": FNO}
"""Networks that options may name."""


WRITTEN = tuple(f"{name}.{kind}" for name in (*NAMES, "published") for kind in
                ("safetensors", "csv", "png", "json", "checkpoint"))  # fmt: skip
"""What trainings write, of all networks"""


def check(o: Any) -> None:
    """Refuse options of trainings that cannot be."""
    if o.updates is not None and o.minutes is not None:
        raise Refused("--minutes and --updates exclude each other")
    if not o.networks:
        raise Refused("--networks must name a network")


def length(updates: int | None, minutes: float) -> dict[str, float]:
    """Of a training, in updates or minutes, as its settings name it."""
    return {"updates": updates} if updates else {"minutes": minutes}


def count(net: nn.Module) -> int:
    """Its weights, complex ones as two."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in net.parameters())


def make(name: str, seed: int, *args, **options) -> nn.Module:
    """A network by name, its first weights by ``seed``; in single precision."""
    if name not in NAMES:
        raise Refused(f"no network {name!r}; there are {', '.join(NAMES)}")
    torch.manual_seed(seed)
    net = NAMES[name](*args, **options)
    walls = "periodic" not in getattr(net.config, "boundary", PERIODIC)
    return net.to(memory_format=torch.channels_last) if walls else net  # type: ignore[call-overload]  # faster there


UNSAID = ("out", "data", "resume", "overwrite", "weights", "networks", "minutes", "updates", "device")
"""Options that say nothing of a training, or of several at once"""


def command(o: Any, network: str, **made: Any) -> str:
    """The command that trains a network again: its options that are not the defaults, and then ``made``, what became
    of defaults."""
    given = {f.name: getattr(o, f.name) for f in fields(o) if getattr(o, f.name) != f.default}
    said = {n: v for n, v in given.items() if n not in (*UNSAID, *made)} | made
    words = ["python", f"cases/{Path(str(sys.modules[type(o).__module__].__file__)).name}"]
    words += ["--train"] if hasattr(o, "train") else []
    words += [f"--networks {network}", *(worded(n, v) for n, v in said.items() if n != "train")]
    return " ".join(words)


def worded(name: str, value: Any) -> str:
    """An option as it is typed."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option} {value:g}" if isinstance(value, float) else f"--{option} {value}"


# -- training --------------------------------------------------------------------------------------------------------
def planned(path: Path, net: nn.Module, objective: Objective, seconds: float, probes: dict[int, float]) -> int:
    """Updates that take ``seconds`` of processor time; kept in ``path``, so that a resumed training has as many.

    ``probes`` are updates to measure, and which part of all costs as much as each.
    """
    if path.exists():
        with refusing(path):
            return int(json.loads(path.read_text())["updates"])
    if share()[1] > 1:
        raise Refused("several processes have several clocks: give --updates instead of --minutes")
    cost = 0.0
    for update, part in probes.items():
        spent = []
        for _ in range(3):
            started = time.process_time()
            objective(update).backward()
            spent.append(time.process_time() - started)
        cost += part * min(spent)
    net.zero_grad(set_to_none=True)
    updates = max(10, math.floor(seconds / cost))
    with replacing(path) as partial:
        partial.write_text(json.dumps({"updates": updates, "seconds_per_update": cost}) + "\n")
    return updates


def trained(
    name: str, out: Path, net: nn.Module, objective: Objective, updates: int, lr: float, seed: int,
    seconds: float | None = None, settings: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:  # fmt: skip
    """Train, with a log and its picture in ``out``; returns what a file of weights should say of its training.

    ``seconds`` by the clock, where given, end it instead of ``updates``. A training that goes on must have the same
    ``settings``.
    """
    print(f"training {name}: {count(net)} weights, {f'{seconds:g} s' if seconds else f'{updates} updates'}", flush=True)
    last = taught(net, objective, updates, out, name=name, lr=lr, warm_up=min(200, 1 + updates // 10), average=0.995,
                  every=max(1, updates // 20), seconds=seconds, about={"seed": seed, **settings})  # fmt: skip
    return {"updates": int(last["updates"]), "weights": count(net), "loss": last["loss"], "lr": lr, "seed": seed}
