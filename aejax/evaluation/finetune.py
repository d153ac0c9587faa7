"""Fine-tuning: a softmax on the codes of a pre-trained encoder, and both trained on the labels.

That is how the autoencoders of 2006 to 2011 were judged: pre-training is the initialisation of a classifier, and the
figure is its test error.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from aejax import training
from aejax.algorithm import Algorithm, Metrics, Player, play
from aejax.checks import InputError
from aejax.data import Batch, Dataset
from aejax.evaluation.apply import over_batches
from aejax.nets import Autoencoder


class FineTuned(NamedTuple):
    """A classifier, as it was after its best epoch."""

    params: dict[str, Any]  # those of the encoder, and `classifier`
    epoch: int  # the best one, counted from 1: the first with the lowest validation error
    validation_error: float  # share of examples whose label is wrong
    test_error: float  # likewise, of the test split at that epoch
    history: tuple[float, ...]  # validation error after each epoch


def fine_tune(
    model: Autoencoder,
    params: Any,
    dataset: Dataset,
    key: jax.Array,
    *,
    tx: optax.GradientTransformation,
    num_epochs: int,
    batch_size: int,
    say: Callable[[str], None] = lambda text: None,
) -> FineTuned:
    """Trains a softmax on `embed`, and the encoder beneath it, on the labels; keeps the epoch best on validation.

    The classifier begins at zero and the encoder where it stands, so the key decides the order of the examples alone.
    Training runs all epochs; each call looks at the test split once, at the parameters that the validation split chose.

    Args:
      model: any autoencoder whose `embed` needs the group `encoder` only, or `encoder_0`, `encoder_1`, ... of a stack.
      params: by group, pre-trained; they stay as they are.
      dataset: with labels in every split and a validation split, shaped for the model.
      key: consumed.
      tx: optimiser of both, such as `optax.sgd(0.1, momentum=0.9)`. Calls with the same model and the same object share
        one compiled program.
      num_epochs: at least 1.
      batch_size: examples a step.
      say: is told after each epoch how far it is.

    Returns:
      The classifier of the best epoch, and its errors.

    Raises:
      InputError: a split or its labels are missing, there are fewer than two classes, or the model is conditioned on
        labels, which its code would then give away.
      DivergedError: the loss became infinite or NaN.

    Reference: the protocol behind the errors of Vincent et al. (2010) and Rifai et al. (2011), table 1.
    """
    if model.takes_labels:
        raise InputError(f"{type(model).__name__} sees the labels; fine-tune an encoder of x alone, such as an AE's.")
    train, validation, test = check_splits(dataset)
    num_classes = 1 + int(train.y.max())
    latent_dim = model.latent_dim
    classifier = first_classifier(latent_dim, num_classes)
    encoder = {group: params[group] for group in params if group.partition("_")[0] == "encoder"}
    algo = _algorithm(model, (*encoder, "classifier"), tx)
    state = algo.init({**encoder, "classifier": classifier})
    steps = training.count_steps(train.x, batch_size)
    history, best = [], state.params
    chunks = training.train(algo, state, train, key, batch_size=batch_size, num_epochs=num_epochs, boundary=steps)
    for chunk in chunks:
        if chunk.step % steps == 0:
            history.append(classifier_error(model, chunk.state.params, validation))
            say(f"fine-tuning: epoch {len(history)} of {num_epochs}, validation error {history[-1]:.2%}")
            if history[-1] < min(history[:-1], default=np.inf):
                best = chunk.state.params
    lowest = min(history)
    return FineTuned(best, 1 + history.index(lowest), lowest, classifier_error(model, best, test), tuple(history))


def first_classifier(latent_dim: int, num_classes: int) -> dict[str, jax.Array]:
    """All classes alike."""
    return {"kernel": jnp.zeros((latent_dim, num_classes)), "bias": jnp.zeros((1, num_classes))}


@partial(jax.jit, static_argnames="model")
def classifier_loss(params: Any, batch: Batch, key: jax.Array, *, model: Autoencoder) -> tuple[jax.Array, Metrics]:
    """Cross-entropy of the labels under a softmax on the codes, in nats per example.

    Args:
      params: `{"encoder": ..., "classifier": {"kernel": [Z, K], "bias": [1, K]}}`, with `encoder_0`, `encoder_1`, ...
        in place of `encoder` where the model is a stack.
      batch: `x` `[B, ...]` and `y` `[B]`, integers below K.
      key: ignored.
      model: static.

    Returns:
      The mean over the batch, and `error`, the share whose label is wrong.
    """
    found = logits(params, batch.x, model=model)
    nats = optax.softmax_cross_entropy_with_integer_labels(found, batch.y).mean()
    return nats, {"error": jnp.mean(found.argmax(axis=1) != batch.y, dtype=found.dtype)}


def classifier_error(model: Autoencoder, params: Any, batch: Batch) -> float:
    """The share of examples that a fine-tuned classifier gets wrong, in [0, 1]; arguments as in `classifier_loss`."""
    found = over_batches(partial(logits, params, model=model), batch.x, batch_size=1000)
    return float(np.mean(found.argmax(axis=1) != batch.y))


def saturation(codes: ArrayLike, *, low: float = 0.05, high: float = 0.95) -> float:
    """The share of code entries that are nearly off or nearly on: below `low` or above `high`.

    Args:
      codes: `[N, Z]` in [0, 1], of sigmoid units.
      low: in [0, 1].
      high: likewise.

    Returns:
      Between 0 and 1, over all units of all examples.

    Example:
      >>> saturation([[0.01, 0.5], [0.99, 0.94]])
      0.5

    Raises:
      InputError: there are no codes, or some are outside [0, 1].

    Reference: the column SAT of Rifai et al. (2011), table 1.
    """
    codes = np.asarray(codes)
    if not codes.size or not (codes.min() >= 0 and codes.max() <= 1):
        raise InputError(f"Codes of shape {codes.shape} are not all in [0, 1]; saturation is that of sigmoid units.")
    return float(np.mean((codes < low) | (codes > high)))


def check_splits(dataset: Dataset) -> tuple[Batch, Batch, Batch]:
    """The three splits of a set that `fine_tune` can use; `InputError` where it cannot, as told there."""
    if dataset.validation is None:
        raise InputError(f"{dataset.name} was loaded without a validation split, which chooses the epoch; ask for one.")
    splits = (dataset.train, dataset.validation, dataset.test)
    if any(split.y is None for split in splits):
        raise InputError(f"{dataset.name} has no labels to fine-tune on.")
    if not all(np.issubdtype(split.y.dtype, np.integer) for split in splits):
        raise InputError(f"The labels of {dataset.name} are {dataset.train.y.dtype}; classes are integers 0, 1, ...")
    if len(np.unique(dataset.train.y)) < 2 or min(split.y.min() for split in splits) < 0:
        raise InputError(f"The labels of {dataset.name} are not classes 0, 1, ... of at least two kinds.")
    if max(split.y.max() for split in splits) > dataset.train.y.max():
        raise InputError(f"{dataset.name} has classes above {dataset.train.y.max()} that its training split lacks.")
    return splits


@lru_cache(maxsize=32)  # an algorithm is a static argument of the compiled loop: the same one is not traced again
def _algorithm(model: Autoencoder, groups: tuple[str, ...], tx: optax.GradientTransformation) -> Algorithm:
    loss = partial(classifier_loss, model=model)
    return play({"label": Player(loss, groups, tx)}, [["label"]])


@partial(jax.jit, static_argnames="model")
def logits(params: Any, x: jax.Array, *, model: Autoencoder) -> jax.Array:
    """Of each class given x: `[B, ...] -> [B, K]`; arguments as of `classifier_loss`."""
    z = model.bind({"params": params}).embed(x)
    return z @ params["classifier"]["kernel"] + params["classifier"]["bias"]
