"""What a training step of MgNO costs beside its convolutions alone, and what bfloat16 gains at which error.

    python bench/mgno_speed.py [--points 64] [--batch 8] [--updates 300]

Prints processor times, which others on the machine change less than the clock's; run it alone nevertheless.
"""

from __future__ import annotations

import argparse
import os
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml.losses import relative_l2
from sciml.nn.boundary import extended, padding
from sciml.nn.mgno import MgNO, Prolongation
from sciml.objectives import Supervised
from sciml.operator_data import elliptic_samples, sample_seeds
from sciml.surrogate import Learned, Scaling
from sciml.train import fit

WALLS = ("dirichlet", "dirichlet")


def clock(f, repeats: int = 7) -> float:
    """Least processor time of a call in s."""
    f()
    spent = []
    for _ in range(repeats):
        started = time.process_time()
        f()
        spent.append(time.process_time() - started)
    return min(spent)


def convolutions(net: MgNO, x: Tensor) -> list:
    """Every convolution that a forward pass makes, as functions of nothing that also go backward."""
    made, hooks = [], []

    def conv(module: nn.Conv2d, inputs, output) -> None:
        a, w = inputs[0].detach().requires_grad_(), module.weight.detach().to(output.dtype).requires_grad_()
        a = a.to(output.dtype).detach().requires_grad_()
        g = torch.ones_like(output)
        made.append(lambda: F.conv2d(a, w, None, module.stride, module.padding).backward(g))  # type: ignore[arg-type]

    def transposed(module: Prolongation, inputs, output) -> None:
        a = extended(inputs[0].detach(), module.boundary).to(output.dtype).requires_grad_()
        w = module.weight.detach().to(output.dtype).requires_grad_()
        pad = padding(module.boundary, 3, 1)
        g = torch.ones_like(F.conv_transpose2d(a, w, None, 2, pad))
        made.append(lambda: F.conv_transpose2d(a, w, None, 2, pad).backward(g))

    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(conv))
        elif isinstance(module, Prolongation):
            hooks.append(module.register_forward_hook(transposed))
    net(x)
    for hook in hooks:
        hook.remove()
    return made


def step_beside_convolutions(points: int, batch: int) -> None:
    """Forward, backward and AdamW of the defaults, over the time of their convolutions."""
    for boundary in (WALLS, ("periodic", "periodic")):
        for half in (False, True):
            torch.manual_seed(0)
            net, x = MgNO(2, 2, boundary=boundary), torch.randn(batch, 2, points, points)
            optimiser = torch.optim.AdamW(net.parameters())

            def step(net=net, x=x, optimiser=optimiser, half=half) -> None:
                optimiser.zero_grad(set_to_none=True)
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    loss = net(x).square().mean()
                loss.backward()
                optimiser.step()

            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                parts = convolutions(net, x)
            whole, alone = clock(step), clock(lambda parts=parts: [part() for part in parts])
            kind = "bfloat16" if half else "float32"
            print(f"{boundary[0]:10s} {kind:9s} step {1e3 * whole:7.1f} ms, convolutions {1e3 * alone:7.1f} ms, "
                  f"ratio {whole / alone:.2f}", flush=True)  # fmt: skip


def half_beside_single(updates: int, seeds=(0, 1, 2)) -> None:
    """Darcy flow with 43 points: time and test error of the same updates in both precisions."""
    sets = [
        elliptic_samples("darcy-rough", sample_seeds(0, s, 0, n), 43, 85) for s, n in (("train", 256), ("test", 64))
    ]
    (x, y), (tx, ty) = ((torch.as_tensor(ds[n].values)[:, None] for n in "au") for ds in sets)
    for half in (False, True):
        spent, errors = [], []
        for seed in seeds:
            torch.manual_seed(seed)
            learned = Learned(MgNO(1, 1, boundary=WALLS), Scaling.of(x), Scaling.of(y, False))
            objective = Supervised(learned, x, y, relative_l2, 8, autocast=half, seed=seed)
            started = time.process_time()
            learned.net.load_state_dict(fit(learned.net, objective, updates), strict=False)
            spent.append(time.process_time() - started)
            with torch.no_grad():
                errors.append(float(relative_l2(learned(tx), ty).mean()))
        kind = "bfloat16" if half else "float32"
        print(f"{kind:9s} {updates} updates {sum(spent) / len(spent):6.1f} s, relative L2 "
              + ", ".join(f"{e:.4f}" for e in errors), flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--updates", type=int, default=300)
    o = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.set_flush_denormal(True)
    step_beside_convolutions(o.points, o.batch)
    half_beside_single(o.updates)


if __name__ == "__main__":
    main()
