"""Libraries of terms against numpy's transforms and the published table of what nine models lack."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sciml.discover.library import Library, coefficients, own, polynomial, powers, terms
from sciml.discover.moments import check, moments
from sciml.discover.systems import EDDY, JET, SYSTEMS, eddy, jet, rough
from sciml.equation.base import Equation
from sciml.equation.burgers import Burgers
from sciml.equation.expression import parse
from sciml.equation.kuramoto import KuramotoSivashinsky
from sciml.equation.layered import LayeredQG
from sciml.equation.lorenz import Lorenz63, Lorenz96
from sciml.equation.presets import preset
from sciml.equation.vorticity import Vorticity
from sciml.grid import Grid
from sciml.initial import random_field, random_pv
from sciml.step import State, etdrk4


def names(*texts: str) -> list[str]:
    return [str(parse(t)) for t in texts]


def library_of(*texts: str) -> Library:
    return Library(texts)  # type: ignore[arg-type]


def random_states(system, number: int = 3) -> torch.Tensor:
    """Eddies that know nothing of each other in both layers."""
    model = system.model
    psi = random_field(model.grid, lambda K: torch.exp(-((K / K.median()) ** 2)), 1, (number, 2))
    return model.pv(psi / psi.std())


# -- putting libraries together --------------------------------------------------------------------------------------
def test_a_sum_holds_each_term_once():
    both = library_of("u", "dx(u)") + library_of("dx(u)", "u*v", "v*u")
    assert list(both.names) == names("u", "dx(u)", "u*v")
    assert len(both) == 3


def test_a_product_multiplies_each_with_each():
    product = library_of("1", "u") * library_of("u", "dx(u)")
    assert list(product.names) == names("u", "dx(u)", "u**2", "u*dx(u)")


def test_texts_and_expressions_are_the_same_terms():
    assert library_of("u**2", "3*dx(u)") == Library((parse("u*u"), parse("dx(u)*3")))


def test_terms_are_taken_away_by_name():
    assert list(library_of("u", "u*v", "v").without("v*u", "v").names) == ["u"]
    with pytest.raises(ValueError, match=r"the library has no term dx\(u\), w"):
        library_of("u", "v").without("w", "u", "dx(u)")


def test_the_polynomial_library_is_that_of_the_first_paper():
    """``u^p`` times the k-th derivative with p and k from 0 to 4, for k = 0 ``u^p`` alone, but no constant."""
    derivatives = ["1", "dx(u)", "lap(u)", "dx(lap(u))", "lap(lap(u))"]
    expected = names(*(f"u**{p} * {d}" for p in range(5) for d in derivatives))
    assert len(polynomial()) == 24
    assert set(polynomial().names) == set(expected) - {"1"}
    assert list(powers("v", 2).names) == ["1", "v", "v**2"]
    assert len(polynomial("v", degree=2, order=1)) == 5


# -- values ----------------------------------------------------------------------------------------------------------
def read_by_numpy(expression: str, fields: dict[str, np.ndarray], grid: Grid) -> np.ndarray:
    """The text as Python reads it, derivatives by numpy's complex transform of the whole plane."""
    k = 2j * math.pi * np.fft.fftfreq(grid.nx, grid.dx)[None, :]
    l = 2j * math.pi * np.fft.fftfreq(grid.ny, grid.dy)[:, None]

    def times(symbol, f):
        return np.fft.ifft2(symbol * np.fft.fft2(f)).real

    def dx(f):
        return times(k, f)

    def dy(f):
        return times(l, f)

    meaning = dict(
        dx=dx,
        dy=dy,
        lap=lambda f: times(k**2 + l**2, f),
        J=lambda a, b: dx(a) * dy(b) - dy(a) * dx(b),
        mean_x=lambda f: f.mean(1, keepdims=True),
    )
    return np.broadcast_to(eval(expression, {"__builtins__": {}}, meaning | fields), grid.shape)


