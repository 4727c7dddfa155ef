"""All models, one file each; importing this package files their configs in `MODELS`."""

from twostep.models.ae import Autoencoder
from twostep.models.arm import ARM
from twostep.models.avb import AVB
from twostep.models.base import MODELS, DensityEstimator, GeneralizedAutoencoder, Objective
from twostep.models.bigan import BiGAN
from twostep.models.ebm import EBM
from twostep.models.external import ExternalAutoencoder
from twostep.models.flow import Flow
from twostep.models.fm import FlowMatching
from twostep.models.gmm import GaussianMixture
from twostep.models.kde import KernelDensity
from twostep.models.parts.coupling import Couplings, vector_layers
from twostep.models.two_step import TwoStep
from twostep.models.vae import VAE
from twostep.models.wae import WAE

__all__ = [
    "ARM",
    "AVB",
    "EBM",
    "MODELS",
    "VAE",
    "WAE",
    "Autoencoder",
    "BiGAN",
    "Couplings",
    "DensityEstimator",
    "ExternalAutoencoder",
    "Flow",
    "FlowMatching",
    "GaussianMixture",
    "GeneralizedAutoencoder",
    "KernelDensity",
    "Objective",
    "TwoStep",
    "vector_layers",
]
