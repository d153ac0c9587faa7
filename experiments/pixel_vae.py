"""PixelVAE: a variational autoencoder whose decoder tells each pixel from the code and the pixels before it.

On digits, drawn anew as binary images at every presentation, the bound of the test split is 23.29 nats, 2.56 of them in
the code, and its likelihood 22.63 by 100 importance samples; PixelCNN alone, three layers, has 24.11 (seed 0,
2026-11-27, 300 s on two busy cores). On MNIST, binarised, table 1 has 80.08 nats at most for a gated PixelVAE, and
87.41 for a VAE.
"""

import dataclasses
from typing import Any, Literal

import jax

from aejax import runner, training
from aejax.methods import pixel_vae as method
from aejax.runner import Trained
from aejax.runner.config import later
from aejax.runner.inputs import Spec, fed
from experiments import vae
from experiments.pixel_cnn import of_levels


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    net: Literal["dense", "conv"] = "conv"
    """Images by gated convolutions, or vectors by masked dense layers."""
    binarize: Literal["none", "stochastic", "threshold"] = "stochastic"
    """Stochastic draws x ~ Bernoulli(pixel) anew at every presentation."""
    levels: int = later(0)
    """Of --binarize none: each pixel is one of so many greys, the nearest k / (levels - 1); 0 for --likelihood."""
    latent_dim: int = 8
    """Size of the code."""
    hidden_dims: tuple[int, ...] = (256,)
    """Widths of the hidden layers of a dense encoder; what the code tells comes through their mirror image."""
    features: tuple[int, ...] = (16, 32)
    """Channels behind each convolution of the encoder, of which every second halves the image."""
    pixel_features: tuple[int, ...] = (16, 16)
    """Features of both stacks behind each gated layer of the decoder."""
    nll_samples: int = 100
    """Importance samples per test image for test_nll_nats; 0 leaves it out. Papers use 5000."""
    num_epochs: int = 60
    """Passes over the training examples, in all; may grow with --resume, on the schedule of the longer run."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def build_model(config: Config, spec: Spec) -> Any:
    own = of_levels(config)
    if config.net == "conv":
        strides = tuple(1 + i % 2 for i in range(len(config.features)))
        own |= {"features": config.features, "strides": strides, "pixel_features": config.pixel_features}
    return vae.build_model(config, spec, method.PixelVAE, **own)


def measure(trained: Trained) -> dict[str, float]:
    """As of a VAE, and the rate: how much of an image the code holds, and the pixels do not tell each other."""
    test = fed(trained.model, trained.dataset.test)
    terms = training.evaluate(trained.algorithm, trained.state, test, jax.random.fold_in(trained.measure_key, 1))
    return vae.measure(trained) | {"test_rate_nats": terms["elbo/kl_nats"]}


EXPERIMENT = runner.of_method("pixel_vae", Config, build_model=build_model, measure=measure)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
