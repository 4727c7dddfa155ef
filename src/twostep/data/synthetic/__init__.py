"""Synthetic data sets, known by name; `distribution("sphere", {"manifold_dim": 3})` gives the truth about one."""

from twostep.data.synthetic import curves as curves
from twostep.data.synthetic import linear as linear
from twostep.data.synthetic import network as network
from twostep.data.synthetic import spheres as spheres
from twostep.data.synthetic import surfaces as surfaces
from twostep.data.synthetic import toys_2d as toys_2d
from twostep.data.synthetic.base import SYNTHETIC as SYNTHETIC
from twostep.data.synthetic.base import SyntheticDistribution as SyntheticDistribution
from twostep.data.synthetic.base import distribution as distribution
