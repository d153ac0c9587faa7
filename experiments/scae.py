"""Stochastic contractive autoencoder: the code is kept from moving when noise is put on x; no Jacobian is taken."""

import dataclasses
from functools import partial
from typing import Any

from aejax.methods import cae
from aejax.methods import scae as method
from experiments import ae, common, measures
from experiments.common import Experiment


@dataclasses.dataclass(frozen=True)
class Config(ae.Config):
    activation: ae.Activation = "softplus"
    """Of the hidden layers of a dense network."""
    hparams: method.HParams = method.HParams()  # type: ignore[assignment]
    """Real-valued knobs."""


def build_model(config: Config, shape: tuple[int, ...]) -> Any:
    return ae.build_model(config, shape, cae.CAE)


def build_algorithm(config: Config, model: Any, tx: Any, axis_name: str | None) -> Any:
    return method.scae(model, config.hparams, tx, axis_name=axis_name)


EXPERIMENT = Experiment(
    "scae", Config, build_model, build_algorithm, "recon/loss", measures.standard, measures.pictures
)
run = partial(common.run, EXPERIMENT)


def main() -> None:
    from experiments import launch

    launch.main(EXPERIMENT, __doc__)


if __name__ == "__main__":
    main()