def assert_equal_numpy(eq: Equation, library: Library, z: torch.Tensor, fields: dict[str, np.ndarray]) -> None:
    table = library.table(eq, z)
    assert table.shape == (*z.shape[:-3], *eq.grid.shape, len(library))
    for name, column in zip(library.names, np.moveaxis(table, -1, 0), strict=True):
        expected = read_by_numpy(name, fields, eq.grid)
        assert np.abs(column - expected).max() < 1e-8 * np.abs(expected).max(), name


def test_values_in_one_dimension_are_spectral_derivatives():
    grid = Grid(64, 1, Lx=7.0)
    x = 2 * math.pi * grid.x / grid.Lx
    u = 0.3 + torch.cos(x) + 0.5 * torch.sin(3 * x)
    eq = KuramotoSivashinsky(grid=grid)
    assert_equal_numpy(eq, terms(eq), eq.init(u[None]), {"u": u.numpy()})


def test_values_in_layers_are_spectral_derivatives():
    grid = Grid(16, 20, Lx=2 * math.pi, Ly=7.0)
    x, y = grid.x, 2 * math.pi * grid.y / grid.Ly
    psi = torch.stack([torch.cos(x + y) + torch.sin(2 * x - y) + torch.cos(2 * y), torch.sin(x + 2 * y) - torch.cos(x)])
    fixed = dict(topography=torch.cos(2 * x) * torch.sin(y), psi_R=torch.cos(y)[:, :1], sponge=1 + torch.sin(y)[:, 0])
    eq = preset("relaxation_jet", 16, 20, Lx=grid.Lx, Ly=grid.Ly, x0=grid.x0, y0=grid.y0, **fixed)
    fields = {f"psi{i + 1}": p.numpy() for i, p in enumerate(psi)}
    difference = fields["psi1"] - fields["psi2"]
    fields |= {"q1": read_by_numpy("lap(psi1)", fields, grid) - difference}
    fields |= {"q2": read_by_numpy("lap(psi2)", fields, grid) + difference}
    fields |= {n: np.broadcast_to(fixed[m], grid.shape) for n, m in (("eta", "topography"), ("psi_R", "psi_R"))}
    fields |= {"sponge": np.broadcast_to(fixed["sponge"][:, None], grid.shape)}
    assert len(terms(eq)) == 40
    assert_equal_numpy(eq, terms(eq), eq.pv(psi), fields)
    assert_equal_numpy(eq, own(eq), eq.pv(psi), fields)


def test_unknown_fields_are_refused():
    eq = KuramotoSivashinsky(grid=Grid(16, 1))
    with pytest.raises(ValueError, match=r"does not have: J\(psi, u\) \(psi\); v\*w \(v, w\)"):
        library_of("u", "J(psi, u)", "v*w").values(eq, torch.zeros(1, *eq.grid.modes, dtype=eq.grid.cdtype))


# -- libraries of equations ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("system", [jet("1", 16), eddy("drag", 16)], ids=["jet", "eddy"])
def test_terms_of_a_real_flow_do_not_depend_on_each_other(system):
    step = etdrk4(system.truth, system.dt)
    state = State(system.truth.init(random_pv(system.truth, 0, members=4, speed=0.5 if system.dt < 1 else 0.1)))
    for _ in range(150):
        state = step(state)
    library = terms(system.model)
    assert len(library) >= 30
    table = library.table(system.model, state.z).reshape(4, -1, len(library))
    m = moments(library.names, table, table[..., 0])
    check(m, tolerance=1e-7)
    twice = np.concatenate([table, (table[..., 0] - table[..., 3])[..., None]], -1)
    with pytest.raises(ValueError, match=r"psi1, .*difference are linearly dependent"):
        check(moments([*library.names, "difference"], twice, table[..., 0]))


