"""The case of elasticity: its scenes, the finite elements beside it, going on, what is refused."""

from __future__ import annotations

import json
import math
from importlib import import_module

import numpy as np
import pytest
import torch

import sciml as sm
from sciml.files import load_tensors
from sciml.insr.body import Body, Face
from sciml.insr.hyperelastic import lame, stable_neo_hookean
from tests.case_fixtures import NEURAL, refused, stopping
from tests.conftest import relative

SHORT = {
    "bar": ["--steps", "12", "--iterations", "5", "--width", "6"],
    "collision": ["--steps", "20", "--width", "4"],
    "twist": ["--steps", "1", "--iterations", "4", "--width", "4", "--load", "0.2"],
}


@pytest.fixture
def elements():
    return import_module("elements")


@pytest.mark.parametrize("scene", SHORT)
def test_scenes(scene, call, tmp_path):
    """Of short runs, whose numbers only have to be sound."""
    ended = call("--scene", scene, "--preset", "quick", *SHORT[scene], "--out", tmp_path, case="insr_elastic")
    assert (ended.status, ended.err) == (0, "")
    assert {p.name for p in tmp_path.iterdir()} >= set(NEURAL.split())
    found = json.loads((tmp_path / "summary.json").read_text())["results"]
    assert found["smallest_volume"] > 0.5
    with sm.open_run(tmp_path) as ds:
        assert all("units" in v.attrs for v in ds.variables.values())
        assert set(ds.dims) >= {"time", "step", "x", "y"}
    wanted = {"bar": ("error_of_frequency", 0.1), "collision": ("depth_over_the_size_of_the_body", 1e-2),
              "twist": ("error_of_displacement", 0.2)}  # fmt: skip
    name, most = wanted[scene]
    assert 0 <= found[name] < most


def test_a_run_goes_on_where_it_was_interrupted(call, tmp_path, monkeypatch):
    """To the same weights, bit for bit."""
    line, shared = ["--preset", "quick", "--out"], import_module("elastic")
    assert call(*line, tmp_path / "whole", case="insr_elastic").status == 0
    with monkeypatch.context() as patch:
        patch.setattr(shared, "keep", stopping(shared.keep, 3))
        assert call(*line, tmp_path / "part", case="insr_elastic").status == 130
    refused(call(*line, tmp_path / "part", "--resume", "--load", "2", case="insr_elastic"), "another --load")
    assert call(*line, tmp_path / "part", "--resume", case="insr_elastic").status == 0
    runs = [load_tensors(tmp_path / n / "state.safetensors")[0]["state.theta"] for n in ("whole", "part")]
    assert torch.equal(*runs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--young", "-1"], "--young must be above 0"),
        (["--poisson", "0.5"], "--poisson must be from -0.99 to 0.4999"),
        (["--load", "0"], "at most 4"),
        (["--width", "0"], "--width must be from 1"),
        (["--samples", "0.5"], "do not fix"),
        (["--resume"], "no state in"),
        (["--scene", "twist", "--steps", "1", "--iterations", "1", "--omega", "9"], "last good state is in"),
    ],
)
def test_what_cannot_work_is_refused(arguments, message, call, tmp_path):
    refused(call("--preset", "quick", *arguments, "--out", tmp_path, case="insr_elastic"), message)
    assert (tmp_path / "state.safetensors").exists() == ("last good" in message)


# -- finite elements -------------------------------------------------------------------------------------------------
def square(elements, n, order, d=2):
    return elements.Mesh(Body((1.0,) * d, stable_neo_hookean(*lame(1.0, 0.3)), faces=(Face(0, 0, tuple(range(d))),)), (n,) * d, order)  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(("order", "d"), [(1, 2), (2, 2), (2, 3)])
def test_finite_elements_differentiate_their_energy(elements, order, d):
    mesh, draw = square(elements, 2, order, d), np.random.default_rng(0)
    drawn = mesh.nodes * [0.3, 0.2, 0.1][:d] + 1e-3 * draw.standard_normal(mesh.nodes.shape)
    u, move, h = drawn, 0.02 * draw.standard_normal(mesh.nodes.shape), 1e-6
    slope = (mesh.energy(u + h * move) - mesh.energy(u - h * move)) / (2 * h)
    assert mesh.force(u) @ move.ravel() == pytest.approx(slope, rel=1e-6)
    turn = (mesh.force(u + h * move) - mesh.force(u - h * move)) / (2 * h)
    assert relative(mesh.stiffness(u) @ move.ravel(), turn) < 1e-5, "nothing is indefinite"
    assert mesh.mass.sum() == pytest.approx(d)
    affine = mesh.nodes @ np.array([[0.1, 0.2, 0.0], [0.0, -0.1, 0.3], [0.1, 0.0, 0.2]])[:d, :d]
    x = draw.uniform(size=(7, d))
    assert np.allclose(mesh.at(affine, x), x @ np.linalg.lstsq(mesh.nodes, affine, rcond=None)[0])


def test_finite_elements_converge(elements):
    """Stored energy of a square that is drawn with its ends held: order 2 of the energy for linear elements."""
    body = Body((1.0, 1.0), stable_neo_hookean(*lame(1.0, 0.3)), faces=(Face(0, 0, (0, 1)), Face(0, 1, (0, 1))),
                motion=lambda x, t: torch.stack([0.3 * t * x[:, 0], 0 * x[:, 1]], -1))  # fmt: skip
    fine = elements.Mesh(body, (10, 10), 2)
    stored = fine.energy(elements.bent(fine, 1))
    errors = []
    for n in (3, 6):
        mesh = elements.Mesh(body, (n, n), 1)
        errors.append(mesh.energy(elements.bent(mesh, 1)) - stored)
    assert 1.2 < math.log2(errors[0] / errors[1]) < 2.2
    assert errors[1] > 0, "from above"
