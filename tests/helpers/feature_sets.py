"""What samples of a model are compared with, as a run chooses it."""

from twostep.metrics.features.choice import FeatureChoice
from twostep.metrics.samples.feature_sets import FeatureSets
from twostep.models.two_step import spec_seen


def feature_sets(model, splits, training, held_out, keys, gather=lambda rows: rows, with_reference=True):
    """Return the sets in the features that the keys name for `splits` or their embeddings."""
    make = FeatureChoice(spec_seen(model, splits.spec), keys, splits).extractor
    return FeatureSets(model, training, held_out, keys, make, gather, 0, with_reference)