@pytest.mark.parametrize("layers", [1, 3])
def test_other_numbers_of_layers_have_a_library(layers):
    grid = Grid(16, dealias=1.5)
    eq = LayeredQG(grid=grid, H=(1.0,) * layers, gprime=(0.1,) * (layers - 1), f0=1.0)
    library = terms(eq)
    psi = random_field(grid, lambda K: torch.exp(-((K / 3) ** 2)), 1, (20, layers))
    table = library.table(eq, eq.pv(psi)).reshape(20, -1, len(library))
    check(moments(library.names, table, table[..., 0]))
    assert {f"J(psi{i}, q{i})" for i in range(1, layers + 1)} <= set(library.names)


def test_thickness_stands_for_the_psi_of_lower_layers():
    """Everything else is the same, and what is lacking has the same tendencies in either basis."""
    system = jet("1", 16)
    plain, library = terms(system.model), terms(system.model, thickness=True)
    assert set(plain.names) - set(library.names) == {"psi2"}
    assert set(library.names) - set(plain.names) == {"psi1 - psi2"}
    psi = random_field(system.truth.grid, lambda K: torch.exp(-((K / 3) ** 2)), 1, (8, 2))
    z = system.truth.pv(psi)
    expected = coefficients(plain, system.truth, system.model, z)
    found = coefficients(library, system.truth, system.model, z)
    one, other = ([dict(zip(names, row, strict=True)) for row in c]
                  for names, c in ((plain.names, expected), (library.names, found)))  # fmt: skip
    for a, b in zip(one, other, strict=True):
        assert b["psi1 - psi2"] == pytest.approx(-a["psi2"], rel=1e-6)
        assert b["psi1"] == pytest.approx(a["psi1"] + a["psi2"], abs=1e-6 * abs(a["psi2"]))


def test_one_field_in_one_dimension_has_the_polynomial_library():
    assert terms(Burgers(grid=Grid(8, 1))) == polynomial("u")


@pytest.mark.parametrize("eq", [Vorticity(grid=Grid(8)), Lorenz63(), Lorenz96()], ids=lambda eq: type(eq).__name__)
def test_equations_without_a_library_are_refused(eq):
    with pytest.raises(ValueError, match=f"no library is known for {type(eq).__name__}"):
        terms(eq)


def test_own_terms_are_those_of_the_equation_without_numbers():
    assert set(own(KuramotoSivashinsky(grid=Grid(8, 1))).names) == set(names("dx(u**2)", "lap(u)", "lap(lap(u))"))
    found = own(jet("1", 16).truth).names
    assert {*names("J(psi1, q1)", "dx(psi2)", "lap(psi2)", "psi1", "psi2", "psi_R", "sponge*(q1 - mean_x(q1))")} < set(
        found
    )
    assert not any("beta" in n or "-psi" in n for n in found)


def test_pysindy_takes_the_table():
    ps = pytest.importorskip("pysindy")
    system = jet("4", 16)
    library, z = terms(system.model), random_states(system)
    table = library.table(system.model, z).reshape(-1, len(library))
    scale = np.sqrt((table**2).mean(0))
    h = system.model.grid.ifft(system.truth.tendency(z) - system.model.tendency(z))[:, 0].reshape(-1, 1).numpy()
    sindy = ps.SINDy(feature_library=ps.IdentityLibrary(), optimizer=ps.STLSQ(threshold=1e-3 * h.std()))
    sindy.fit(table / scale, t=np.arange(len(table)), x_dot=h, feature_names=library.names)
    found = dict(zip(sindy.get_feature_names(), sindy.coefficients()[0] / scale, strict=True))
    assert found.pop("J(psi1, q1)") == pytest.approx(-0.5, rel=1e-9)
    assert all(abs(c) < 1e-9 for c in found.values())


# -- what models lack ------------------------------------------------------------------------------------------------
def relaxed(rate: float) -> dict[str, float]:
    """``rate (psi1 - psi2 - psi_R)``"""
    return {"psi1": rate, "psi2": -rate, "psi_R": -rate}


