"""The deep feature consistent VAE: what a reconstruction misses is measured in the layers of a classifier.

Hou, Shen, Sun & Qiu, "Deep feature consistent variational autoencoder", WACV 2017 (arXiv:1610.00291). The paper takes
VGG-19, trained on other images. Here the classifier is trained on the labels of the set itself, before the VAE, and
then stays as it is: no weights of anybody else are needed.
"""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from aejax import likelihoods, training
from aejax.algorithm import Algorithm, Metrics, Params, Player, play
from aejax.checks import InputError, check_count
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, Tx, check_data, factory, optimisers
from aejax.methods.cvae import with_labels
from aejax.methods.gan import refuse_densities
from aejax.methods.vae import VAE
from aejax.nets import MLP, ConvEncoder, check_labels, shaped
from aejax.posteriors import refuse_uniform, sample_and_kl
from aejax.precision import sum_event, widen

__all__ = ["DFCVAE", "classifier_loss", "dfc_vae", "dfc_vae_loss"]

_RATE, _BATCH = 1e-3, 128  # of the classifier, under Adam


class DFCVAE(VAE):
    """A VAE and a classifier, in whose hidden layers images are compared.

    Attributes:
      num_classes: K; labels are integers from 0 to below it.
      classifier: a Linen module with a method `layers`, `[B, ...] -> [hidden, ..., logits [B, K]]`; of `dense` and
        `conv` by default with the hidden layers of the encoder.
    """

    num_classes: int = 10
    classifier: Any = None

    networks: ClassVar[tuple[str, ...]] = (*VAE.networks, "classifier")
    learns_labels: ClassVar[bool] = True

    @classmethod
    def completed(cls, model: Any) -> Any:
        """With a classifier like the encoder."""
        net, k = model.encoder, model.num_classes
        check_count(num_classes=k)
        if model.classifier is not None:
            return model
        if isinstance(net, ConvEncoder):
            return model.clone(classifier=net.clone(code_dim=k))
        if len(net.features) == 1:
            raise InputError("Images are compared in hidden layers, and the encoder has none: give hidden_dims.")
        return model.clone(classifier=MLP((*net.features[:-1], k), net.activation))

    def __call__(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        self.layers(x)
        return super().__call__(x, *condition)

    def layers(self, x: jax.Array) -> list[jax.Array]:
        """The hidden layers of the classifier, and last its logits."""
        found = self.classifier.layers(x)
        if len(found) < 2:
            raise InputError("Images are compared in hidden layers, and the classifier has none: MLP((256, classes)).")
        shaped("classifier", found[-1], (len(x), self.num_classes))
        return found

    def classify(self, x: jax.Array) -> jax.Array:
        """Logits of the classes: `[B, ...] -> [B, K]`."""
        return self.layers(x)[-1]


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate of the VAE."""
    beta: NonNegative = 1.0
    """Weight of the KL, the paper's alpha."""
    perception: NonNegative = 100.0
    """Weight of the differences of layers, the paper's beta."""


@partial(jax.jit, static_argnames=("model",))
def classifier_loss(params: Params, batch: Batch, key: jax.Array, *, model: DFCVAE) -> tuple[jax.Array, Metrics]:
    """The cross-entropy of the classifier, in nats per example, and `error`, the share that it gets wrong.

    Args:
      params: `{"encoder", "decoder", "classifier"}`.
      batch: `x` `[B, ...]`, `y` `[B]` integers.
      key: ignored.
      model: static.
    """
    logits = widen(model.bind({"params": params}).classify(batch.x))
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch.y).mean()
    return loss, {"error": jnp.mean(logits.argmax(axis=1) != batch.y, dtype=logits.dtype)}


