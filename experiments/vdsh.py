"""VDSH: a variational autoencoder of words whose decoder is linear, and whose code is cut into bits.

What the bits retrieve, beside LSA, ITQ and random hyperplanes, is `python -m experiments retrieval`.
"""

import dataclasses

from aejax import runner
from aejax.methods import vdsh as method


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    dataset: str = "cells"
    """cells, made up; newsgroups20 in AEJAX_DATA; or a path to .npy or .npz of counts."""
    latent_dim: int = 32
    """Bits."""
    hidden_dims: tuple[int, ...] = (500, 500)
    """Widths of the hidden layers of the encoder; the decoder has none."""
    likelihood: str = "multinomial"
    """multinomial, and no other."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


EXPERIMENT = runner.of_method("vdsh", Config)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
