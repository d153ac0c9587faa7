"""k-sparse autoencoder: linear, and only the k largest activations of an example speak.

The comparison with other sparse codes, and with the published errors, is `python -m experiments sparse_codes`.
"""

import dataclasses

from aejax import runner
from aejax.methods import k_sparse as method
from experiments import sparse_ae


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    latent_dim: int = 200
    """Units."""
    k: int = 25
    """Units that an example keeps."""
    alpha: float = 1.0
    """The features that are measured keep alpha k units."""
    hidden_dims: tuple[int, ...] = ()
    """Widths of hidden layers before the code; the decoder has the transposed weights."""
    likelihood: str = "gaussian"
    """A name of aejax.likelihoods; gaussian (unit variance) is half the squared error, bernoulli cross-entropy."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


EXPERIMENT = runner.of_method("k_sparse", Config, measure=sparse_ae.measure)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
