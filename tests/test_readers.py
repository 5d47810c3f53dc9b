"""Readers of real files, on the real files where they are there and on small files that do what real ones do wrong."""

from __future__ import annotations

import netCDF4
import numpy as np
import pytest
import xarray as xr

from sciml import readers
from sciml.observations import QC, counts, good, names
from tests import ROOT

REAL = ROOT.parent / "shared" / "data"
JASON = REAL / "JA1_GPN_2PeP001_002_20020115_060706_20020115_070316.nc"
AMSR2 = REAL / "SS_AMSR2-L2B_v08_r38622-v02.0-fv01.0.nc"
DUACS = REAL / "dt_global_allsat_phy_l4_20190101_20190515.nc"
real = pytest.mark.skipif(not REAL.exists(), reason="needs the real files")


def of_channel(obs: xr.Dataset, name: str) -> xr.Dataset:
    return obs.isel(obs=np.flatnonzero(obs["channel"].values == names(obs, "channel").index(name)))


# -- real files ------------------------------------------------------------------------------------------------------
@real
def test_jason_pass_is_edited_as_documented():
    obs = readers.jason_gdr(JASON)
    assert obs.sizes["obs"] == 4 * 2240
    with xr.open_dataset(JASON) as ds:
        keep = (ds["surface_type"] == 0) & (ds["qual_alt_1hz_range_ku"] == 0) & (ds["rain_flag"] == 0)
        expected = ds["ssha"].where(keep & np.isfinite(ds["ssha"]), drop=True)
        ice = int((keep & np.isfinite(ds["ssha"]) & (ds["ice_flag"] != 0)).sum())
    used = good(of_channel(obs, "ssha"))
    assert expected.size == 1823
    assert used.sizes["obs"] == 1823 - ice, "ice is edited, too"
    assert float(expected.std()) == pytest.approx(0.065, abs=5e-4)
    assert used["value"].values.std() == pytest.approx(0.065, abs=3e-3)
    assert set(used["value"].values.round(4)) <= set(expected.values.round(4))
    for name, spread in (("tb_187", 7.9), ("tb_238", 16.6), ("tb_340", 7.8)):
        own = good(of_channel(obs, name))["value"].values
        assert own.size > 1500
        assert own.std() == pytest.approx(spread, rel=0.1), name
        assert 120 < own.min() < own.max() < 300
    assert counts(obs)["land"] > 500
    assert used["lon"].values.min() >= 0
    assert used["lon"].values.max() < 360
    assert str(used["time"].values[0])[:10] == "2002-01-15"


@real
def test_the_handbooks_limits_remove_few_more():
    loose, strict = (readers.jason_gdr(JASON, limits=limits) for limits in (None, readers.JASON_LIMITS))
    n, m = (good(of_channel(obs, "ssha")).sizes["obs"] for obs in (loose, strict))
    assert 0.9 * n < m < n
    assert (
        good(of_channel(strict, "ssha"))["value"].values.std() <= good(of_channel(loose, "ssha"))["value"].values.std()
    )


@real
def test_swath_of_sea_surface_temperature():
    obs = readers.ghrsst_l2p(AMSR2)
    assert obs.sizes["obs"] == 1064 * 243
    assert good(obs).sizes["obs"] / obs.sizes["obs"] == pytest.approx(0.126, abs=2e-3)
    assert 270 < good(obs)["value"].values.min() < good(obs)["value"].values.max() < 310
    strict = readers.ghrsst_l2p(AMSR2, quality=5)
    assert good(strict).sizes["obs"] < good(obs).sizes["obs"]
    with xr.open_dataset(AMSR2) as ds:
        flat = (ds["sea_surface_temperature"] - ds["sses_bias"]).values.ravel()
    used = obs["qc"].values == 0
    np.testing.assert_allclose(good(obs)["value"], flat[used], rtol=1e-6)
    with xr.open_dataset(AMSR2, decode_times=False) as ds:  # each pixel has its own time
        after = float(ds["time"][0]) + ds["sst_dtime"].values.ravel()[used]
    seconds = (good(obs)["time"].values - np.datetime64("1981-01-01")) / np.timedelta64(1, "s")
    np.testing.assert_allclose(seconds, after, atol=1e-3)
    assert np.ptp(seconds) > 100


