"""Contractive autoencoder of higher order (CAE+H): the Jacobian of the encoder is kept small, and from changing."""

import dataclasses

from aejax import runner
from aejax.methods import cae_h as method
from experiments import ae


@dataclasses.dataclass(frozen=True)
class Config(ae.Config):
    activation: ae.Activation = "softplus"
    """Of the hidden layers of a dense network."""
    num_samples: int = 4
    """Draws of the noise under which the Jacobian changes, for each example."""
    hparams: method.HParams = method.HParams()  # type: ignore[assignment]
    """Real-valued knobs."""


EXPERIMENT = runner.of_method("cae_h", Config)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
