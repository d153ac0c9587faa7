"""Plain autoencoder, linear to deep, beside PCA.

Without hidden layers and with the Gaussian likelihood it is linear: it has to find the principal subspace.

Many runs beside the published figures are `experiments.linear_ae`, `experiments.deep_ae` and `experiments.conv_ae`.
"""

import dataclasses
from functools import partial
from typing import Literal

import numpy as np

from aejax import runner
from aejax.methods import ae as method
from aejax.runner import Reference, Trained, measures

Activation = Literal["relu", "tanh", "sigmoid", "softplus", "gelu"]


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    activation: Activation = "relu"
    """Of the hidden layers of a dense network."""
    code: Literal["linear", "tanh", "sigmoid"] = "linear"
    """Activation of the code of a dense network."""
    tied: bool = False
    """Whether the decoder of a dense network has the transposed weights of the encoder."""
    use_bias: bool = True
    """Whether dense layers have biases."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def is_linear(config: Config) -> bool:
    is_affine = config.net == "dense" and not config.hidden_dims and config.code == "linear"
    return is_affine and config.likelihood == "gaussian"


def measure(trained: Trained) -> dict[str, float]:
    metrics = measures.standard(trained)
    if is_linear(trained.config):
        config, x, test_x = trained.config, trained.dataset.train.x, trained.dataset.test.x
        owner = trained.state.params["encoder" if config.tied else "decoder"]
        kernel = np.asarray(owner["dense_0"]["kernel"])
        directions = kernel if config.tied else kernel.T
        pca = partial(measures.pca_sse, x, test_x, config.latent_dim, centred=config.use_bias)
        angle = partial(measures.principal_angle, directions, x - x.mean(axis=0) * config.use_bias)
        metrics |= trained.each({"pca_test_sse": pca, "principal_angle": angle})
    return metrics


def reference(config: Config) -> dict[str, Reference]:
    if config.dataset != "mnist" or config.binarize != "none" or config.latent_dim != 30:
        return {}
    if is_linear(config) and config.use_bias:
        return {"test_sse": Reference(13.87, "Hinton & Salakhutdinov (2006), figure 2, PCA")}
    if config.net == "dense" and config.hidden_dims == (1000, 500, 250) and config.code == "linear":
        return {"test_sse": Reference(3.00, "Hinton & Salakhutdinov (2006), figure 2, pre-trained")}
    return {}


EXPERIMENT = runner.of_method("ae", Config, measure=measure, reference=reference)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
