"""Variational autoencoder with two stochastic layers, of the IWAE paper; --ladder infers them as a ladder VAE does.

On MNIST, binarised at every presentation, the paper has 85.33 nats with 784-200-200-100-100-100-50 and 86.76 with one
layer, after 3,280 passes; ours was not measured there. With the net and the recipe of the paper:
`python -m experiments bounds --dataset mnist --layers 2`. On the digits, binarised likewise, -log p is 22.32 nats (one
layer with as many code units: 22.41). The ladder needs warm-up, as its paper says: 22.21 with `--warmup-epochs 100`,
from below 22.22; without it 23.94, 2 of 12 units active (one seed, 500 importance samples, 2026-11-26, a minute each).
"""

import dataclasses
from functools import partial

from aejax import runner
from aejax.methods import two_layer_vae as method
from experiments import vae


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    latent_dim: int = 12
    """Size of the code; a third of it is the upper layer."""
    ladder: bool = False
    """Whether the lower layer is inferred from x and the upper one, merged by their precisions; else from x alone."""
    num_samples: int = 1
    """Draws of the code for each image and step."""
    warmup_epochs: int = 0
    """Epochs in which beta rises in a straight line from 0 (validation has its final value); 0 for none."""
    nll_samples: int = 100
    """Importance samples per test image for test_nll_nats; 0 leaves it out. Papers use 5000."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


EXPERIMENT = runner.of_method(
    "two_layer_vae",
    Config,
    build_model=partial(vae.build_model, module=method.TwoLayerVAE),
    build_algorithm=partial(vae.build_algorithm, build=method.two_layer_vae),
    measure=vae.measure,
)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
