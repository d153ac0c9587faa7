"""Networks: dense and convolutional encoders, decoders and discriminators, the same parameters on every backend."""

from aejax.nets.autoencoder import Autoencoder, check_labels, check_module, init_params, inputs
from aejax.nets.conv import Conv, ConvDecoder, ConvEncoder, ConvTranspose, has_convolution
from aejax.nets.mlp import MLP, TiedMLP

__all__ = [
    "MLP",
    "Autoencoder",
    "Conv",
    "ConvDecoder",
    "ConvEncoder",
    "ConvTranspose",
    "TiedMLP",
    "check_labels",
    "check_module",
    "has_convolution",
    "init_params",
    "inputs",
]
