"""The public names of `twostep.data` change on purpose only."""

import twostep.data


def test_public_names():
    assert twostep.data.__all__ == [
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
        "subsample",
        "training_rows",
    ]
    assert all(hasattr(twostep.data, name) for name in twostep.data.__all__)
