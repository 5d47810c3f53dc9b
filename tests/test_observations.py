"""The observation container: flags, counting, joining, thinning and superobbing."""

import numpy as np
import pytest
import xarray as xr

from sciml.grid import Grid
from sciml.observations import (
    QC,
    check,
    concatenate,
    counts,
    good,
    gridded,
    names,
    observations,
    units_of,
    with_departures,
    without,
)
from sciml.superob import superob, thin


def container(n=6, **changes):
    values = dict(
        value=np.arange(n, dtype=float), sigma=0.5, time=np.arange(1.0, n + 1), x=np.linspace(0, 9, n), y=np.zeros(n)
    )
    return observations(**(values | changes))


def test_scalars_are_spread_and_attributes_say_what_numbers_mean():
    obs = container(channel=1, channels=["a", "b c"])
    assert obs["sigma"].dims == ("obs",)
    assert names(obs, "channel") == ["a", "b_c"]
    assert list(obs["channel"].attrs["flag_values"]) == [0, 1]
    assert obs["channel"].dtype == np.int8


@pytest.mark.parametrize("changes", [dict(x=None), dict(lon=np.zeros(6), lat=np.zeros(6)), dict(time=np.zeros(5)),
                                     dict(channel=1), dict(platform=-1), dict(sigma=np.ones((6, 1)))])  # fmt: skip
def test_what_does_not_fit_is_refused(changes):
    with pytest.raises(ValueError, match=r"observations|numbers"):
        container(**changes)


def test_everything_unusable_is_flagged_and_counted():
    obs = container(
        11,
        value=np.array([0, np.nan, 2, 3, 4, 5, 6, 7, 8, 9, 9.0]),
        sigma=np.array([1, 1, -1, 0, np.nan, 1, 1, 1, 1, 1, 1]),
        time=np.array([1, 2, 3, 4, 5, 6, 9, 99, 7, 7.5, 8]),
        x=np.array([0, 0, 0, 0, 0, 50, 0, 0, np.inf, 0, 0]),
    )
    checked = check(obs, 0.0, 10.0, (0, 10, -1, 1))
    reasons = [
        "good",
        "missing",
        *["bad_sigma"] * 3,
        "outside_domain",
        "time_order",
        "outside_window",
        "missing",
        "good",
        "good",
    ]
    assert checked["qc"].values.tolist() == [QC[r] for r in reasons]
    assert counts(checked) == {
        "good": 3,
        "missing": 2,
        "bad_sigma": 3,
        "outside_domain": 1,
        "outside_window": 1,
        "time_order": 1,
    }
    assert good(checked).sizes["obs"] == 3
    assert good(check(checked)).sizes["obs"] == 3, "flags stay"


@pytest.mark.parametrize("fill", [-9999.0, 1e20, 9.96921e36, -2147483648.0])
def test_undeclared_fill_values_are_gross_errors(fill):
    value = np.random.default_rng(0).normal(size=40)
    value[[3, 20]] = fill
    sigma = np.ones(40)
    sigma[7] = abs(fill) * 1e4
    checked = check(container(40, value=value, sigma=sigma))
    assert np.flatnonzero(checked["qc"] == QC["gross_error"]).tolist() == [3, 20]
    assert np.flatnonzero(checked["qc"] == QC["bad_sigma"]).tolist() == [7]
    assert counts(check(container(40, value=10 * value), gross=np.inf)) == {"good": 40}


@pytest.mark.parametrize(("change", "message"), [
    (lambda ds: ds.assign(channel=ds["channel"] - 1), "numbers of channel must be 0 to 0: value"),
    (lambda ds: ds.assign(platform=ds["platform"] + 9), "numbers of platform must be 0 to 0"),
    (lambda ds: ds.assign(qc=ds["qc"] + 50), "numbers of qc must be 0 to 11"),
    (lambda ds: ds.drop_vars("sigma"), r"lacks \['sigma'\]"),
    (lambda ds: ds.drop_vars("x"), "needs either x and y, or lon and lat"),
    (lambda ds: ds.assign_coords(time=ds["time"].assign_attrs(units="days since 2000-01-01")), "time must be in s"),
    (lambda ds: ds.assign_coords(x=ds["x"].assign_attrs(units="km")), "x must be in m, not in 'km'"),
    (lambda ds: ds.assign(channel=ds["channel"].drop_attrs()), "'flag_meanings' is missing"),
    (lambda ds: ds.assign_coords(time=("obs", ds["time"].values)), "time must be in s, not in 'no unit'"),
    (lambda ds: ds.rename(obs="n"), r"value must be numbers along the dimension obs, not float64 along \('n',\)"),
    (lambda ds: ds.assign(sigma=1.0), r"sigma must be numbers along the dimension obs, not float64 along \(\)"),
    (lambda ds: ds.assign(qc=ds["qc"].astype(str)), "qc must be whole numbers along the dimension obs"),
    (lambda ds: ds.assign(channel=ds["channel"] + 0.0), "channel must be whole numbers"),
    (lambda ds: ds.assign(platform=ds["platform"].assign_attrs(flag_values=[10])), "flag_values of platform must be 0"),
    (lambda ds: ds.assign(qc=ds["qc"].assign_attrs(flag_meanings="bad good", flag_values=[0, 1])), "qc must mean good"),
])  # fmt: skip
def test_data_sets_that_mean_nothing_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        check(change(container(5)))


