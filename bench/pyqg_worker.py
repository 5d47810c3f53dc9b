"""Runs pyqg 0.7.2 in its own environment for the benchmarks; reads one JSON request a line, answers one JSON line.

{"do": "build", "nx": 64, "dt": 7200.0}            make a turbulent-looking state and warm up
{"do": "time", "steps": 100}                       seconds that the steps took
{"do": "climate", "nx": 64, "dt": 7200.0, "seed": 0, "years": 10, "spinup_years": 5, "file": "out.nc"}
"""

import json
import sys
import time
import warnings

import numpy as np
import xarray as xr

warnings.filterwarnings("error", message="No pyfftw")  # compiled without it, pyqg is slower: remove bench/.venv
import pyqg  # noqa: E402

YEAR = 360 * 86400.0
SPECTRA = ("KEspec", "Ensspec", "KEflux", "APEflux", "APEgenspec", "KEfrictionspec")


def model(nx, dt, **options):
    return pyqg.QGModel(nx=nx, dt=dt, ntd=1, log_level=0, **options)


def build(nx, dt):
    m = model(nx, dt)
    rng = np.random.default_rng(0)
    m.set_q1q2(1e-6 * rng.standard_normal((nx, nx)), np.zeros((nx, nx)))
    for _ in range(5):
        m._step_forward()
    return m


def climate(nx, dt, seed, years, spinup_years, file):
    """Time means over the last years, of pyqg's own diagnostics once a day, as two-dimensional densities."""
    m = model(nx, dt, tmax=years * YEAR, tavestart=spinup_years * YEAR, taveint=86400.0)
    rng = np.random.default_rng(seed)
    q1 = 1e-7 * rng.random((nx, nx)) + 1e-6 * np.ones((nx, 1)) * rng.random((1, nx))
    m.set_q1q2(q1, np.zeros((nx, nx)))
    start = time.perf_counter()
    m.run()
    ds = xr.Dataset(attrs={"seconds": time.perf_counter() - start, "years": years, "seed": seed, "dt": dt})
    for name in SPECTRA:
        d = np.asarray(m.get_diagnostic(name))
        ds[name] = (("lev", "l", "k")[3 - d.ndim :], d)
    for name in ("EKE", "APEgen", "EKEdiss"):
        d = np.asarray(m.get_diagnostic(name))
        ds[name] = (("lev",)[: d.ndim], d)
    ds.to_netcdf(file)


def main():
    m = None
    for line in sys.stdin:
        request = json.loads(line)
        do = request.pop("do")
        answer = {}
        if do == "build":
            m = build(**request)
        elif do == "time":
            start = time.perf_counter()
            for _ in range(request["steps"]):
                m._step_forward()
            answer["seconds"] = time.perf_counter() - start
        else:
            climate(**request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
