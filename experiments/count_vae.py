"""Variational autoencoder of counts: negative binomial, with a dispersion of each gene and the library given (scVI).

Of a cell it infers the shares of the genes, and leaves out how many counts there are in all. Against a Poisson
likelihood, a Gaussian VAE and PCA of log-normalised counts, and against the dispersions that made-up cells were drawn
with, see `python -m experiments counts`.
"""

import dataclasses
from functools import partial

from aejax import runner
from aejax.methods import count_vae as method
from experiments import vae


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    dataset: str = "cells"
    """cells, made up with known dispersions; worm_neurons in AEJAX_DATA; or a path to .npy or .npz of counts."""
    latent_dim: int = 10
    """Size of the code."""
    hidden_dims: tuple[int, ...] = (128,)
    """Widths of the hidden layers of a dense encoder; the decoder mirrors them."""
    likelihood: str = "negative_binomial"
    """negative_binomial or poisson."""
    warmup_epochs: int = 0
    """Epochs in which beta rises in a straight line from 0 (validation has its final value); 0 for none."""
    nll_samples: int = 100
    """Importance samples per test cell for test_nll_nats, of x given its library; 0 leaves it out."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


EXPERIMENT = runner.of_method(
    "count_vae",
    Config,
    build_model=partial(vae.build_model, module=method.CountVAE),
    build_algorithm=partial(vae.build_algorithm, build=method.count_vae),
    measure=vae.measure,
)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
