"""Deep embedded clustering (DEC): codes and centres are drawn towards the clusters that they are sure of.

Begin with a trained autoencoder of the same flags: `python -m experiments ae --latent-dim 10 --likelihood gaussian`,
then `python -m experiments dec --from runs/ae-...`; from fresh parameters, clusters are of codes that mean nothing. The
study `clustering` does both, and holds what was measured elsewhere on MNIST beside ours.
"""

import dataclasses

from aejax import runner
from aejax.methods import dec as method
from aejax.runner import Trained, measures
from experiments import ae


@dataclasses.dataclass(frozen=True)
class Config(ae.Config):
    latent_dim: int = 10
    """Size of the code."""
    likelihood: str = "gaussian"
    """A name of aejax.likelihoods; gaussian (unit variance) is half the squared error, which is the paper's."""
    num_clusters: int = 10
    """Clusters, which are known beforehand."""
    refresh_every: int = 140
    """Steps between two refreshes of the targets, each from all training examples."""
    hparams: method.HParams = method.HParams()  # type: ignore[assignment]
    """Real-valued knobs."""


def measure(trained: Trained) -> dict[str, float]:
    return measures.standard(trained) | measures.clusters(trained)


EXPERIMENT = runner.of_method("dec", Config, measure=measure)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
