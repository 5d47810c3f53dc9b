"""The training loop: AdamW, warm-up and cosine decay, averaged weights, checkpoints from which it goes on exactly.

Under ``torchrun`` several processes train one network: each computes the gradient of samples of its own (objectives ask
:func:`share`), all take the mean, and the first one writes.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as group
from torch import Tensor, nn
from tqdm import tqdm

from sciml.files import load_tensors, save_tensors
from sciml.optimisers import adamw

Tensors = dict[str, Tensor]
SURGE = 10.0
"""Times the usual loss from which on an update is one too many: networks of many linear maps in a row, as multigrid
cycles are, may leave the region where they are stable within one update."""


class Objective(Protocol):
    """What is minimised. ``objective(i)`` is the loss of update i; what it carries from update to update is its state.

    Random choices must come from ``i`` or from the state, so that a resumed training equals an uninterrupted one.
    """

    def __call__(self, update: int, /) -> Tensor: ...

    def state(self) -> Tensors: ...

    def restore(self, state: Tensors, /) -> None: ...


def fit(
    net: nn.Module, objective: Objective, updates: int, *, lr: float = 1e-3, warm_up: int = 100,
    weight_decay: float = 1e-5, clip: float = 1.0, average: float = 0.99, checkpoint: str | Path | None = None,
    every: int = 100, log: Callable[[int, float], None] | None = None,
    optimiser: Callable[[nn.Module, float, float], torch.optim.Optimizer] = adamw,
    done: Callable[[int], float] | None = None, about: Mapping[str, Any] | None = None,
) -> Tensors:  # fmt: skip
    """Minimise ``objective`` over the parameters of ``net`` and return their exponential average.

    Where the loss surges to :data:`SURGE` times what it usually was, or a gradient is not finite, the update is left
    out; after a surge the parameters go back to their average. Raises ``FloatingPointError`` where more than a tenth of
    the updates (and ten) had to be left out.

    Parameters
    ----------
    updates : their number; the learning rate rises linearly to ``lr`` over ``warm_up`` of them and falls as a cosine
    clip : largest norm of the gradient
    average : decay of the exponential average of the parameters
    checkpoint : file that is replaced after each ``every`` updates and from which a training goes on; one of a training
        with other settings, or other words ``about`` it, is refused
    log : called with update and mean loss since the last call, before each checkpoint
    done : which part of the training is over before an update, where not their number but a clock ends it
    optimiser : ``(network, lr, weight decay) -> optimiser``, of ``sciml/optimisers.py``
    """
    rank, _ = share()
    checkpoint = None if checkpoint is None else Path(checkpoint)
    if checkpoint is not None:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
    method = optimiser(net, lr, weight_decay)
    averaged = {n: p.detach().clone() for n, p in net.named_parameters()}
    settings = dict(updates=updates, lr=lr, warm_up=warm_up, weight_decay=weight_decay, clip=clip, average=average)
    settings |= {"optimiser": getattr(optimiser, "__name__", type(optimiser).__name__), **(about or {})}
    first, usual, skipped = resume(checkpoint, net, method, averaged, objective, settings)
    losses = []
    for i in tqdm(range(first, updates), initial=first, total=updates, unit="update", disable=not sys.stderr.isatty()):
        if (part := 0.0 if done is None else done(i)) >= 1:
            break
        for own in method.param_groups:
            rate = lr * (schedule(i, updates, warm_up) if done is None else by_clock(i, part, warm_up))
            own["lr"] = rate
        method.zero_grad(set_to_none=True)
        loss = objective(i)
        loss.backward()
        mean_over_processes(net)
        norm = nn.utils.clip_grad_norm_(net.parameters(), clip)
        value = mean_of_processes(loss)
        surge = usual > 0 and value > SURGE * usual
        if bool(torch.isfinite(norm)) and math.isfinite(value) and not surge:
            method.step()
            losses.append(value)
            usual = value if math.isnan(usual) else usual + 0.02 * (value - usual)
        else:
            skipped += 1
            if surge:
                net.load_state_dict(averaged, strict=False)
            if skipped > max(10, i // 10):
                raise FloatingPointError(
                    f"{skipped} updates up to {i} had no finite gradient, or a surge of the loss; try a smaller lr"
                )
        with torch.no_grad():
            decay = min(average, (i + 1) / (i + 10))
            torch._foreach_lerp_(list(averaged.values()), list(net.parameters()), 1 - decay)
        if (i + 1) % every == 0 or i + 1 == updates:
            if log is not None and losses and rank == 0:
                log(i + 1, sum(losses) / len(losses))
            if checkpoint is not None and rank == 0:
                save(checkpoint, i + 1, net, method, averaged, objective, usual, skipped, settings)
            losses = []
    return averaged


def share() -> tuple[int, int]:
    """This process among those that ``torchrun`` started, and their number; 0 and 1 without it."""
    if "TORCHELASTIC_RUN_ID" in os.environ and not group.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        group.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return (group.get_rank(), group.get_world_size()) if group.is_initialized() else (0, 1)


def mean_over_processes(net: nn.Module) -> None:
    """Gradients of all processes, where there are several."""
    if not group.is_initialized():
        return
    for p in net.parameters():
        if p.grad is not None:
            group.all_reduce(p.grad)
            p.grad /= group.get_world_size()


def mean_of_processes(loss: Tensor) -> float:
    """A loss, its mean over all processes where there are several, which decide alike what to leave out."""
    loss = loss.detach().clone()
    if group.is_initialized():
        group.all_reduce(loss)
        loss /= group.get_world_size()
    return float(loss)


def schedule(update: int, updates: int, warm_up: int) -> float:
    """Learning rate over its maximum: linear warm-up, cosine decay (Loshchilov & Hutter 2017)."""
    if update < warm_up:
        return (update + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (update - warm_up) / max(1, updates - warm_up)))


def by_clock(update: int, part: float, warm_up: int) -> float:
    """As :func:`schedule` where this part of the training is over."""
    return min(1.0, (update + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * part))


def save(
    path: Path, update: int, net: nn.Module, optimiser, averaged: Tensors, objective: Objective, usual: float,
    skipped: int, settings: Mapping[str, Any],
) -> None:  # fmt: skip
    """All that the next update depends on."""
    tensors = {f"buffer.{n}": b for n, b in net.named_buffers()}
    tensors |= {f"net.{n}": p for n, p in net.named_parameters()} | {f"average.{n}": p for n, p in averaged.items()}
    for n, p in net.named_parameters():
        tensors |= {f"adam.{n}.{k}": torch.as_tensor(v) for k, v in optimiser.state.get(p, {}).items()}
    tensors |= {f"objective.{n}": t for n, t in objective.state().items()}
    tensors["usual"] = torch.tensor(usual, dtype=torch.float64)
    save_tensors(path, tensors, {"update": update, "skipped": skipped, "settings": dict(settings)})


def same(path: Path, header: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` where the header of a checkpoint states other settings."""
    before, now = header.get("settings", {}), json.loads(json.dumps(dict(settings)))
    if other := [n for n in now if n in before and before[n] != now[n]]:
        was = ", ".join(f"{n} {before[n]}, not {now[n]}" for n in other)
        raise ValueError(
            f"{path} is of a training with {was}; go on with the same settings, or begin in another folder"
        )


