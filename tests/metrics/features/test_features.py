"""Extractors: what their features are, that they say what they are, and what they refuse."""

import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import nn

from helpers.distributions import gaussian
from twostep.core.schema import UserError
from twostep.metrics.features import classifier as small_network
from twostep.metrics.features import efficientnet
from twostep.metrics.features.base import Extractor, digest_of, pca, pixels, standardised
from twostep.metrics.features.classifier import classifier, train_classifier
from twostep.metrics.features.efficientnet import efficientnet_lite0


def test_pixels_are_scaled_by_the_range_and_flattened():
    x = torch.randint(0, 256, (5, 1, 4, 4), dtype=torch.uint8)
    found = pixels(0, 255)(x)
    torch.testing.assert_close(found, x.flatten(1) / 255)
    torch.testing.assert_close(pixels(-1, 1)(torch.tensor([[-1.0, 0.0, 1.0]])), torch.tensor([[0.0, 0.5, 1.0]]))


def test_columns_are_standardised_by_the_training_data_alone():
    train = gaussian(200, 3, 5, 4) * torch.tensor([1.0, 100.0, 0.01])
    extractor = standardised(train.split(60), (3,))
    found = extractor(train)
    torch.testing.assert_close(found.mean(0), torch.zeros(3).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(0, correction=0), torch.ones(3).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(extractor(2 * train), found + train / train.std(0, correction=0), rtol=1e-5, atol=1e-5)


def test_principal_components_are_those_of_scikit_learn():
    train = gaussian(300, 4) @ gaussian(4, 12, seed=1)
    ours = pca((batch.view(-1, 3, 2, 2) for batch in train.split(70)), 3)
    theirs = PCA(3).fit(train.numpy())
    x = gaussian(20, 12, seed=2)
    scale = theirs.explained_variance_.mean() ** 0.5
    found, expected = ours(x.view(20, 3, 2, 2)), torch.from_numpy(theirs.transform(x.numpy()) / scale)
    torch.testing.assert_close(found.abs(), expected.abs(), rtol=1e-9, atol=1e-9)
    whole = (10 * x).to(torch.int16)
    torch.testing.assert_close(ours(whole), ours(whole.float()))
    assert "3 principal components" in ours.preprocessing
    assert pca([train], 99)(x).shape == (20, 12)
    assert float(ours(train).var(0).mean()) == pytest.approx(1, rel=1e-4)
    torch.testing.assert_close(pca([1000 * train], 3)(1000 * x), ours(x), rtol=1e-3, atol=1e-3)


def test_features_are_flat_and_have_no_gradients():
    net, x = nn.Conv2d(1, 2, 3), torch.rand(4, 1, 5, 5)
    extractor = Extractor("mine", "none", digest_of("mine", net.state_dict().values()), net)
    torch.testing.assert_close(extractor(x), net(x).detach().flatten(1))
    assert not extractor(x).requires_grad


def test_digests_tell_values_types_and_shapes_apart():
    zeros = torch.zeros(4)
    variants = [
        zeros,
        zeros.double(),
        zeros.view(2, 2),
        zeros + 1e-7,
        zeros.to(torch.uint8),
        torch.zeros(4, 2)[:, 0] + 1,
    ]
    assert len({digest_of("a", [one]) for one in variants}) == len(variants)
    assert digest_of("a", [torch.arange(6).view(2, 3).T]) == digest_of("a", [torch.arange(6).view(2, 3).T.contiguous()])
    assert pixels(0, 1).digest != pixels(0, 255).digest


@pytest.mark.parametrize("extractor", [pixels, efficientnet_lite0])
def test_data_without_a_range_are_refused(extractor):
    with pytest.raises(UserError, match=r"range .*\(-inf to inf\): use standardised"):
        extractor(-float("inf"), float("inf"))


# ---- the classifier


@pytest.fixture(scope="module")
def digits():
    bundle = load_digits()
    return torch.from_numpy(bundle.images.astype(np.uint8))[:, None], torch.from_numpy(bundle.target)


@pytest.fixture(scope="module")
def state(digits):
    images, labels = digits
    return train_classifier(images[:1400], labels[:1400], 0, 16)


def test_the_features_of_the_classifier_tell_unseen_digits_apart(digits, state):
    images, labels = digits
    features = classifier(state)(images[1400:])
    logits = features @ state["7.weight"].T + state["7.bias"]
    assert features.shape == (397, 128)
    assert float((logits.argmax(1) == labels[1400:]).float().mean()) > 0.85
    assert bool((features >= 0).all())


def test_the_classifier_is_that_of_its_seed_and_leaves_the_generator_alone(digits, monkeypatch):
    monkeypatch.setattr(small_network, "EPOCHS", 1)
    images, labels = (part[:300] for part in digits)
    torch.manual_seed(0)
    first, drawn = train_classifier(images, labels, 0, 16, seed=1), torch.rand(1)
    torch.manual_seed(5)
    again, other = train_classifier(images, labels, 0, 16, seed=1), train_classifier(images, labels, 0, 16, seed=2)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    assert classifier(first).digest == classifier(again).digest != classifier(other).digest
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_labels_need_not_be_0_to_n_and_images_may_be_large_and_oblong(monkeypatch):
    monkeypatch.setattr(small_network, "EPOCHS", 1)
    images = torch.randint(0, 256, (20, 3, 70, 30), dtype=torch.uint8)
    extractor = classifier(train_classifier(images, torch.tensor([7, 300]).repeat(10), 0, 255))
    assert extractor(images).shape == (20, 128)
    assert extractor.preprocessing == "0 to 255 scaled to -1 to 1, made smaller to 32 pixels a side"


def test_the_classifier_refuses_tables_and_single_labels(digits):
    images, labels = digits
    with pytest.raises(UserError, match="images: use standardised"):
        train_classifier(images.flatten(1), labels, 0, 16)
    with pytest.raises(UserError, match="two or more labels"):
        train_classifier(images, torch.zeros(len(images)), 0, 16)


# ---- EfficientNet-Lite0


def test_efficientnet_sees_grey_as_colour_whatever_the_range_and_small_images_at_32_pixels():
    grey = torch.randint(0, 256, (3, 1, 40, 40)).float()
    extractor = efficientnet_lite0(0, 255)
    found = extractor(grey)
    assert found.shape == (3, 1280)
    torch.testing.assert_close(extractor(grey.expand(-1, 3, -1, -1)), found)
    torch.testing.assert_close(efficientnet_lite0(0, 1)(grey / 255), found, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        efficientnet._normalise(grey, 0, 255), ((grey - 127) / 128).expand(-1, 3, -1, -1), rtol=1e-6, atol=1e-6
    )
    small = grey[:, :, :28, :28]
    assert efficientnet._normalise(small, 0, 255).shape == (3, 3, 32, 32)
    assert efficientnet_lite0(0, 1).digest != extractor.digest
    with pytest.raises(UserError, match=r"points of shape \(2, 9, 9\) are not images"):
        extractor(torch.rand(1, 2, 9, 9))


def test_efficientnet_has_the_published_weights():
    _, digest = efficientnet._network()
    assert digest.startswith("57934424")  # stands in the name of the file


def test_missing_packages_are_named(monkeypatch):
    efficientnet._network.cache_clear()
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UserError, match=r"pip install 'twostep\[features\]'"):
        efficientnet_lite0(0, 1)
