"""The PROSE-PDE case: what it refuses, and that its numbers are what they are called."""

import json
from importlib import import_module

import pytest
import torch
import xarray as xr

from sciml.equation.expression import parse
from sciml.equation.tokens import Vocabulary
from sciml.prose.model import new
from sciml.prose.windows import Lines, Windows
from tests.case_fixtures import refused

CASE = dict(case="prose_pde")
SHORT = ("--preset", "quick", "--tested", 1, "--states", 1)


def saved(path, view, **about):
    new(view, Vocabulary(("u_0", "u_1")), "small", length=48, seed=0).save(path, **about)
    return path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("--weights", "nowhere.safetensors"), r"there are no weights nowhere.safetensors; .*--train.*--weights"),
        (("--twin", "nowhere.safetensors"), "there are no weights nowhere.safetensors"),
        (("--train", "--families", "heat", "smoke"), r"there is no smoke; known: heat, porous_medium"),
        (("--tested", 0), "--tested must be from 1 "),
        (("--noise", 2), "--noise must be from 0 to 1"),
        (("--train", "--updates", -1), "--updates must be from 1 "),
    ],
)
def test_refusals(line, message, call, tmp_path):
    refused(call(*SHORT, *line, "--out", tmp_path, **CASE), message)


def test_weights_of_another_kind_are_refused(call, tmp_path):
    path = saved(tmp_path / "ode.safetensors", Windows(5), names=["Thomas"])
    refused(call(*SHORT, "--weights", path, "--out", tmp_path, **CASE), "holds a network for other data")
    path = saved(tmp_path / "pde.safetensors", Lines(), names=["heat"])
    refused(
        call(*SHORT, "--weights", path, "--families", "kdv", "--out", tmp_path, **CASE), "there is no kdv; known: heat"
    )


def test_missing_weights_are_told_at_once(call, tmp_path):
    if not import_module("prose_pde").SHIPPED.exists():
        refused(call(*SHORT, "--out", tmp_path, **CASE), "train a network with --train")


def test_tables_of_the_short_run(finished):
    folder, printed = finished("prose_pde")
    with xr.open_dataset(folder / "table.nc") as ds:
        assert dict(ds["prediction"].sizes) == dict(guess=4, family=2)
        assert list(ds["family"].values) == ["heat", "advection"]
        assert (ds["valid"] >= ds["valid_raw"]).all()
        errors = [n for n in ds.data_vars if n not in ("r2", "misfit", "shifted_r2")]
        assert all(bool(((ds[n] >= 0) & (ds[n] <= 1)).all()) for n in errors)
        assert ds["noise_prediction"].sel(noise=0.02, swept="none") == pytest.approx(
            float(ds["prediction"].sel(guess="none").mean()), rel=1e-5
        )
        assert ds["shown_symbols"].sel(frames=32, swept="skeleton") == pytest.approx(
            float(ds["symbols"].sel(guess="skeleton").mean()), rel=1e-5
        )
        assert float(ds["sindy"].sel(family="advection")) < 0.05
        results = json.loads((folder / "summary.json").read_text())["results"]
        assert results["others"]["persistence"] == pytest.approx(float(ds["persistence"].mean()))
    assert "persistence" in printed


def test_constants_of_an_equation_of_the_true_form():
    fields = import_module("prose_fields")

    def rhs(text):
        return (parse(text),)

    truth = rhs("0.5*lap(u_0) - 0.2*dx(u_0)")
    assert fields.off(rhs("0.55*lap(u_0) - 0.2*dx(u_0)"), truth) == pytest.approx(0.05)
    assert fields.off(truth, truth) == 0
    assert fields.off(rhs("0.5*lap(u_0)"), truth) != fields.off(rhs("0.5*lap(u_0)"), truth), "nan"
    assert fields.capped(torch.tensor([0.5, 3.0, float("nan"), float("inf")])).tolist() == [0.5, 1, 1, 1]


@pytest.mark.slow
def test_a_twin_sees_no_equations(call, tmp_path):
    whole, twin = (
        saved(tmp_path / f"{s}.safetensors", Lines(), names=["heat"], symbols=s, spread=0.1) for s in (True, False)
    )
    ended = call(*SHORT, "--weights", whole, "--twin", twin, "--out", tmp_path / "run", **CASE)
    assert (ended.status, ended.err) == (0, "")
    with xr.open_dataset(tmp_path / "run" / "table.nc") as ds:
        assert float(ds["twin"][0]) == pytest.approx(float(ds["prediction"].sel(guess="none")[0]), rel=1e-6)
    refused(call(*SHORT, "--weights", twin, "--out", tmp_path / "o", **CASE), "trained with --no-symbols; --twin takes")
