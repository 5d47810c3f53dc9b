"""Scientific machine learning for PDEs and geoscience on shared xarray grids."""

from sciml import equation, plot, score, spectra
from sciml.assim.base import Covariance, Space
from sciml.assim.cycle import cycle
from sciml.assim.ensemble import EnKF
from sciml.assim.local import LETKF
from sciml.assim.network import FuXiDA
from sciml.assim.optimal import OptimalInterpolation, ThreeDVar
from sciml.assim.variational import FourDVar
from sciml.data import from_dataset, open_run, to_dataset
from sciml.discover.library import Library, terms
from sciml.discover.medida import medida
from sciml.discover.samples import pairs
from sciml.equation.base import Equation, Term
from sciml.equation.layered import LayeredQG, TwoLayerQG
from sciml.equation.presets import preset
from sciml.equation.stability import stability
from sciml.grid import Grid
from sciml.initial import random_pv
from sciml.insr.build import insr
from sciml.insr.tangent import tangent
from sciml.instruments import Instrument, simulate
from sciml.nn.mgno import MgNO
from sciml.objectives import emulator
from sciml.observe import Channel, Operator, windows
from sciml.prose.model import PROSE
from sciml.rollout import BlowUp, rollout
from sciml.step import STEPPERS, State, Step, ab3, etdrk4, rk4
from sciml.surrogate import Surrogate

__version__ = "0.1.0"
__all__ = [
    "LETKF",
    "PROSE",
    "STEPPERS",
    "BlowUp",
    "Channel",
    "Covariance",
    "EnKF",
    "Equation",
    "FourDVar",
    "FuXiDA",
    "Grid",
    "Instrument",
    "LayeredQG",
    "Library",
    "MgNO",
    "Operator",
    "OptimalInterpolation",
    "Space",
    "State",
    "Step",
    "Surrogate",
    "Term",
    "ThreeDVar",
    "TwoLayerQG",
    "ab3",
    "cycle",
    "emulator",
    "equation",
    "etdrk4",
    "from_dataset",
    "insr",
    "medida",
    "open_run",
    "pairs",
    "plot",
    "preset",
    "random_pv",
    "rk4",
    "rollout",
    "score",
    "simulate",
    "spectra",
    "stability",
    "tangent",
    "terms",
    "to_dataset",
    "windows",
]
