"""Linear variational autoencoder: its optimum is probabilistic PCA, and its exact likelihood stands beside that of PCA.

The bound, its estimate with importance weights and the exact value agree where the posterior is exact. On MNIST, 10
units, 50 epochs in batches of 500 on all training images, the exact log-likelihood is 182.10 +- 0.02 nats on the
training and 185.97 +- 0.02 on the test images, 2 seeds; that of probabilistic PCA is 182.15 and 186.02 (2026-11-26,
a minute and a half each on two busy cores).
"""

import dataclasses
from functools import partial

import numpy as np

from aejax import runner
from aejax.methods import linear_vae as method
from aejax.runner import Trained
from experiments import vae


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    latent_dim: int = 10
    """Size of the code."""
    hidden_dims: tuple[int, ...] = ()
    """Widths of hidden layers, which are affine too."""
    likelihood: str = "gaussian_learned"
    """A name of aejax.likelihoods; the likelihood is known in closed form for gaussian_learned and gaussian."""
    schedule: str = "cosine"
    """How the learning rates change: constant, cosine, ..."""
    analytic: bool = True
    """Whether the expectation over the code is taken exactly; else by one sample for each example."""
    nll_samples: int = 100
    """Importance samples per test image for test_nll_nats; 0 leaves it out."""
    hparams: method.HParams = method.HParams(lr=1e-2)
    """Real-valued knobs."""


def measure(trained: Trained) -> dict[str, float]:
    """Beside the bounds the exact likelihood, and that of probabilistic PCA of the images that were trained on."""
    model, params, splits = trained.model, trained.state.params, trained.dataset
    exact = lambda params, x: -float(method.linear_log_likelihood(model, params, x).mean())
    found = trained.each({f"{s}_exact_nats": partial(exact, params, getattr(splits, s).x) for s in ("train", "test")})

    def ppca() -> dict[str, float]:
        flat = [np.reshape(batch.x, (len(batch.x), -1)) for batch in (splits.train, splits.test)]
        best, plain = method.ppca(flat[0], model.latent_dim), method.LinearVAE.dense(flat[0].shape[1], model.latent_dim)
        values = [-float(method.linear_log_likelihood(plain, best, x).mean()) for x in flat]
        return dict(zip(("ppca_train_nats", "ppca_test_nats"), values, strict=True))

    beside = trained.each({"ppca": ppca}).get("ppca", {}) if found else {}  # of no use beside bits or counts
    return vae.measure(trained) | found | beside


EXPERIMENT = runner.of_method(
    "linear_vae", Config, build_model=partial(vae.build_model, module=method.LinearVAE), measure=measure
)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
