"""Three lines: `fitted = learn("vae", x)`, then `fitted.embed(x)` and `fitted.sample(9)`.

What the registry knows about a method need not be said again. Everything else is the library as it stands, and a run is
that of `aejax.sweep` with the same seed.
"""

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from aejax import evaluation, nets, recipe
from aejax.algorithm import Algorithm, begin
from aejax.as_json import from_json, to_json
from aejax.checkpoint import Checkpoints
from aejax.checks import InputError, check_count
from aejax.data import Batch
from aejax.learning import Data, check, check_patience, trained
from aejax.methods import METHODS
from aejax.recipe import Recipe

_FILE = "fitted.json"


def learn(
    method: str,
    x: ArrayLike,
    y: Any = None,
    *,
    latent_dim: int = 32,
    likelihood: Any = None,
    net: str = "dense",
    num_epochs: int = 100,
    batch_size: int = 128,
    seed: int = 0,
    validation: Any = None,
    patience: int | None = None,
    pretrain_epochs: int = 100,
    verbose: bool = False,
    **options: Any,
) -> "Fitted":
    """Trains a registered method on an array.

    Ctrl-C ends the training early: what was learnt so far is returned, with a warning. Before the first step is done
    there is nothing to return, and KeyboardInterrupt is raised. A second call that differs in the seed alone, or in the
    values of x, compiles nothing.

    Args:
      method: a name of `aejax.METHODS`.
      x: `[N, D]`, `[N, H, W]` or `[N, H, W, C]`, NumPy or JAX, finite real numbers; `autorec` takes NaN too. uint8 is
        divided by 255, unless all are 0 or 1, or the likelihood is of counts; all else is taken as it is, as float32.
      y: `[N]` integers from 0 up, for methods that take labels (`cvae`, `m2`, `aae_semi`, `aae_label`); others ignore
        it. For the last three -1 stands for an unknown label.
      latent_dim: Z, the size of the code, of `aae_semi` and `aae_cluster` that of the style behind the shares.
      likelihood: a name of `aejax.likelihoods`, or an object; by default that of the method for counts, and else
        Bernoulli where all of x is in [0, 1], Gaussian of variance 1 elsewhere, for which x should be brought to a
        scale of about 1.
      net: `dense` (examples are flattened) or `conv` (images).
      num_epochs: passes over x; of each the last rows that fill no batch are left out, others every time.
      batch_size: examples a step; all of them where there are fewer.
      seed: of the first parameters, the order and the noise.
      validation: x that is not trained on, or `(x, y)`; evaluated after each epoch.
      patience: ends the training where the loss of the validation data, that of the first player, has not fallen for so
        many epochs; the state is then that of the epoch in which it was lowest, whenever the training ends.
      pretrain_epochs: passes over x before, by Adam at 1e-3, of the autoencoder that a method begins with: `deep_svdd`
        and those of clusters have one, others ignore it. 0 leaves it out. Ctrl-C within them returns the method as it
        would have begun then, with no step done.
      verbose: prints a line of progress to stderr every three seconds.
      options: the knobs of the method (`aejax.METHODS[method].hparams`), its other keywords, and what its model is made
        with, by name: `beta=4.0`, `hidden_dims=(256, 64)`, `features=(16, 32)`.

    Returns:
      The trained model.

    Raises:
      InputError: before any training: an unknown name, x or y that cannot be trained on, options that cannot be.
      DivergedError: a loss became infinite or NaN.

    Example:
      >>> x = np.random.default_rng(0).random((64, 5), np.float32)
      >>> fitted = learn("vae", x, latent_dim=2, hidden_dims=(8,), num_epochs=2)
      >>> fitted.embed(x).shape, fitted.reconstruct(x).shape, fitted.sample(3).shape
      ((64, 2), (64, 5), (3, 5))
    """
    check(num_epochs, batch_size, seed, validation, patience)
    if pretrain_epochs != 0:
        check_count(pretrain_epochs=pretrain_epochs)
    x = np.asarray(x)
    made = recipe.of(method, x, y, net, latent_dim, likelihood, options)
    model = made.model()
    algo = made.algorithm(model)
    check_patience(method, algo, patience)
    data = Data.of(made, algo, x, y, validation, batch_size, f"learn({method!r}, x, y)")
    whole, init_key = data.whole, jax.random.split(jax.random.key(seed), 3)[0]
    first = Batch(whole.x[:64], None if whole.y is None else whole.y[:64].clip(0))  # below 0: not known
    before, interrupted = METHODS[method].first, False
    if before is None or not pretrain_epochs:
        state = _start(algo, model, init_key, first, data.train)
        _check_rows(model, state, first)
    else:
        jax.eval_shape(partial(_start, algo, model), init_key, first, data.train)  # so that it refuses now
        networks = before(model)
        fresh = Fitted(model, networks, _start(networks, model, init_key, first, data.train), [], made)
        _check_rows(model, fresh.state, first)
        alone, title = data._replace(held_out=None), f"the autoencoder that {method} begins with"
        found, interrupted = trained(fresh, alone, pretrain_epochs, seed, None, verbose, title)
        state = _start(algo, model, init_key, first, data.train, found.params)
    begun = Fitted(model, algo, state, [], made)
    return begun if interrupted else trained(begun, data, num_epochs, seed, patience, verbose)[0]


