"""Sparse autoencoder: units that are seldom on, by the divergence of their rates or by absolute values.

Alone it is the sigmoid layer of Ng's lecture notes, on squared errors. The comparison with other sparse codes is
`python -m experiments sparse_codes`.
"""

import dataclasses
from typing import Any, Literal

import numpy as np

from aejax import evaluation, runner
from aejax.methods import sparse_ae as method
from aejax.runner import Trained, measures
from experiments import ae


@dataclasses.dataclass(frozen=True)
class Config(ae.Config):
    latent_dim: int = 200
    """Units."""
    hidden_dims: tuple[int, ...] = ()
    """Widths of hidden layers before the code; the decoder mirrors them."""
    likelihood: str = "gaussian"
    """A name of aejax.likelihoods; gaussian (unit variance) is half the squared error, bernoulli cross-entropy."""
    activation: ae.Activation = "sigmoid"
    """Of the hidden layers of a dense network."""
    code: Literal["sigmoid", "relu"] = "sigmoid"  # type: ignore[assignment]
    """Activation of the code; the penalty kl wants the sigmoid."""
    penalty: Literal["kl", "l1"] = "kl"
    """On the mean activation of every unit, or on the absolute values of the code."""
    hparams: method.HParams = method.HParams()  # type: ignore[assignment]
    """Real-valued knobs."""


def measure(trained: Trained) -> dict[str, float]:
    return measures.standard(trained) | sparseness(trained)


def sparseness(trained: Trained) -> dict[str, float]:
    """`mean_rate`, `lifetime_sparsity`, `population_sparsity` and `dead_units` of test codes, `filter_sharpness`."""
    z = evaluation.embed(trained.model, trained.state.params, trained.dataset.test.x)
    metrics = {
        "mean_rate": float(z.mean(dtype=np.float64)),
        "lifetime_sparsity": evaluation.lifetime_sparsity(z),
        "population_sparsity": evaluation.population_sparsity(z),
        "dead_units": evaluation.dead_units(z, 0.01),
    }
    if trained.config.net == "dense":
        metrics["filter_sharpness"] = evaluation.filter_sharpness(kernel(trained.state.params))
    return metrics


def kernel(params: Any) -> np.ndarray:
    """The weights of the first layer, `[D, H]`."""
    return np.asarray(params["encoder"]["dense_0"]["kernel"])


EXPERIMENT = runner.of_method("sparse_ae", Config, measure=measure, formerly=("sparse",))


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
