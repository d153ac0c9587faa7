"""Contractive autoencoder: the exact Jacobian of the encoder is kept small.

--hidden-dims alone (no widths), --code sigmoid and --tied make the one sigmoid layer of the paper. The table of the
paper, with all its methods and their fine-tuned errors, is `python -m experiments contractive`; at the published size
on MNIST the CAE has 1.46 ± 0.05 % there (5 seeds, 2026-11-21; published 1.14 %).
"""

import dataclasses
from typing import Any, Literal

from aejax import runner
from aejax.methods import cae as method
from experiments import ae


@dataclasses.dataclass(frozen=True)
class Config(ae.Config):
    activation: ae.Activation = "softplus"
    """Of the hidden layers of a dense network."""
    jacobian: Literal["forward", "reverse", "auto", "hutchinson"] = "auto"
    """How the penalty is computed: all but hutchinson, one probe, give the same number; forward is jax.jacfwd."""
    memory_mib: int | None = None
    """What the penalty and its gradient may take; examples, then rows of the Jacobian, come a few at a time."""
    hparams: method.HParams = method.HParams()  # type: ignore[assignment]
    """Real-valued knobs."""


def build_algorithm(config: Config, model: Any, tx: Any, axis_name: str | None) -> Any:
    limit = None if config.memory_mib is None else config.memory_mib * 2**20
    return method.cae(model, config.hparams, tx, jacobian=config.jacobian, memory_limit=limit, axis_name=axis_name)


EXPERIMENT = runner.of_method("cae", Config, build_algorithm=build_algorithm)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