@real
def test_land_of_maps_is_masked_although_it_is_not_declared():
    ds = readers.duacs_map(DUACS)
    assert ds["adt"].shape == (720, 1440)
    assert float(abs(ds["adt"]).max()) < 5
    assert 0.25 < float(ds["adt"].isnull().mean()) < 0.5
    for (south, north, west, east), spread in (((30, 46, 300, 316), 0.39), ((28, 44, 150, 166), 0.43),
                                               ((-40, -24, 80, 96), 0.108)):  # fmt: skip
        box = ds["adt"].sel(lat=slice(south, north), lon=slice(west, east))
        assert box.shape == (64, 64)
        assert float(box.isnull().sum()) == 0
        assert float(box.std()) == pytest.approx(spread, rel=0.02)
    obs = readers.duacs_l4(DUACS, every=8)
    assert obs.sizes["obs"] == 90 * 180
    assert counts(obs)["land"] + counts(obs)["good"] == 90 * 180


@real
def test_longitudes_that_are_fill_values_are_no_places(tmp_path):
    """The Jason file declares none; one turn of 2147.48 degrees east would be 347.48."""
    (tmp_path / "j.nc").write_bytes(JASON.read_bytes())
    before = readers.jason_gdr(JASON)
    with netCDF4.Dataset(tmp_path / "j.nc", "a") as file:
        file.set_auto_maskandscale(False)
        file["lon"][1000:1050] = 2147483647
    obs = readers.jason_gdr(tmp_path / "j.nc")
    own = np.repeat((np.arange(2240) >= 1000) & (np.arange(2240) < 1050), 4)
    assert (obs["qc"].values[own] == QC["missing"]).all()
    np.testing.assert_array_equal(obs["qc"].values[~own], before["qc"].values[~own])


@real
def test_other_units_of_temperature_and_time_are_converted_and_wrong_ones_refused(tmp_path):
    def changed(source, **units):
        (tmp_path / "c.nc").write_bytes(source.read_bytes())
        with netCDF4.Dataset(tmp_path / "c.nc", "a") as file:
            for name, unit in units.items():
                file[name].units = unit
        return tmp_path / "c.nc"

    kelvin, celsius = (
        of_channel(readers.jason_gdr(p), "tb_238")["value"] for p in (JASON, changed(JASON, tb_238="degC"))
    )
    np.testing.assert_allclose(celsius, kelvin + 273.15)
    with pytest.raises(ValueError, match=r"tb_187 is in 'm', a temperature is in K, degC: take another variable or"):
        readers.jason_gdr(changed(JASON, tb_187="m"))
    usual = readers.ghrsst_l2p(AMSR2)
    other = readers.ghrsst_l2p(changed(AMSR2, sea_surface_temperature="celsius", sses_bias="celsius"))
    np.testing.assert_allclose(other["value"], usual["value"] + 273.15)
    np.testing.assert_array_equal(other["sigma"], usual["sigma"])
    hours = readers.ghrsst_l2p(changed(AMSR2, sst_dtime="hours"))
    start = np.datetime64("1981-01-01", "ns") + np.timedelta64(1, "s") * xr.open_dataset(
        AMSR2, decode_times=False)["time"].values[0]  # fmt: skip
    spans = [np.nanmax((o["time"].values - start) / np.timedelta64(1, "s")) for o in (hours, usual)]
    assert spans[0] == pytest.approx(3600 * spans[1])
    with pytest.raises(ValueError, match=r"sst_dtime is in '1', a time difference is in s, min, h, d"):
        readers.ghrsst_l2p(changed(AMSR2, sst_dtime="1"))


