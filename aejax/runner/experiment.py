"""What an experiment consists of, and what its measurements and pictures get: descriptions, nothing that runs.

No method is known here, no folder and no terminal.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import optax

from aejax import data, nets, schedules
from aejax.algorithm import Algorithm, transform_batch
from aejax.checks import DivergedError, InputError
from aejax.runner.config import Config
from aejax.runner.inputs import Feed, Spec, binarize
from aejax.runner.units import Unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Reference(NamedTuple):
    """A published figure, for the configuration at hand."""

    value: float
    source: str


class Trained(NamedTuple):
    """A trained model with what it was trained on: what `measure` and `draw` get."""

    config: Any
    model: nets.Autoencoder
    algorithm: Algorithm
    state: Any
    dataset: data.Dataset  # shaped for the model; one draw of it where the training binarises anew at every step
    history: list[dict[str, float]]
    measure_key: jax.Array
    draw_key: jax.Array
    notes: dict[str, str]  # what was left out, or drawn in another way, and why
    say: Callable[[str], None] = lambda text: None  # shows how far a long measurement is

    def each(self, parts: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """What there is of measurements or pictures, by name.

        Training is over, and nothing behind it may lose the run. So what the data do not allow is left out and noted,
        and whatever else goes wrong is noted as failed: the run is not finished then, and measures again when resumed.
        Errors of the disk, and of training itself, are raised.
        """
        found = {}
        for name, compute in parts.items():
            try:
                found[name] = compute()
            except (OSError, DivergedError):
                raise
            except Exception as error:
                text = str(error).partition("\n")[0]
                refused = isinstance(error, InputError)
                self.notes[name] = f"left out: {text}" if refused else f"failed: {type(error).__name__}: {text}"
        return found


class Experiment(NamedTuple):
    """One experiment, described. Of a method of the registry, `of_method` fills in what is not given."""

    name: str
    config: type[Config]
    build_model: Callable[[Any, Spec], nets.Autoencoder]  # (config, spec)
    build_algorithm: Callable[..., Algorithm]  # (config, model, tx, axis_name); tx an `Optimizers`
    monitor: str | None  # metric whose lowest validation value is the best checkpoint; None: the first player's loss
    measure: Callable[[Trained], dict[str, float]]
    draw: Callable[[Trained], "dict[str, Figure]"]
    # metric -> published figure; only where the recipe is the paper's
    reference: Callable[[Any], dict[str, Reference]] = lambda config: {}
    optimizer: Callable[..., optax.GradientTransformation] = optax.adam  # of a rate
    feed: Callable[[Any, data.Dataset], Feed] | None = None  # of a configuration; None: `plain_feed`
    units: Mapping[str, Unit] = MappingProxyType({})  # of the metrics that are its own
    formerly: tuple[str, ...] = ()  # names that it had, which older run folders hold


class Result(NamedTuple):
    """What a run returns."""

    config: Any
    model: nets.Autoencoder
    state: Any
    metrics: dict[str, float]  # the names of the documentation: test_sse, test_bound_nats, ...
    reference: dict[str, Reference]
    history: list[dict[str, float]]  # the rows of metrics.jsonl
    trained: Trained
    wall_seconds: float
    steps_per_second: float
    stopped: bool  # by the observer, before the last epoch


@dataclasses.dataclass(frozen=True)
class Optimizers:
    """Makes the optimiser of a rate, for each player: what factories take as `tx`."""

    optimizer: Callable[..., optax.GradientTransformation]  # of a rate
    schedule: str
    num_steps: int
    steps_per_epoch: int
    clip: float | None

    def __call__(self, lr: Any, **options: Any) -> optax.GradientTransformation:
        tx = self.optimizer(schedules.get(self.schedule)(lr, self.num_steps), **options)
        return tx if self.clip is None else optax.chain(optax.clip_by_global_norm(self.clip), tx)


def build_algorithm(
    experiment: Experiment, config: Any, model: nets.Autoencoder, num_steps: int, axis_name: str | None = None
) -> Algorithm:
    """The algorithm of a configuration: schedule and stochastic binarisation included; one object for all seeds."""
    tx = Optimizers(experiment.optimizer, config.schedule, num_steps, num_steps // config.num_epochs, config.clip)
    return _build_algorithm(experiment.build_algorithm, dataclasses.replace(config, seed=0), model, tx, axis_name)


@lru_cache(maxsize=32)  # an algorithm is a static argument of the compiled loop: the same one is not traced again
def _build_algorithm(
    build: Any, config: Any, model: nets.Autoencoder, tx: Optimizers, axis_name: str | None
) -> Algorithm:
    algo = build(config, model, tx, axis_name)
    return transform_batch(algo, binarize) if config.binarize == "stochastic" else algo
