"""Deep clustering network (DCN): an autoencoder whose codes are drawn to the centres of k-means beside it.

Begin with a trained autoencoder, as in `experiments.dec`: `--from runs/ae-...`, with its flags. The study `clustering`
holds it against the others.
"""

import dataclasses

from aejax import runner
from aejax.methods import dcn as method
from experiments import ae, dec


@dataclasses.dataclass(frozen=True)
class Config(ae.Config):
    latent_dim: int = 10
    """Size of the code."""
    likelihood: str = "gaussian"
    """A name of aejax.likelihoods; gaussian (unit variance) is half the squared error, which is the paper's."""
    num_clusters: int = 10
    """Clusters, which are known beforehand."""
    hparams: method.HParams = method.HParams()  # type: ignore[assignment]
    """Real-valued knobs."""


EXPERIMENT = runner.of_method("dcn", Config, measure=dec.measure)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
