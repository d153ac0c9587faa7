"""Variational deep embedding (VaDE): a VAE whose prior is a mixture of Gaussians, one for each cluster.

It wants the parameters of an autoencoder of posterior means, which `aejax.learn("vade", x)` and the study `clustering`
train before. Here `--from` takes a run of `vae` of the same sizes; from fresh parameters its clusters tend to be one.
"""

import dataclasses
from typing import Any

from aejax import priors, runner
from aejax.methods import vade as method
from aejax.runner.inputs import Spec
from experiments import dec


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    latent_dim: int = 10
    """Size of the code."""
    num_clusters: int = 10
    """Clusters, which are known beforehand: the components of the prior."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def build_model(config: Config, spec: Spec) -> Any:
    return runner.build_model(config, spec, method.VaDE, prior=priors.LearnedMixture(config.num_clusters))


EXPERIMENT = runner.of_method("vade", Config, build_model=build_model, measure=dec.measure)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
