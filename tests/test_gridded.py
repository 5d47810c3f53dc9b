"""The classical increment from gridded observations, against optimal interpolation and a dense solution."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import sciml as sm
from sciml.assim.base import covariance
from sciml.assim.minimise import conjugate_gradients
from sciml.assim.network import FuXiDA, Inputs, first_guess
from sciml.nn.fuxida import Config, FuXiDANet
from sciml.observations import concatenate, observations
from sciml.observe import level
from tests.test_fuxida import awake


@pytest.fixture(scope="module")
def setting():
    """A model, a background covariance, inputs with a classical increment, observations at points of the grid."""
    eq = sm.TwoLayerQG.preset("eddy", 16)
    grid, step = eq.grid, sm.rk4(eq, 60.0)
    z = eq.init(sm.random_pv(eq, seed=0, members=40, speed=0.02))

    def psi(z):
        return grid.ifft(eq.psi(z))

    channels = (
        sm.Channel("a", level(1), 300.0),
        sm.Channel("b", lambda f: (f[..., 1, :, :] / 800).tanh() * 800, 100.0),
    )
    H = sm.Operator(grid, psi, channels)
    B = covariance(grid, z - z.mean(0))
    std = {"psi": tuple(psi(z).std((0, 2, 3)).tolist())}
    plain = Inputs(sm.Space(grid, psi, eq.pv), {"psi": psi}, std, ("a", "b"), (300.0, 100.0))
    rng = np.random.default_rng(0)
    parts = []
    for name, sigma in (("a", 300.0), ("b", 100.0)):
        i, j = rng.integers(0, 16, (2, 12))
        i[3], j[3] = i[2], j[2]
        places = grid.x0 + grid.dx * i, grid.y0 + grid.dy * j
        time = np.sort(rng.uniform(1.0, 119.0, 12))
        parts.append(observations(rng.normal(0, 3 * sigma, 12), sigma, time, *places, channels=[name], platforms=["p"]))
    window = sm.windows(concatenate(parts), H, 0.0, step.dt, 2, 1)[0]
    return eq, step, z, B, plain, replace(plain, first=first_guess(plain, B.root, H, 60)), window, H


def test_it_is_optimal_interpolation_of_the_cells(setting):
    """Observations at grid points, one cell with two of them, over a time too short to matter."""
    _, step, z, B, _, inputs, window, _ = setting
    background = sm.State(z[0])
    found = sm.OptimalInterpolation(B, middle=1.0, tolerance=1e-10)(background, window, step)
    expected = inputs.space.read(found.state.z - found.background.z)
    innovation = (window.value - found.background_equivalents) / window.sigma
    seen = inputs.observations(inputs.cells(window), innovation)[None]
    guess = inputs.guess(found.background.z[None], seen)[0][0] * inputs.scale()
    assert (guess - expected).abs().max() < 2e-3 * expected.abs().max()


def test_few_steps_are_near_and_a_batch_is_solved_as_if_one_by_one(setting):
    _, _, z, _, _, inputs, window, _ = setting
    seen = torch.stack([inputs.observations(inputs.cells(window), torch.randn(len(window)) * s) for s in (1.0, 3.0)])
    few = replace(inputs, first=replace(inputs.first, iterations=6))
    many, both = inputs.guess(z[:2], seen)[0], few.guess(z[:2], seen)[0]
    alone = torch.cat([few.guess(z[i : i + 1], seen[i : i + 1])[0] for i in (0, 1)])
    assert torch.allclose(both, alone, rtol=1e-4, atol=1e-6)
    assert torch.corrcoef(torch.stack([both.flatten(), many.flatten()]))[0, 1] > 0.9
    nothing = few.guess(z[:1], 0 * seen[:1])[0]
    assert not nothing.any()


def test_conjugate_gradients_of_a_batch():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(3, 8, 8, dtype=torch.float64, generator=generator)
    A, b = root @ root.mT + torch.eye(8), torch.randn(3, 8, dtype=torch.float64, generator=generator)
    found = conjugate_gradients(lambda p: (A @ p[..., None])[..., 0], b, 40, 1e-12, batch=1)
    assert torch.allclose(found, torch.linalg.solve(A, b), rtol=1e-8)


def test_it_is_kept_with_the_weights_and_other_grids_and_operators_are_refused(setting, tmp_path):
    _, step, z, B, plain, inputs, window, H = setting
    torch.manual_seed(0)
    config = Config(inputs.backgrounds, inputs.seen, 2, (8, 8), 4, first=True)
    analysis = FuXiDA(awake(FuXiDANet(config)), inputs)
    analysis.save(tmp_path / "w")
    again = FuXiDA.load(tmp_path / "w", inputs.space, inputs.fields, H)
    one, other = (a(sm.State(z[0]), window, step) for a in (analysis, again))
    assert torch.allclose(one.state.z, other.state.z)
    without = FuXiDA(FuXiDANet(replace(config, background=plain.backgrounds, first=False)), plain)
    assert without.inputs.backgrounds == inputs.backgrounds - 2
    with pytest.raises(ValueError, match=r"covariance has .* modes, the grid"):
        first_guess(inputs, B.root[..., :4], H, 3)
    with pytest.raises(ValueError, match="lacks the channels b"):
        FuXiDA.load(tmp_path / "w", inputs.space, inputs.fields, replace(H, channels=H.channels[:1]))
