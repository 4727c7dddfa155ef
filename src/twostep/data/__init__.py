"""Datasets by name, from files and synthetic ones; importing this package registers those known by name."""

from twostep.core.schema import DataSpec
from twostep.data import named as named
from twostep.data.base import DATASETS, DatasetLoader, Source, Splits
from twostep.data.batches import Batches, LazyRows, Rows, embed, subsample
from twostep.data.load import default_data_root, load_data, read_rows, split_frame, training_rows
from twostep.data.synthetic import SYNTHETIC, SyntheticDistribution, distribution
from twostep.data.table.codes import to_frame

__all__ = [
    "DATASETS",
    "SYNTHETIC",
    "Batches",
    "DataSpec",
    "DatasetLoader",
    "LazyRows",
    "Rows",
    "Source",
    "Splits",
    "SyntheticDistribution",
    "default_data_root",
    "distribution",
    "embed",
    "load_data",
    "read_rows",
    "split_frame",
    "subsample",
    "to_frame",
    "training_rows",
]
