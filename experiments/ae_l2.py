"""Linear autoencoder with the squared weights in its loss: the principal directions themselves, one by one.

Beside PCA, on MNIST and with several seeds: `python -m experiments linear_ae`.
"""

import dataclasses

import numpy as np

from aejax import evaluation, runner
from aejax.methods import ae_l2 as method
from aejax.runner import Trained, measures
from experiments import ae


@dataclasses.dataclass(frozen=True)
class Config(ae.Config):
    latent_dim: int = 4
    """Size of the code."""
    hidden_dims: tuple[int, ...] = ()
    """Widths of the hidden layers of a dense encoder; without any the directions can be read off the weights."""
    likelihood: str = "gaussian"
    """A name of aejax.likelihoods; gaussian (unit variance) is half the squared error, which PCA makes least."""
    schedule: str = "cosine"
    """How the learning rates change: constant, cosine, ..."""
    hparams: method.HParams = method.HParams(lr=1e-2, weight_decay=0.05)  # type: ignore[assignment]
    """Real-valued knobs."""


def measure(trained: Trained) -> dict[str, float]:
    """Each direction against its own of PCA, the variances read off the weights, and how much the decoder is E^T."""
    metrics = measures.standard(trained)
    if not ae.is_linear(trained.config) or trained.config.tied or not trained.config.use_bias:
        return metrics
    return metrics | trained.each({"direction_angle": lambda: directions(trained)}).get("direction_angle", {})


def directions(trained: Trained) -> dict[str, float]:
    """`direction_angle`, `variance_error` and `transpose_error` of a linear one with biases, not tied."""
    params, x = trained.state.params, trained.dataset.train.x
    found, variances = method.principal_directions(params, weight_decay=trained.config.hparams.weight_decay)
    wanted, values = measures.principal(x - x.mean(axis=0, dtype=np.float64), len(variances))
    kernels = [np.asarray(params[group]["dense_0"]["kernel"], np.float64) for group in ("encoder", "decoder")]
    cosines = np.abs(np.sum(found * wanted, axis=0))
    return {
        "test_sse": evaluation.reconstruction_sse(trained.model, params, trained.dataset.test.x),
        "direction_angle": float(np.degrees(np.arccos(np.minimum(cosines, 1.0))).max()),
        "variance_error": float(np.abs(variances / values - 1).max()),
        "transpose_error": float(np.linalg.norm(kernels[0] - kernels[1].T) / np.linalg.norm(kernels[1])),
    }


EXPERIMENT = runner.of_method("ae_l2", Config, measure=measure, formerly=("linear_ae",))

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
