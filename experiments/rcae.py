"""Reconstruction-contractive autoencoder: the exact Jacobian of the whole reconstruction is kept small."""

import dataclasses

from aejax import runner
from aejax.methods import rcae as method
from experiments import ae


@dataclasses.dataclass(frozen=True)
class Config(ae.Config):
    activation: ae.Activation = "softplus"
    """Of the hidden layers of a dense network."""
    hparams: method.HParams = method.HParams()  # type: ignore[assignment]
    """Real-valued knobs."""


EXPERIMENT = runner.of_method("rcae", Config)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
