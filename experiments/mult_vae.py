"""Mult-VAE: a variational autoencoder of events, with a multinomial likelihood and little weight of the KL term.

Ranked lists, beside EASE and popularity, are `python -m experiments recommendation`.
"""

import dataclasses

from aejax import runner
from aejax.methods import mult_vae as method
from experiments import mult_dae, vae


@dataclasses.dataclass(frozen=True)
class Config(mult_dae.Config):
    latent_dim: int = 20
    """Size of the code; 200 in the paper."""
    hidden_dims: tuple[int, ...] = (100,)
    """Widths of the hidden layers of the encoder, 600 in the paper; the decoder mirrors them."""
    warmup_epochs: int = 50
    """Epochs in which beta rises in a straight line from 0 (validation has its final value); 0 for none."""
    nll_samples: int = 100
    """Importance samples per test example for test_nll_nats; 0 leaves it out."""
    hparams: method.HParams = method.HParams()  # type: ignore[assignment]
    """Real-valued knobs."""


def build_algorithm(config: Config, model: method.MultVAE, tx: runner.Optimizers, axis_name: str | None):
    return vae.build_algorithm(config, model, tx, axis_name, build=method.mult_vae)


EXPERIMENT = runner.of_method("mult_vae", Config, build_algorithm=build_algorithm, measure=vae.measure)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
