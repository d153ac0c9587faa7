"""What the estimators share: how rows are brought in, scaled, held out, and a method trained on them.

A fit depends on the rows and their weights, not on their order: they are sorted, and then shuffled by `random_state`.
A weight is a number of repetitions. What is computed of a row does not depend on the rows beside it, and the second fit
on rows of one shape compiles nothing.
"""

import copy
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from aejax import likelihoods
from aejax.checks import InputError, nearest
from aejax.data.arrays import check_memory
from aejax.evaluation.apply import BATCH_SIZE
from aejax.fitted import Fitted, learn
from aejax.methods import METHODS

SCALINGS: dict[str, Callable[[], Any]] = {
    "standard": StandardScaler,
    "minmax": lambda: MinMaxScaler(clip=True),
    "none": FunctionTransformer,
}
MOST_ROWS = 100_000_000  # that weights may make
_TAKEN = {*inspect.signature(learn).parameters, "hidden_dims"} - {"likelihood", "pretrain_epochs"}


class Rows(NamedTuple):
    """Rows `[N, D]`, and where there are any their classes `[N]`."""

    x: np.ndarray
    y: np.ndarray | None = None

    @property
    def classes(self) -> np.ndarray:
        """y, which is there."""
        if self.y is None:
            raise InputError("These rows have no classes.")
        return self.y

    def part(self, rows: np.ndarray) -> "Rows":
        """The rows with these indices."""
        return Rows(self.x[rows], None if self.y is None else self.y[rows])


