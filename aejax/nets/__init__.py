"""Networks: dense, convolutional and masked ones, and flows, the same parameters on every backend.

No loss, no noise and no method: a network knows arrays.
"""

from aejax.nets.autoencoder import Autoencoder, check_labels, check_plain, inputs, shaped
from aejax.nets.checks import check_module, check_rows, is_ours
from aejax.nets.conv import Conv, ConvDecoder, ConvEncoder, ConvTranspose, has_convolution
from aejax.nets.doors import from_equinox, from_nnx
from aejax.nets.flows import Autoregressive, Couplings, Rescaled
from aejax.nets.init import init_params, start_bias
from aejax.nets.labelled import Labelled
from aejax.nets.masked import MaskedDense, MaskedMLP
from aejax.nets.mlp import MLP, TiedMLP

__all__ = [
    "MLP",
    "Autoencoder",
    "Autoregressive",
    "Conv",
    "ConvDecoder",
    "ConvEncoder",
    "ConvTranspose",
    "Couplings",
    "Labelled",
    "MaskedDense",
    "MaskedMLP",
    "Rescaled",
    "TiedMLP",
    "check_labels",
    "check_module",
    "check_plain",
    "check_rows",
    "from_equinox",
    "from_nnx",
    "has_convolution",
    "init_params",
    "inputs",
    "is_ours",
    "shaped",
    "start_bias",
]
