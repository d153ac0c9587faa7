"""Wasserstein autoencoder with MMD: plain codes, which taken together follow the prior, so that it can be sampled."""

import dataclasses

from aejax import evaluation, runner
from aejax.methods import wae_mmd as method
from aejax.runner import Trained, measures


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    latent_dim: int = 4
    """Size of the code."""
    prior: str = "normal"
    """What the codes shall follow, a name of aejax.priors; mixture and swiss_roll are 2-D."""
    schedule: str = "cosine"
    """How the learning rates change: constant, cosine, ..."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def measure(trained: Trained) -> dict[str, float]:
    z = evaluation.embed(trained.model, trained.state.params, trained.dataset.test)
    return measures.standard(trained) | measures.against_prior(trained, z, trained.measure_key)


EXPERIMENT = runner.of_method("wae_mmd", Config, measure=measure)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
