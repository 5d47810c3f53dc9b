"""Equations of one's own trajectories: terms, constants and their errors, units, forecasts, refusals, the case."""

import json
import math

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares

from sciml.prose.own import identify, summed, units
from sciml.prose.rank import insignificant
from sciml.prose.refine import fit
from sciml.prose.sindy import polynomials
from sciml.prose.smoothing import noise as noise_of
from tests.case_fixtures import *  # noqa: F403
from tests.case_fixtures import refused

LYNX = {(0, "u_0"): 1.1, (0, "u_0*u_1"): -0.4, (1, "u_1"): -0.4, (1, "u_0*u_1"): 0.1}
"""Volterra's equations of prey and predators"""


def hares(n: int = 160, noise: float = 0.02, seed: int = 0):
    """Times, noisy values, and the truth by scipy."""
    t = np.linspace(0, 32, n)
    f = lambda _, u: [1.1 * u[0] - 0.4 * u[0] * u[1], 0.1 * u[0] * u[1] - 0.4 * u[1]]  # noqa: E731
    true = torch.from_numpy(solve_ivp(f, (0, 32), [10.0, 5.0], "DOP853", t, rtol=1e-10, atol=1e-10).y.T.copy())
    drawn = torch.randn(true.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.from_numpy(t), true + noise * true.std(0) * drawn, true


def table(found) -> dict:
    rows = zip(found.terms, found.constants.tolist(), found.deviations.tolist(), strict=True)
    return {(i, str(e)): (c, d) for (i, e), c, d in rows}


@pytest.fixture(scope="module")
def found():
    t, u, _ = hares()
    return identify(t[:120], u[:120])


def test_exactly_the_right_terms_with_honest_errors(found):
    got = table(found)
    assert set(got) == set(LYNX)
    for term, (value, std) in got.items():
        assert abs(value - LYNX[term]) < 4 * std
        assert std < 0.02 * abs(value)
    assert 0.7 < found.reduced < 1.4


def test_the_forecast_and_its_spread(found):
    t, _, true = hares()
    states, spread = found.predict(t, runs=60)
    miss = (states - true)[120:]
    assert float(miss.square().mean().sqrt()) < 0.02 * float(true.std())
    assert 0.2 < float((miss / spread[120:]).square().mean().sqrt()) < 3
    assert found.predict(t)[1].abs().max() == 0


def test_the_right_hand_sides_are_those_of_the_constants(found):
    t, _, true = hares()
    from sciml.prose.trajectories import integrate

    own = integrate(found.rhs, {}, found.predict(t[:1])[0][0], t, substeps=8)
    torch.testing.assert_close(own, found.predict(t)[0], rtol=1e-3, atol=1e-3 * float(true.max()))


def test_units_do_not_matter(found):
    """Kilometres instead of metres, hours instead of seconds, and another start."""
    t, u, _ = hares()
    scale = torch.tensor([1e-3, 50.0], dtype=torch.float64)
    other = identify(3600 * t[:120] + 7e5, u[:120] * scale)
    got, before = table(other), table(found)
    assert set(got) == set(before)
    factor = {(0, "u_0"): 1.0, (0, "u_0*u_1"): 1 / 50, (1, "u_1"): 1.0, (1, "u_0*u_1"): 1e3}
    for term, (value, std) in got.items():
        wanted = [x * factor[term] / 3600 for x in before[term]]
        assert [value, std] == pytest.approx(wanted, rel=1e-3)


def test_units_of_a_wave():
    t = torch.linspace(0, 12 * math.pi, 600, dtype=torch.float64)
    span, size = units(t, torch.stack((torch.cos(t / 3), 5 * torch.sin(t / 3)), 1))
    assert float(span) == pytest.approx(3, rel=0.02)
    assert size.tolist() == pytest.approx([0.5**0.5, 5 * 0.5**0.5], rel=0.01)


def test_smooth_data_have_the_noise_of_the_solver_at_least():
    t = torch.linspace(0, 8, 60, dtype=torch.float64)
    got = table(identify(t, torch.stack((torch.cos(2 * t), -torch.sin(2 * t)), 1), degree=1))
    assert set(got) == {(0, "u_1"), (1, "u_0")}
    assert got[0, "u_1"][0] == pytest.approx(2, abs=1e-3)
    assert got[1, "u_0"][0] == pytest.approx(-2, abs=1e-3)


def test_a_term_that_sparse_regression_misses_is_found_among_all():
    """The slow growth of a wave: its rate is a fiftieth of the others."""
    t = torch.linspace(0, 40, 200, dtype=torch.float64)
    grown = torch.exp(0.02 * t)[:, None] * torch.stack((torch.cos(t), torch.sin(t)), 1)
    noise = torch.randn(grown.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    got = table(identify(t, grown + 0.01 * noise, degree=1))
    assert set(got) == {(0, "u_0"), (0, "u_1"), (1, "u_0"), (1, "u_1")}
    assert got[0, "u_0"][0] == pytest.approx(0.02, abs=4 * got[0, "u_0"][1])


def test_the_noise_of_each_variable():
    t, _, true = hares(400)
    drawn = torch.randn(true.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    sizes = torch.tensor([0.02, 0.3], dtype=torch.float64)
    assert noise_of(t, true + sizes * drawn).tolist() == pytest.approx(sizes.tolist(), rel=0.2)
    pelts = torch.tensor([HARE, CAT], dtype=torch.float64).T
    one, other = noise_of(torch.arange(21.0).double(), pelts).tolist()  # those of the lynx look like no noise at all
    assert other == pytest.approx(one, rel=0.1)


def test_a_variable_that_is_noise_alone_and_one_that_has_a_tenth_of_the_others(found):
    t, u, _ = hares()
    wind = torch.randn(160, 1, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    got = table(identify(t[:120], torch.cat((u, wind), 1)[:120]))
    assert set(LYNX) <= set(got)
    assert {term for term in got if term[0] < 2} == set(LYNX)
    for term, (_, std) in table(found).items():
        assert got[term][1] < 1.5 * std
    t, _, true = hares()
    noise = torch.randn(true.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    apart = table(identify(t, true + noise * true.std(0) * torch.tensor([0.01, 0.1])))
    assert set(apart) == set(LYNX)
    assert all(abs(c - LYNX[term]) < 4 * d for term, (c, d) in apart.items())


def test_what_may_be_zero_given_what_is_already():
    """Two constants that nothing tells apart: one of them may go, not both."""
    t = torch.linspace(0, 4, 40, dtype=torch.float64)
    u = torch.exp(-0.5 * t)[:, None] + 0.01 * torch.randn(40, 1, generator=torch.Generator().manual_seed(0)).double()
    library = polynomials(1, 2)
    rhs, names = summed(library, torch.ones(3, 1, dtype=torch.bool))
    fitted = fit(rhs, dict.fromkeys(names, math.nan), t, u[None], sigma=0.01)
    assert set(insignificant(fitted, 3.0)) == {"c000", "c002"}
    assert insignificant(fitted, 0.0) == []


HARE = [30, 47.2, 70.2, 77.4, 36.3, 20.6, 18.1, 21.4, 22, 25.4, 27.1, 40.3, 57, 76.6, 52.3, 19.5, 11.2, 7.6, 14.6, 16.2,
        24.7]  # fmt: skip
CAT = [4, 6.1, 9.8, 35.2, 59.4, 41.7, 19, 13, 8.3, 9.1, 7.4, 8, 12.3, 19.5, 45.7, 51.1, 29.7, 15.8, 9.7, 10.1, 8.6]
"""Pelts of hares and lynx that Hudson's Bay Company bought in 1900 to 1920, thousands (Hewitt 1921)."""


def test_volterras_equations_from_twenty_one_years_of_pelts_as_scipy_fits_them():
    """Their noise is far larger than it looks in so short a record, which must not make room for more terms."""
    t, u = torch.arange(1900.0, 1921.0), torch.tensor([HARE, CAT], dtype=torch.float64).T
    found = identify(t, u)
    got = table(found)
    assert set(got) == set(LYNX)
    assert found.reduced > 3
    size = found.size.numpy()

    def run(x):
        f = lambda _, y: [x[0] * y[0] + x[1] * y[0] * y[1], x[2] * y[1] + x[3] * y[0] * y[1]]  # noqa: E731
        return solve_ivp(f, (0, 20), x[4:], t_eval=np.arange(21.0), rtol=1e-8, atol=1e-8).y.T

    start = [value for value, _ in got.values()] + u[0].tolist()
    best = least_squares(lambda x: ((run(x) - u.numpy()) / size).ravel(), 1.05 * np.array(start), x_scale=np.abs(start))
    assert list(best.x[:4]) == pytest.approx([value for value, _ in got.values()], rel=2e-3)


@pytest.mark.parametrize(("change", "message"), [
    (lambda t, u: (t[:5], u[:5]), "at least 8 times"),
    (lambda t, u: (t, u.where(u != u[3], torch.nan)), "cut the window where data are missing"),
    (lambda t, u: (t.flip(0), u), "times must increase; numbers 1 and the next"),
    (lambda t, u: (t[:17], u[:17]), "17 times cannot tell 6 terms apart"),
    (lambda t, u: (t, u + 300), "subtract a value near its mean"),
    (lambda t, u: (t, torch.stack((u[:, 0], -2 * u[:, 0]), 1)), "fields 0 and 1 are multiples of each other"),
    (lambda t, u: (t, torch.rand(160, 10)), "660 terms|66 terms in 10 equations are too many"),
    (lambda t, u: (t, torch.stack((u[:, 0], torch.full_like(t, 3.0)), 1)), "field 1 is constant"),
    (lambda t, u: (t, u[:, 0]), r"a window \(times, fields\)"),
    (lambda t, u: (torch.arange(6000.0), torch.rand(6000, 1)), "at most 5000: thin them"),
])  # fmt: skip
def test_refusals(change, message):
    t, u, _ = hares()
    with pytest.raises(ValueError, match=message):
        identify(*change(t, u))


# -- the case --------------------------------------------------------------------------------------------------------
def csv(path, columns) -> None:
    rows = [",".join(columns), *(",".join(f"{x:.8g}" for x in row) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(rows) + "\n")


def test_a_table_of_ones_own(call, tmp_path):
    t, u, _ = hares(90, 0.01)
    path, out = tmp_path / "record.csv", tmp_path / "o"
    csv(path, {"year": t, "hare": u[:, 0], "lynx": u[:, 1]})
    ended = call("--data", path, "--out", out, case="prose_own")
    assert ended.status == 0, ended.err
    assert ended.out.startswith("d hare/dt = (1.1")
    assert "72 of 90 times learned from" in ended.out
    terms = json.loads((out / "equations.json").read_text())["terms"]
    assert {(x["equation"], x["term"]) for x in terms} == {
        ("hare", "hare"), ("hare", "hare*lynx"), ("lynx", "lynx"), ("lynx", "hare*lynx")}  # fmt: skip
    rows = json.loads((out / "summary.json").read_text())["results"]["methods"]
    assert rows["fitted"]["forecast %"] < 5 < rows["persistence"]["forecast %"]
    fit = xr.open_dataset(out / "fit.nc")
    assert set(fit) >= {"hare", "hare_fit", "hare_std", "lynx"}


def test_netcdf_with_units(call, tmp_path):
    t, u, _ = hares(90, 0.01)
    path, out = tmp_path / "record.nc", tmp_path / "o"
    data = {"prey": ("time", u[:, 0].numpy(), {"units": "km-2"}), "hunters": ("time", u[:, 1].numpy()),
            "maps": (("time", "x"), np.zeros((90, 2)))}  # fmt: skip
    xr.Dataset(data, {"time": ("time", 24 * t.numpy(), {"units": "hours since 2001-01-01"})}).to_netcdf(path)
    ended = call("--data", path, "--held", "0", "--out", out, case="prose_own")
    assert ended.status == 0, ended.err
    assert ended.out.startswith("d prey/dt = (1.1")  # in days again
    assert json.loads((out / "equations.json").read_text())["variables"] == {"prey": "km-2", "hunters": "1"}
    refused(call("--data", path, "--variables", "maps", "--out", out, case="prose_own"), "no variable maps along time")


@pytest.mark.parametrize(("text", "message"), [
    ("time,a\n" + "\n".join(f"{i},{i % 3}" for i in range(9)), "7 times to learn from are too few"),
    ("time,a\n" + "\n".join(f"{i},{'' if i == 4 else i % 3}" for i in range(30)), "1 of 30 times lack values, .* 5"),
    ("time;a\n1;2\n", "no table: .* with commas between them"),
    ("nothing", "no table"),
    ("", "is empty"),
    ("time,a\n" + "\n".join(f"day {i},{i % 3}" for i in range(10, 30)), "no times in its column time"),
    ("time,a\n" + "\n".join(f"{'' if i == 14 else f'2001-01-{i}'},{i % 3}" for i in range(10, 30)), "1 of 20 .* 5"),
    ("time,a,a\n0,1,2\n", "two columns called a"),
    ("time,a\n0,1,2\n", "no table"),
    ("time,a\n" + "\n".join(f"{i}," for i in range(30)), "30 of 30 times lack values"),
    ("time,a\n" + "\n".join(f"{i},calm" for i in range(30)), "no variables along time"),
    ("time,a,b\n" + "\n".join(f"{i},{i % 3},7" for i in range(30)), "b is constant"),
    ("time,a,a_fit\n" + "\n".join(f"{i},{i % 3},{i % 4}" for i in range(30)), "a_fit is named twice, or as what"),
])  # fmt: skip
def test_records_that_are_refused(call, tmp_path, text, message):
    (tmp_path / "r.csv").write_text(text)
    refused(call("--data", tmp_path / "r.csv", "--out", tmp_path / "o", case="prose_own"), message)


def test_dates_comments_and_names_as_they_are(call, tmp_path):
    t, u, _ = hares(90, 0.01)
    days = np.datetime64("2001-01-01T00:00:00") + (86400 * t.numpy()).round().astype("timedelta64[s]")
    rows = [f"{d}Z, {a:.8g}, {b:.8g}, warm" for d, (a, b) in zip(days, u.tolist(), strict=True)]
    path = tmp_path / "r.csv"
    path.write_text("# when, snow hares (km-2), lynx, weather\n# of the north\n" + "\n".join(rows) + "\n\n")
    ended = call("--data", path, "--out", tmp_path / "o", case="prose_own")
    assert ended.out.startswith("d snow hares (km-2)/dt = (1.1")
    assert "time in days" in ended.out
    refused(call("--data", path, "--time", "year", "--out", tmp_path / "p", case="prose_own"), "no column year; it has")


def test_times_by_another_name_and_axes_of_one_point(call, tmp_path):
    t, u, _ = hares(90, 0.01)
    data = {n: (("t", "site"), u[:, [i]].numpy()) for i, n in enumerate(("hare", "lynx"))}
    xr.Dataset(data, {"t": ("t", t.numpy(), {"units": "years"})}).to_netcdf(tmp_path / "r.nc")
    line = dict(case="prose_own")
    ended = call("--data", tmp_path / "r.nc", "--time", "t", "--held", "0", "--out", tmp_path / "o", **line)
    assert ended.out.startswith("d hare/dt = (1.1")
    refused(call("--data", tmp_path / "r.nc", "--out", tmp_path / "p", **line), "no coordinate time; it has .* --time")


def test_names_like_those_of_fields_and_a_record_that_lacks_a_variable(call, tmp_path):
    t, u, _ = hares(90, 0.01)
    path = tmp_path / "r.csv"
    csv(path, {"u_1": u[:, 0], "Time": t, "u_0": u[:, 1]})
    ended = call("--data", path, "--out", tmp_path / "a", case="prose_own")
    assert "u_1*u_0" in ended.out.splitlines()[0]
    assert "explain the record" in ended.out
    noise = 0.02 * torch.randn(90, generator=torch.Generator().manual_seed(0))
    csv(path, {"time": t, "angle": torch.cos(t) + noise})  # without its rate
    ended = call("--data", path, "--out", tmp_path / "b", case="prose_own")
    assert "do NOT explain" in ended.out
    refused(call("--data", tmp_path, "--out", tmp_path / "c", case="prose_own"), "is a folder")


def test_options_that_nothing_reads_are_refused(call, tmp_path):
    line = dict(case="prose_own")
    refused(call("--variables", "u", **line), "--variables goes with --data")
    refused(call("--data", tmp_path / "none.csv", "--points", "50", **line), "--points goes with a simulated system")
    refused(call("--data", tmp_path / "none.csv", **line), "none.csv")
