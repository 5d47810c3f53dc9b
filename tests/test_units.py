"""Units of coefficients that are found."""

from __future__ import annotations

import pytest

from sciml.discover.units import powers, shown_unit, text
from sciml.equation.expression import parse
from sciml.equation.presets import preset

UNITS = preset("eddy", 8).units


@pytest.mark.parametrize(("term", "unit"), [
    ("lap(psi2)", " s-1"),
    ("dx(psi1)", " m-1 s-1"),
    ("dx(lap(psi1))", " m s-1"),
    ("q1 - mean_x(q1)", " s-1"),
    ("J(psi1, q1)", ""),
    ("dx(psi1)*dy(q1) - dy(psi1)*dx(q1)", ""),
    ("lap(lap(lap(lap(q2))))", " m8 s-1"),
    ("psi1 - psi2", " m-2 s-1"),
    ("psi1**2", " m-4"),
    ("1", " s-2"),
    ("beta*dx(psi1)", ""),
    ("2*rek*lap(psi1)", ""),
    ("x*q1", " m-1 s-1"),
    ("t*q1", " s-2"),
    ("J(psi2, eta)", ""),
    ("psi_R", " m-2 s-1"),
])  # fmt: skip
def test_coefficients_have_the_unit_that_makes_a_rate(term, unit):
    assert shown_unit(parse(term, ("beta", "rek")), "q1", UNITS) == unit


def test_without_units_nothing_is_shown():
    assert shown_unit(parse("lap(psi2)"), "q1", preset("relaxation_jet", 8).units) == ""


def test_units_are_read_and_written():
    assert text(powers("m2 s-1")) == "m2 s-1"
    assert text(powers("kg m-1 s-2")) == "kg m-1 s-2"
    assert text(powers("1")) == ""
    with pytest.raises(ValueError, match="not written as in"):
        powers("m/s")
