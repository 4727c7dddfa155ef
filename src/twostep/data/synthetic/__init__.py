"""Synthetic datasets, known by name; `distribution("sphere", {"manifold_dim": 3})` returns the true distribution."""

from twostep.data.synthetic import curves as curves
from twostep.data.synthetic import flat as flat
from twostep.data.synthetic import mixed as mixed
from twostep.data.synthetic import network as network
from twostep.data.synthetic import spheres as spheres
from twostep.data.synthetic import surfaces as surfaces
from twostep.data.synthetic.base import SYNTHETIC, SyntheticDistribution, distribution

__all__ = ["SYNTHETIC", "SyntheticDistribution", "distribution"]