@real
@pytest.mark.parametrize("reader", [readers.ghrsst_l2p, lambda p: readers.cf(p, "sea_surface_temperature", 0.5)])
def test_swaths_may_be_stored_across_the_track_first(reader, tmp_path):
    """Their pixels are ordered by time before times that run backwards are looked for."""
    with xr.open_dataset(AMSR2, decode_cf=False) as ds:
        when = ds["time"].values.astype(float) + ds["sst_dtime"].values  # cf takes a time as it stands
        ds["time"] = (ds["sst_dtime"].dims, when, ds["time"].attrs)
        if reader is readers.ghrsst_l2p:
            ds["time"] = ds["time"].isel(nj=0, ni=0)
        ds.to_netcdf(tmp_path / "as_is.nc")
        ds.transpose("ni", "nj", ...).to_netcdf(tmp_path / "turned.nc")
    usual, turned = (reader(tmp_path / f"{n}.nc") for n in ("as_is", "turned"))
    assert counts(turned) == counts(usual)
    assert "time_order" not in counts(turned)
    assert (np.diff(good(turned)["time"].values) >= np.timedelta64(0)).all()
    np.testing.assert_array_equal(np.sort(good(turned)["value"]), np.sort(good(usual)["value"]))


# -- small files -----------------------------------------------------------------------------------------------------
def track_file(path, lon=(359.0, 359.9, 0.4, -179.0), value=(0.1, 0.2, 0.3, 0.4), time=(0.0, 1.0, 2.0, 3.0), **attrs):
    ds = xr.Dataset(
        {"sla_unfiltered": ("time", np.asarray(value), {"units": "m"})},
        {"time": ("time", np.asarray(time), {"units": "days since 2019-01-01", "standard_name": "time"}),
         "longitude": ("time", np.asarray(lon)), "latitude": ("time", np.linspace(-40, -39, len(value)))},
        {"platform": "Small"} | attrs,
    )  # fmt: skip
    ds.to_netcdf(path)
    return path


def test_track_wraps_at_greenwich_and_keeps_its_order(tmp_path):
    obs = readers.duacs_l3(track_file(tmp_path / "a.nc"))
    np.testing.assert_allclose(obs["lon"], [359.0, 359.9, 0.4, 181.0])
    np.testing.assert_allclose(readers.wrapped(obs["lon"], -180.0), [-1.0, -0.1, 0.4, -179.0])
    assert names(obs, "platform") == ["Small"]
    assert counts(obs) == {"good": 4}


def test_written_tracks_are_read_again(tmp_path):
    rng = np.random.default_rng(0)
    days, lon, lat, height = (
        np.sort(rng.uniform(0, 9, 50)),
        rng.uniform(-5, 5, 50),
        rng.uniform(30, 40, 50),
        rng.normal(size=50),
    )
    readers.level3(days, lon, lat, height, "made", "title").to_netcdf(tmp_path / "made.nc")
    obs = readers.duacs_l3(tmp_path / "made.nc")
    np.testing.assert_allclose(obs["value"], height, atol=6e-4)
    np.testing.assert_allclose(readers.wrapped(obs["lon"], -180), lon, atol=1e-9)
    assert (obs["time"].values - np.datetime64("2019-01-01")) / np.timedelta64(1, "D") == pytest.approx(days, abs=1e-6)


@pytest.mark.filterwarnings("ignore:.*gross errors:UserWarning")
def test_a_fill_value_that_is_most_of_a_track_is_not_what_was_measured(tmp_path):
    """Packed as 32767, where the file declares -32768."""
    n, height = np.arange(200.0), np.r_[np.random.default_rng(0).normal(0, 0.1, 80), np.full(120, 32.767)]
    readers.level3(n / 86400, n, 0 * n, height, "made", "title").to_netcdf(tmp_path / "made.nc")
    assert counts(readers.duacs_l3(tmp_path / "made.nc")) == {"good": 80, "gross_error": 120}
    assert counts(readers.cf(tmp_path / "made.nc", "sla_unfiltered", 0.03, gross=np.inf)) == {"good": 200}


def test_times_that_are_years_from_the_pass_are_flagged():
    when = np.datetime64("2002-01-15", "ns") + np.arange(9).astype("timedelta64[s]")
    when[-2:] += np.timedelta64(5000, "D")
    places = np.arange(9.0)
    for short, expected in ((True, {"good": 7, "time_order": 2}), (False, {"good": 9})):
        assert counts(readers.container(0 * places, 1.0, when, places, places, short=short)) == expected


def test_what_may_not_be_used_is_flagged_and_counted(tmp_path):
    path = track_file(
        tmp_path / "a.nc", value=(0.1, np.nan, 0.3, 0.4, 0.5), lon=(1, 2, np.nan, 4, 5), time=(0, 1, 2, 5, 4)
    )
    assert counts(readers.duacs_l3(path)) == {"good": 2, "missing": 2, "time_order": 1}
    assert counts(readers.duacs_l3(path, sigma=-1.0)) == {"missing": 2, "bad_sigma": 3}


