"""Stochastic contractive autoencoder: the code is kept from moving when noise is put on x; no Jacobian is taken."""

import dataclasses
from functools import partial

from aejax.methods import scae as method
from experiments import ae, common, registered


@dataclasses.dataclass(frozen=True)
class Config(ae.Config):
    activation: ae.Activation = "softplus"
    """Of the hidden layers of a dense network."""
    hparams: method.HParams = method.HParams()  # type: ignore[assignment]
    """Real-valued knobs."""


EXPERIMENT = registered.experiment("scae", Config)
run = partial(common.run, EXPERIMENT)


def main() -> None:
    from experiments import launch

    launch.main(EXPERIMENT, __doc__)


if __name__ == "__main__":
    main()
