"""Rows that an autoencoder of the other rows does not know: a scikit-learn outlier detector."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from sklearn.base import OutlierMixin
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from aejax import likelihoods
from aejax.checks import InputError, nearest
from aejax.data import Batch
from aejax.estimators.base import Autoencoder, Rows
from aejax.evaluation.apply import call, over_batches
from aejax.methods import METHODS
from aejax.methods.vae import VAE, draws

CRITERIA = ("reconstruction", "bound", "knn", "mahalanobis", "centre")
NUM_DRAWS = 16


class AutoencoderOutlierDetector(OutlierMixin, Autoencoder):
    """Scores rows by how well the trained autoencoder knows them; the sign is scikit-learn's, high for inliers.

    Args:
      criterion: the score is minus this. `reconstruction`: the squared error, summed over columns in the units of the
        scaling. `bound`: the negative bound in nats, of methods that have one (`vae` and its kin), mean of 16 draws
        whose noise all rows share. `knn`: the distance of the code to the `n_neighbors`-th nearest code of the training
        rows. `mahalanobis`: the squared distance of the code to their mean, by their covariance (Ledoit-Wolf).
        `centre`: the squared distance of the code to the centre of `deep_svdd`.
      contamination: share of the training rows that is called outliers: the threshold is a percentile of their scores.
      false_alarm_rate: if given, at most this share of new rows like the training rows is called outliers: the
        threshold is an order statistic of the scores of held-out rows, `validation_fraction` of all.
      n_neighbors: of `knn`; a training row counts itself.
      The others are those of `AutoencoderTransformer`.

    Attributes:
      offset_: the threshold; `decision_function` is `score_samples` less this.
      fitted_, model_, scaler_, n_features_in_, feature_names_in_: as of `AutoencoderTransformer`.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> line = rng.normal(size=(300, 1)) * [1.0, -2.0, 3.0] + 0.01 * rng.normal(size=(300, 3))
      >>> found = AutoencoderOutlierDetector(latent_dim=1, hidden_dims=(), options={"lr": 0.03}, random_state=0)
      >>> found.fit(line).predict([[1.0, -2.0, 3.0], [1.0, 2.0, 3.0]]).tolist()
      [1, -1]
    """

    def __init__(
        self,
        method: str = "ae",
        *,
        criterion: str = "reconstruction",
        contamination: float = 0.1,
        false_alarm_rate: float | None = None,
        n_neighbors: int = 5,
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
        super().__init__(
            method,
            latent_dim=latent_dim,
            hidden_dims=hidden_dims,
            scaling=scaling,
            num_epochs=num_epochs,
            batch_size=batch_size,
            patience=patience,
            validation_fraction=validation_fraction,
            warm_start=warm_start,
            random_state=random_state,
            verbose=verbose,
            options=options,
        )
        self.criterion = criterion
        self.contamination = contamination
        self.false_alarm_rate = false_alarm_rate
        self.n_neighbors = n_neighbors

    def _split(self, rows: np.ndarray, seed: int, partial: bool) -> tuple[np.ndarray, np.ndarray]:
        if self.false_alarm_rate is None:
            return super()._split(rows, seed, partial)
        train, held_out = self._hold_out(rows, seed)
        if self.false_alarm_rate * (len(held_out) + 1) < 1:
            least = int(np.ceil(1 / self.false_alarm_rate)) - 1
            raise InputError(
                f"false_alarm_rate={self.false_alarm_rate} of {len(held_out)} held-out rows is less than one of them;"
                f" {least} are needed: give more rows, a larger validation_fraction or a larger rate."
            )
        return train, held_out

    def _train(self, train: Rows, held_out: Rows, *, goes_on: bool, partial: bool) -> None:
        super()._train(train, held_out, goes_on=goes_on, partial=partial)
        self._criterion, values = self.criterion, self._scaled(train.x)
        if self.criterion == "knn":
            codes = self._of_rows(self.fitted_.embed, values)
            self._codes = NearestNeighbors(n_neighbors=min(self.n_neighbors, len(codes))).fit(codes)
        elif self.criterion == "mahalanobis":
            self._codes = LedoitWolf().fit(self._of_rows(self.fitted_.embed, values))
        if self.false_alarm_rate is None:
            rows = np.concatenate([train.x, held_out.x])
            self.offset_ = float(np.percentile(self._scores(self._scaled(rows)), 100 * self.contamination))
        else:
            scores = np.sort(self._scores(self._scaled(held_out.x)))
            self.offset_ = float(scores[int(self.false_alarm_rate * (len(scores) + 1)) - 1])

    def score_samples(self, X: Any) -> np.ndarray:
        """`[N]` float64, the higher the more like the training rows."""
        return self._scores(self._scaled(self._rows(X)))

    def decision_function(self, X: Any) -> np.ndarray:
        """`score_samples` less the threshold: below 0 for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """1 for inliers, -1 for outliers."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _scores(self, values: np.ndarray) -> np.ndarray:
        if self._criterion == "reconstruction":
            x_hat = self._of_rows(self.fitted_.reconstruct, values)
            return -np.square(values.astype(np.float64) - x_hat).sum(axis=1)
        if self._criterion == "bound":
            seeds = jax.random.split(jax.random.key(0), NUM_DRAWS)
            bound = partial(_bounds, self.fitted_.params, seeds, model=self.fitted_.model)
            return self._of_rows(lambda x: over_batches(bound, x), values).astype(np.float64)
        if self._criterion == "centre":
            distances = partial(call, self.model_, self.fitted_.params, "distances")
            return -self._of_rows(lambda x: over_batches(distances, x), values).astype(np.float64)
        codes = self._of_rows(self.fitted_.embed, values)
        if self._criterion == "knn":
            return -self._codes.kneighbors(codes)[0][:, -1].astype(np.float64)
        return -self._codes.mahalanobis(codes).astype(np.float64)

    @property
    def _likelihood(self) -> Any:
        return likelihoods.get(self._model().get("likelihood", METHODS[self.method].model.likelihood))

    def _check(self) -> None:
        super()._check()
        if self.criterion not in CRITERIA:
            raise InputError(
                f"Unknown criterion={self.criterion!r}. {nearest(self.criterion, CRITERIA, what='criteria')}"
            )
        if self.criterion == "bound" and not issubclass(METHODS[self.method].model, VAE):
            raise InputError(f"{self.method} has no bound; use criterion='reconstruction', or method='vae'.")
        if self.criterion == "centre" and self.method != "deep_svdd":
            raise InputError(f"{self.method} has no centre; use criterion='reconstruction', or method='deep_svdd'.")
        if self.criterion == "bound" and self._likelihood.coupled:
            raise InputError("The likelihood takes its variance from the batch, so that a row has no bound of its own.")
        if self.criterion == "knn" and self.n_neighbors < 2:
            raise InputError(f"n_neighbors={self.n_neighbors!r}; a training row counts itself, so 2 are needed.")
        if not 0 < self.contamination <= 0.5:
            raise InputError(f"contamination={self.contamination!r}; it is a share above 0, and 0.5 at most.")
        if self.false_alarm_rate is not None and not 0 < self.false_alarm_rate < 1:
            raise InputError(f"false_alarm_rate={self.false_alarm_rate!r}; it is a share between 0 and 1.")


@partial(jax.jit, static_argnames="model")
def _bounds(params: Any, keys: jax.Array, x: jax.Array, *, model: VAE) -> jax.Array:
    """The bound of each row, `[B]` nats, mean over draws; the noise of a row is that of a row on its own."""

    def one(x: jax.Array) -> jax.Array:
        each: Callable[[jax.Array], Any] = lambda key: draws(model, params, Batch(x[None]), key, 1)
        found = jax.vmap(each)(keys)
        return -(found.recon + found.kl).mean()

    return jax.vmap(one)(x)
