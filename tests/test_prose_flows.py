"""Written flows: the package's own QG equations say the same, and text, tokens and terms lead back to them."""

import pytest
import torch

from sciml.equation.base import substituted
from sciml.equation.expression import Number, from_prefix, leaves, parse, to_prefix, to_text
from sciml.equation.layered import LayeredQG, TwoLayerQG
from sciml.grid import Grid
from sciml.initial import gaussian_random_field
from sciml.prose.flows import (
    FLOWS,
    JETS,
    TERMS,
    as_equation,
    coefficients,
    parameters,
    structure,
    terms_of,
    three_digits,
    written_member,
)  # fmt: skip
from tests.conftest import relative

GRID = Grid(24)
ETA = gaussian_random_field(GRID, 3, 3.0, 4.0, 40.0)


def fields(layers: int) -> torch.Tensor:
    return gaussian_random_field(GRID, 5, 3.0, 4.0, 40.0, (layers,))


def written(layers, terms, **values):
    """The equation with its numbers unrounded, so that it can be compared with the package's."""
    return as_equation([substituted(e, values) for e in structure(layers, terms)], GRID, ETA)


@pytest.mark.parametrize(("viscous", "order"), [("viscosity", 1), ("hyperviscosity", 2)])
def test_one_layer_is_the_layered_model(viscous, order):
    ours = written(1, ["beta", "drag", "topography", viscous], beta=0.7, r=0.03, h=1.0, nu=2e-3, nu4=2e-3)
    numbers = dict(beta=0.7, rek=0.03, nu=2e-3, nu_order=order)
    theirs = LayeredQG(grid=GRID, topography=ETA, **numbers)  # type: ignore[arg-type]
    z = theirs.pv(fields(1))
    assert relative(ours.pv(fields(1)), z) < 1e-13
    assert relative(ours.tendency(z), theirs.tendency(z)) < 1e-12


@pytest.mark.parametrize("delta", [1.0, 0.4])
def test_two_layers_are_the_two_layer_model(delta):
    rd, jet = 0.4, {"relaxation", "jet2"} if delta == 1 else set()
    F1 = rd**-2 / (1 + delta)
    values = dict(F1=F1, F2=delta * F1, U=0.2, beta=0.7, r=0.03, nu=2e-3, h=1.0, kappa=0.05, jet2=0.02)
    ours = written(2, {"radius", "shear", "beta", "drag", "viscosity", "topography"} | jet, **values)
    relax = dict(relax=0.05 * F1, relax_jet=0.02, psi_R=torch.cos(2 * GRID.y)) if jet else {}
    numbers = dict(rd=rd, delta=delta, U1=0.2, beta=0.7, rek=0.03, nu=2e-3, nu_order=1, topography=ETA, **relax)
    theirs = TwoLayerQG(grid=GRID, **numbers)  # type: ignore[arg-type]
    z = theirs.pv(fields(2))
    assert relative(ours.tendency(z), theirs.tendency(z)) < 1e-12
    assert relative(ours.psi(z)[..., 1:, :], theirs.psi(z)[..., 1:, :]) < 1e-12


def test_radius_of_one_layer():
    """q of a single wave is -(K^2 + F) psi."""
    flow = written(1, ["radius"], F=4.0)
    psi = torch.cos(2 * GRID.x + 3 * GRID.y)[None]
    z = flow.pv(psi)
    assert relative(flow.read(z), -(13 + 4.0) * psi) < 1e-12
    assert relative(GRID.ifft(flow.psi(z)), psi) < 1e-12


@pytest.mark.parametrize("family", FLOWS.values(), ids=list(FLOWS))
def test_members_survive_text_and_tokens(family, rng):
    for member in family.sample(25, rng):
        assert terms_of(member.expressions) == member.terms
        for e in member.expressions:
            assert from_prefix(to_prefix(e)) == e
            assert three_digits(e) == e
            assert parse(to_text(e)) == e
        assert set(member.values) == {p for t in member.terms for p in parameters(family.layers, t)}


def test_families_draw_what_they_say(rng):
    members = FLOWS["two_layer"].sample(200, rng)
    share = {t: sum(t in m.terms for m in members) / 200 for t in TERMS}
    assert share["radius"] == 1
    assert share["shear"] == pytest.approx(0.6, abs=0.12)
    assert share["viscosity"] + share["hyperviscosity"] == 1
    assert all("drag" in m.terms for m in members if "shear" in m.terms)
    assert all("relaxation" in m.terms and len(JETS.keys() & m.terms) == 1 for m in members if JETS.keys() & m.terms)
    assert all(0.25 < m.values["F2"] / m.values["F1"] < 1 for m in members)


def test_same_seed_same_members():
    a, b, c = (FLOWS["topographic"].sample(5, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert a == b
    assert a != c


def test_written_numbers():
    member = written_member("mine", 2, ["radius", "shear", "beta"], dict(F1=4.004, F2=1.0, U=0.2, beta=0.5))
    text = [to_text(e) for e in member.expressions]
    assert text[2:] == ["lap(psi1) - 4*psi1 + 4*psi2", "psi1 + lap(psi2) - psi2"]
    found = {to_text(e): c for (row, e), c in coefficients(member.expressions).items() if row == 0}
    assert found["dx(psi1)"] == Number(-1.3)
    assert "beta" not in terms_of(written_member("mine", 2, ["radius", "shear"], dict(F1=4, F2=1, U=0.213)).expressions)


@pytest.mark.parametrize(("layers", "terms", "message"), [
    (3, [], "1 or 2 layers, got 3"),
    (1, ["friction"], r"unknown terms \['friction'\]; there are radius"),
    (2, ["beta"], "add the term 'radius'"),
    (1, ["shear"], "one layer has none"),
])  # fmt: skip
def test_structures_that_are_none(layers, terms, message):
    with pytest.raises(ValueError, match=message):
        structure(layers, terms)


@pytest.mark.parametrize(("rows", "message"), [
    (["-J(psi1, q1)"], "even number of rows; got 1"),
    (["-J(psi1, q1)", "psi1**2"], "not linear in the streamfunctions"),
    (["-J(psi1, q1)", "lap(phi)"], r"names \['phi'\]; it may name psi1 only"),
    (["-J(psi1, q1) + J(psi1, eta)", "lap(psi1)"], r"unknown fields \['eta'\].*give the map eta"),
    (["-J(psi1, q1)", "lap(psi1) + psi1"], "singular"),
])  # fmt: skip
def test_flows_that_cannot_be_stepped(rows, message):
    with pytest.raises(ValueError, match=message):
        as_equation([parse(row) for row in rows], GRID)


def test_parameters_need_values():
    with pytest.raises(ValueError, match=r"\['beta'\] have no values"):
        as_equation(structure(1, ["beta"]), GRID)
    assert leaves(structure(1, ["beta"])[0]) == {"psi1", "q1"}
