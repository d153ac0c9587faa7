"""Semantic hashing: a logistic code that noise drives to 0 and 1, whose bits are addresses of similar examples.

What the bits retrieve, beside LSA, ITQ and random hyperplanes, is `python -m experiments retrieval`.
"""

import dataclasses

from aejax import runner
from aejax.methods import semantic_hash as method


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    latent_dim: int = 32
    """Bits."""
    hidden_dims: tuple[int, ...] = (500,)
    """Widths of the hidden layers of the encoder; the decoder mirrors them."""
    likelihood: str = "bernoulli"
    """bernoulli for images; multinomial for counts of words, such as newsgroups20 in AEJAX_DATA."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


EXPERIMENT = runner.of_method("semantic_hash", Config)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