def test_channel_units_fit_the_channels():
    ds = container(5)
    with pytest.raises(ValueError, match="channel_units names 2 units for 1 channels: value"):
        units_of(ds.assign(channel=ds["channel"].assign_attrs(channel_units=["m", "K"])))


def test_what_a_climatology_does_not_know_is_a_gross_error():
    """Beyond six times the standard deviations of flow and error together, also where there are few values."""
    value = np.array([0.0, 1.0, -14.0, 16.0, 3.0])
    ds = container(5, value=value, sigma=np.array([1.0, 1.0, 1.0, 1.0, 1.0]))
    assert counts(check(ds)) == {"good": 5}
    checked = check(ds, usual={"value": (0.0, 2.5)})  # 6 hypot(2.5, 1) = 16.2
    assert counts(checked) == {"good": 5}
    checked = check(ds, usual={"value": (1.0, 2.2)})  # 6 hypot(2.2, 1) = 14.5
    assert checked["qc"].values.tolist() == [0, 0, QC["gross_error"], QC["gross_error"], 0]
    assert counts(check(ds, usual={"other": (99.0, 1.0)})) == {"good": 5}
    blank = observations(ds["value"], 1.0, ds["time"], ds["x"], ds["y"], channels=["sea level"])
    assert counts(check(blank, usual={"sea level": (99.0, 1.0)})) == {"gross_error": 5}


def test_errors_too_small_to_be_true_are_flagged():
    sigma = np.full(20, 0.1)
    sigma[4], sigma[5] = 1e-12, 2e-4
    assert np.flatnonzero(check(container(20, sigma=sigma))["qc"] == QC["bad_sigma"]).tolist() == [4]


def test_what_is_there_twice_counts_once():
    ds = container(6)
    twice = xr.concat([ds, ds.isel(obs=[2, 4])], "obs", data_vars="minimal")
    checked = check(twice.sortby("time"))
    assert counts(checked) == {"good": 6, "duplicate": 2}
    other = ds.isel(obs=[2]).assign(value=("obs", [99.0]))
    assert counts(check(concatenate([ds, other]))) == {"good": 7}, "another value at the same place is no copy"


def test_channels_in_two_units_are_not_joined():
    parts = [observations([1.0], 1.0, 0.0, 0.0, 0.0, channels=["ssh"], units=[unit]) for unit in ("m", "cm")]
    with pytest.raises(ValueError, match="ssh is in m here and in cm there"):
        concatenate(parts)
    with pytest.raises(ValueError, match="at most 127"):
        observations([1.0], 1.0, 0.0, 0.0, 0.0, channels=[f"c{i}" for i in range(200)])


def test_no_dates_at_all():
    never = np.array(["NaT", "NaT"], "M8[ns]")
    assert counts(check(observations([1.0, 2.0], 1.0, never, lon=[0.0, 1.0], lat=[0.0, 0.0]))) == {"missing": 2}
    far = observations([1.0, 2.0], 1.0, [0.0, 1.0], lon=[2147483647.0, 1.0], lat=[0.0, 91.0])
    assert counts(check(far)) == {"missing": 2}


def test_means_of_departures():
    obs = container(4, value=np.arange(4.0), time=np.zeros(4))
    mean = superob(with_departures(obs, np.zeros(4), np.ones(4)), 1e9, 10.0)
    assert float(mean["omb"][0]) == pytest.approx(1.5)
    assert float(mean["oma"][0]) == pytest.approx(0.5)


def test_the_window_is_open_at_its_start_and_closed_at_its_end():
    obs = check(container(4, time=np.array([1.0, 2, 3, 4])), 1.0, 3.0)
    assert obs["qc"].values.tolist() == [QC["outside_window"], 0, 0, QC["outside_window"]]


