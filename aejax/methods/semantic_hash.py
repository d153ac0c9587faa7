"""Semantic hashing: an autoencoder whose logistic code is driven to 0 and 1 by noise, and cut into bits.

Salakhutdinov & Hinton, "Semantic hashing", International Journal of Approximate Reasoning, 2009 (SIGIR workshop 2007).
Gaussian noise on the inputs of the code units leaves a unit a say only where it is far on or off. `embed` returns these
inputs, of which `aejax.hamming.cut` makes bits at the medians of the training data; the decoder begins with the
logistic function. Where this departs from the paper: nothing is pretrained layer by layer, the noise is new at every
step, and words are told by a softmax of which the number of words is given, in place of their constrained Poisson.

What is decoded may be another example than the one that is encoded, such as the mean of its neighbours, as Chaidaroon,
Ebesu & Fang, "Deep semantic text hashing with weak supervision", SIGIR 2018, decode documents and their neighbours.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from aejax import corruption, likelihoods
from aejax.algorithm import Algorithm, Metrics, Player, play
from aejax.checks import InputError
from aejax.data import Batch, check_examples
from aejax.factory import Method, NonNegative, Positive, Probability, Tx, check_data, factory, optimisers
from aejax.likelihoods import Multinomial
from aejax.methods.mult_dae import check_dropout, unit
from aejax.nets import Autoencoder
from aejax.precision import sum_event

__all__ = ["SemanticHash", "semantic_hash", "semantic_hash_loss"]


class SemanticHash(Autoencoder):
    """An autoencoder whose code is real and goes through the logistic function on its way to the decoder.

    With a likelihood of events, `multinomial` or `likelihoods.Weighted()`, the encoder sees x at length 1, and
    `generate` returns shares; `reconstruct` returns expected counts.
    """

    def encode(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """The inputs of the code units: `[B, ...] -> [B, Z]`."""
        return self.encode_seen(self.seen(x))

    def seen(self, x: jax.Array) -> jax.Array:
        """What the encoder network sees of x: events at length 1, others as they are: `[B, ...] -> [B, ...]`."""
        return unit(x) if self.is_of_events else x

    def encode_seen(self, h: jax.Array) -> jax.Array:
        """What the encoder makes of that, which a loss may have disturbed."""
        return self.encoder(h)

    def decode(self, z: jax.Array, *condition: jax.Array) -> jax.Array:
        """What the likelihood takes, of the logistic function of z: `[B, Z] -> [B, ...]`."""
        return super().decode(nn.sigmoid(z))

    @property
    def is_of_events(self) -> bool:
        """Whether the likelihood is of events whose number is given."""
        return isinstance(likelihoods.get(self.likelihood), Multinomial)

    def library(self, x: jax.Array) -> jax.Array:
        """How many events examples have, of an empty one 1, and of what is no event 1: `[B, ...] -> [B]`."""
        total = self._total(x)
        return jnp.where(total > 0, total, 1.0)

    def generate(self, z: jax.Array, *library: jax.Array) -> jax.Array:
        """The mean of the data that z stands for; of events shares, or given how many there are expected counts."""
        mean = super().generate(z)
        return mean * _rows(library[0], mean) if library else mean

    def reconstruct(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """x_hat, of events the expected counts, of as many as x has: `[B, ...] -> [B, ...]`."""
        return self.generate(self.embed(x), self._total(x))

    def nll_and_mean(self, z: jax.Array, x: jax.Array, *condition: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`nll`, and the mean, of as many events as x has: `[B], [B, ...]`."""
        likelihood, output = likelihoods.get(self.likelihood), self.decode(z)
        return likelihood.nll(output, x), likelihood.mean(output) * _rows(self._total(x), x)

    def _total(self, x: jax.Array) -> jax.Array:
        return sum_event(x) if self.is_of_events else jnp.ones(x.shape[0])


def _rows(v: jax.Array, x: jax.Array) -> jax.Array:
    return v.reshape(-1, *[1] * (x.ndim - 1))


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate."""
    noise: NonNegative = 1.0
    """Deviation of the noise on the inputs of the code units."""
    dropout: Probability = 0.2
    """Share of the input that is lost, below 1."""


def decoded(batch: Batch) -> jax.Array:
    """What has to be decoded: y where that is an example, else x itself."""
    return batch.x if batch.y is None else batch.y


@partial(jax.jit, static_argnames=("model",))
def semantic_hash_loss(
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: SemanticHash,
    noise: float | jax.Array = 1.0,
    dropout: float | jax.Array = 0.2,
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood given the code with noise on the inputs of its units, in nats per example.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`, which is encoded, and `y`: None, or of the shape of x, what is decoded in its place.
      key: consumed.
      model: static.
      noise: deviation of the Gaussian noise.
      dropout: probability that a component of the input is lost; the others are `1 / (1 - dropout)` times as large.

    Returns:
      The mean over the batch, and `recon_nats` and `sse` (of the mean of the data), likewise means.
    """
    bound, target = model.bind({"params": params}), decoded(batch)
    drop_key, noise_key = jax.random.split(key)
    seen = corruption.masking(drop_key, bound.seen(batch.x), dropout) / (1 - dropout)
    z = corruption.gaussian(noise_key, bound.encode_seen(seen), noise)
    nll, x_hat = bound.nll_and_mean(z, target)
    recon = nll.mean()
    return recon, {"recon_nats": recon, "sse": likelihoods.sse(x_hat, target).mean()}


def check_targets(model: Any, data: Any) -> None:
    """Refuses data that the model cannot be trained on, and labels where examples are wanted."""
    if (target := getattr(data, "y", None)) is not None and np.shape(target) != np.shape(data.x):
        raise InputError(
            f"x has shape {np.shape(data.x)} and y {np.shape(target)}; here y is what is decoded in the place of x, and"
            " of its shape. Labels are not used: Batch(x)."
        )
    check_data(model, data)
    if target is not None:
        check_examples(target, model.likelihood)


@factory
def semantic_hash(
    model: SemanticHash, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None
) -> Algorithm:
    """The one-player game of `semantic_hash_loss`.

    Returns:
      Player `recon` moves the encoder and the decoder; one phase.

    Raises:
      InputError: another model, a knob out of its range, or an optimiser as `tx`.
    """
    if not isinstance(model, SemanticHash):
        raise InputError(f"A SemanticHash is needed, whose decoder takes logistic units; got a {type(model).__name__}.")
    check_dropout(hparams.dropout)
    recon = Player(
        partial(semantic_hash_loss, model=model),
        model.groups,
        optimisers(tx, {"recon": hparams.lr})["recon"],
        likelihoods.get(model.likelihood).coupled,
        {"noise": hparams.noise, "dropout": hparams.dropout},
    )
    return play({"recon": recon}, [["recon"]], axis_name=axis_name, check=partial(check_targets, model))


METHOD = Method(
    SemanticHash,
    HParams,
    semantic_hash,
    title="semantic hashing, a logistic code with noise",
    paper="Salakhutdinov & Hinton 2009",
)
