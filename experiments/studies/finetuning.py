"""What becomes of a pre-trained encoder with a softmax on top: shared by the studies that judge codes that way."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import optax

from aejax import evaluation, schedules, training
from aejax.checks import DivergedError, InputError, check_non_negative, check_positive
from aejax.data import Dataset


@lru_cache(maxsize=32)  # the same optimiser is the same program, whatever the number of seeds
def descent(lr: float, momentum: float, num_steps: int) -> optax.GradientTransformation:
    """SGD with momentum, its rate falling along a cosine."""
    return optax.sgd(schedules.cosine(lr, num_steps), momentum=momentum)


def check(finetune: Any, dataset: Dataset, **rates: float) -> None:
    """Refuses counts, rates and labels that cannot be; `finetune` as in `fine_tuned`, rates by their names in it."""
    if finetune.num_epochs < 1 or finetune.batch_size < 1:
        raise InputError("--finetune.num-epochs and --finetune.batch-size have to be at least 1.")
    if not rates:
        raise InputError("--finetune.lrs needs at least one rate.")
    check_positive(**{f"finetune.{name}": lr for name, lr in rates.items()})
    check_non_negative(**{"finetune.momentum": finetune.momentum})
    evaluation.check_splits(dataset)
    training.count_steps(dataset.train.x, finetune.batch_size)


def fine_tuned(
    model: Any,
    params: Any,
    dataset: Dataset,
    key: jax.Array,
    finetune: Any,
    *,
    lrs: Sequence[float],
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, float]:
    """The classifier's share of wrong labels at the rate and the epoch with the lowest of the validation images.

    Args:
      model, params, dataset, say: as in `evaluation.fine_tune`.
      key: consumed; the order of the examples is the same at every rate.
      finetune: a NamedTuple with `momentum`, `num_epochs` and `batch_size`.
      lrs: the rates to try; one at which the loss becomes infinite or NaN has lost.

    Returns:
      `finetuned_lr` and `finetuned_epoch`, counted from 1; `finetuned_validation_error` and `finetuned_error`, of the
      test split, in [0, 1].

    Raises:
      DivergedError: that happened at all of them.
    """
    num_steps = finetune.num_epochs * training.count_steps(dataset.train.x, finetune.batch_size)
    sizes = {"num_epochs": finetune.num_epochs, "batch_size": finetune.batch_size}
    found: list[dict[str, float]] = []
    diverged = None
    for lr in lrs:
        tx = descent(lr, finetune.momentum, num_steps)
        at_rate = lambda text, lr=lr: say(f"rate {lr:g}: {text}")
        try:
            tuned = evaluation.fine_tune(model, params, dataset, jax.random.clone(key), tx=tx, say=at_rate, **sizes)
        except DivergedError as error:
            diverged = error
            continue
        found.append({
            "finetuned_lr": lr,
            "finetuned_epoch": tuned.epoch,
            "finetuned_validation_error": tuned.validation_error,
            "finetuned_error": tuned.test_error,
        })  # fmt: skip
    if diverged is not None and not found:
        diverged.add_note(f"That was while fine-tuning at the rate {lr:g}, one of --finetune: give a lower one.")
        raise diverged
    return lowest(found)


def lowest(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of what `fine_tuned` returned, the one with the lowest validation error."""
    return min(found, key=lambda each: each["finetuned_validation_error"])
