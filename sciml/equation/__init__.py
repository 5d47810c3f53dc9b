"""Equations by name; what all have in common is in ``base.py``."""

from sciml.equation.advection import Advection
from sciml.equation.allen_cahn import AllenCahn
from sciml.equation.burgers import Burgers
from sciml.equation.kdv import KortewegDeVries
from sciml.equation.kuramoto import KuramotoSivashinsky
from sciml.equation.layered import LayeredQG, TwoLayerQG
from sciml.equation.lorenz import Lorenz63, Lorenz96
from sciml.equation.sqg import SurfaceQG
from sciml.equation.vorticity import Vorticity

__all__ = [
    "Advection",
    "AllenCahn",
    "Burgers",
    "KortewegDeVries",
    "KuramotoSivashinsky",
    "LayeredQG",
    "Lorenz63",
    "Lorenz96",
    "SurfaceQG",
    "TwoLayerQG",
    "Vorticity",
]
