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
    posteriors,
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
from aejax.methods.ae_l2 import ae_l2, ae_l2_loss, principal_directions
from aejax.methods.cae import CAE, cae, cae_loss
from aejax.methods.cae_h import cae_h, cae_h_loss
from aejax.methods.dae import dae, dae_loss
from aejax.methods.k_sparse import KSparseAE, k_sparse
from aejax.methods.mdae import linear_dae, mdae, mdae_loss
from aejax.methods.rcae import rcae, rcae_loss
from aejax.methods.scae import scae, scae_loss
from aejax.methods.sparse_ae import SparseAE, sparse_ae, sparse_ae_loss
from aejax.methods.stacked import StackedAE, layer_loss, stacked, unrolled
from aejax.methods.vae import VAE, vae, vae_loss
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
    "KSparseAE",
    "Player",
    "SparseAE",
    "StackedAE",
    "TrainState",
    "aae",
    "ae",
    "ae_l2",
    "ae_l2_loss",
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
    "k_sparse",
    "layer_loss",
    "likelihoods",
    "linear_dae",
    "mdae",
    "mdae_loss",
    "nets",
    "parallel",
    "play",
    "plots",
    "posteriors",
    "principal_directions",
    "priors",
    "rcae",
    "rcae_loss",
    "scae",
    "scae_loss",
    "schedules",
    "sparse_ae",
    "sparse_ae_loss",
    "stacked",
    "sweep",
    "train",
    "training",
    "transform_batch",
    "unrolled",
    "vae",
    "vae_loss",
]
