"""Models that tests of analyses share: a linear one with its Kalman filter, and a small two-layer one."""

from dataclasses import dataclass

import numpy as np
import torch

import sciml as sm
from sciml import Grid
from sciml.assim.base import Space, covariance, trajectory
from sciml.equation.base import Term
from sciml.equation.expression import Field
from sciml.equation.lorenz import Ordinary
from sciml.observations import observations
from sciml.observe import Channel, Operator, Window, level, ssh, windows

N = 5
A = torch.tensor(np.random.default_rng(3).standard_normal((N, N)) * 0.3 - 0.4 * np.eye(N))


@dataclass(frozen=True, kw_only=True)
class Linear(Ordinary):
    """dx/dt = A x."""

    @property
    def prognostic(self):
        return tuple(f"x{i}" for i in range(N))

    @property
    def own_terms(self):
        for i in range(N):
            for j in range(N):
                yield Term(f"x{i}", f"a{j}", float(A[i, j]) * Field(f"x{j}"))


LINE = Grid(N, 1, Lx=float(N), Ly=1.0, dealias=1.0, x0=0.0, y0=0.0)
SPACE = Space(
    LINE, lambda z: z[..., 0, 0].real[..., None, None, :], lambda f: torch.complex(f, 0 * f)[..., 0, 0, :, None, None]
)
H = Operator(LINE, SPACE.read, (Channel("x", level(1), 0.5),))
STEPS, DT = 4, 0.1


def linear_windows(n=3):
    """Observations of three variables, at times of their own."""
    rng = np.random.default_rng(0)
    time = np.concatenate([w * STEPS * DT + np.array([0.1, 0.25, 0.4]) for w in range(n)])
    obs = observations(
        rng.standard_normal(3 * n), 0.5, time, np.tile([0.0, 2.0, 3.0], n), np.zeros(3 * n), channels=["x"]
    )
    return windows(obs, H, 0.0, DT, STEPS, n)


def numbers(z):
    return z[..., 0, 0].real


def dense(step, window):
    """Propagator over the window and the matrix from the state at its start to the equivalents."""
    eye = torch.complex(torch.eye(N, dtype=torch.float64), torch.zeros(N, N, dtype=torch.float64))[..., None, None]
    states, end = trajectory(step, sm.State(eye, window.start), window.steps)
    return numbers(end.z).mT, window.equivalents(states).mT


def kalman(step, x, P, windows):
    """Mean and covariance at the end, by the textbook."""
    for w in windows:
        M, G = dense(step, w)
        S = G @ P @ G.mT + torch.diag(w.sigma**2)
        K = P @ G.mT @ torch.linalg.inv(S)
        x, P = M @ (x + K @ (w.value - G @ x)), M @ (P - K @ G @ P) @ M.mT
    return x, P


def ensemble_of(size, seed=1):
    E = torch.randn(size, N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 1
    return sm.State(torch.complex(E, 0 * E)[..., None, None]), E.mean(0), torch.cov(E.mT)


def qg(dt=3600.0):
    eq = sm.TwoLayerQG(grid=Grid(16, 12, Lx=4e5, Ly=3e5), rd=15e3, U1=0.02, beta=1.5e-11, rek=1e-7)
    operator = Operator(eq.grid, lambda z: eq.grid.ifft(eq.psi(z)), (Channel("ssh", ssh(1e-4), 1e-3),))
    return eq, sm.rk4(eq, dt), operator


def qg_covariance(eq):
    samples = eq.init(sm.random_pv(eq, seed=3, members=200, speed=0.1))
    return covariance(eq.grid, samples + 0.3 * samples.flip(-3))


def ssh_window(operator, n=40, steps=3, dt=3600.0):
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0, 3e5, (2, n))
    obs = observations(
        0.01 * rng.standard_normal(n), 1e-3, np.sort(rng.uniform(1, steps * dt, n)), x, y, channels=["ssh"]
    )
    return Window(obs, operator, 0.0, dt, steps)
