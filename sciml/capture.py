"""A whole update of a training as one CUDA graph: starting a thousand small kernels takes longer than running them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

WARM_UP = 3
"""Updates before the capture, with a learning rate of zero; libraries set themselves up in them."""


class Captured:
    """``inputs -> loss``: loss, gradient, clipping and the optimiser's step, replayed with other inputs.

    Parameters
    ----------
    loss : of static inputs; nothing in it may wait for the GPU
    method : an optimiser whose groups have learning rates that are tensors on the GPU
    inputs : tensors of the shapes of all later ones
    """

    def __init__(
        self, net: nn.Module, loss: Callable[..., Tensor], method: torch.optim.Optimizer, clip: float,
        inputs: Sequence[Tensor],
    ):  # fmt: skip
        self.net, self.of, self.method, self.clip = net, loss, method, clip
        self.inputs = [x.clone() for x in inputs]
        rates = [group["lr"].clone() for group in method.param_groups]
        for group in method.param_groups:
            group["lr"].zero_()
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                self.update()
        torch.cuda.current_stream().wait_stream(beside)
        self.method.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = self.update()
        for group, rate in zip(method.param_groups, rates, strict=True):
            group["lr"].copy_(rate)

    def update(self) -> Tensor:
        self.method.zero_grad(set_to_none=True)
        loss = self.of(*self.inputs)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        self.method.step()
        return loss.detach()

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        for static, x in zip(self.inputs, inputs, strict=True):
            static.copy_(x)
        self.graph.replay()
        return self.loss
