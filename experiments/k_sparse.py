"""k-sparse autoencoder: linear, and only the k largest activations of an example speak.

The comparison with other sparse codes, and with the published errors, is `python -m experiments.sparse_ae`.
"""

import dataclasses
from functools import partial
from typing import Any, Literal

from aejax.methods import k_sparse as method
from experiments import common, measures, sparse
from experiments.common import Experiment


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
    likelihood: Literal["bernoulli", "gaussian"] = "gaussian"
    """Gaussian (unit variance) is half the squared error, Bernoulli is cross-entropy."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def build_model(config: Config, shape: tuple[int, ...]) -> Any:
    return common.build_model(config, shape, method.KSparseAE, k=config.k, alpha=config.alpha)


def build_algorithm(config: Config, model: Any, tx: Any, axis_name: str | None) -> Any:
    return method.k_sparse(model, config.hparams, tx, axis_name=axis_name)


EXPERIMENT = Experiment(
    "k_sparse", Config, build_model, build_algorithm, "recon/loss", sparse.measure, measures.pictures
)
run = partial(common.run, EXPERIMENT)


def main() -> None:
    from experiments import launch

    launch.main(EXPERIMENT, __doc__)


if __name__ == "__main__":
    main()
