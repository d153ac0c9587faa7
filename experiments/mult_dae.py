"""Mult-DAE: a denoising autoencoder of events, with a multinomial likelihood.

Ranked lists, beside EASE and popularity, are `python -m experiments recommendation`.
"""

import dataclasses

from aejax import runner
from aejax.methods import mult_dae as method


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    dataset: str = "cells"
    """cells, made up; worm_neurons in AEJAX_DATA; or a path to .npy or .npz of counts."""
    latent_dim: int = 20
    """Tanh units of the code; 200 in the paper."""
    hidden_dims: tuple[int, ...] = ()
    """Widths of hidden layers before the code; the decoder mirrors them."""
    likelihood: str = "multinomial"
    """multinomial, and no other."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


EXPERIMENT = runner.of_method("mult_dae", Config)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
