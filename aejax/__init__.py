"""Autoencoders in JAX: every method a Flax module beside a pure loss, one compiled loop for all.

Axis letters in docstrings: `B` batch, `N` examples, `D` data dimensions, `Z` code, `H W C` image. Losses are in nats
per example: sums over data and code, means over the batch. Importing changes no global setting of JAX.

`aejax.methods` holds a file for each method; its module, loss and factory stand here too: `aejax.VAE`,
`aejax.vae_loss`, `aejax.vae`.
"""

from typing import Any

from aejax import (
    checks,
    corruption,
    data,
    divergences,
    evaluation,
    export,
    hamming,
    jacobian,
    likelihoods,
    methods,
    nets,
    parallel,
    plots,
    posteriors,
    priors,
    schedules,
    sweep,
    training,
)
from aejax.algorithm import Algorithm, Phase, Player, Refresh, Rule, TrainState, play, transform_batch
from aejax.checks import DivergedError, InputError
from aejax.data import Batch, binarize
from aejax.fitted import Fitted, learn
from aejax.methods import METHODS
from aejax.nets import MLP, Autoencoder, init_params
from aejax.training import Chunk, evaluate, fit, train

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "MLP",
    "Algorithm",
    "Autoencoder",
    "Batch",
    "Chunk",
    "DivergedError",
    "Fitted",
    "InputError",
    "Phase",
    "Player",
    "Refresh",
    "Rule",
    "TrainState",
    "binarize",
    "corruption",
    "data",
    "divergences",
    "evaluate",
    "evaluation",
    "export",
    "fit",
    "hamming",
    "init_params",
    "jacobian",
    "learn",
    "likelihoods",
    "methods",
    "nets",
    "parallel",
    "play",
    "plots",
    "posteriors",
    "priors",
    "schedules",
    "sweep",
    "train",
    "training",
    "transform_batch",
]
__all__ += sorted(methods.PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in methods.PUBLIC:
        raise AttributeError(f"aejax has no {name!r}. {checks.nearest(name, __dir__(), what='names')}")
    return methods.PUBLIC[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *methods.PUBLIC})
