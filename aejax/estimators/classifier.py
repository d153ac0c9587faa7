"""A classifier on an encoder that was trained as an autoencoder, also on rows without labels."""

import sys
import time
import warnings
from functools import lru_cache, partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_is_fitted, validate_data

from aejax import nets, recipe, training
from aejax.algorithm import Algorithm, Player, play
from aejax.checks import InputError, check_count, check_non_negative, check_positive
from aejax.data import Batch
from aejax.estimators.base import Autoencoder, Rows, dense
from aejax.evaluation.apply import over_batches
from aejax.evaluation.finetune import classifier_loss, first_classifier, logits
from aejax.fitted import Fitted
from aejax.game import TrainState
from aejax.learning import SECONDS
from aejax.methods.m2 import SemiBatch

UNLABELLED = -1


class AutoencoderClassifier(ClassifierMixin, Autoencoder):
    """Trains an autoencoder on all rows, then a softmax on its codes and the encoder beneath it on those with labels.

    Args:
      finetune_epochs: passes over the rows that are trained on in that second part.
      finetune_lr: its learning rate, of Adam.
      autoencoder_weight: weight of the autoencoder's own loss, on all rows, beside the cross-entropy of the labels in
        that part, both in nats per row; for methods of one loss. 0 leaves it out.
      The others are those of `AutoencoderTransformer`; `num_epochs`, `patience` and `options` are of the first part.

    A label of -1, where labels are numbers, is an unknown one, as elsewhere in scikit-learn; but -1 and one other are
    two classes. With `warm_start`, and in `partial_fit`, the second part goes on and the first is not repeated. Rows
    that are held out for the patience of the first part are trained on in the second. Ctrl-C ends the part that it
    comes in. A fit compiles anew where the number of rows with labels is another.

    Attributes:
      classes_: the labels, sorted, without -1.
      tuned_: the state of the second part; `tuned_.params` has the encoder, and `classifier`.
      fitted_, model_, scaler_, n_features_in_, feature_names_in_: as of `AutoencoderTransformer`; `fitted_` is as the
        first part left it.

    Example:
      >>> x = np.random.default_rng(0).normal(size=(300, 2))
      >>> y = np.where(x[:, 0] * x[:, 1] > 0, "same", "other")
      >>> found = AutoencoderClassifier(latent_dim=8, num_epochs=5, finetune_lr=0.01, random_state=0).fit(x, y)
      >>> found.predict([[1.0, 1.0], [1.0, -1.0]]).tolist()
      ['same', 'other']

    Reference: pre-training as the start of a classifier is that of Hinton & Salakhutdinov (2006); the autoencoder's
    loss beside that of the labels is that of Ranzato & Szummer (2008), there with an encoder for each layer.
    """

    classes_: np.ndarray
    tuned_: Any

    def __init__(
        self,
        method: str = "ae",
        *,
        finetune_epochs: int = 100,
        finetune_lr: float = 1e-3,
        autoencoder_weight: float = 0.0,
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
        self.finetune_epochs = finetune_epochs
        self.finetune_lr = finetune_lr
        self.autoencoder_weight = autoencoder_weight

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Trains; arguments as of `AutoencoderTransformer.fit`, and y `[N]`, classes, which are needed.

        Raises:
          InputError: also where no label is known.
        """
        return super().fit(X, y, sample_weight)

    def partial_fit(self, X: Any, y: Any = None, classes: Any = None) -> Self:
        """One pass over these rows; `classes` are all that will ever come, to be given at the first call.

        Raises:
          InputError: also where later classes are others.
        """
        self._announced = None if classes is None else unique_labels(classes)
        try:
            return super().partial_fit(X, y)
        finally:
            del self._announced

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row, `[N]`."""
        places = self.predict_proba(X).argmax(axis=1)
        return self.classes_[places]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each of `classes_`, `[N, K]`."""
        check_is_fitted(self, "tuned_")
        found = partial(logits, self.tuned_.params, model=self.model_)
        values = self._of_rows(lambda x: over_batches(found, x), self._scaled(self._rows(X)))
        return softmax(values.astype(np.float64), axis=1)

    def _validated(self, X: Any, y: Any, goes_on: bool) -> Rows:
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32), accept_sparse="csr", reset=not goes_on)
        X = dense(X)
        check_classification_targets(y)
        announced = getattr(self, "_announced", None)
        if not goes_on:
            self.classes_ = _classes(y if announced is None else announced)
        elif announced is not None and _classes(announced).tolist() != self.classes_.tolist():
            raise InputError(f"classes={announced.tolist()}; the first call had {self.classes_.tolist()}.")
        known = np.ones(len(y), bool)
        if y.dtype.kind in "if" and UNLABELLED not in self.classes_:
            known = y != UNLABELLED
        if unknown := sorted(set(y[known].tolist()) - set(self.classes_.tolist())):
            raise InputError(f"Labels {unknown[:4]} are not among those of the first rows, {self.classes_.tolist()}.")
        if not known.any():
            raise InputError(f"None of the {len(y)} labels is known, all are -1; some are needed.")
        places = np.full(len(y), UNLABELLED)
        places[known] = np.searchsorted(self.classes_, y[known])
        return Rows(X, places)

    def _train(self, train: Rows, held_out: Rows, *, goes_on: bool, partial: bool) -> None:
        x, y = np.concatenate([train.x, held_out.x]), np.concatenate([train.classes, held_out.classes])
        known, values = y >= 0, self._scaled(x)
        if not known.any():
            raise InputError("All rows that have a label weigh nothing; some have to count.")
        watched = self._check_weight(values)
        if not goes_on:
            super()._train(train, held_out, goes_on=goes_on, partial=partial)
        labelled = Batch(values[known], y[known].astype(np.int32))
        data: Any = labelled if watched is None else SemiBatch(labelled, Batch(values))
        sizes: Any = jax.tree.map(
            lambda part: min(self.batch_size, len(part.x)), data, is_leaf=lambda v: isinstance(v, Batch)
        )
        steps = training.count_steps(data, sizes)
        algo = _algorithm(self.fitted_, self.finetune_lr, watched, self.autoencoder_weight)
        if goes_on:
            state = self.tuned_
        else:
            classifier = first_classifier(self.model_.latent_dim, len(self.classes_))
            state = algo.init({**self.fitted_.params, "classifier": classifier})
        done = -(-int(state.step) // steps)
        state = state._replace(step=np.asarray(done * steps, np.int32))
        last = done + (1 if partial else self.finetune_epochs)
        key = jax.random.fold_in(jax.random.key(self._seed), 1)
        said, trained = time.monotonic(), False
        try:
            for chunk in training.train(algo, state, data, key, batch_size=sizes, num_epochs=last):
                state, trained = chunk.state, True
                if self.verbose and (time.monotonic() - said > SECONDS or chunk.step == last * steps):
                    said = time.monotonic()
                    nats = chunk.metrics["label/loss"][-1]
                    text = f"classifier: step {chunk.step} of {last * steps}, loss {nats:.4g}"
                    print(text, file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            if not trained:
                raise
            warnings.warn(
                f"Interrupted: this is what was learnt in {int(state.step)} of {last * steps} steps.", stacklevel=4
            )
        self.tuned_ = jax.device_get(state)

    def _check_weight(self, values: np.ndarray) -> str | None:
        """The name of the autoencoder's own loss; None where it is left out."""
        if not self.autoencoder_weight:
            return None
        given = {name: value for name, value in self._model().items() if name != "pretrain_epochs"}
        sizes = given.pop("latent_dim"), given.pop("likelihood", None)
        made = recipe.of(self.method, values, None, "dense", *sizes, given)
        model = made.model()
        algo, rows = made.algorithm(model), Batch(values[:2])
        state = jax.eval_shape(lambda key: algo.init(nets.init_params(model, key, rows.x)), jax.random.key(0))
        losses = [
            name for name in training.metric_names(algo, state, rows, jax.random.key(0)) if name.endswith("/loss")
        ]
        if len(losses) > 1 or algo.refreshes:
            raise InputError(
                f"{self.method} has the losses {', '.join(losses)}, or targets of its own; autoencoder_weight is for a"
                " method of one loss. Use autoencoder_weight=0."
            )
        return losses[0]

    def _check(self) -> None:
        super()._check()
        check_count(finetune_epochs=self.finetune_epochs)
        check_positive(finetune_lr=self.finetune_lr)
        check_non_negative(autoencoder_weight=self.autoencoder_weight)


def _classes(y: np.ndarray) -> np.ndarray:
    """Sorted; without -1, where that stands for an unknown label."""
    found = np.unique(y)
    others = found[found != UNLABELLED] if found.dtype.kind in "if" else found
    return found if len(others) == 1 else others


def _algorithm(fitted: Fitted, lr: float, watched: str | None, weight: float) -> Algorithm:
    own = None if watched is None else (fitted.algorithm, watched, weight)
    return _made(fitted.model, lr, own)


@lru_cache(maxsize=32)  # an algorithm is a static argument of the compiled loop: the same one is not traced again
def _made(model: Any, lr: float, own: tuple[Algorithm, str, float] | None) -> Algorithm:
    loss = partial(classifier_loss, model=model) if own is None else partial(regularised_loss, model=model, own=own)
    return play({"label": Player(loss, (*model.groups, "classifier"), optax.adam(lr))}, [["label"]])


def regularised_loss(
    params: Any, batch: SemiBatch, key: jax.Array, *, model: Any, own: tuple[Algorithm, str, float]
) -> tuple[jax.Array, Any]:
    """The cross-entropy of labelled rows, plus a weight times the autoencoder's own loss of all rows, in nats per row.

    Args:
      params: those of the autoencoder, and `classifier`.
      batch: `SemiBatch(labelled, all)`.
      key: consumed by the autoencoder's loss.
      model: static.
      own: the autoencoder's algorithm, the name of its loss, and the weight; static. Schedules have their last value.
    """
    algo, name, weight = own
    nats, metrics = classifier_loss(params, batch.labelled, key, model=model)
    state = TrainState(jnp.int32(0), {group: params[group] for group in params if group != "classifier"}, {})
    beside = algo.evaluate(state, batch.unlabelled, key)[name]
    return nats + weight * beside, {**metrics, "class_nats": nats, "autoencoder": beside}
