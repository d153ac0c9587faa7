"""How `learn` and `Fitted.more` train: what is checked before, the loop, and the history that is left of it."""

import dataclasses
import sys
import time
import warnings
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from aejax import training
from aejax.algorithm import Algorithm
from aejax.checks import InputError, check_count
from aejax.data import Batch
from aejax.methods import METHODS
from aejax.recipe import Recipe

SECONDS = 3.0  # between two lines of progress
_EVALUATION_BATCH = 256  # of validation, on which losses that couple examples depend


def check(num_epochs: int, batch_size: int, seed: Any, validation: Any, patience: int | None) -> None:
    """Refuses what can be told without the data; arguments as of `aejax.learn`."""
    check_count(num_epochs=num_epochs, batch_size=batch_size)
    if not (isinstance(seed, int | np.integer) and 0 <= seed < 2**32):
        raise InputError(f"seed={seed!r}; a whole number from 0 up to, not including, 2^32 is needed.")
    if patience is not None:
        check_count(patience=patience)
        if validation is None:
            raise InputError("patience goes by the loss of validation data: give validation=x, or validation=(x, y).")


class Data(NamedTuple):
    """What is trained on, on the device, and what is held out, as the algorithm takes them."""

    whole: Batch
    train: Any
    held_out: Any
    sizes: Any  # of its batches

    @classmethod
    def of(
        cls, made: Recipe, algo: Algorithm, x: np.ndarray, y: Any, validation: Any, batch_size: int, call: str
    ) -> Self:
        """Refuses what the algorithm would; `call` says where y is to be given."""
        method = METHODS[made.method]
        whole = made.batch("x", x, y, call, to_learn=True)
        train, held_out = method.batch(*whole), None
        algo.check(train)
        if validation is not None:
            x_val, y_val = validation if isinstance(validation, tuple) else (validation, None)
            held = made.batch("x of validation", x_val, y_val, "validation=(x, y)", to_learn=True)
            held_out = method.batch(*held)
            algo.check(held_out)
            if algo.coupled and len(held.x) < 2:
                raise InputError(f"A loss of {made.method} couples examples; validation needs at least 2, and has 1.")
        sizes = method.batch_size(min(batch_size, len(x)))
        training.count_steps(train, sizes)
        train, held_out = jax.device_put((train, held_out))
        return cls(whole, train, held_out, sizes)


def trained(
    fitted: Any, data: Data, num_epochs: int, seed: int, patience: int | None, verbose: bool, title: str = ""
) -> tuple[Any, bool]:
    """The `Fitted` after so many epochs more, or those that patience or a person leaves to it; whether it was a person.

    `title` is what progress calls it, by default the method.
    """
    algo, steps = fitted.algorithm, training.count_steps(data.train, data.sizes)
    _, train_key, eval_key = jax.random.split(jax.random.key(seed), 3)
    done = -(-int(fitted.state.step) // steps)
    state = fitted.state._replace(step=np.asarray(done * steps, fitted.state.step.dtype))
    last = (done + num_epochs) * steps
    many = jax.tree.map(lambda _: _EVALUATION_BATCH, data.sizes)
    held_out = lambda state: training.evaluate(algo, state, data.held_out, eval_key, batch_size=many)
    if verbose:
        about = f"{len(data.whole.x)} examples, {num_epochs * steps} steps"
        print(f"{title or fitted.recipe.method}: {about}; compiling", file=sys.stderr, flush=True)
    chunks = training.train(
        algo, state, data.train, train_key, batch_size=data.sizes, num_epochs=done + num_epochs,
        boundary=None if data.held_out is None else steps,
    )  # fmt: skip
    watched = "" if patience is None else _first_loss(algo, state, data, eval_key)
    log: list[dict[str, np.ndarray]] = []
    validated: dict[int, dict[str, float]] = {}
    best, lowest, said = None, np.inf, time.monotonic()
    if patience is not None and done:
        best, lowest = state, held_out(state)[watched]
    interrupted = False
    try:
        for chunk in chunks:
            state = chunk.state
            log.append(chunk.metrics)
            if verbose and (time.monotonic() - said > SECONDS or chunk.step == last):
                said = time.monotonic()
                losses = (f"{n} {values[-1]:.4g}" for n, values in chunk.metrics.items() if n.endswith("/loss"))
                print(f"step {chunk.step} of {last}: {', '.join(losses)}", file=sys.stderr, flush=True)
            if data.held_out is None or chunk.step % steps:
                continue
            values = held_out(state)
            validated[chunk.step] = {f"val/{term}": value for term, value in values.items()}
            if patience is None:
                continue
            if values[watched] < lowest:
                best, lowest = state, values[watched]
            if chunk.step - (done * steps if best is None else int(best.step)) >= patience * steps:
                break
    except KeyboardInterrupt:
        if not log:
            raise
        interrupted = True
    state = state if best is None else best
    if interrupted:
        message = f"Interrupted: this is what was learnt in {int(state.step)} of {last} steps."
        warnings.warn(message, stacklevel=3)
    before = [row for row in fitted.history if row["step"] <= int(fitted.state.step)]
    return dataclasses.replace(fitted, state=state, history=before + _rows(log, steps, validated, done)), interrupted


def check_patience(method: str, algo: Algorithm, patience: int | None) -> None:
    """Refuses to go by a loss whose targets are made anew now and then: it jumps there, and is never as low again."""
    if patience is not None and algo.refreshes:
        raise InputError(
            f"The loss of {method} jumps where its targets are made anew, so patience cannot go by it; leave it out."
        )


def _first_loss(algo: Algorithm, state: Any, data: Data, key: jax.Array) -> str:
    """The name of the loss of the first player."""
    first = jax.tree.map(lambda v: v[:2], data.held_out)
    return next(name for name in training.metric_names(algo, state, first, key) if name.endswith("/loss"))


def _rows(
    log: list[dict[str, np.ndarray]], steps: int, validated: dict[int, dict[str, float]], done: int
) -> list[dict[str, float]]:
    """The metrics of all steps as means over whole epochs, after those done, and what was validated at their ends."""
    series = {name: np.concatenate([metrics[name] for metrics in log]) for name in (log[0] if log else ())}
    epochs = min(map(len, series.values()), default=0) // steps
    means = {n: v[: epochs * steps].reshape(epochs, steps).mean(1, np.float64) for n, v in series.items()}
    row = lambda i: {
        "step": (done + i + 1) * steps, "epoch": done + i + 1,
        **{name: float(each[i]) for name, each in means.items()},
    }  # fmt: skip
    return [row(i) | validated.get((done + i + 1) * steps, {}) for i in range(epochs)]
