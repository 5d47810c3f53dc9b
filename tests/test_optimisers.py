"""Muon beside AdamW: singular values, scale of updates, which weights it takes."""

import pytest
import torch
from torch import nn

from sciml.optimisers import Muon, adamw, muon, orthogonal


@pytest.mark.parametrize(("m", "n"), [(16, 16), (8, 40), (40, 8)])
def test_singular_values_from_a_fifth_to_one_are_brought_near_one(m, n):
    g = torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(3, k, min(m, n), generator=g)).Q for k in (m, n))
    x = u @ torch.diag_embed(torch.linspace(0.2, 1.0, min(m, n)).expand(3, -1)) @ v.mT
    after = torch.linalg.svdvals(orthogonal(x).float())
    assert float(after.min()) > 0.6
    assert float(after.max()) < 1.3


def test_directions_are_kept():
    u, s, v = torch.linalg.svd(torch.randn(1, 12, 12, generator=torch.Generator().manual_seed(1)))
    found = orthogonal(u @ torch.diag_embed(s) @ v).float()
    aligned = (u.mT @ found @ v.mT)[0]
    assert (aligned - torch.diag(aligned.diagonal())).abs().max() < 0.1


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))


def test_matrices_within_the_network_are_muons_and_the_rest_adams():
    own = net()
    method = muon(own, 1e-2, 0.0)
    assert [len(g["params"]) for g in method.param_groups] == [5, 2]
    assert sum(p.numel() for g in method.param_groups for p in g["params"]) == sum(p.numel() for p in own.parameters())


def test_updates_have_the_size_that_adams_have():
    own = nn.Linear(64, 64, bias=False)
    before = own.weight.detach().clone()
    method = Muon([own.weight], [nn.Parameter(torch.zeros(1))], lr=0.1, weight_decay=0.0)
    own(torch.randn(256, 64)).square().mean().backward()
    method.step()
    change = (own.weight - before).detach()
    assert float(change.square().mean().sqrt()) == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("make", [adamw, muon])
def test_both_minimise(make):
    own = net()
    method = make(own, 0.02, 1e-4)
    x, y = torch.arange(5), torch.tensor([0.3, -0.2, 0.9, 0.1, -0.7])[:, None]
    first = last = None
    for _ in range(60):
        method.zero_grad(set_to_none=True)
        loss = (own(x) - y).square().mean()
        loss.backward()
        method.step()
        first, last = first or float(loss.detach()), float(loss.detach())
    assert last < 0.05 * first


def test_weight_decay_shrinks_weights_without_a_gradient_of_their_own():
    own = nn.Linear(8, 8, bias=False)
    size = own.weight.detach().norm()
    method = Muon([own.weight], [nn.Parameter(torch.zeros(1))], lr=0.1, weight_decay=0.5)
    own.weight.grad = torch.zeros_like(own.weight)
    method.step()
    assert float(own.weight.detach().norm() / size) == pytest.approx(0.95, rel=1e-3)
