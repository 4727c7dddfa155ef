"""The public names of the package: a change of this list is a change for users."""

import importlib

import pytest

PUBLIC = {
    "twostep": """
        DensityModel
        IntrinsicDimension
        MODELS
        TwoStep
        TwoStepDensity
        TwoStepOutlierDetector
        UserError
        diagnose
        fit
        from_pretrained
        load_data
        load_module
        load_run
        push_to_hub
        save_pretrained
    """,
    "twostep.data": """
        Batches
        DATASETS
        DataSpec
        DatasetLoader
        LazyRows
        Rows
        SYNTHETIC
        Source
        Splits
        SyntheticDistribution
        default_data_root
        distribution
        embed
        load_data
        read_rows
        split_frame
        subsample
        to_frame
        training_rows
    """,
    "twostep.diagnosis": """
        Diagnosis
        Dimension
        LocalDimension
        Overfitting
        ScoreDimension
        diagnose
        dimension_of
        local_dimension
        score_dimension
    """,
    "twostep.estimators": """
        DensityModel
        IntrinsicDimension
        TwoStepDensity
        TwoStepOutlierDetector
    """,
    "twostep.metrics": """
        Certificate
        METRICS
        Metric
        OODAccuracy
        Result
        RowMetric
        SampleMetric
        check_metrics
        check_normalised
        compare
        evaluate
    """,
    "twostep.models": """
        ARM
        AVB
        Autoencoder
        BiGAN
        Couplings
        DensityEstimator
        EBM
        ExternalAutoencoder
        Flow
        FlowMatching
        GaussianMixture
        GeneralizedAutoencoder
        KernelDensity
        MODELS
        Objective
        TwoStep
        VAE
        WAE
        vector_layers
    """,
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_change_on_purpose_only(module):
    names = PUBLIC[module].split()
    found = importlib.import_module(module)
    assert sorted(found.__all__) == names
    assert all(hasattr(found, name) for name in names)
    assert set(names) <= set(dir(found))


def test_what_is_not_public_is_not_there():
    with pytest.raises(AttributeError):
        getattr(importlib.import_module("twostep"), "nothing")  # noqa: B009