class Autoencoder(BaseEstimator):
    """The parameters and the fit of all estimators; they are described at `AutoencoderTransformer`."""

    fitted_: Fitted
    scaler_: Any
    _seed: int
    _made_of: dict[str, Any]
    # the parameters that make the model, which later rows do not change
    _make: ClassVar[tuple[str, ...]] = ("method", "latent_dim", "hidden_dims", "scaling", "options")

    def __init__(
        self,
        method: str = "ae",
        *,
        latent_dim: int = 8,
        hidden_dims: tuple[int, ...] | None = None,
        scaling: str = "standard",
        num_epochs: int = 100,
        batch_size: int = 128,
        patience: int | None = None,
        validation_fraction: float = 0.1,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: bool = False,
        options: dict[str, Any] | None = None,
    ):
        self.method = method
        self.latent_dim = latent_dim
        self.hidden_dims = hidden_dims
        self.scaling = scaling
        self.num_epochs = num_epochs
        self.batch_size = batch_size
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose
        self.options = options

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Trains; anew, or with `warm_start` for `num_epochs` more. Ctrl-C ends it early, with a warning.

        Args:
          X: `[N, D]` finite numbers; a sparse matrix is made dense.
          y: ignored.
          sample_weight: `[N]`, not negative: how often a row is repeated where all are whole numbers; else N rows stand
            for all, as many of each as its share asks for.

        Raises:
          InputError: parameters, rows or weights that cannot be trained with; a ValueError.
        """
        self._learn(X, y, sample_weight, partial=False)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """One pass over these rows, from the parameters that are there. The scaling is that of the first rows."""
        self._learn(X, y, None, partial=True)
        return self

    def _learn(self, X: Any, y: Any, sample_weight: Any, *, partial: bool) -> None:
        """Fits all that is fitted; where it fails, what was fitted before stays."""
        before = self.__dict__.copy()
        goes_on = hasattr(self, "fitted_") and (partial or self.warm_start)
        try:
            data = self._validated(X, y, goes_on)
            self._check()
            made_of = {name: getattr(self, name) for name in self._make}
            if goes_on and (differ := [name for name in self._make if made_of[name] != self._made_of[name]]):
                raise InputError(
                    f"What goes on was fitted with another {', '.join(differ)}. Set that back, or fit a clone."
                )
            if not goes_on:
                self._made_of = copy.deepcopy(made_of)
                self._seed = int(check_random_state(self.random_state).randint(2**31))
            rows = weighted(data.x, sample_weight, data.y)
            train, held_out = (data.part(rows) for rows in self._split(rows, self._seed, partial))
            if not goes_on:
                self.scaler_ = SCALINGS[self.scaling]().fit(train.x)
            self._train(train, held_out, goes_on=goes_on, partial=partial)
        except BaseException:
            self.__dict__ = before
            raise

    def _validated(self, X: Any, y: Any, goes_on: bool) -> Rows:
        """The rows as they are given, checked."""
        return Rows(self._dense(X, reset=not goes_on))

    def _train(self, train: Rows, held_out: Rows, *, goes_on: bool, partial: bool) -> None:
        """The autoencoder, and what is fitted on top of it; one pass where the fit is a partial one."""
        options: dict[str, Any] = {"batch_size": self.batch_size, "seed": self._seed, "verbose": self.verbose}
        options |= {"num_epochs": 1 if partial else self.num_epochs}
        if self.patience is not None and not partial:
            options |= {"patience": self.patience, "validation": self._scaled(held_out.x)}
        values = self._scaled(train.x)
        if goes_on:
            self.fitted_ = self.fitted_.more(values, **options)
        else:
            self.fitted_ = learn(self.method, values, **options, **self._model())

    def _split(self, rows: np.ndarray, seed: int, partial: bool) -> tuple[np.ndarray, np.ndarray]:
        """The rows to train on, and those that are held out for patience, both in order."""
        if partial or self.patience is None:
            return rows, rows[:0]
        return self._hold_out(rows, seed)

    def _hold_out(self, rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        places = np.random.default_rng(seed).permutation(len(rows))
        count = min(max(2, round(self.validation_fraction * len(rows))), len(rows) - 1)
        if count < 1:
            raise InputError("n_samples=1; a part is held out, for which 2 rows are needed.")
        return rows[np.sort(places[count:])], rows[np.sort(places[:count])]

    def _model(self) -> dict[str, Any]:
        """What `learn` makes the model and the algorithm of."""
        given = {"latent_dim": self.latent_dim, **(self.options or {})}
        if self.hidden_dims is not None:
            given["hidden_dims"] = self.hidden_dims
        if not _takes_counts(self.method):
            given.setdefault("likelihood", "bernoulli" if self.scaling == "minmax" else "gaussian")
        return given

    def _check(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"Unknown method {self.method!r}. {nearest(self.method, METHODS, what='methods')}")
        if METHODS[self.method].model.needs_labels():
            raise InputError(f"{self.method} is trained with labels; use aejax.learn({self.method!r}, x, y).")
        if self.scaling not in SCALINGS:
            raise InputError(f"Unknown scaling={self.scaling!r}. {nearest(self.scaling, SCALINGS, what='scalings')}")
        if _takes_counts(self.method) and self.scaling != "none":
            raise InputError(f"{self.method} takes counts as they are; use scaling='none'.")
        if not 0 < self.validation_fraction < 1:
            raise InputError(f"validation_fraction={self.validation_fraction!r}; it is a share between 0 and 1.")
        if taken := sorted(set(self.options or {}) & _TAKEN):
            raise InputError(f"options has {', '.join(taken)}: that is a parameter of the estimator, or none.")

    def _rows(self, X: Any) -> np.ndarray:
        """X as it was fitted on."""
        check_is_fitted(self, "fitted_")
        return self._dense(X, reset=False)

    def _dense(self, X: Any, *, reset: bool) -> np.ndarray:
        """X as scikit-learn checks it, without the zeros that a sparse matrix left out."""
        return dense(validate_data(self, X, dtype=(np.float64, np.float32), accept_sparse="csr", reset=reset))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        return self.scaler_.transform(X).astype(np.float32)

    def _unscaled(self, values: np.ndarray, dtype: Any) -> np.ndarray:
        return self.scaler_.inverse_transform(values.astype(dtype))

    def _of_rows(self, function: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
        """`function(values)`, always with one compiled program, whatever the number of rows."""
        count = len(values)
        missing = max(BATCH_SIZE - count, 0)
        return function(np.concatenate([values, np.repeat(values[-1:], missing, axis=0)]))[:count]

    @property
    def model_(self) -> Any:
        """The Flax module; its parameters are `fitted_.params`."""
        return self.fitted_.model


def dense(X: Any) -> np.ndarray:
    """A sparse matrix as an array, if the machine can hold it; `InputError` else."""
    if not issparse(X):
        return X
    check_memory(X.shape[0] * X.shape[1] * 4, f"X of shape {X.shape}, made dense,")
    return X.toarray()


def weighted(X: np.ndarray, sample_weight: Any, y: np.ndarray | None = None) -> np.ndarray:
    """The numbers of the rows in an order that depends on their values alone, each as often as its weight says.

    Args:
      X: `[N, D]`; the order is that of the bytes of a row.
      sample_weight: `[N]`, not negative, or None.
      y: `[N]` integers, which decide between rows that are alike.

    Example:
      >>> weighted(np.array([[3.0], [2.0], [1.0]]), [1, 0, 2]).tolist()
      [0, 2, 2]
      >>> weighted(np.array([[3.0], [2.0], [1.0]]), [0.4, 0.05, 0.15]).tolist()
      [0, 0, 2]
    """
    X = np.ascontiguousarray(X) + X.dtype.type(0)  # so that no zero is a negative one
    values = np.unique(X.view(f"V{X.shape[1] * X.itemsize}").ravel(), return_inverse=True)[1].ravel()
    order = np.lexsort([values] if y is None else [y, values])
    if sample_weight is None:
        return order
    weights: np.ndarray = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    total = float(weights.sum())
    if not total > 0:
        raise InputError("All of sample_weight are 0; at least one row needs a weight.")
    whole = bool((weights == np.round(weights)).all())
    if whole and total > MOST_ROWS:
        raise InputError(
            f"sample_weight adds up to {total:g} rows; divide it, so that these are {MOST_ROWS:g} at most."
        )
    ends = np.cumsum(weights[order] if whole else weights[order] * len(X) / total)
    return order[np.searchsorted(ends, np.arange(round(float(ends[-1]))) + 0.5)]


def _takes_counts(method: str) -> bool:
    return likelihoods.get(METHODS[method].model.likelihood).support.step == 1
