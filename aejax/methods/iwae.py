"""The importance-weighted autoencoder: the VAE with a tighter bound, from k draws of each example.

Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", ICLR 2016 (L_k). Estimators of its gradient: Roeder,
Wu & Duvenaud, "Sticking the landing", NIPS 2017 (`stl`); Tucker, Lawson, Gu & Maddison, "Doubly reparameterized
gradient estimators for Monte Carlo objectives", ICLR 2019 (`dreg`). Mixtures of bounds: Rainforth et al., "Tighter
variational bounds are not necessarily better", ICML 2018. They found that the gradient of the encoder drowns in its
noise as k grows; averaging over groups of draws (MIWAE), for the encoder alone (PIWAE), or with the ELBO (CIWAE) helps.
The model is that of the VAE, with any likelihood, prior and posterior.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.scipy.special import logsumexp

from aejax import likelihoods
from aejax.algorithm import Algorithm, Metrics, Player, play
from aejax.checks import InputError, nearest
from aejax.data import Batch
from aejax.factory import Method, Positive, Probability, Term, Tx, check_data, factory, one_player, optimisers
from aejax.methods.vae import VAE, Terms, check_samples, draws
from aejax.nets import Autoencoder, inputs

__all__ = ["iwae", "iwae_loss", "piwae"]

ESTIMATORS = ("plain", "stl", "dreg")


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate."""
    tightness: Probability = 1.0
    """Weight of the importance-weighted bound against the ELBO of the same draws; below 1 it is CIWAE."""


@partial(jax.jit, static_argnames=("model", "num_samples", "num_groups", "estimator"))
def iwae_loss(
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: Autoencoder,
    tightness: float | jax.Array = 1.0,
    num_samples: int = 5,
    num_groups: int = 1,
    estimator: str = "plain",
) -> tuple[jax.Array, Metrics]:
    """The negative importance-weighted bound, `-L_k`, in nats per example.

    With `w_i = p(x, z_i) / q(z_i|x)` for draws z_i of the posterior, `L_k = E log (1/k sum_i w_i)`. It grows with k
    from the ELBO at k = 1 to the log-likelihood. The estimators have the same value and cost, and differ in what
    reaches the encoder; with `v_i = w_i / sum_j w_j`:

    - `plain`: the gradient of the value, through z_i and as the score, `d log q(z_i|x)` at a fixed z_i, both weighted
      by v_i. The signal-to-noise ratio of the encoder's falls with k.
    - `stl`: without the score. Where the posterior is exact, the encoder's has no noise. Biased for k > 1.
    - `dreg`: the score reparameterised once more, which leaves z_i, weighted by `v_i^2`. Unbiased, and the ratio does
      not fall with k.

    These concern the posterior alone: whatever p(x, z) depends on has its plain gradient, and so has the encoder within
    a VampPrior.

    Args:
      params: as in `vae_loss`.
      batch: `x` `[B, ...]`, and `y` where the model is conditioned.
      key: consumed.
      model: static.
      tightness: weight of `L_k`, against `1 - tightness` of the ELBO of the same draws. CIWAE's beta is
        `1 - tightness`.
      num_samples: all draws of an example; the decoder sees as many codes of each. Static.
      num_groups: M, into how many equal groups they fall. Each is worth an `L_k` with `k = num_samples / M`, and
        their mean is the bound: MIWAE. Static.
      estimator: a name of `ESTIMATORS`; all but `plain` need a posterior with `log_prob`. Static.

    Returns:
      The mean over the batch of the weighted bounds, and the means `bound_nats` (`-L_k` itself, whatever tightness),
      `elbo_nats` (the negative ELBO of the same draws) with its parts `recon_nats` and `kl_nats`, `ess` (effective
      sample size of the weights of a group, `1 / sum v_i^2`, from 1 to k) and `sse` (of the decoded draws).

    Raises:
      InputError: the posterior has no `log_prob` and the estimator needs it.

    Reference: Burda et al., equation 8. The estimators within groups and mixtures are ours, by the same steps: for a
    bound with the derivative `a_i` by `log w_i` the weight of a path is `a_i - d a_i / d log w_i`.
    """
    each = draws(model, params, batch, key, num_samples, closed=False)
    log_w = -(each.recon + each.kl).reshape(num_groups, -1, each.kl.shape[1])  # [M, k, B]
    k = log_w.shape[1]
    bound = (logsumexp(log_w, axis=1) - math.log(k)).mean()
    weights = jax.lax.stop_gradient(jax.nn.softmax(log_w, axis=1))
    value = tightness * bound + (1 - tightness) * log_w.mean()
    if estimator != "plain":
        rest = (1 - tightness) / k
        slope = tightness * weights + rest  # of the value by each log_w, but for the means over groups and batch
        of_path = tightness * jnp.square(weights) + rest if estimator == "dreg" else slope
        share = of_path / jnp.maximum(slope, jnp.finfo(slope.dtype).tiny)
        paths = _log_weights(model, params, batch, each, share.reshape(num_samples, -1))
        surrogate = jnp.sum(slope * paths.reshape(log_w.shape), axis=1).mean()
        value = jax.lax.stop_gradient(value) + (surrogate - jax.lax.stop_gradient(surrogate))
    recon, kl = each.recon.mean(), each.kl.mean()
    return -value, {
        "recon_nats": recon, "kl_nats": kl, "elbo_nats": recon + kl, "bound_nats": -bound,
        "ess": (1 / jnp.sum(jnp.square(weights), axis=1)).mean(), "sse": each.sse.mean(),
    }  # fmt: skip


