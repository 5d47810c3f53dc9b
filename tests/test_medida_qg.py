"""The case on quasi-geostrophic flow: what it makes of gaps and noise, its twin, states that are kept, its refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from sciml.discover.library import coefficients
from tests.case_fixtures import refused
from tests.conftest import relative

SHORT = "--nx 16 --samples 12 --interval 1 --spin-up 0.4 --leads 0 --case 6".split()


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """File of states that all runs here share."""
    return tmp_path_factory.mktemp("states") / "jet.safetensors"


@pytest.fixture
def qg():
    return import_module("medida_qg")


@pytest.fixture
def options(qg, kept):
    return qg.Options(case="6", nx=16, samples=12, interval=1, spin_up=0.4, leads=0, states=kept)


@pytest.mark.parametrize("interpolator", [None, "kriging", "neural", "radial", "cubic", "spectral"])
def test_gaps_are_filled(interpolator, qg, options):
    """With nine tenths of the points; with zeros in the gaps the error would be 0.32."""
    e = qg.experiment(replace(options, sensors=0.9, interpolator=interpolator))
    grid, psi = e.system.truth.grid, e.system.truth.psi
    assert e.seen.shape == e.z.shape == (3, 12, 2, *grid.modes)
    found, true = grid.ifft(psi(e.seen)), grid.ifft(psi(e.z))
    assert (found - true).norm() < 0.16 * true.norm()


@pytest.mark.parametrize("same", [False, True])
def test_noise_has_the_size_asked_for(same, qg, options):
    o = replace(options, noise=0.3, same_sensors=same)
    e = qg.experiment(options)
    grid, places = e.system.truth.grid, []

    def fill(positions, values, sigma):
        """What is seen, each value at its own point."""
        places.append(positions)
        column, row = ((positions - positions.amin(0)) / torch.tensor([grid.dx, grid.dy])).round().long().T
        field = values.new_zeros(*values.shape[:-1], *grid.shape)
        field[..., row, column] = values
        return field

    seen, true = (grid.ifft(e.system.truth.psi(a)) for a in (qg.observed(o, e.system, e.z, fill, 7), e.z))
    noise = (seen - true).std((0, 1, 3, 4)) / true.std((0, 1, 3, 4))
    assert noise.numpy() == pytest.approx([0.3, 0.3], rel=0.07)
    assert torch.equal(places[0], places[1]) == same


def test_four_short_series_in_noise_are_enough(qg):
    """Twelve triples are not: they miss terms and a third of others."""
    o = qg.Options(preset="quick", noise=0.02, length=9)
    e = qg.experiment(o)
    assert e.seen.shape == e.z.shape == (10, 4, 2, *e.system.truth.grid.modes)
    found = qg.discovered(o, e)
    exact = coefficients(found.library, e.system.truth, e.system.model, e.z[1, :2])
    compared = qg.compared(found.library, found, exact)
    assert compared["right terms"]
    assert compared["largest error (%)"] < 8


def test_without_gaps_and_noise_states_are_the_true_ones(qg, options):
    e = qg.experiment(options)
    assert relative(e.seen, e.z) < 1e-12
    assert all(p.earlier is None for p in qg.pairs_of(options, e.seen, 1))


def test_a_noisy_run_writes_its_spectra_and_repeats(call, kept, tmp_path):
    found = []
    for name in ("a", "b"):
        line = [*SHORT, "--noise", "0.01", "--states", kept, "--out", tmp_path / name]
        assert call(*line, case="medida_qg").status == 0
        found.append((tmp_path / name / "discovery.json").read_text())
    assert found[0] == found[1]
    assert (tmp_path / "a" / "error_spectra.png").exists()


@pytest.mark.slow
def test_terms_and_honest_errors_in_five_percent_of_noise(call, tmp_path):
    line = "--case 8 --noise 0.05 --leads 0 --out".split()
    assert call(*line, tmp_path, case="medida_qg").status == 0
    results = json.loads((tmp_path / "summary.json").read_text())["results"]
    assert results["right terms"]
    assert all(t["error (%)"] < 10 and t["errors of std"] < 3 for t in results["terms"].values())


def test_a_twin_changes_what_is_found_in_noise(qg, options):
    o = replace(options, noise=0.02)
    e = qg.experiment(o)
    plain, corrected = (qg.discovered(replace(o, twin=t), e).paths["q2"].mean for t in (False, True))
    assert np.isfinite(corrected).all()
    assert not np.allclose(plain[: len(corrected)], corrected[: len(plain)], rtol=1e-6)


def test_kept_states_of_another_run_are_refused(call, kept, tmp_path, qg, options):
    qg.experiment(options)
    ended = call(*SHORT, "--seed", "1", "--states", kept, "--out", tmp_path, case="medida_qg")
    refused(ended, "holds other states than this run needs")


@pytest.mark.parametrize(("line", "message"), [
    ("--sensors 0", "--sensors must be from 0.01 to 1"),
    ("--sensors 0.5 --interpolator resolved", "--interpolator resolved needs all points seen"),
    ("--noise -1", "--noise must be from 0 to 10, got -1"),
    ("--rounds 0", "--rounds must be from 1"),
    ("--samples 1", "--samples must be from 2"),
    ("--case 10", "there are 1, 2, 3"),
    ("--cut 0", "--cut must be above 0"),
])  # fmt: skip
def test_what_cannot_be_done_is_refused(line, message, call, tmp_path):
    refused(call(*line.split(), "--out", tmp_path, case="medida_qg"), message)


def test_the_summary_says_what_was_found_and_how_far_off(call, kept, tmp_path):
    assert call(*SHORT, "--states", kept, "--out", tmp_path, case="medida_qg").status == 0
    found = json.loads((tmp_path / "summary.json").read_text())["results"]
    assert found["right terms"] is True
    assert found["largest error (%)"] < 0.1
    assert found["terms"]["q2: lap(psi2)"]["true"] == pytest.approx(0.3)