def resume(
    path: Path | None, net: nn.Module, optimiser, averaged: Tensors, objective: Objective, settings: Mapping[str, Any]
) -> tuple[int, float, int]:
    """Restore what :func:`save` wrote, if it is there; the number of the next update, the usual loss, and how many
    updates were left out."""
    if path is None or not path.exists():
        return 0, math.nan, 0
    tensors, header = load_tensors(path)
    same(path, header, settings)
    known = {n: p.shape for n, p in net.named_parameters()}
    if {n[4:]: t.shape for n, t in tensors.items() if n.startswith("net.")} != known:
        raise ValueError(f"{path} is a checkpoint of another network; remove it or choose another folder")
    with torch.no_grad():
        for n, b in net.named_buffers():
            b.copy_(tensors.get(f"buffer.{n}", b))
        for n, p in net.named_parameters():
            p.copy_(tensors[f"net.{n}"])
            averaged[n].copy_(tensors[f"average.{n}"])
            prefix = f"adam.{n}."
            own = {k[len(prefix) :]: t for k, t in tensors.items() if k.startswith(prefix)}
            optimiser.state[p] = {k: t if k == "step" else t.to(p.device) for k, t in own.items()}
    objective.restore({n[len("objective.") :]: t for n, t in tensors.items() if n.startswith("objective.")})
    usual = float(tensors.get("usual", torch.tensor(math.nan)))
    return int(header["update"]), usual, int(header.get("skipped", 0))
