"""Reconstruction-contractive autoencoder: the exact Jacobian of the whole reconstruction is kept small."""

import dataclasses
from functools import partial

from aejax.methods import rcae as method
from experiments import ae, common, registered


@dataclasses.dataclass(frozen=True)
class Config(ae.Config):
    activation: ae.Activation = "softplus"
    """Of the hidden layers of a dense network."""
    hparams: method.HParams = method.HParams()  # type: ignore[assignment]
    """Real-valued knobs."""


EXPERIMENT = registered.experiment("rcae", Config)
run = partial(common.run, EXPERIMENT)


def main() -> None:
    from experiments import launch

    launch.main(EXPERIMENT, __doc__)


if __name__ == "__main__":
    main()
