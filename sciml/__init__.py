"""Scientific machine learning for PDEs and geoscience on shared xarray grids."""

from sciml import plot, score, spectra
from sciml.assim.base import Covariance, Space
from sciml.assim.cycle import cycle
from sciml.assim.ensemble import EnKF
from sciml.assim.hybrid import Hybrid
from sciml.assim.local import LETKF
from sciml.assim.network import FuXiDA
from sciml.assim.optimal import OptimalInterpolation, ThreeDVar
from sciml.assim.variational import FourDVar
from sciml.data import from_dataset, open_run, to_dataset
from sciml.discover.library import Library, terms
from sciml.discover.medida import Pair, medida, pairs
from sciml.equation.advection import Advection
from sciml.equation.allen_cahn import AllenCahn
from sciml.equation.base import Equation, Term
from sciml.equation.burgers import Burgers
from sciml.equation.expression import parse
from sciml.equation.forcing import ring_forcing
from sciml.equation.kdv import KortewegDeVries
from sciml.equation.kuramoto import KuramotoSivashinsky
from sciml.equation.lorenz import Lorenz63, Lorenz96
from sciml.equation.presets import preset
from sciml.equation.qg import LayeredQG, TwoLayerQG
from sciml.equation.sqg import SurfaceQG
from sciml.equation.stability import stability, vertical_modes
from sciml.equation.vorticity import Vorticity
from sciml.field import Siren
from sciml.grid import Grid
from sciml.initial import random_field, random_pv, rossby_wave, taylor_green
from sciml.insr.build import insr, insr_on_sphere
from sciml.insr.refit import refit
from sciml.insr.tangent import tangent
from sciml.instruments import Instrument, simulate
from sciml.nn.mgno import MgNO
from sciml.nn.unet import UNet
from sciml.objectives import emulator
from sciml.observe import Channel, Operator, windows
from sciml.prose.model import PROSE
from sciml.rollout import BlowUp, Trajectory, rollout
from sciml.spectra import diagnostics, isotropic
from sciml.step import STEPPERS, State, Step, ab3, etdrk4, euler, imex, rk4
from sciml.surrogate import Surrogate

__version__ = "0.1.0"
__all__ = [
    "LETKF",
    "PROSE",
    "STEPPERS",
    "Advection",
    "AllenCahn",
    "BlowUp",
    "Burgers",
    "Channel",
    "Covariance",
    "EnKF",
    "Equation",
    "FourDVar",
    "FuXiDA",
    "Grid",
    "Hybrid",
    "Instrument",
    "KortewegDeVries",
    "KuramotoSivashinsky",
    "LayeredQG",
    "Library",
    "Lorenz63",
    "Lorenz96",
    "MgNO",
    "Operator",
    "OptimalInterpolation",
    "Pair",
    "Siren",
    "Space",
    "State",
    "Step",
    "SurfaceQG",
    "Surrogate",
    "Term",
    "ThreeDVar",
    "Trajectory",
    "TwoLayerQG",
    "UNet",
    "Vorticity",
    "ab3",
    "cycle",
    "diagnostics",
    "emulator",
    "etdrk4",
    "euler",
    "from_dataset",
    "imex",
    "insr",
    "insr_on_sphere",
    "isotropic",
    "medida",
    "open_run",
    "pairs",
    "parse",
    "plot",
    "preset",
    "random_field",
    "random_pv",
    "refit",
    "ring_forcing",
    "rk4",
    "rollout",
    "rossby_wave",
    "score",
    "simulate",
    "spectra",
    "stability",
    "tangent",
    "taylor_green",
    "terms",
    "to_dataset",
    "vertical_modes",
    "windows",
]
