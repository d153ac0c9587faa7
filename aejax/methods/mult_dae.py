"""Mult-DAE: a denoising autoencoder of sets and counts, with a multinomial likelihood.

Liang, Krishnan, Hoffman & Jebara, "Variational autoencoders for collaborative filtering", WWW 2018: the denoising
autoencoder that stands there beside the variational one, which is `aejax.methods.mult_vae`. An example is a user, with
1 at each item of theirs and 0 elsewhere, or with counts.
"""

from functools import partial
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from aejax import corruption, likelihoods
from aejax.algorithm import Metrics
from aejax.checks import InputError, ends_of
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Probability, one_player
from aejax.likelihoods import Likelihood, Multinomial
from aejax.methods.ae import AE
from aejax.methods.ae_l2 import squared_weights
from aejax.nets import Autoencoder
from aejax.precision import sum_event, widen

__all__ = ["MultDAE", "mult_dae", "mult_dae_loss"]

_TINY = 1e-12  # of a squared length, as in `tf.nn.l2_normalize`: an example without events stays zero


class OfEvents(Autoencoder):
    """Abstract base: what the two models of events have in common, before the encoder and behind the decoder.

    The encoder sees x at length 1. `encode_unit` is the encoder on such a row, which a loss may have disturbed.
    """

    likelihood: str | Likelihood = "multinomial"

    def setup(self) -> None:
        super().setup()
        check_multinomial(self)

    def encode_unit(self, h: jax.Array) -> Any:
        """What the encoder makes of rows that are of length 1 already: as `encode`."""
        return super().encode(h)

    def encode(self, x: jax.Array, *condition: jax.Array) -> Any:
        """What the encoder makes of x at length 1."""
        return self.encode_unit(unit(x))

    def library(self, x: jax.Array) -> jax.Array:
        """How many events examples have, of an empty one 1: `[B, ...] -> [B]`."""
        total = sum_event(x)
        return jnp.where(total > 0, total, 1.0)

    def generate(self, z: jax.Array, *library: jax.Array) -> jax.Array:
        """The probabilities of the kinds of event, or given how many there are, `[B]`, expected counts."""
        shares = super().generate(z)
        return shares * library[0].reshape(-1, *[1] * (shares.ndim - 1)) if library else shares

    def reconstruct(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """The expected counts, of as many events as x has: `[B, ...] -> [B, ...]`."""
        return _of_total(self.generate(self.embed(x)), x)

    def nll_and_mean(self, z: jax.Array, x: jax.Array, *condition: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`nll`, and the expected counts of as many events as x has: `[B], [B, ...]`."""
        likelihood, output = likelihoods.get(self.likelihood), self.decode(z)
        return likelihood.nll(output, x), _of_total(likelihood.mean(output), x)


def _of_total(shares: jax.Array, x: jax.Array) -> jax.Array:
    return shares * sum_event(x).reshape(-1, *[1] * (x.ndim - 1))


def unit(x: jax.Array) -> jax.Array:
    """Every example at Euclidean length 1; one of zeros stays so: `[B, ...] -> [B, ...]`.

    Example:
      >>> unit(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
      [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    x = widen(x)
    length_sq = sum_event(jnp.square(x)).reshape(-1, *[1] * (x.ndim - 1))
    return x * jax.lax.rsqrt(jnp.maximum(length_sq, _TINY))


def dropped(key: jax.Array, x: jax.Array, rate: float | jax.Array) -> jax.Array:
    """Dropout of the input: rows of length 1, a share of their components lost and the others as much larger.

    Args:
      key: consumed.
      x: `[B, ...]`.
      rate: the probability that a component is lost, below 1.

    Example:
      >>> float(dropped(jax.random.key(0), jnp.ones((1, 10_000)), 0.75).max())  # 1 / 100, times 4
      0.03999999910593033
    """
    return corruption.masking(key, unit(x), rate) / (1 - rate)


def check_multinomial(model: Any) -> None:
    """Refuses another likelihood."""
    if not isinstance(likelihoods.get(model.likelihood), Multinomial):
        raise InputError(f"The likelihood is {model.likelihood!r}; {type(model).__name__} takes multinomial alone.")


def check_dropout(rate: Any) -> None:
    """Refuses a dropout that would leave nothing."""
    for end in ends_of(rate):
        if not isinstance(end, jax.core.Tracer) and end >= 1:
            raise InputError(f"dropout is {end}; it has to be below 1, or nothing is left of the input.")


def check(model: Any, hparams: Any, **options: Any) -> None:
    """Refuses another model or likelihood, and a dropout that would leave nothing."""
    if not isinstance(model, OfEvents):
        raise InputError(f"A MultDAE or a MultVAE is needed, whose input is of length 1; got a {type(model).__name__}.")
    check_multinomial(model)
    check_dropout(hparams.dropout)


class MultDAE(OfEvents, AE):
    """An autoencoder of events; `dense` builds it as published, with one layer of tanh units.

    `generate` returns the probabilities of the kinds of event, `reconstruct` expected counts.
    """

    likelihood: str | Likelihood = "multinomial"

    @classmethod
    def dense(cls, data_dim: int, latent_dim: int, *, hidden_dims: tuple[int, ...] = (), **fields: Any) -> Self:
        """One layer of tanh units on vectors `[B, D]`; more with `hidden_dims`."""
        fields = {"activation": jnp.tanh, "code_activation": jnp.tanh} | fields
        return super().dense(data_dim, latent_dim, hidden_dims=hidden_dims, **fields)


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""
    dropout: Probability = 0.5
    """Share of the input that is lost, below 1."""
    weight_decay: NonNegative = 2e-5
    """Weight of the squared weights against the reconstruction in nats."""


@partial(jax.jit, static_argnames=("model",))
def mult_dae_loss(
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: MultDAE,
    dropout: float | jax.Array = 0.5,
    weight_decay: float | jax.Array = 2e-5,
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of all events given the code of some, plus `weight_decay` times all squared weights.

    Weights are the kernels of encoder and decoder; biases are free. The published code has the same sum, and the mean
    over users, so its `lam` is `weight_decay`; the published run has `lam = 0.01 / batch_size`, with batches of 500.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`, 1 for each event, or counts.
      key: consumed by the dropout.
      model: static.
      dropout: probability that a component of the input, at length 1, is lost; the others are `1 / (1 - dropout)`
        times as large.
      weight_decay: weight of the squared weights.

    Returns:
      The mean over the batch, and `recon_nats` and `sse` (of the expected counts), likewise means, and `weights_sq`.

    Reference: equations 2 and 9, without the latent variable, and the published code.
    """
    x, bound = batch.x, model.bind({"params": params})
    nll, x_hat = bound.nll_and_mean(bound.encode_unit(dropped(key, x, dropout)), x)
    recon, weights = nll.mean(), squared_weights(params, model=model)
    terms = {"recon_nats": recon, "sse": likelihoods.sse(x_hat, x).mean(), "weights_sq": weights}
    return recon + weight_decay * weights, terms


mult_dae = one_player("mult_dae", mult_dae_loss, MultDAE, HParams, check=check)

METHOD = Method(
    MultDAE,
    HParams,
    mult_dae,
    title="denoising, of events, multinomial (Mult-DAE)",
    paper="Liang et al. 2018",
)
