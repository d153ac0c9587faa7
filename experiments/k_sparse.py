"""k-sparse autoencoder: linear, and only the k largest activations of an example speak.

The comparison with other sparse codes, and with the published errors, is `python -m experiments.sparse_ae`.
"""

import dataclasses
from functools import partial

from aejax.methods import k_sparse as method
from experiments import common, registered, sparse


@dataclasses.dataclass(frozen=True)
class Config(common.Config):
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


EXPERIMENT = registered.experiment("k_sparse", Config, measure=sparse.measure)
run = partial(common.run, EXPERIMENT)


def main() -> None:
    from experiments import launch

    launch.main(EXPERIMENT, __doc__)


if __name__ == "__main__":
    main()