@jax.custom_vjp
def _scale_gradient(z: jax.Array, factor: jax.Array) -> jax.Array:
    """z, through which a gradient goes times the factor."""
    return z


_scale_gradient.defvjp(lambda z, factor: (z, factor), lambda factor, gradient: (gradient * factor, None))


def _log_weights(model: Autoencoder, params: Any, batch: Batch, each: Terms, share: jax.Array) -> jax.Array:
    """The log-weights of draws again, `[L, B]`: without the score, and that share of the gradient of each draw.

    Compiled, they share their way forth with that of the draws.
    """
    if not hasattr(each.posterior, "log_prob"):
        raise InputError(
            f"{type(each.posterior).__name__} has no log_prob, without which the term of the score cannot be left out."
            " Use estimator='plain'."
        )
    bound, (x, *condition) = model.bind({"params": params}), inputs(model, batch)

    def one(posterior: Any, z: jax.Array) -> jax.Array:
        return bound.log_prior(z) - bound.nll(z, x, *condition) - posterior.log_prob(z)

    return jax.vmap(one)(jax.lax.stop_gradient(each.posterior), _scale_gradient(each.z, share[..., None]))


def _check(model: Autoencoder, hparams: Any, *, num_samples: int, num_groups: int, estimator: str) -> None:
    check_samples(model, hparams, num_samples=num_samples)
    if num_groups < 1 or num_samples % num_groups:
        raise InputError(f"num_groups is {num_groups}; it has to divide num_samples, {num_samples}.")
    if estimator not in ESTIMATORS:
        raise InputError(f"Unknown estimator {estimator!r}. {nearest(estimator, ESTIMATORS, what='estimators')}")
    likelihood = likelihoods.get(model.likelihood)
    if likelihood.coupled:
        raise InputError(f"{likelihood} is of a batch, and weights are of an example: fix it, Gaussian(variance).")


iwae = one_player("iwae", iwae_loss, VAE, HParams, player="bound", learns_prior=True, check=_check)


@factory(learns_prior=True, takes_labels=True)
def piwae(
    model: VAE,
    hparams: HParams = HParams(),
    tx: Tx = optax.adam,
    *,
    num_samples: int = 64,
    num_groups: int = 8,
    estimator: str = "plain",
    axis_name: str | None = None,
) -> Algorithm:
    """PIWAE: the encoder learns from groups of draws, the rest of the model from all of them as one.

    Arguments are those of `iwae`. Both players see the same draws.

    Returns:
      `encoder` moves `encoder`, by the bound of `num_groups` groups; in the same phase `decoder` moves all other groups
      by that of `num_samples` draws.
    """
    _check(model, hparams, num_samples=num_samples, num_groups=num_groups, estimator=estimator)
    txs = optimisers(tx, dict.fromkeys(("encoder", "decoder"), hparams.lr))
    loss = partial(iwae_loss, model=model, num_samples=num_samples)
    knobs = {"tightness": hparams.tightness}
    encoder = partial(loss, num_groups=num_groups, estimator=estimator)
    players = {
        "encoder": Player(encoder, ("encoder",), txs["encoder"], knobs=knobs),
        "decoder": Player(loss, tuple(g for g in model.groups if g != "encoder"), txs["decoder"], knobs=knobs),
    }
    return play(players, [["encoder", "decoder"]], axis_name=axis_name, check=partial(check_data, model))


METHOD = Method(
    VAE,
    HParams,
    iwae,
    title="importance-weighted; STL and DReG gradients; MIWAE, PIWAE, CIWAE",
    paper="Burda et al. 2016; Roeder et al. 2017; Rainforth et al. 2018; Tucker et al. 2019",
    terms={
        "elbo_nats": Term("nats per example", "IWAE: negative ELBO of the draws whose `bound_nats` is `-L_k`"),
        "ess": Term("draws", "IWAE: effective sample size of the importance weights, from 1 to k"),
    },
)
