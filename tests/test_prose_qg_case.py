"""The case of flows: what it refuses, members that no training has seen, its table."""

from importlib import import_module

import numpy as np
import pytest
import torch
import xarray as xr

from sciml.prose.flows import FLOWS
from tests.case_fixtures import refused

SHORT = ("--preset", "quick")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--members", 0), "--members must be from 1 "),
        (("--draws", 1), "--draws must be from 2 "),
        (("--noise", 2), "--noise must be from 0 to 1"),
        (("--n", 18), "--n must be a multiple of 4, got 18"),
        (("--families", "burgers"), "there is no burgers; known: barotropic"),
        (("--weights", "data/weights/prose_ode.safetensors"), "holds a network for other data"),
        (("--weights", "data/weights/mgno_qg.safetensors"), "weights of another kind"),
        (("--twin", "nowhere.safetensors"), "there are no weights nowhere.safetensors"),
        (("--train", "--equations", 0, "--updates", -1), "must be from 1 "),
    ],
    ids=str,
)
def test_refusals(options, message, call, tmp_path):
    refused(call(*SHORT, *options, "--out", tmp_path, case="prose_qg"), message)


def test_tested_members_are_no_training_members():
    """Of any seed of either: the same seed draws the same numbers, and training members are drawn in chunks."""
    case, flows = import_module("prose_qg"), import_module("prose_flows")
    names = tuple(FLOWS)
    some = case.some_flows(names, 4, 1, 0, 16, 0)
    for seed in (0, 1):
        tested, noisy = flows.unseen(names, 4, seed, 16, 0.02)
        assert not set(tested.equations) & set(some.equations)
        off = (noisy - tested.frames)[:, :, 0].std() / tested.frames[:, :, 0].std()
        assert 0.01 < float(off) < 0.04
    assert flows.TEST + 2**31 - 1 < 2**32, "the generator takes no more bits"
    assert torch.Generator().manual_seed(flows.TEST + 5).initial_seed() != 5


def test_table_agrees_with_itself(finished):
    """Errors of persistence as from the flows themselves; the terms named are those of the equations."""
    folder, printed = finished("prose_qg")
    flows = import_module("prose_flows")
    made, noisy = flows.unseen(tuple(FLOWS), 2, 0, 32, 0.02)
    with xr.open_dataset(folder / "table.nc", decode_times=False) as ds:
        still = (noisy[:, 7:8] - made.frames[:, 8:]).double().square().sum((2, 3, 4)).sqrt()
        still = (still / made.frames[:, 8:].double().square().sum((2, 3, 4)).sqrt()).clamp(max=2)
        assert np.allclose(ds["error"].sel(forecast="persistence"), still, rtol=1e-5)
        assert (ds["error"].sel(forecast="refined equation", lead=10) < 0.1).all()
        tendencies = [t.split(";")[0] for t in ds["equation"].sel(identifier="network").values]
        drag = ds["named"].sel(identifier="network", term="drag").values.astype(bool)
        assert [" lap(psi1)" in t or "*lap(psi1)" in t for t in tendencies] == drag.tolist()
        assert ds["lead"].attrs["units"] == "days"
    assert "refined equation" in printed
