"""Vector-quantised autoencoder: a code of a few entries of a codebook, which is moved by running means."""

import dataclasses
from functools import partial

import numpy as np

from aejax import runner
from aejax.evaluation import call, over_batches, perplexity
from aejax.methods import vq_vae as method
from aejax.runner import Trained, measures


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    latent_dim: int = 16
    """Size of the code: numbers of all its entries together."""
    num_entries: int = 64
    """Size of the codebook."""
    entry_dim: int = 4
    """Size of an entry; divides the size of the code."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def measure(trained: Trained) -> dict[str, float]:
    """Beside the usual, which entries the test split uses, and how evenly."""
    tokens = over_batches(partial(call, trained.model, trained.state.params, "tokens"), trained.dataset.test.x)
    metrics = measures.standard(trained) | {"test_perplexity": perplexity(tokens)}
    return metrics | {"used_entries": len(np.unique(tokens))}


EXPERIMENT = runner.of_method("vq_vae", Config, measure=measure)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
