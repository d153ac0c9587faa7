"""The FactorVAE: a discriminator measures the total correlation of the codes, and the VAE lowers it.

Kim & Mnih, "Disentangling by factorising", ICML 2018, algorithm 2. The discriminator tells codes from codes whose
dimensions come from different examples; its log-odds are an estimate of the log-ratio of q(z) and the product of its
marginals, the mean of which is the total correlation.
"""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from aejax import divergences, likelihoods, parallel
from aejax.algorithm import Algorithm, Metrics, Params, Player, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, Tx, check_data, factory, optimisers
from aejax.methods.vae import VAE, terms
from aejax.nets import MLP, inputs, shaped
from aejax.precision import widen

__all__ = ["FactorVAE", "factor_vae", "factor_vae_disc_loss", "factor_vae_loss"]


class FactorVAE(VAE):
    """A VAE and a discriminator of codes.

    Attributes:
      discriminator: any Linen module, `[B, Z] -> [B, 1]` log-odds of being a draw from q(z) and not from the product of
        its marginals; by default six layers of 1,000 units as in the paper (appendix A), 5 million weights.
    """

    discriminator: nn.Module = MLP((*[1000] * 6, 1), nn.leaky_relu)

    networks: ClassVar[tuple[str, ...]] = (*VAE.networks, "discriminator")

    def __call__(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        self.discriminate(self.embed(x, *condition))
        return super().__call__(x, *condition)

    def discriminate(self, z: jax.Array) -> jax.Array:
        """Log-odds of being a draw from q(z): `[B, Z] -> [B, 1]`."""
        return shaped("discriminator", self.discriminator(z), (len(z), 1))


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate of the VAE."""
    disc_lr: Positive = 1e-4
    """Learning rate of the discriminator."""
    gamma: NonNegative = 10.0
    """Weight of the total correlation, beside the whole KL of the bound."""


def permute_dims(key: jax.Array, z: jax.Array) -> jax.Array:
    """Codes whose dimensions come from different examples, each dimension permuted by itself.

    Args:
      key: consumed.
      z: `[B, Z]`.

    Returns:
      `[B, Z]`: every column has the numbers that it had, in another order.

    Reference: algorithm 1.
    """
    return jax.random.permutation(key, z, axis=0, independent=True)


@partial(jax.jit, static_argnames=("model",))
def factor_vae_loss(
    params: Params, batch: Batch, key: jax.Array, *, model: FactorVAE, gamma: float | jax.Array = 10.0
) -> tuple[jax.Array, Metrics]:
    """The negative bound plus `gamma` times the discriminator's mean log-odds, in nats per example.

    Args:
      params: `{"encoder": ..., "decoder": ..., "discriminator": ...}`, and `prior` where that is learned.
      batch: `x` `[B, ...]`, and `y` where the model is conditioned.
      key: consumed.
      model: static.
      gamma: weight of the estimate; at zero this is `vae_loss`.

    Returns:
      The mean over the batch, `disc_tc_nats` (the mean log-odds, unweighted), and the terms of `vae_loss`.

    Reference: equation 2, with the estimate of equation 3.
    """
    each = terms(model, params, batch, key)
    recon, kl = each.recon.mean(), each.kl.mean()
    tc = model.bind({"params": params}).discriminate(each.z).mean()
    metrics = {"recon_nats": recon, "kl_nats": kl, "bound_nats": recon + kl, "sse": each.sse.mean()}
    return recon + kl + gamma * tc, metrics | {"disc_tc_nats": tc}


@partial(jax.jit, static_argnames=("model", "axis_name"))
def factor_vae_disc_loss(
    params: Params, batch: Batch, key: jax.Array, *, model: FactorVAE, axis_name: str | None = None
) -> tuple[jax.Array, Metrics]:
    """The discriminator's two cross-entropies, of codes and of permuted codes of other examples, in nats.

    The paper draws a second batch for the codes that are permuted; here that is every other row of the batch, and the
    codes are those of the rest. The paper has half of this loss (its mean over 2 B points, not over B pairs).

    Args:
      params: as in `factor_vae_loss`.
      batch: `x` `[B, ...]`, B at least 2; of an odd number of rows the last is left out.
      key: consumed.
      model: static.
      axis_name: static; the mapped axis, if any, over whose shards codes are permuted.

    Returns:
      The mean over pairs, 2 log 2 where it cannot tell; `accuracy`, the share of points that it puts right, a logit of
      zero counting one half; `permuted_nats`, the cross-entropy of permuted codes alone.

    Raises:
      InputError: a batch of a single example.
    """
    half = len(batch.x) // 2
    if not half:
        raise InputError("Codes of one example cannot be told from those of another in a batch of 1; give at least 2.")
    draw_key, permute_key = jax.random.split(key)
    factor = model.bind({"params": params})
    z = factor.encode(*inputs(model, batch)).sample(draw_key)
    codes, others = z[: 2 * half : 2], parallel.gather(z[1 : 2 * half : 2], axis_name)
    real = factor.discriminate(codes)
    fake = factor.discriminate(permute_dims(permute_key, others)[:half])
    accuracy = 0.5 + 0.25 * (jnp.sign(real) - jnp.sign(fake)).mean()
    loss, permuted = divergences.discriminator_loss(real, fake).mean(), jax.nn.softplus(widen(fake)).mean()
    return loss, {"accuracy": accuracy, "permuted_nats": permuted}


@factory(learns_prior=True, takes_labels=True)
def factor_vae(
    model: FactorVAE, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None
) -> Algorithm:
    """Two players in two phases, in the order of algorithm 2; the second sees the encoder that the first has moved.

    Departure: the codes that the discriminator takes as real are drawn anew, from that encoder. In the paper they are
    those of the first phase. Its rates are 1e-4 for both, its decays for the discriminator 0.5 and 0.9:
    `tx={"elbo": optax.adam, "disc": partial(optax.adam, b1=0.5, b2=0.9)}`.

    Returns:
      `elbo` moves `model.groups`; then `disc` moves `discriminator`.
    """
    txs = optimisers(tx, {"elbo": hparams.lr, "disc": hparams.disc_lr})
    loss = partial(factor_vae_loss, model=model)
    disc_loss = partial(factor_vae_disc_loss, model=model, axis_name=axis_name)
    coupled = likelihoods.get(model.likelihood).coupled
    players = {
        "elbo": Player(loss, model.groups, txs["elbo"], coupled, {"gamma": hparams.gamma}),
        "disc": Player(disc_loss, ("discriminator",), txs["disc"], coupled=True),
    }
    return play(players, [["elbo"], ["disc"]], axis_name=axis_name, check=partial(check_data, model))


TERMS = {
    "disc_tc_nats": Term("nats per example", "FactorVAE: mean log-odds of its discriminator, for total correlation"),
    "permuted_nats": Term("nats per code", "FactorVAE: cross-entropy of its discriminator, permuted codes", True),
}
_FEW: dict[str, Any] = {"discriminator": MLP((32, 32, 1), nn.leaky_relu)}
METHOD = Method(
    FactorVAE, HParams, factor_vae, "variational, total correlation by a discriminator", "Kim & Mnih 2018",
    fields=_FEW, terms=TERMS,
)  # fmt: skip
