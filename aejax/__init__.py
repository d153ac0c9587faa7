"""Autoencoders in JAX: every method a Flax module beside a pure loss, one compiled loop for all.

Axis letters in docstrings: `B` batch, `N` examples, `D` data dimensions, `Z` code, `H W C` image. Losses are in nats
per example: sums over data and code, means over the batch. Importing changes no global setting of JAX.
"""

from aejax import (
    corruption,
    data,
    divergences,
    evaluation,
    jacobian,
    likelihoods,
    nets,
    parallel,
    plots,
    priors,
    schedules,
    sweep,
    training,
)
from aejax.algorithm import Algorithm, Player, TrainState, play, transform_batch
from aejax.checks import DivergedError, InputError
from aejax.data import Batch, binarize
from aejax.methods import METHODS
from aejax.methods.aae import AAE, aae
from aejax.methods.ae import AE, ae, ae_loss
from aejax.methods.cae import CAE, cae, cae_loss
from aejax.methods.cae_h import cae_h, cae_h_loss
from aejax.methods.dae import dae, dae_loss
from aejax.methods.rcae import rcae, rcae_loss
from aejax.methods.scae import scae, scae_loss
from aejax.methods.vae import VAE, reparameterise, vae, vae_loss
from aejax.nets import MLP, Autoencoder, init_params
from aejax.training import Chunk, evaluate, fit, train

__all__ = [
    "AAE",
    "AE",
    "CAE",
    "METHODS",
    "MLP",
    "VAE",
    "Algorithm",
    "Autoencoder",
    "Batch",
    "Chunk",
    "DivergedError",
    "InputError",
    "Player",
    "TrainState",
    "aae",
    "ae",
    "ae_loss",
    "binarize",
    "cae",
    "cae_h",
    "cae_h_loss",
    "cae_loss",
    "corruption",
    "dae",
    "dae_loss",
    "data",
    "divergences",
    "evaluate",
    "evaluation",
    "fit",
    "init_params",
    "jacobian",
    "likelihoods",
    "nets",
    "parallel",
    "play",
    "plots",
    "priors",
    "rcae",
    "rcae_loss",
    "reparameterise",
    "scae",
    "scae_loss",
    "schedules",
    "sweep",
    "train",
    "training",
    "transform_batch",
    "vae",
    "vae_loss",
]
