"""The semi-supervised variational autoencoder M2.

Kingma, Rezende, Mohamed & Welling, "Semi-supervised learning with deep generative models", NIPS 2014. The class y is a
latent variable beside z, seen for few examples: p(x, y, z) = p(y) p(z) p(x|y, z). For the others the bound is summed
over all classes, weighted by a classifier q(y|x), so that it learns from them too.
"""

import math
from functools import partial
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aejax import likelihoods
from aejax.algorithm import Algorithm, Metrics, Params, Player, play
from aejax.checks import InputError, check_count
from aejax.data import Batch, check_examples
from aejax.factory import LATER, Method, NonNegative, Positive, Term, Tx, check_data, factory, optimisers
from aejax.methods.cvae import CVAE
from aejax.methods.vae import terms
from aejax.nets import MLP, Autoencoder, ConvEncoder, shaped
from aejax.precision import widen

__all__ = ["M2", "SemiBatch", "m2", "m2_loss"]


class SemiBatch(NamedTuple):
    """Two streams: `train(..., batch_size=SemiBatch(16, 128))`."""

    labelled: Any  # Batch(x, y)
    unlabelled: Any  # Batch(x)


class M2(CVAE):
    """A CVAE and a classifier.

    Attributes:
      num_classes: labels are integers from 0 to below it.
      classifier: any Linen module, `[B, ...] -> [B, num_classes]` logits of q(y|x).
    """

    num_classes: int = 10
    classifier: Any = None
    networks: ClassVar[tuple[str, ...]] = (*CVAE.networks, "classifier")

    @classmethod
    def completed(cls, model: Any) -> Any:
        """With a classifier that has the layers of the encoder."""
        net, k = model.encoder, model.num_classes
        check_count(num_classes=k)
        own = net.clone(code_dim=k) if isinstance(net, ConvEncoder) else MLP((*net.features[:-1], k), net.activation)
        return super().completed(model).clone(classifier=model.classifier or own)

    def __call__(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        self.classify(x)
        return super().__call__(x, *condition)

    def classify(self, x: jax.Array) -> jax.Array:
        """Logits of q(y|x): `[B, ...] -> [B, num_classes]`."""
        return shaped("classifier", self.classifier(x), (len(x), self.num_classes))

    @property
    def groups(self) -> tuple[str, ...]:
        return (*super().groups, "classifier")


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate."""
    alpha: NonNegative = 10.0
    """Weight of the classifier's cross-entropy on labelled examples, in nats."""
    labelled: Annotated[NonNegative, LATER] = 1.0
    """Weight of the bound of labelled examples."""


@partial(jax.jit, static_argnames=("model",))
def m2_loss(
    params: Params,
    batch: SemiBatch,
    key: jax.Array,
    *,
    model: M2,
    alpha: float | jax.Array = 10.0,
    labelled: float | jax.Array = 1.0,
) -> tuple[jax.Array, Metrics]:
    """The negative bounds of both streams, and the weighted cross-entropy of the classifier, in nats per example.

    With `L(x, y) = -log p(x|y, z) - log p(y) + KL(q(z|x, y) | p(z))` for one draw of z, and p(y) uniform, it is

        labelled mean L(x, y) + mean (sum_y q(y|x) L(x, y) - H(q(y|x))) + alpha mean (-log q(y|x)),

    the first and the third over labelled, the second over unlabelled examples. The paper (equations 6 to 9) sums the
    bounds over N labelled and M unlabelled examples, and its alpha, the weight of that third mean, is 0.1 (N + M) in
    the authors' code. That is M times this loss with `labelled` N / M, and with `alpha` 0.1 (N + M) / M; by default
    the labelled bound counts as much as the other.

    Args:
      params, key, model: as in `vae_loss`, `params["classifier"]` beside.
      batch: `SemiBatch(labelled, unlabelled)`.
      alpha: weight of the classifier's cross-entropy.
      labelled: weight of the bound of labelled examples.

    Returns:
      The loss, and the means of its three terms, and `error`, the share of labelled examples that are put wrong.
    """
    m2, (few, many) = model.bind({"params": params}), batch
    few_key, many_key = jax.random.split(key)
    few_nats = _bound(model, params, few, few_key).mean()

    log_q = jax.nn.log_softmax(widen(m2.classify(many.x)))
    classes = jnp.arange(model.num_classes, dtype=jnp.int32)
    each = lambda y, key: _bound(model, params, Batch(many.x, jnp.full(len(many.x), y)), key)
    of_class = jax.vmap(each)(classes, jax.random.split(many_key, model.num_classes)).T
    many_nats = jnp.sum(jnp.exp(log_q) * (of_class + log_q), axis=1).mean()

    logits = widen(m2.classify(few.x))
    class_nats = optax.softmax_cross_entropy_with_integer_labels(logits, few.y).mean()
    error = jnp.mean(logits.argmax(axis=1) != few.y, dtype=logits.dtype)
    bounds = {"labelled_bound_nats": few_nats, "unlabelled_bound_nats": many_nats}
    return labelled * few_nats + many_nats + alpha * class_nats, bounds | {"class_nats": class_nats, "error": error}


def _bound(model: M2, params: Params, batch: Batch, key: jax.Array) -> jax.Array:
    """L(x, y), `[B]`."""
    each = terms(model, params, batch, key)
    return each.recon + each.kl + math.log(model.num_classes)


def check_streams(model: Autoencoder, data: SemiBatch) -> None:
    """`factory.check_data` of both streams; the second needs no labels."""
    if not (isinstance(data, SemiBatch) and all(hasattr(part, "x") for part in data)):
        raise InputError(f"The data are a {type(data).__name__}; wanted is m2.SemiBatch(Batch(x, y), Batch(x)).")
    check_data(model, data.labelled)
    if (few := data.labelled.x.shape[1:]) != (many := data.unlabelled.x.shape[1:]):
        raise InputError(f"Labelled examples have the shape {few}, others {many}; they have to be alike.")
    check_examples(data, model.likelihood)


@factory(learns_prior=True, takes_labels=True)
def m2(model: M2, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None) -> Algorithm:
    """The one-player game on two streams: `elbo` moves `encoder`, `decoder` and `classifier`; arguments as of `vae`."""
    if likelihoods.get(model.likelihood).coupled:
        raise InputError("M2 decodes each example as every class; fix the variance: Gaussian(variance).")
    loss = partial(m2_loss, model=model)
    elbo = Player(
        loss,
        model.groups,
        optimisers(tx, {"elbo": hparams.lr})["elbo"],
        knobs={"alpha": hparams.alpha, "labelled": hparams.labelled},
    )
    return play({"elbo": elbo}, [["elbo"]], axis_name=axis_name, check=partial(check_streams, model))


def split(x: Any, y: Any) -> SemiBatch:
    """Two streams of one set, where -1 stands for a label that is not known: what has one, and all without."""
    y = np.asarray(y)
    known = y >= 0 if y.ndim == 1 and y.dtype.kind in "iu" else np.ones(len(y), bool)  # others are refused by `check`
    if not known.any():
        raise InputError(f"None of the {len(y)} labels is known, all are below 0; some from 0 up are needed.")
    return SemiBatch(Batch(x[known], y[known]), Batch(x))


TERMS = {
    "labelled_bound_nats": Term("nats per example", "negative bound on log p(x, y), labelled examples"),
    "unlabelled_bound_nats": Term("nats per example", "negative bound on log p(x), examples without labels"),
    "test_error": Term("between 0 and 1", "share of test images that the classifier gets wrong"),
    "class_nats": Term("nats per example", "cross-entropy of the classifier, labelled examples"),
}
METHOD = Method(
    M2, HParams, m2, "semi-supervised variational (M2)", "Kingma et al. 2014", terms=TERMS,
    batch=split, batch_size=lambda size: SemiBatch(size // 2, size),
)  # fmt: skip
