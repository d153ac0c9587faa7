"""Improved deep embedded clustering (IDEC): DEC that goes on to reconstruct.

Begin with a trained autoencoder, as in `experiments.dec`: `--from runs/ae-...`, with its flags. The study `clustering`
holds it against the others.
"""

import dataclasses

from aejax import runner
from aejax.methods import idec as method
from experiments import dec


@dataclasses.dataclass(frozen=True)
class Config(dec.Config):
    hparams: method.HParams = method.HParams()  # type: ignore[assignment]
    """Real-valued knobs."""


EXPERIMENT = runner.of_method("idec", Config, measure=dec.measure)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
