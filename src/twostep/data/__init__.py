"""The data room: importing it files the data sets that are known by name."""

from twostep.data import celeba as celeba
from twostep.data import named as named
from twostep.data import synthetic as synthetic