PUBLISHED = {
    "1": (relaxed(-0.1), relaxed(0.1)),
    "2": (relaxed(-0.1), relaxed(0.1) | {"lap(psi2)": 0.3}),
    "3": (relaxed(0.01), relaxed(-0.01)),
    "4": ({"J(psi1, q1)": -0.5}, {"J(psi2, q2)": -0.5}),
    "5": ({"J(psi1, q1)": -1} | relaxed(-0.1), {"J(psi2, q2)": -1} | relaxed(0.1) | {"lap(psi2)": 0.3}),
    "6": ({}, {"lap(psi2)": 0.3}),
    "7": ({}, {"lap(psi2)": -0.07}),
    "8": ({"psi_R": -0.01}, {"psi_R": 0.01}),
    "9": ({"dx(psi1)": -0.196}, {"dx(psi2)": -0.196}),
}
"""h1 and h2 of MEDIDA-QG; ``J(psi1, lap psi1 + psi2 - psi1)`` is ``J(psi1, q1)`` and as well
``J(psi1, lap(psi1)) + J(psi1, psi2)``."""

F1 = 15e3**-2 / 1.25
LACKING = {
    "drag": ({}, {"lap(psi2)": -0.5 * 5.787e-7}),
    "no_drag": ({}, {"lap(psi2)": -5.787e-7}),
    "beta": ({"dx(psi1)": -1.5e-11}, {"dx(psi2)": -1.5e-11}),
    "shear": ({"dx(lap(psi1))": -0.005, "dx(psi2)": -0.005 * F1}, {"dx(psi2)": 0.005 * 0.25 * F1}),
    "advection": ({"J(psi1, q1)": -0.5}, {"J(psi2, q2)": -0.5}),
    "topography": ({}, {"J(psi2, eta)": -1.0}),
}
"""On the eddy flow; the shear U1 - U2 stands in the advection and in the PV gradients of both layers."""


@pytest.mark.parametrize("case", SYSTEMS)
def test_what_each_model_lacks_is_as_published(case):
    system = SYSTEMS[case](16)
    library = terms(system.model)
    found = coefficients(library, system.truth, system.model, random_states(system))
    for row, expected in zip(found, (PUBLISHED | LACKING)[case], strict=True):
        kept = {n: float(c) for n, c in zip(library.names, row, strict=True) if c}
        assert kept == pytest.approx({str(parse(n)): c for n, c in expected.items()}, rel=1e-6)


def test_the_jacobian_may_be_written_with_the_laplacian():
    system = jet("4", 16)
    library = library_of("J(psi1, lap(psi1))", "J(psi2, lap(psi2))", "J(psi1, psi2)")
    found = coefficients(library, system.truth, system.model, random_states(system))
    np.testing.assert_allclose(found, [[-0.5, 0, -0.5], [0, -0.5, 0.5]], rtol=1e-9, atol=1e-12)


def test_a_model_that_lacks_nothing_has_no_coefficients():
    truth = jet("1", 16).truth
    assert not coefficients(terms(truth), truth, truth, random_states(jet("1", 16))).any()


def test_what_lies_outside_the_library_is_refused():
    system = jet("9", 16)
    library = terms(system.model).without("dx(psi1)")
    with pytest.raises(ValueError, match="what the model lacks is not in the library"):
        coefficients(library, system.truth, system.model, random_states(system))


# -- systems ---------------------------------------------------------------------------------------------------------
def test_there_are_nine_published_cases_and_six_more():
    assert list(SYSTEMS) == [*"123456789", "drag", "no_drag", "beta", "shear", "advection", "topography"]
    assert set(SYSTEMS) == {*JET, *EDDY}


def test_scales_are_those_of_the_published_run():
    system = jet("1")
    assert (system.truth.grid.nx, system.truth.grid.ny) == (96, 192)
    assert system.dt == pytest.approx(0.025)
    assert system.spin_up / system.dt == pytest.approx(10_000)


def test_the_rough_bottom_is_the_same_each_time():
    bottom = rough(16)
    torch.testing.assert_close(bottom, rough(16), rtol=0, atol=0)
    assert float(bottom.std()) == pytest.approx(1e-6)
    assert eddy("topography", 16).truth.filter is None