def test_longitudes_are_compared_around_the_globe():
    obs = observations(np.zeros(4), 1.0, np.arange(4.0), lon=np.array([359.0, 1.0, -1.0, 20.0]), lat=np.zeros(4))
    assert (check(obs, box=(-5.0, 5.0, -1, 1))["qc"].values == 0).tolist() == [True, True, True, False]
    assert (check(obs, box=(355.0, 365.0, -1, 1))["qc"].values == 0).tolist() == [True, True, True, False]


def test_missing_dates_are_flagged():
    time = np.array(["2002-01-15", "NaT", "2002-01-16"], dtype="datetime64[ns]")
    obs = check(observations(np.zeros(3), 1.0, time, lon=np.zeros(3), lat=np.zeros(3)))
    assert obs["qc"].values.tolist() == [0, QC["missing"], 0]


def test_a_dataset_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"lacks.*sigma"):
        check(container().drop_vars("sigma"))


def test_joining_keeps_names_and_sorts_by_time():
    a = container(2, time=np.array([1.0, 5.0]), channels=["ssh"], platforms=["A"], units=["m"])
    b = container(2, time=np.array([0.5, 3.0]), channels=["tb"], platforms=["B"], units=["K"])
    both = concatenate([a, b])
    assert both["time"].values.tolist() == [0.5, 1.0, 3.0, 5.0]
    assert [names(both, "channel")[c] for c in both["channel"].values] == ["tb", "ssh", "tb", "ssh"]
    assert both["channel"].attrs["channel_units"] == ["m", "K"]
    assert without(both, "A")["time"].values.tolist() == [0.5, 3.0]
    with pytest.raises(ValueError, match="no platform 'C'; there are A, B"):
        without(both, "C")


def test_thinning_flags_what_it_leaves_out():
    obs = thin(container(6), 3)
    assert np.flatnonzero(obs["qc"].values == 0).tolist() == [0, 3]
    assert counts(obs)["thinned"] == 4


def test_superobs_are_weighted_means_with_the_error_of_means():
    obs = container(
        4, value=np.array([1.0, 3.0, 10.0, np.nan]), sigma=np.array([1.0, 0.5, 1.0, 1.0]), x=np.array([0.1, 0.3, 5, 5])
    )
    out = superob(check(obs), dx=1.0, dt=100.0)
    assert out["count"].values.tolist() == [2, 1]
    np.testing.assert_allclose(out["value"], [(1 + 3 * 4) / 5, 10.0])
    np.testing.assert_allclose(out["sigma"], [np.sqrt(1 / 5), 1.0])
    np.testing.assert_allclose(out["x"], [(0.1 + 0.3 * 4) / 5, 5.0])
    together = superob(check(obs), dx=1.0, dt=100.0, correlated=1.0)
    np.testing.assert_allclose(together["sigma"], [np.sqrt(2 / 5), 1.0])


def test_superobs_of_superobs_count_all_observations():
    obs = observations(np.ones(5), 1.0, np.arange(5.0), np.array([0.1, 0.2, 0.3, 1.1, 1.2]), np.zeros(5))
    once = superob(obs, 1.0, 10.0)
    assert once["count"].values.tolist() == [3, 2]
    assert superob(once, 2.0, 10.0)["count"].values.tolist() == [5]


def test_superobs_of_a_periodic_box_and_around_the_globe():
    """Places that differ by the box, or by 360 degrees, are one place; a mean across the date line lies on it."""
    grid = Grid(8, Lx=8.0, x0=-4.0, y0=-4.0)
    obs = container(3, value=np.array([1.0, 3.0, 5.0]), x=np.array([3.5, -4.5, 0.5]), time=np.zeros(3), y=np.zeros(3))
    assert superob(obs, 1.0, 10.0)["count"].values.tolist() == [1, 1, 1]
    one = superob(obs, 1.0, 10.0, grid=grid)
    assert sorted(one["count"].values) == [1, 2]
    assert one["x"].values[one["count"].values == 2] == pytest.approx(3.5)
    west = observations([1.0, 3.0], 1.0, np.zeros(2), lon=[-0.5, 359.7], lat=[0.0, 0.0])
    assert superob(west, 1.0, 10.0)["lon"].values == pytest.approx([-0.4])
    line = observations([1.0, 3.0], 1.0, np.zeros(2), lon=[180.2, -179.6], lat=[0.0, 0.0])
    assert superob(line, 1.0, 10.0)["lon"].values == pytest.approx([-179.7])
    assert superob(line.isel(obs=[0]), 1.0, 10.0)["lon"].values == pytest.approx([180.2])


