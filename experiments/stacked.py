"""Stacked autoencoders: each layer learns the code of the one below, corrupted or not, all in one run.

As the start of a deep classifier, one layer after the other as published: `python -m experiments pretraining`.
"""

import dataclasses
from typing import Any, Literal

from aejax import runner
from aejax.methods import stacked as method


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    latent_dim: int = 30
    """Sigmoid units of the last layer."""
    hidden_dims: tuple[int, ...] = (100,)
    """Sigmoid units of the layers before it."""
    corruption: Literal["none", "gaussian", "masking", "salt_and_pepper"] = "masking"
    """What happens to what a layer sees; how much is --hparams.level."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def build_algorithm(config: Config, model: Any, tx: Any, axis_name: str | None) -> Any:
    corruption = None if config.corruption == "none" else config.corruption
    return method.stacked(model, config.hparams, tx, corruption=corruption, axis_name=axis_name)


EXPERIMENT = runner.of_method("stacked", Config, build_algorithm=build_algorithm)

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
