"""What becomes of a pre-trained encoder with a softmax on top: shared by the studies that judge codes that way."""

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import optax

from aejax import evaluation, schedules, training
from aejax.checks import DivergedError, InputError, check_non_negative, check_positive
from aejax.data import Dataset


@lru_cache(maxsize=32)  # the same optimiser is the same program, whatever the number of seeds
def descent(lr: float, momentum: float, num_steps: int) -> optax.GradientTransformation:
    """SGD with momentum, its rate falling along a cosine."""
    return optax.sgd(schedules.cosine(lr, num_steps), momentum=momentum)


def check(finetune: Any, dataset: Dataset) -> None:
    """Refuses counts, rates and labels that cannot be; `finetune` as in `fine_tuned`."""
    if finetune.num_epochs < 1 or finetune.batch_size < 1:
        raise InputError("--finetune.num-epochs and --finetune.batch-size have to be at least 1.")
    rates = {name: getattr(finetune, name) for name in _rates(finetune)}
    rates |= {f"lrs[{i}]": lr for i, lr in enumerate(getattr(finetune, "lrs", ()))}
    if not rates:
        raise InputError("--finetune.lrs needs at least one rate.")
    check_positive(**{f"finetune.{name}": lr for name, lr in rates.items()})
    check_non_negative(**{"finetune.momentum": finetune.momentum})
    evaluation.check_labels(dataset)
    training.count_steps(len(dataset.train.x), finetune.batch_size)


def fine_tuned(
    model: Any, params: Any, dataset: Dataset, key: jax.Array, finetune: Any, say: Any = lambda text: None
) -> dict[str, float]:
    """The errors of the classifier, and its best epoch.

    Args:
      model, params, dataset, say: as in `evaluation.fine_tune`.
      key: consumed.
      finetune: a NamedTuple with `lr`, `momentum`, `num_epochs` and `batch_size`.
    """
    num_steps = finetune.num_epochs * training.count_steps(len(dataset.train.x), finetune.batch_size)
    tx = descent(finetune.lr, finetune.momentum, num_steps)
    sizes = {"num_epochs": finetune.num_epochs, "batch_size": finetune.batch_size}
    try:
        tuned = evaluation.fine_tune(model, params, dataset, key, tx=tx, say=say, **sizes)
    except DivergedError as error:
        flags = " or ".join(f"--finetune.{name.replace('_', '-')}" for name in _rates(finetune))
        error.add_note(f"That was while fine-tuning: lower {flags}.")
        raise
    return {
        "finetuned_epoch": tuned.epoch,
        "finetuned_validation_error": tuned.validation_error,
        "finetuned_error": tuned.test_error,
    }


def best(
    model: Any, params: Any, dataset: Dataset, key: jax.Array, finetune: Any, say: Any = lambda text: None
) -> dict[str, float]:
    """`fine_tuned` at every rate of `finetune.lrs`, and of them the one with the lowest validation error.

    Args:
      model, params, dataset, say: as in `evaluation.fine_tune`.
      key: consumed; the order of the examples is the same at every rate.
      finetune: a NamedTuple with `lrs`, `momentum`, `num_epochs` and `batch_size`.

    Returns:
      What `fine_tuned` returns, and `finetuned_lr`.
    """
    found = []
    for lr in finetune.lrs:
        own = _Descent(lr, finetune.momentum, finetune.num_epochs, finetune.batch_size)
        at_rate = lambda text, lr=lr: say(f"rate {lr:g}: {text}")
        found.append(fine_tuned(model, params, dataset, jax.random.clone(key), own, at_rate) | {"finetuned_lr": lr})
    return min(found, key=lambda each: each["finetuned_validation_error"])


class _Descent(NamedTuple):
    lr: float
    momentum: float
    num_epochs: int
    batch_size: int


def _rates(finetune: Any) -> list[str]:
    return [name for name in finetune._fields if name.endswith("lr")]
