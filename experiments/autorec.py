"""AutoRec: an autoencoder of ratings, of which it is told some and asked for the others.

Rows are users, so this is U-AutoRec; of the users of the test split a tenth of the ratings is hidden, and asked for.
Both kinds, on the published splits of ratings and beside biases, are `python -m experiments recommendation`.
"""

import dataclasses

import numpy as np

from aejax import evaluation, runner
from aejax.methods import autorec as method
from aejax.runner import Trained, units

_HIDDEN = 0.1  # of the ratings of a test user


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    dataset: str = "ratings"
    """ratings, made up with a known truth; movielens_small or jester5k in AEJAX_DATA."""
    latent_dim: int = 100
    """Sigmoid units of the code."""
    hidden_dims: tuple[int, ...] = ()
    """Widths of hidden layers before the code; the decoder mirrors them."""
    likelihood: str = "gaussian_observed"
    """gaussian_observed: half the squared error of the ratings that are there."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def measure(trained: Trained) -> dict[str, float]:
    """`test_rmse`: of the ratings that were hidden from it, given the others of the same user."""
    x = trained.dataset.test.x
    is_hidden = (np.random.default_rng(trained.config.seed).random(x.shape) < _HIDDEN) & ~np.isnan(x)
    x_hat = evaluation.reconstruct(trained.model, trained.state.params, np.where(is_hidden, np.float32(np.nan), x))
    return {"test_rmse": float(np.sqrt(np.square(x_hat - x)[is_hidden].mean(dtype=np.float64)))}


UNITS = {
    "test_rmse": units.Unit("units of a rating", "root mean squared error of ratings that were hidden, test users")
}

EXPERIMENT = runner.of_method("autorec", Config, measure=measure, units=UNITS)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