def test_superobs_of_windows_keep_to_them():
    """Cells that end at 10 and 20 s; without ``start`` the first two are one."""
    obs = observations([1.0, 3.0, 5.0], 1.0, [9.9, 10.1, 20.0], [1.0] * 3, [1.0] * 3)
    assert superob(obs, 10.0, 10.0, start=0.0)["value"].values.tolist() == [1.0, 4.0]
    assert superob(obs, 10.0, 10.0)["value"].values.tolist() == [2.0, 5.0]


def test_boxes_across_greenwich_and_boxes_that_are_none():
    obs = observations(np.zeros(3), 1.0, np.arange(3.0), lon=[355.0, 5.0, 100.0], lat=np.zeros(3))
    assert check(obs, box=(350, 10, -5, 5))["qc"].values.tolist() == [0, 0, QC["outside_domain"]]
    assert counts(check(obs, box=(0, 360, -5, 5))) == {"good": 3}
    with pytest.raises(ValueError, match="a box is"):
        check(obs, box=(0, 10, 5, -5))


def test_departures_are_written_back():
    obs = with_departures(container(3), np.array([0.5, 1.0, 2.0]), np.zeros(3))
    assert obs["omb"].values.tolist() == [-0.5, 0.0, 0.0]
    assert obs["oma"].values.tolist() == [0.0, 1.0, 2.0]


# -- gridded view ----------------------------------------------------------------------------------------------------
def test_the_gridded_view_by_hand():
    grid = Grid(4, 2, Lx=4.0, Ly=2.0)  # points at 0.5, 1.5, ...
    obs = container(
        6, value=np.array([1.0, 3.0, 7.0, 9.0, 5.0, np.nan]), sigma=np.array([1.0, 0.5, 1, 1, 2, 1]),
        time=np.array([1.0, 2.0, 3.0, 8.0, 99.0, 4.0]), x=np.array([0.4, 0.6, 3.9, 2.5, 0, 0]),
        y=np.array([0.5, 0.5, 1.5, 0.5, 0, 0]), channel=np.array([0, 0, 0, 1, 0, 0]), channels=["a", "b"],
    )  # fmt: skip
    view = gridded(check(obs), grid, 0.0, 10.0, frames=2)
    assert dict(view.sizes) == {"frame": 2, "channel": 2, "y": 2, "x": 4}
    assert int(view["count"].sum()) == 4, "neither the missing one nor the one outside the window"
    both = view.sel(channel="a").isel(frame=0, y=0, x=0)
    assert float(both["value"]) == (1 + 4 * 3) / 5
    assert float(both["sigma"]) == pytest.approx(5**-0.5)
    assert float(both["age"]) == pytest.approx((1 * 9 + 4 * 8) / 5)
    assert float(view["value"].sel(channel="a").isel(frame=0, y=1, x=3)) == 7.0
    assert float(view["value"].sel(channel="b").isel(frame=1, y=0, x=2)) == 9.0
    assert (view["mask"] == (view["count"] > 0)).all()
    assert float(view["value"].where(~view["mask"], 0.0).max()) == 0.0
    assert view["frame"].values.tolist() == [2.5, 7.5]


def test_the_gridded_view_wraps_around_and_refuses_what_makes_no_sense():
    grid = Grid(4, 2, Lx=4.0, Ly=2.0)
    obs = container(1, time=np.array([1.0]), x=np.array([4.2]), y=np.array([2.2]))
    view = gridded(obs, grid, 0.0, 1.0)
    assert np.argwhere(view["mask"].values).tolist() == [[0, 0, 0, 0]]
    with pytest.raises(ValueError, match="frames >= 1 and end > start"):
        gridded(obs, grid, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"x = 5.2, y = 2.2: it is 0 to 4.5 by 0 to 2.5; flag them"):
        gridded(container(1, time=np.array([1.0]), x=np.array([5.2]), y=np.array([2.2])), grid, 0.0, 1.0)
    real = observations(np.zeros(1), 1.0, np.zeros(1), lon=np.zeros(1), lat=np.zeros(1))
    with pytest.raises(ValueError, match="with x and y"):
        gridded(real, grid, 0.0, 1.0)


def test_values_in_several_units_say_so():
    parts = [
        observations([1.0], 1.0, t, 0.0, 0.0, channels=[c], units=[u]) for t, c, u in ((0, "a", "m"), (1, "b", "K"))
    ]
    both = concatenate(parts)
    assert [parts[0][n].attrs["units"] for n in ("value", "sigma")] == ["m", "m"]
    assert [both[n].attrs["units"] for n in ("value", "sigma")] == ["1", "1"]
    assert both["channel"].attrs["channel_units"] == ["m", "K"]
