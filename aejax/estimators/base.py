"""What the estimators share: how rows are brought in, scaled, held out, and a method trained on them.

A fit depends on the rows and their weights, not on their order: they are sorted first, and shuffled by `random_state`.
A weight is a number of repetitions. What is computed of a row does not depend on the rows beside it, and the second fit
on rows of one shape compiles nothing.
"""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from aejax.checks import InputError, nearest
from aejax.evaluation.apply import BATCH_SIZE
from aejax.fitted import Fitted, learn
from aejax.methods import METHODS

SCALINGS: dict[str, Callable[[], Any]] = {
    "standard": StandardScaler,
    "minmax": lambda: MinMaxScaler(clip=True),
    "none": FunctionTransformer,
}


class Autoencoder(BaseEstimator):
    """The parameters and the fit of all estimators; they are described at `AutoencoderTransformer`."""

    fitted_: Fitted

    def __init__(
        self,
        method: str = "ae",
        *,
        latent_dim: int = 8,
        hidden_dims: tuple[int, ...] = (64,),
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
        """Trains; anew, or with `warm_start` for `num_epochs` more.

        Args:
          X: `[N, D]` finite numbers.
          y: ignored.
          sample_weight: `[N]`, not negative: how often a row is repeated where all are whole numbers; else N rows stand
            for all, as many of each as its share asks for.

        Raises:
          InputError: parameters, rows or weights that cannot be trained with; a ValueError.
        """
        goes_on = self.warm_start and hasattr(self, "fitted_")
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=not goes_on)
        self._learn(ordered(weighted(X, sample_weight)), self.num_epochs, goes_on)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """One pass over these rows, of the parameters that are there. The scaling is that of the first rows."""
        goes_on = hasattr(self, "fitted_")
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=not goes_on)
        self._learn(ordered(X), 1, goes_on, hold_out=False)
        return self

    def _learn(self, X: np.ndarray, num_epochs: int, goes_on: bool, hold_out: bool = True) -> np.ndarray:
        """Fits `scaler_` and `fitted_`, and returns the rows that were held out, as they came."""
        self._check()
        if not goes_on:
            self._seed = int(check_random_state(self.random_state).randint(2**31))
        held_out = X[:0]
        if hold_out and self._share_held_out:
            rows = np.random.default_rng(self._seed).permutation(len(X))
            count = min(max(1, round(self.validation_fraction * len(X))), len(X) - 1)
            if count < 1:
                raise InputError("n_samples=1; a part is held out, for which 2 rows are needed.")
            X, held_out = X[np.sort(rows[count:])], X[np.sort(rows[:count])]
        if not goes_on:
            self.scaler_ = SCALINGS[self.scaling]().fit(X)
        values = self._scaled(X)
        options: dict[str, Any] = {"num_epochs": num_epochs, "batch_size": self.batch_size, "seed": self._seed}
        options |= {"verbose": self.verbose}
        if self.patience is not None and hold_out:
            options |= {"patience": self.patience, "validation": self._scaled(held_out)}
        if goes_on:
            self.fitted_ = self.fitted_.more(values, **options)
        else:
            given = {"latent_dim": self.latent_dim, "hidden_dims": self.hidden_dims, **(self.options or {})}
            given |= {"likelihood": "gaussian"} if self.scaling == "standard" and "likelihood" not in given else {}
            self.fitted_ = learn(self.method, values, **options, **given)
        return held_out

    @property
    def _share_held_out(self) -> bool:
        """Whether a part of the rows is held out."""
        return self.patience is not None

    def _check(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"Unknown method {self.method!r}. {nearest(self.method, METHODS, what='methods')}")
        if METHODS[self.method].model.takes_labels:
            raise InputError(f"The codes of {self.method} need labels; use aejax.learn({self.method!r}, x, y).")
        if self.scaling not in SCALINGS:
            raise InputError(f"Unknown scaling={self.scaling!r}. {nearest(self.scaling, SCALINGS, what='scalings')}")
        if not 0 < self.validation_fraction < 1:
            raise InputError(f"validation_fraction={self.validation_fraction!r}; it is a share between 0 and 1.")

    def _rows(self, X: Any) -> np.ndarray:
        """X as it was fitted on."""
        check_is_fitted(self)
        return validate_data(self, X, dtype=(np.float64, np.float32), reset=False)

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


def weighted(X: np.ndarray, sample_weight: Any) -> np.ndarray:
    """The rows, each as often as its weight says.

    Example:
      >>> weighted(np.array([[1.0], [2.0], [3.0]]), [2, 0, 1]).ravel().tolist()
      [1.0, 1.0, 3.0]
      >>> weighted(np.array([[1.0], [2.0], [3.0]]), [0.1, 0.1, 0.4]).ravel().tolist()
      [1.0, 3.0, 3.0]
    """
    if sample_weight is None:
        return X
    weights: np.ndarray = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if not weights.sum() > 0:
        raise InputError("All of sample_weight are 0; at least one row needs a weight.")
    whole = bool((weights == np.round(weights)).all())
    ends = np.cumsum(weights if whole else weights * len(X) / weights.sum())
    return X[np.searchsorted(ends, np.arange(round(ends[-1])) + 0.5)]


def ordered(X: np.ndarray) -> np.ndarray:
    """The rows in an order that depends on their values alone: that of a fixed linear function of them."""
    direction = np.random.default_rng(0).standard_normal((X.shape[1],)).astype(X.dtype)
    return X[np.argsort(X @ direction, kind="stable")]
