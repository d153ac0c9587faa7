"""Clusters of the codes of an autoencoder as a scikit-learn clusterer: by k-means, or by a method that learns them."""

from functools import partial
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClusterMixin
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from aejax import priors
from aejax.checks import InputError, check_count
from aejax.estimators.base import Autoencoder, Rows
from aejax.evaluation.apply import call, over_batches
from aejax.methods import METHODS
from aejax.methods.vade import VaDE

NUM_STARTS = 20  # of k-means


class AutoencoderClusterer(ClusterMixin, Autoencoder):
    """Finds clusters among the codes of an autoencoder.

    Args:
      method: `dec`, `idec`, `dcn` and `vade` learn their clusters, after an autoencoder that they begin with, and
        `aae_cluster` without one. Of every other method the codes are clustered by k-means, the best of 20 starts.
      n_clusters: how many.
      num_epochs: passes over the rows, of the method.
      pretrain_epochs: passes before, of the autoencoder that those four begin with; others ignore it. Where the
        estimator goes on there are none. The centres of k-means stay in `partial_fit` what the first fit made them.
      The others are those of `AutoencoderTransformer`.

    Attributes:
      labels_: `[N]` int32, the clusters of the rows of the last fit, from 0 up.
      cluster_centers_: `[n_clusters, D]`, what the centres are decoded to, in the units of the data.
      code_centers_: `[n_clusters, latent_dim]`, the centres; of `vade` the means of the Gaussians, of `aae_cluster`
        `[n_clusters, n_clusters + latent_dim]`, each cluster alone with a style of zero.
      fitted_, model_, scaler_, n_features_in_, feature_names_in_: as of `AutoencoderTransformer`.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> rows = np.repeat([[0.0, 0.0, 9.0], [9.0, 0.0, 0.0]], 50, axis=0) + rng.normal(size=(100, 3))
      >>> options = {"latent_dim": 2, "hidden_dims": (8,), "num_epochs": 20, "random_state": 0}
      >>> found = AutoencoderClusterer(n_clusters=2, **options).fit(rows)
      >>> np.bincount(found.labels_).tolist(), bool((found.predict(rows[:50]) == found.labels_[0]).all())
      ([50, 50], True)
    """

    labels_: np.ndarray
    cluster_centers_: np.ndarray
    code_centers_: np.ndarray
    _make: ClassVar[tuple[str, ...]] = (*Autoencoder._make, "n_clusters")

    def __init__(
        self,
        method: str = "ae",
        *,
        n_clusters: int = 8,
        latent_dim: int = 8,
        hidden_dims: tuple[int, ...] | None = None,
        scaling: str = "standard",
        num_epochs: int = 100,
        pretrain_epochs: int = 100,
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
        self.n_clusters = n_clusters
        self.pretrain_epochs = pretrain_epochs

    def predict(self, X: Any) -> np.ndarray:
        """The cluster of each row, `[N]` int32 from 0 up: that of the nearest centre, or the likeliest one."""
        return self._clusters(self._scaled(self._rows(X)))

    def _learn(self, X: Any, *args: Any, **options: Any) -> None:
        super()._learn(X, *args, **options)
        self.labels_ = self.predict(X)

    def _split(self, rows: np.ndarray, seed: int, partial: bool) -> tuple[np.ndarray, np.ndarray]:
        train, held_out = super()._split(rows, seed, partial)
        if len(train) < self.n_clusters and not (partial and hasattr(self, "fitted_")):
            raise InputError(
                f"n_samples={len(train)} should be >= n_clusters={self.n_clusters}, those that are trained on."
            )
        return train, held_out

    def _train(self, train: Rows, held_out: Rows, *, goes_on: bool, partial: bool) -> None:
        super()._train(train, held_out, goes_on=goes_on, partial=partial)
        params = self.fitted_.params
        if self._learns_clusters and hasattr(self.model_, "heads"):
            centers = self.model_.heads()
        elif self._learns_clusters:
            centers = params["prior"]["means"] if self._is_mixture else params["centres"]
        elif goes_on and partial:
            centers = self.code_centers_
        else:
            codes = self._of_rows(self.fitted_.embed, self._scaled(np.concatenate([train.x, held_out.x])))
            k_means = KMeans(self.n_clusters, n_init=NUM_STARTS, random_state=self._seed)
            with threadpool_limits(1):
                centers = k_means.fit(codes).cluster_centers_
        self.code_centers_ = np.asarray(centers, np.float32)
        decoded = lambda codes: over_batches(lambda z: call(self.model_, params, "generate", z), codes)
        self.cluster_centers_ = self._unscaled(self._of_rows(decoded, self.code_centers_), np.float64)

    def _clusters(self, values: np.ndarray) -> np.ndarray:
        if self._learns_clusters:
            function = partial(over_batches, partial(call, self.model_, self.fitted_.params, "clusters"))
            return self._of_rows(function, values).astype(np.int32)
        codes = self._of_rows(self.fitted_.embed, values)
        gaps = [np.square(codes - center).sum(axis=1) for center in self.code_centers_]
        return np.argmin(gaps, axis=0).astype(np.int32)

    def _model(self) -> dict[str, Any]:
        own: dict[str, Any] = {"pretrain_epochs": self.pretrain_epochs}
        if self._is_mixture:
            own["prior"] = priors.LearnedMixture(self.n_clusters)
        elif self._learns_clusters:
            own["num_clusters"] = self.n_clusters
        return super()._model() | own

    def _check(self) -> None:
        super()._check()
        check_count(n_clusters=self.n_clusters)
        own = {"pretrain_epochs": "pretrain_epochs"}
        if self._learns_clusters:
            own["prior" if self._is_mixture else "num_clusters"] = "n_clusters"
        for name in own.keys() & (self.options or {}).keys():
            raise InputError(f"options has {name}; {own[name]} is a parameter of the estimator.")

    @property
    def _learns_clusters(self) -> bool:
        model = METHODS[self.method].model
        return hasattr(model, "clusters") and not model.learns_labels

    @property
    def _is_mixture(self) -> bool:
        return issubclass(METHODS[self.method].model, VaDE)
