"""Variational autoencoder with a flow posterior: a chain of inverse autoregressive steps behind the Gaussian.

A flow tightens the bound where the true posterior is no diagonal Gaussian; on the fixed binarisation of MNIST another
program (altosaar, 128 code units) has 101.64 with it and 103.31 without, 95.33 and 97.10 nats by importance sampling.
Ours was not measured there. Flows of several depths on the digits: `python -m experiments flows`.
"""

import dataclasses
from functools import partial
from typing import Any

from aejax import runner
from aejax.checks import InputError
from aejax.methods import iaf_vae as method
from aejax.nets import Autoregressive
from aejax.runner.inputs import Spec
from experiments import vae


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    num_steps: int = 4
    """Steps of the flow."""
    flow_dims: tuple[int, ...] = (64,)
    """Widths of the hidden layers of the network of a step."""
    warmup_epochs: int = 0
    """Epochs in which beta rises in a straight line from 0 (validation has its final value); 0 for none."""
    nll_samples: int = 100
    """Importance samples per test image for test_nll_nats; 0 leaves it out. Papers use 5000."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def build_model(config: Config, spec: Spec) -> Any:
    if min(config.num_steps, *config.flow_dims, 1) < 1:
        raise InputError(f"--num-steps {config.num_steps} --flow-dims {config.flow_dims}: each is at least 1.")
    return vae.build_model(config, spec, method.IAFVAE, flow=Autoregressive(config.num_steps, config.flow_dims))


EXPERIMENT = runner.of_method(
    "iaf_vae",
    Config,
    build_model=build_model,
    build_algorithm=partial(vae.build_algorithm, build=method.iaf_vae),
    measure=vae.measure,
)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
