"""MEDIDA on daily maps of flows."""

import pytest

from sciml.prose import flow_scoring as scoring
from sciml.prose.flow_data import generate_flows
from sciml.prose.flow_medida import library, medida_flow
from sciml.prose.flows import TERMS as ALL
from sciml.prose.flows import coefficients, structure, written_member
from tests.test_prose_flow_fit import TERMS, VALUES, frames_of, noisy


@pytest.mark.parametrize("size", [0.0, 0.01])
def test_terms_of_a_flow(size):
    member = written_member("one", 1, TERMS, VALUES)
    frames, eta = frames_of(member, 8)
    found = medida_flow(member.expressions[1:], noisy(frames, size), eta, noisy=size > 0, steps_per_day=8)
    assert scoring.same_named_terms(found, member.expressions)
    assert scoring.coefficient_errors(found, member.expressions, rows=1).max() < (0.05 if size else 0.005)
    assert found[1:] == member.expressions[1:]


def test_two_layers():
    values = dict(F1=5.0, F2=2.0, U=0.2, beta=0.6, r=0.05, nu=5e-3)
    member = written_member("two", 2, ["radius", "shear", "beta", "drag", "viscosity"], values)
    flows = generate_flows([member], 1, seed=0, n=24, frames=8)
    found = medida_flow(member.expressions[2:], flows.frames[0], noisy=False)
    assert scoring.same_named_terms(found, member.expressions)


@pytest.mark.parametrize("layers", [1, 2])
def test_library_holds_all_terms(layers):
    """Every term of every tendency but the advection."""
    form = structure(layers, set(ALL) - ({"shear"} if layers == 1 else set()))
    terms = {rest for row, rest in coefficients(form) if row < layers}
    own = set(library(layers, True).terms)
    advections = {e for e in terms if "J(" in str(e) and "eta" not in str(e)}
    assert terms - advections <= own
    assert len(own) == len(library(layers, False)) + 1
    assert len(advections) == layers