def test_undeclared_fill_values_count_as_missing(tmp_path):
    with netCDF4.Dataset(track_file(tmp_path / "a.nc"), "a") as file:
        v = file.createVariable("other", "i4", ("time",), fill_value=False)
        v.set_auto_mask(False)
        v.units, v.scale_factor = "cm", 0.1
        v[:] = [10, netCDF4.default_fillvals["i4"] * 0.1, 30, 40]
    obs = readers.duacs_l3(tmp_path / "a.nc", variable="other")
    assert counts(obs) == {"good": 3, "missing": 1}
    np.testing.assert_allclose(good(obs)["value"], [0.1, 0.3, 0.4])


def test_no_times_at_all_is_an_empty_container(tmp_path):
    obs = readers.duacs_l3(track_file(tmp_path / "a.nc", lon=(), value=(), time=()))
    assert obs.sizes["obs"] == 0
    assert counts(obs) == {}


@pytest.mark.parametrize("reader", [readers.duacs_l3, readers.jason_gdr, readers.ghrsst_l2p, readers.duacs_map])
def test_files_that_are_not_there_or_damaged_are_named(reader, tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*nowhere.nc"):
        reader(tmp_path / "nowhere.nc")
    whole = track_file(tmp_path / "a.nc").read_bytes()
    (tmp_path / "cut.nc").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(ValueError, match=r"cut.nc is damaged or no netCDF file"):
        reader(tmp_path / "cut.nc")
    xr.Dataset({"a": ("b", [1.0])}).to_netcdf(tmp_path / "other.nc")
    with pytest.raises(ValueError, match=r"other.nc: this is no .*it lacks .*it holds a; read other files with"):
        reader(tmp_path / "other.nc")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
def test_classic_files_that_were_cut_short_are_refused(keep, tmp_path):
    """The library reads the bytes that are not there as zeros."""
    n = np.arange(2000.0)
    ds = readers.level3(n / 1e4, n / 100, 0 * n, 0 * n + 0.1, "a", "t")
    ds.to_netcdf(tmp_path / "whole.nc", format="NETCDF3_CLASSIC")
    assert counts(readers.duacs_l3(tmp_path / "whole.nc")) == {"good": 2000}
    data = (tmp_path / "whole.nc").read_bytes()
    (tmp_path / "cut.nc").write_bytes(data[: int(keep * len(data))])
    with pytest.raises(ValueError, match=r"cut.nc is damaged or no netCDF file \(it is cut short"):
        readers.duacs_l3(tmp_path / "cut.nc")


@real
def test_the_jason_file_cut_short(tmp_path):
    (tmp_path / "cut.nc").write_bytes(JASON.read_bytes()[:-1500])
    with pytest.raises(ValueError, match="it is cut short"):
        readers.jason_gdr(tmp_path / "cut.nc")


def test_the_librarys_fill_value_beside_a_declared_one(tmp_path):
    height = np.array([100, 200, -2147483647, -1, 300], np.int32)
    ds = xr.Dataset({
        "sla_unfiltered": ("time", height, {"units": "m", "scale_factor": 1e-3, "missing_value": np.int32(-1)}),
        "time": ("time", np.arange(5.0), {"units": "days since 1950-01-01", "standard_name": "time"}),
        "longitude": ("time", np.arange(5.0)), "latitude": ("time", np.zeros(5)),
    })  # fmt: skip
    ds.to_netcdf(tmp_path / "a.nc", encoding={"sla_unfiltered": {"_FillValue": None}})
    obs = readers.duacs_l3(tmp_path / "a.nc")
    assert counts(obs) == {"good": 3, "missing": 2}
    assert good(obs)["value"].values.tolist() == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize(("change", "message"), [
    (dict(time=("time", [0.0, 1, 2, 3], {"units": "1", "standard_name": "time"})), "no dates|units must be"),
    (dict(sla_unfiltered=("time", [0.0, 1, 2, 3], {"units": "K"})), "is in 'K', a height is in m, cm, mm: take "),
    (dict(sla_unfiltered=("time", [0.0, 1, 2, 3])), "sla_unfiltered has no units, .*: give it the attribute units"),
    (dict(sla_unfiltered=(("time", "b"), np.zeros((4, 2)), {"units": "m"})), "dimensions .*read maps with duacs_l4"),
])  # fmt: skip
def test_wrong_contents_are_refused(change, message, tmp_path):
    ds = xr.open_dataset(track_file(tmp_path / "a.nc"), decode_times=False).load()
    ds.drop_vars(list(change)).assign(change).to_netcdf(tmp_path / "b.nc")
    with pytest.raises(ValueError, match=message):
        readers.duacs_l3(tmp_path / "b.nc")


# -- any CF file -----------------------------------------------------------------------------------------------------
def test_groups_like_those_of_sentinel_6(tmp_path):
    with netCDF4.Dataset(tmp_path / "g.nc", "w") as file:
        above = file.createGroup("data_01")
        above.createDimension("time", 3)
        for name, units, values in (("time", "seconds since 2000-01-01", [0.0, 1.0, 2.0]),
                                    ("longitude", "degrees_east", [-1.0, 0.0, 1.0]),
                                    ("latitude", "degrees_north", [60.0, 61.0, 95.0])):  # fmt: skip
            v = above.createVariable(name, "f8", ("time",))
            v.units, v.standard_name = units, name
            v[:] = values
        ku = above.createGroup("ku")
        v = ku.createVariable("ssha", "f8", ("time",))
        v.units, v.coordinates = "m", "longitude latitude"
        v[:] = [0.1, 0.2, 0.3]
    obs = readers.cf(tmp_path / "g.nc", "ssha", 0.05, group="data_01/ku")
    np.testing.assert_allclose(obs["lon"], [359.0, 0.0, 1.0])
    assert counts(obs) == {"good": 2, "missing": 1}, "95 north is no place"
    assert str(obs["time"].values[1])[:19] == "2000-01-01T00:00:01"
    with pytest.raises(ValueError, match=r"g.nc: there is no group 'data_20'; there are data_01, data_01/ku"):
        readers.cf(tmp_path / "g.nc", "ssha", 0.05, group="data_20")
    with pytest.raises(ValueError, match=r"lacks ssha; .* and the groups data_01 data_01/ku"):
        readers.cf(tmp_path / "g.nc", "ssha", 0.05)


def test_ragged_trajectories_become_platforms(tmp_path):
    ds = xr.Dataset({
        "sst": ("obs", [10.0, 11, 12, 13, 14], {"units": "degC"}), "error": ("obs", [0.1, 0.1, 0.2, -0.2, 0.2]),
        "rows": ("trajectory", [2, 3], {"sample_dimension": "obs"}),
        "time": ("obs", [0.0, 1, 0, 1, 2], {"units": "hours since 2020-02-02", "standard_name": "time"}),
        "lon": ("obs", np.arange(5.0), {"units": "degrees_east"}),
        "lat": ("obs", np.arange(5.0), {"units": "degrees_north"}),
    })  # fmt: skip
    ds.to_netcdf(tmp_path / "r.nc")
    obs = readers.cf(tmp_path / "r.nc", "sst", "error", edited=lambda ds: ds["sst"] > 13.5)
    assert names(obs, "platform") == ["trajectory_0", "trajectory_1"]
    assert obs["platform"].values.tolist() == [0, 0, 1, 1, 1]
    assert counts(obs) == {"good": 3, "bad_sigma": 1, "edited": 1}, "time runs on within each trajectory"
    assert list(np.atleast_1d(obs["channel"].attrs["channel_units"])) == ["degC"]
    ds.drop_vars("lon").to_netcdf(tmp_path / "s.nc")
    with pytest.raises(ValueError, match=r"sst .* has no longitude"):
        readers.cf(tmp_path / "s.nc", "sst", 0.1)


def test_two_dimensional_swath(tmp_path):
    y, x = np.meshgrid(np.linspace(10, 11, 3), np.linspace(20, 22, 4), indexing="ij")
    xr.Dataset({
        "wind": (("row", "column"), y + x, {"units": "m s-1"}),
        "lon": (("row", "column"), x, {"units": "degrees_east"}),
        "lat": (("row", "column"), y, {"units": "degrees_north"}),
        "time": ("row", [0.0, 1, 2], {"units": "seconds since 2020-01-01", "standard_name": "time"}),
    }).to_netcdf(tmp_path / "w.nc")  # fmt: skip
    obs = readers.cf(tmp_path / "w.nc", "wind", 1.0)
    assert obs.sizes["obs"] == 12
    np.testing.assert_allclose(obs["value"], obs["lon"] + obs["lat"])
    assert len(np.unique(obs["time"])) == 3


def test_any_variable_in_the_units_asked_for(tmp_path):
    ds = xr.open_dataset(track_file(tmp_path / "a.nc"), decode_times=False).load()
    ds["cm"] = ("time", [10.0, 20.0, 30.0, 40.0], {"units": "cm"})
    ds["error"] = ("time", [20.0, 20.0, 20.0, 30.0], {"units": "mm"})
    ds["sst"], ds["bare"] = ("time", [10.0, 11, 12, 13], {"units": "degC"}), ("time", np.arange(4.0))
    ds.to_netcdf(tmp_path / "b.nc")
    obs = readers.cf(tmp_path / "b.nc", "cm", "error", units="m")
    np.testing.assert_allclose(obs["value"], [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(obs["sigma"], [0.02, 0.02, 0.02, 0.03])
    assert obs["value"].attrs["units"] == "m"
    np.testing.assert_allclose(readers.cf(tmp_path / "b.nc", "sst", 0.1, units="K")["value"][0], 283.15)
    assert readers.cf(tmp_path / "b.nc", "cm", 1.0)["value"].attrs["units"] == "cm", "the file's unless asked"
    for name, unit, message in (("sst", "m", "sst is in 'degC', a height is in"), ("bare", "m", "bare has no units"),
                                ("cm", "psu", "units must be one of m, K, s, got 'psu'")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            readers.cf(tmp_path / "b.nc", name, 0.1, units=unit)


def test_longitudes_beyond_two_turns_are_missing(tmp_path):
    obs = readers.duacs_l3(track_file(tmp_path / "a.nc", lon=(2147.483647, -999.0, 539.0, -179.0)))
    assert obs["qc"].values.tolist() == [QC["missing"], QC["missing"], 0, 0]
    np.testing.assert_allclose(good(obs)["lon"], [179.0, 181.0])


def test_pixels_without_time_keep_their_place_in_a_swath(tmp_path):
    """The others are ordered; a swath in order stays as it is. A track is not ordered, whatever its shape."""
    places = {n: (("ni", "nj"), np.arange(6.0).reshape(2, 3), {"units": f"degrees_{u}"})
              for n, u in (("lon", "east"), ("lat", "north"))}  # fmt: skip
    when = {"units": "seconds since 2020-01-01", "standard_name": "time", "_FillValue": -1.0}
    ds = xr.Dataset({"wind": (("ni", "nj"), np.arange(6.0).reshape(2, 3), {"units": "m s-1"}), **places,
                     "time": (("ni", "nj"), [[0.0, -1, 2], [0, 1, 2]], when)})  # fmt: skip
    ds.to_netcdf(tmp_path / "w.nc")
    obs = readers.cf(tmp_path / "w.nc", "wind", 1.0)
    assert obs["value"].values.tolist() == [0, 1, 3, 4, 2, 5]
    assert counts(obs) == {"good": 5, "missing": 1}
    turned = ds.isel(ni=1, nj=[0, 2, 1]).expand_dims("one", axis=1)
    turned.to_netcdf(tmp_path / "t.nc")
    assert counts(readers.cf(tmp_path / "t.nc", "wind", 1.0)) == {"good": 2, "time_order": 1}


def test_passes_are_cut_at_gaps_and_platforms():
    seconds = np.array([0, 1, 2, 5000, 5001, 0, 1]) * np.timedelta64(1, "s") + np.datetime64("2020-01-01", "ns")
    obs = xr.Dataset({"platform": ("obs", [0, 0, 0, 0, 0, 1, 1]), "time": ("obs", seconds)})
    assert readers.passes(obs).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert readers.passes(obs, section=1.5 * 5800).tolist() == [0, 0, 1, 2, 2, 3, 3]
