"""Any registered method as a scikit-learn transformer: rows to codes and back."""

from typing import Any

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted

from aejax.checks import InputError
from aejax.estimators.base import Autoencoder
from aejax.evaluation.apply import call, over_batches


class AutoencoderTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Autoencoder):
    """Rows to the codes of an autoencoder, and codes to rows.

    Args:
      method: a name of `aejax.METHODS`, but for those whose codes need labels, `cvae` and `m2`.
      latent_dim: size of the code.
      hidden_dims: widths of the hidden layers of the encoder; the decoder mirrors them. None: those of the method.
      scaling: `standard`, mean 0 and variance 1 of each column of the training rows, with a Gaussian likelihood;
        `minmax`, to [0, 1], where new values beyond are cut, with a Bernoulli one; `none`, with a Gaussian one, or
        counts as they are for `count_vae`. Undone on the way out.
      num_epochs: passes over the rows.
      batch_size: rows of a step.
      patience: epochs without a lower loss of held-out rows after which training ends, with the epoch in which it was
        lowest; None trains for all epochs, on all rows.
      validation_fraction: share of the rows that is held out for that.
      warm_start: whether a second `fit` goes on, for `num_epochs` more, and with the scaling of the first.
      random_state: of the first parameters, the order of the rows, the noise, and what is held out.
      verbose: prints a line of progress every three seconds.
      options: further keywords of `aejax.learn`, such as `{"beta": 4.0, "lr": 3e-4}`.

    Attributes:
      fitted_: the `aejax.Fitted`; its `history` has every term of every epoch.
      model_: the Flax module.
      scaler_: from rows to what the networks see.
      n_features_in_, feature_names_in_: as scikit-learn has them.

    Example:
      >>> x = np.random.default_rng(0).normal(size=(100, 5)) * [1, 2, 3, 4, 5]
      >>> found = AutoencoderTransformer("vae", latent_dim=2, hidden_dims=(8,), num_epochs=2, random_state=0).fit(x)
      >>> found.transform(x).shape, found.inverse_transform(found.transform(x)).shape, found.sample(3).shape
      ((100, 2), (100, 5), (3, 5))
    """

    def transform(self, X: Any) -> np.ndarray:
        """The codes, without noise: `[N, D] -> [N, latent_dim]`, in the precision of X, 32 or 64 bits."""
        X = self._rows(X)
        return self._of_rows(self.fitted_.embed, self._scaled(X)).astype(X.dtype)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """What codes are decoded to, in the units of the data: `[N, latent_dim] -> [N, D]`."""
        check_is_fitted(self, "fitted_")
        codes = check_array(X, dtype=(np.float64, np.float32))
        if codes.shape[1] != self._n_features_out:
            raise InputError(f"Codes of shape {codes.shape}; [N, {self._n_features_out}] is needed.")

        def decoded(codes: np.ndarray) -> np.ndarray:
            return over_batches(lambda z: call(self.model_, self.fitted_.params, "generate", z), codes)

        return self._unscaled(self._of_rows(decoded, codes.astype(np.float32)), codes.dtype)

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the squared error of the reconstruction, mean over rows and columns, in the units of the scaling.

        With `standard`, -1 is what the mean of the training rows has on them, if no column is constant. It is
        comparable between methods, as bounds of different likelihoods are not.
        """
        values = self._scaled(self._rows(X))
        errors = values - self._of_rows(self.fitted_.reconstruct, values)
        return -float(np.square(errors, dtype=np.float64).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Rows that the model draws, `[n_samples, D]`, of a method with a prior; by default not twice the same."""
        check_is_fitted(self, "fitted_")
        seed = int(check_random_state(random_state).randint(2**31))
        return self._unscaled(self.fitted_.sample(n_samples, seed), np.float64)

    @property
    def _n_features_out(self) -> int:
        return self.fitted_.model.latent_dim

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