def _check_rows(model: nets.Autoencoder, state: Any, first: Batch) -> None:
    if not nets.is_ours(model):
        nets.check_rows(model, state.params, first)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Fitted:
    """A trained model, as `learn` returns it.

    Attributes:
      model: the Flax module; `model.apply({"params": params}, x, method="embed")` and the like.
      algorithm: with `state`, goes on in `aejax.train` where `learn` stopped.
      state: after the last step; `state.params` by group.
      history: a row for each whole epoch: `step`, `epoch`, every term `player/term` as the mean over its steps, and
        `val/player/term` of the validation data; units are those of docs/units.md, for losses nats per example.
      recipe: the method, what model and algorithm are made of, and what an example is.
    """

    model: nets.Autoencoder
    algorithm: Algorithm
    state: Any
    history: list[dict[str, float]]
    recipe: Recipe

    @property
    def params(self) -> dict[str, Any]:
        """The parameters by group."""
        return self.state.params

    def __reduce__(self) -> Any:
        return _rebuilt, (to_json(self.recipe), jax.tree.map(np.asarray, self.state), self.history)

    def __repr__(self) -> str:
        name, steps = self.recipe.method, int(self.state.step)
        return f"<Fitted {name}: {self.recipe.shape} to {self.model.latent_dim}, {steps} steps>"

    def more(
        self,
        x: ArrayLike,
        y: Any = None,
        *,
        num_epochs: int = 1,
        batch_size: int = 128,
        seed: int = 0,
        validation: Any = None,
        patience: int | None = None,
        verbose: bool = False,
    ) -> "Fitted":
        """The model after further passes over x, which may be other data; this one stays as it is.

        With the same data, batch size and seed, `learn(..., num_epochs=a).more(..., num_epochs=b)` has the bits of
        `learn(..., num_epochs=a + b)`. Where x has another length, steps are counted on from a whole epoch of it. What
        the start of a method takes from the data, such as their number, stays that of the first. With patience the
        model as it is takes part: it is returned where no further epoch has a lower loss.

        Args:
          x, y: as of `learn`, x of the shape that was trained on and in its units.
          num_epochs: passes over x, beside those done.
          batch_size, seed, validation, patience, verbose: as of `learn`.

        Raises:
          InputError: x or y that could not have been trained on with the others.
          DivergedError: a loss became infinite or NaN.

        Example:
          >>> x = np.random.default_rng(0).random((64, 5), np.float32)
          >>> fitted = learn("ae", x, latent_dim=2, hidden_dims=(8,), num_epochs=2, batch_size=32)
          >>> fitted, fitted.more(x, batch_size=32)
          (<Fitted ae: (5,) to 2, 4 steps>, <Fitted ae: (5,) to 2, 6 steps>)
        """
        check(num_epochs, batch_size, seed, validation, patience)
        check_patience(self.recipe.method, self.algorithm, patience)
        data = Data.of(self.recipe, self.algorithm, np.asarray(x), y, validation, batch_size, "more(x, y)")
        return trained(self, data, num_epochs, seed, patience, verbose)[0]

    def embed(self, x: ArrayLike, y: ArrayLike | None = None) -> np.ndarray:
        """The codes, without noise: `[N, Z]` float32.

        Args:
          x: `[N, ...]`, examples of the shape that was trained on, and in its units: uint8 is divided by 255 where that
            of the training was; floats are then taken to lie in [0, 1] already.
          y: `[N]` integers, for a model that is conditioned on labels; others ignore it.

        Raises:
          InputError: x that could not have been trained on with the others, labels that are missing or unknown.
        """
        return evaluation.embed(self.model, self.params, self.recipe.batch("x", x, y, "(x, y)"))

    def reconstruct(self, x: ArrayLike, y: ArrayLike | None = None) -> np.ndarray:
        """x_hat, in the shape of x, as floats in the units that the model was trained in; arguments as of `embed`."""
        x_hat = evaluation.reconstruct(self.model, self.params, self.recipe.batch("x", x, y, "(x, y)"))
        return x_hat.reshape(-1, *self.recipe.shape)

    def sample(self, n: int, seed: int = 0, y: ArrayLike | None = None) -> np.ndarray:
        """Draws from the model: codes from its prior, and the means of the data that they stand for.

        Of `pixel_cnn`, which has no codes to draw, and of `pixel_vae` these are draws of the data themselves.

        Args:
          n: how many.
          seed: of the draws.
          y: `[n]` integers, for a model that is conditioned on labels; others ignore it.

        Returns:
          `[n, ...]` float32, of the shape of the examples.

        Raises:
          InputError: the model has no prior, or lacks labels.
        """
        check_count(n=n)
        if self.model.prior is None and type(self.model).sample is nets.Autoencoder.sample:
            raise InputError(
                f"{self.recipe.method} has no prior to draw codes from; learn one that has, such as 'vae'."
            )
        condition = []
        if self.model.takes_labels:
            condition = [recipe.labels(self.recipe.method, y, n, "sample(n, seed, y)")]
            nets.check_labels(self.model, *condition)
        x = _sample(self.model, self.params, jax.random.key(seed), n, *condition)
        return np.asarray(x).reshape(-1, *self.recipe.shape)

    def save(self, folder: str | Path) -> None:
        """Writes all into a new folder, which `Fitted.load` opens.

        Args:
          folder: not there yet, or empty.

        Raises:
          InputError: the folder holds something; an option of the method that cannot be written as JSON: a value that
            is no number, name, tuple, object of these, or function of a module.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} is there and holds something; give the name of a new folder.")
        text = json.dumps({"recipe": to_json(self.recipe), "history": self.history})
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(self.state, extra={}, force=True)
        (folder / _FILE).write_text(text + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """What `save` wrote, with the same bits.

        Functions and classes that the options name are imported, so open only folders from people you trust.

        Raises:
          InputError: the folder holds none or a damaged one, or names something that is not installed here.
        """
        try:
            about = json.loads((Path(folder) / _FILE).read_text())
            made, history = about["recipe"], about["history"]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{folder} holds nothing that Fitted.save wrote to the end: {error!r}.") from None
        made = from_json(made)
        model = made.model()
        algo = made.algorithm(model)
        first = Batch(np.zeros((1, *made.net_shape), np.float32), np.zeros(1, np.int32))
        fresh = lambda key: algo.init(nets.init_params(model, key, first))
        with Checkpoints(folder) as checkpoints:
            restored = checkpoints.restore(jax.eval_shape(fresh, jax.random.key(0)))
        if restored is None:
            raise InputError(f"{folder} holds no checkpoint that is whole.")
        return cls(model, algo, restored[0], history, made)


def _rebuilt(saved: Any, state: Any, history: list[dict[str, float]]) -> Fitted:
    """What a pickle holds, for an algorithm is made of functions."""
    made = from_json(saved)
    model = made.model()
    return Fitted(model, made.algorithm(model), jax.tree.map(jnp.asarray, state), history, made)


@partial(jax.jit, static_argnames=("algo", "model"))
def _start(
    algo: Algorithm, model: nets.Autoencoder, key: jax.Array, first: Batch, train: Any, params: Any = None
) -> Any:
    """The state before the first step, of fresh parameters or of these, from which the method starts on the data."""
    init = lambda key: nets.init_params(model, key, first)
    return begin(algo, init if params is None else lambda key: params, train, key)


@partial(jax.jit, static_argnames=("model", "n"))
def _sample(model: nets.Autoencoder, params: Any, key: jax.Array, n: int, *condition: jax.Array) -> jax.Array:
    return model.bind({"params": params}).sample(key, n, *condition)