@partial(jax.jit, static_argnames=("model",))
def dfc_vae_loss(
    params: Params,
    batch: Batch,
    key: jax.Array,
    *,
    model: DFCVAE,
    beta: float | jax.Array = 1.0,
    perception: float | jax.Array = 100.0,
) -> tuple[jax.Array, Metrics]:
    """`beta` times the KL in nats per example, plus `perception` times what the layers of the classifier tell apart.

    Args:
      params: `{"encoder", "decoder", "classifier"}`.
      batch: `x` `[B, ...]`; its labels are not looked at.
      key: consumed.
      model: static.
      beta: weight of the KL.
      perception: weight of `feature_gap`. Layers have no scale of their own, so it depends on the classifier.

    Returns:
      The mean over the batch; `kl_nats`; `feature_gap`, the sum over hidden layers of half the mean squared difference
      of a unit between an example and its reconstruction; and `sse`, of pixels, which nothing lowers as such.

    Reference: the paper's total loss, with its sum over layers of `sum (a - b)^2 / (2 C W H)`; it has alpha 1 and beta
    0.5 for layers of VGG-19.
    """
    dfc, x = model.bind({"params": params}), batch.x
    z, kl = sample_and_kl(dfc.encode(x), key, dfc)
    x_hat = dfc.generate(z)
    pairs = zip(dfc.layers(x)[:-1], dfc.layers(x_hat)[:-1], strict=True)
    gaps = [sum_event(jnp.square(widen(a) - widen(b))) / (2 * a[0].size) for a, b in pairs]
    gap, kl = sum(gaps, start=jnp.zeros(())).mean(), kl.mean()
    metrics = {"kl_nats": kl, "feature_gap": gap, "sse": likelihoods.sse(x_hat, x).mean()}
    return beta * kl + perception * gap, metrics


@factory(learns_prior=True)
def dfc_vae(
    model: DFCVAE,
    hparams: HParams = HParams(),
    tx: Tx = optax.adam,
    *,
    classifier_epochs: int = 30,
    axis_name: str | None = None,
) -> Algorithm:
    """One player; `start` trains the classifier on all of the data and their labels, and nothing moves it afterwards.

    Departures: the classifier, and that all of its hidden layers are compared; networks and rates are ours.

    Args:
      model: the module.
      hparams: knobs; each may be traced, or a schedule; or each by its own name.
      tx: learning rate -> optimiser of the VAE, or a dict of such; the classifier's is Adam at 1e-3, batches of 128.
      classifier_epochs: passes of the classifier over the data.
      axis_name: as in `play`.

    Returns:
      `elbo` moves `model.groups`.

    Raises:
      InputError: a likelihood with more to learn than a mean, the uniform prior, or from `check` labels that are
        missing or none of the classes.
    """
    refuse_densities(model)
    refuse_uniform(model)
    check_count(classifier_epochs=classifier_epochs)
    loss, knobs = partial(dfc_vae_loss, model=model), {"beta": hparams.beta, "perception": hparams.perception}
    elbo = Player(loss, model.groups, optimisers(tx, {"elbo": hparams.lr})["elbo"], knobs=knobs)
    start = partial(with_classifier, model, classifier_epochs)
    return play({"elbo": elbo}, [["elbo"]], axis_name=axis_name, start=start, check=partial(check, model))


def with_classifier(model: DFCVAE, num_epochs: int, params: Params, data: Batch, key: jax.Array) -> Params:
    """Parameters with a classifier that is trained on the data."""
    learn = Player(partial(classifier_loss, model=model), ("classifier",), optax.adam(_RATE))
    algo = play({"classifier": learn}, [["classifier"]])
    size = min(_BATCH, len(data.x))
    state, _ = training.fit(algo, algo.init(params), data, key, batch_size=size, num_epochs=num_epochs)
    return state.params


def check(model: DFCVAE, data: Batch) -> None:
    """Refuses what the VAE cannot be trained on, and labels that the classifier cannot learn."""
    check_data(model, data)
    if data.y is None:
        raise InputError("The classifier needs labels, and none came: give Batch(x, y).")
    check_labels(model, data.y)


TERMS = {
    "feature_gap": Term("none", "half the mean squared difference of a classifier's units, summed over its layers")
}
METHOD = Method(
    DFCVAE, HParams, dfc_vae, "variational, consistent in a classifier's layers (DFC-VAE)", "Hou et al. 2017",
    knobs={"perception": 3000.0}, terms=TERMS, batch=with_labels,  # 64 digits teach a classifier little
)  # fmt: skip
