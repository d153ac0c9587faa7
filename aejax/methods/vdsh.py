"""VDSH, variational deep semantic hashing: a VAE of words with a linear softmax decoder, its code cut into bits.

Chaidaroon & Fang, "Variational deep semantic hashing for text documents", SIGIR 2017, the unsupervised model. A word is
drawn from a softmax that is linear in the code; the bits are `aejax.hamming.cut` of the posterior means at the medians
of the training data. Where this departs from the authors' code: the encoder sees x at length 1 and loses some of it,
in place of some of its last hidden layer, and log-variances go through no logistic function.

What is decoded may be another example than the one that is encoded, as in `aejax.methods.semantic_hash`.
"""

from functools import partial
from typing import Any, NamedTuple, Self

import flax.linen as nn
import jax
import optax

from aejax import likelihoods, posteriors
from aejax.algorithm import Algorithm, Metrics, Player, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Probability, Tx, factory, optimisers
from aejax.methods.mult_dae import check_dropout, check_multinomial, dropped
from aejax.methods.mult_vae import MultVAE
from aejax.methods.semantic_hash import check_targets, decoded
from aejax.nets import MLP

__all__ = ["VDSH", "vdsh", "vdsh_loss"]


class VDSH(MultVAE):
    """q(z|x) a Gaussian whose moments are networks of x at length 1, and words of the kinds `softmax(G z + b)`.

    `generate` returns the probabilities of the words, `reconstruct` expected counts. Words may be weighted, as by
    tf-idf, with the likelihood `likelihoods.Weighted()`.
    """

    @classmethod
    def dense(cls, data_dim: int, latent_dim: int, *, hidden_dims: tuple[int, ...] = (500, 500), **fields: Any) -> Self:
        """Layers of rectified units before the code, and none behind it; the authors' code has two of 500."""
        model = super().dense(data_dim, latent_dim, hidden_dims=hidden_dims, **{"activation": nn.relu} | fields)
        return model.clone(decoder=MLP((data_dim,), use_bias=model.decoder.use_bias))


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate."""
    beta: NonNegative = 1.0
    """Weight of the KL term, at its end if it rises."""
    dropout: Probability = 0.2
    """Share of the input that is lost, below 1."""


@partial(jax.jit, static_argnames=("model",))
def vdsh_loss(
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: VDSH,
    beta: float | jax.Array = 1.0,
    dropout: float | jax.Array = 0.2,
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of all words given a code drawn for some of them, and beta times the KL term, in nats.

    Args:
      params: `{"encoder": ..., "decoder": ...}`, and `prior` where that is learned.
      batch: `x` `[B, ...]`, which is encoded, and `y`: None, or of the shape of x, what is decoded in its place.
      key: consumed.
      model: static.
      beta: weight of the KL term.
      dropout: probability that a component of the input is lost; the others are `1 / (1 - dropout)` times as large.

    Returns:
      `mean(recon + beta * kl)` over the batch, and the means `recon_nats`, `kl_nats` (unweighted), `bound_nats`
      (`recon_nats + kl_nats`, at this dropout) and `sse` (of the expected counts).
    """
    bound, target = model.bind({"params": params}), decoded(batch)
    drop_key, z_key = jax.random.split(key)
    posterior = bound.encode_unit(dropped(drop_key, batch.x, dropout))
    z, kl_each = posteriors.sample_and_kl(posterior, z_key, bound)
    nll, x_hat = bound.nll_and_mean(z, target)
    recon, kl = nll.mean(), kl_each.mean()
    sse = likelihoods.sse(x_hat, target).mean()
    return recon + beta * kl, {"recon_nats": recon, "kl_nats": kl, "bound_nats": recon + kl, "sse": sse}


@factory(learns_prior=True)
def vdsh(model: VDSH, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None) -> Algorithm:
    """The one-player game of `vdsh_loss`.

    Returns:
      Player `elbo` moves the encoder, the decoder, and a learned prior; one phase.

    Raises:
      InputError: another model or likelihood, a knob out of its range, or an optimiser as `tx`.
    """
    if not isinstance(model, VDSH):
        raise InputError(f"A VDSH is needed, whose decoder is linear; got a {type(model).__name__}.")
    check_multinomial(model)
    check_dropout(hparams.dropout)
    elbo = Player(
        partial(vdsh_loss, model=model),
        model.groups,
        optimisers(tx, {"elbo": hparams.lr})["elbo"],
        likelihoods.get(model.likelihood).coupled,
        {"beta": hparams.beta, "dropout": hparams.dropout},
    )
    return play({"elbo": elbo}, [["elbo"]], axis_name=axis_name, check=partial(check_targets, model))


METHOD = Method(
    VDSH,
    HParams,
    vdsh,
    title="variational deep semantic hashing (VDSH)",
    paper="Chaidaroon & Fang 2017",
)
