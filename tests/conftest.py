"""Shared by all tests: one thread, a fixed seed, no plots on screen."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

from tests import ROOT  # noqa: F401


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def relative(a, b) -> float:
    """Largest difference over the largest value of ``b``."""
    a, b = torch.as_tensor(a).detach(), torch.as_tensor(b).detach()
    return float((a - b).abs().max() / b.abs().max())


from tests.case_fixtures import _cases_are_importable, call, earlier, finished, undrawn  # noqa: E402, F401
