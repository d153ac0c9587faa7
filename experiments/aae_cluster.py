"""Clusters by an adversarial autoencoder: shares of clusters that are made one-hot, and a style, without labels.

On the digits, with the settings of the study few_labels_aae, 25 and 24 % of the test images are in a cluster of another
label, of 16 and 30 (2026-11-27, 2 seeds); k-means on pixels has 11 and 8 % by the same rule. Published on MNIST: 9.55
and 4.10 % (Makhzani et al., as table 1 of Dilokthanakul et al. has them); the study `few_labels_aae` has 32.4 and
20.1 % there.
"""

import dataclasses
from functools import partial
from typing import Any

import numpy as np
from scipy.special import log_softmax

from aejax import evaluation, runner
from aejax.evaluation import call, over_batches
from aejax.methods import aae_cluster as method
from aejax.runner import Trained, measures


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    latent_dim: int = 4
    """Size of the style, behind the shares of the clusters."""
    num_clusters: int = 16
    """How many; 16 and 30 in the paper."""
    b1: float = 0.0
    """Adam's decay of the mean gradient, for all players: a game is steadier without the usual 0.9."""
    schedule: str = "cosine"
    """How the learning rates change: constant, cosine, ..."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def build_algorithm(config: Config, model: Any, tx: Any, axis_name: str | None) -> Any:
    return method.aae_cluster(model, config.hparams, partial(tx, b1=config.b1), axis_name=axis_name)


def measure(trained: Trained) -> dict[str, float]:
    """Beside the usual, where there are labels, what the clusters are worth."""
    found = measures.standard(trained) | measures.clusters(trained)
    has_labels = trained.dataset.train.y is not None and trained.dataset.test.y is not None
    return found | (trained.each({"typical_error": lambda: typical_error(trained)}) if has_labels else {})


def typical_error(trained: Trained) -> float:
    """The share of test images whose cluster is named otherwise: by the label of its most typical held-out image."""
    named, test = trained.dataset.validation or trained.dataset.train, trained.dataset.test
    classify: Any = partial(call, trained.model, trained.state.params, "classify")
    shares, chosen = (log_softmax(np.float64(over_batches(classify, x)), axis=1) for x in (named.x, test.x))
    labels = evaluation.typical_labels(named.y, shares)
    return float(np.mean(labels[chosen.argmax(axis=1)] != test.y))


EXPERIMENT = runner.of_method("aae_cluster", Config, build_algorithm=build_algorithm, measure=measure)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
