"""The beta-TC-VAE: the KL of the bound taken apart, and its total correlation weighted by itself.

Chen, Li, Grosse & Duvenaud, "Isolating sources of disentanglement in variational autoencoders", NeurIPS 2018. With n an
example drawn from the N of the data, and q(z) the mixture of all posteriors, the mean KL is the sum of three (equation
2): what the code knows of n, what its dimensions know of each other, and how far each of them is from the prior. q(z)
needs all of the data at every step; two estimates make do with a batch.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from aejax import parallel
from aejax.algorithm import Algorithm, Metrics, Params, Player, play
from aejax.checks import InputError, nearest
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, Tx, check_data, factory, optimisers
from aejax.methods.vae import VAE, terms
from aejax.posteriors import DiagonalGaussian
from aejax.precision import sum_last, widen

__all__ = ["TCVAE", "beta_tc_vae", "beta_tc_vae_loss"]

SAMPLINGS = ("stratified", "weighted")


class TCVAE(VAE):
    """A VAE that knows how many examples it is trained on: `params["num_examples"]`, which no gradient moves.

    It is zero until the algorithm's `start` has counted the data; then the batch stands for all of them.
    """

    def setup(self) -> None:
        super().setup()
        self.num_examples = self.param("num_examples", nn.initializers.zeros, ())


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate."""
    alpha: NonNegative = 1.0
    """Weight of the mutual information of code and example."""
    beta: NonNegative = 6.0
    """Weight of the total correlation."""
    gamma: NonNegative = 1.0
    """Weight of the KL of each dimension from the prior; 1 for all three is the bound itself."""


def mixture_weights(num_rows: int, batch_size: int, first: Any, num_examples: Any, *, sampling: str) -> jax.Array:
    """The weights with which the examples of a batch stand for the mixture of N posteriors.

    `weighted` (section 3.1): 1 / (N B) for all. `stratified` (appendix C.2): 1 / N for the example that the code is
    of, and (N - 1) / (N M) for each of the M = B - 1 others. The paper gives one of the others (N - M) / (N M) and the
    rest 1 / M; ours is the mean of that over which one, so it has the same expectation, varies less, and is q(z)
    itself where the batch is the whole set. (The authors' code has the 1 / N in the first column in place of the
    diagonal, so that it is of one example for all codes.)

    Args:
      num_rows: of the codes.
      batch_size: B, at least 2.
      first: number in the batch of the example of the first code; those of the others follow.
      num_examples: N; taken as B where it is less.
      sampling: static.

    Returns:
      `[num_rows, B]`; rows of `stratified` add up to 1, of `weighted` to 1 / N.

    Example:
      >>> mixture_weights(2, 3, 0, 8, sampling="stratified").tolist()
      [[0.125, 0.4375, 0.4375], [0.4375, 0.125, 0.4375]]
    """
    n = jnp.maximum(jnp.asarray(num_examples, float), batch_size)
    if sampling == "weighted":
        return jnp.broadcast_to(1 / (n * batch_size), (num_rows, batch_size))
    is_own = first + jnp.arange(num_rows)[:, None] == jnp.arange(batch_size)[None]
    return jnp.where(is_own, 1 / n, (n - 1) / n / (batch_size - 1))


def log_ratios(
    z: jax.Array, own: DiagonalGaussian, everyone: DiagonalGaussian, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """How much likelier codes are under a mixture of posteriors than under their own, as wholes and by dimension.

    Args:
      z: `[B, Z]`.
      own: the posteriors of their examples, B of them.
      everyone: the posteriors of the mixture, K of them.
      weights: `[B, K]`.

    Returns:
      `log q(z) - log q(z|n)`, and `sum_j` of the same of dimension j alone, `[B]`, in nats; of B K Z numbers between.
    """

    def density(posterior: DiagonalGaussian) -> jax.Array:
        mean, logvar = map(widen, posterior)
        return -0.5 * (jnp.square((z[:, None] - mean) * jnp.exp(-0.5 * logvar)) + logvar)

    each = density(jax.tree.map(lambda v: v[None], everyone)) - density(jax.tree.map(lambda v: v[:, None], own))
    return _log_mean(sum_last(each)[:, :, None], weights)[:, 0], sum_last(_log_mean(each, weights))


def _log_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """`log sum_k w_k exp(v_k)`: `[B, K, Z], [B, K] -> [B, Z]`."""
    largest = jax.lax.stop_gradient(values.max(axis=1, keepdims=True))
    sums = jnp.einsum("bk,bkz->bz", weights, jnp.exp(values - largest), precision="highest")
    return jnp.log(sums) + largest[:, 0]


@partial(jax.jit, static_argnames=("model", "sampling", "axis_name"))
def beta_tc_vae_loss(
    params: Params,
    batch: Batch,
    key: jax.Array,
    *,
    model: TCVAE,
    alpha: float | jax.Array = 1.0,
    beta: float | jax.Array = 6.0,
    gamma: float | jax.Array = 1.0,
    sampling: str = "stratified",
    axis_name: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """The negative bound, the three parts of its KL weighted by `alpha`, `beta` and `gamma`, in nats per example.

    Each part is estimated from the one code of each example, and from a batch in place of all data. The logarithm of
    such a mean is too low, that of the whole code most: mutual information comes out too high, total correlation too
    low, and may be negative. With weights of 1 the mixtures cancel, and the loss is that of `vae`, its KL estimated
    from the sample.

    Args:
      params: `{"encoder": ..., "decoder": ..., "num_examples": ...}`, the last N of the training data.
      batch: `x` `[B, ...]`, B at least 2, and `y` where the model is conditioned.
      key: consumed.
      model: static; its posteriors are diagonal Gaussians.
      alpha, beta, gamma: weights.
      sampling: static, as in `mixture_weights`. The gradient of `weighted`, the paper's own, does not depend on N, and
        its terms are off: total correlation by (Z - 1) log N nats where posteriors overlap. Those of `stratified` are
        what their names say, so it is the default.
      axis_name: static; the mapped axis, if any, over whose shards the posteriors are gathered.

    Returns:
      `recon_nats + alpha * mutual_info_nats + beta * total_correlation_nats + gamma * dimension_kl_nats`, these means,
      and `kl_nats`, `bound_nats` and `sse` as in `vae_loss`.

    Raises:
      InputError: a batch of a single example, an unknown sampling, a posterior that is no diagonal Gaussian.

    Reference: equation 4; equation 2 for the parts.
    """
    _check_sampling(sampling)
    each = terms(model, params, batch, key)
    if not isinstance(each.posterior, DiagonalGaussian):
        raise InputError(f"The posterior is a {type(each.posterior).__name__}; parts are told of a DiagonalGaussian.")
    everyone = DiagonalGaussian(*(parallel.gather(v, axis_name) for v in each.posterior))
    if len(everyone.mean) < 2:
        raise InputError("A mixture of posteriors needs at least 2 examples in a batch; got 1.")
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * len(each.z)
    weights = mixture_weights(len(each.z), len(everyone.mean), first, params["num_examples"], sampling=sampling)
    joint, marginals = log_ratios(each.z, each.posterior, everyone, weights)
    mutual_info, total_correlation = -joint.mean(), (joint - marginals).mean()
    log_prior = model.bind({"params": params}).log_prior(each.z)
    dimension_kl = (marginals + each.posterior.log_prob(each.z) - log_prior).mean()
    recon, kl = each.recon.mean(), each.kl.mean()
    metrics = {"recon_nats": recon, "kl_nats": kl, "bound_nats": recon + kl, "sse": each.sse.mean()}
    metrics |= {"mutual_info_nats": mutual_info, "total_correlation_nats": total_correlation}
    metrics |= {"dimension_kl_nats": dimension_kl}
    return recon + alpha * mutual_info + beta * total_correlation + gamma * dimension_kl, metrics


def count_examples(params: Params, data: Batch, key: jax.Array) -> Params:
    """`params` with the number of examples of the data."""
    return {**params, "num_examples": jnp.asarray(len(data.x), jnp.float32)}


@factory(learns_prior=True, takes_labels=True)
def beta_tc_vae(
    model: TCVAE,
    hparams: HParams = HParams(),
    tx: Tx = optax.adam,
    *,
    sampling: str = "stratified",
    axis_name: str | None = None,
) -> Algorithm:
    """The one-player game of `beta_tc_vae_loss`, whose `sampling` it takes; `start` counts the data.

    Returns:
      `elbo` moves `model.groups`; no player moves `num_examples`.
    """
    _check_sampling(sampling)
    if not isinstance(model, TCVAE):
        raise InputError(f"beta_tc_vae takes a TCVAE, which knows the size of the data; got a {type(model).__name__}.")
    loss = partial(beta_tc_vae_loss, model=model, sampling=sampling, axis_name=axis_name)
    knobs = {"alpha": hparams.alpha, "beta": hparams.beta, "gamma": hparams.gamma}
    elbo = Player(loss, model.groups, optimisers(tx, {"elbo": hparams.lr})["elbo"], coupled=True, knobs=knobs)
    check = partial(check_data, model)
    return play({"elbo": elbo}, [["elbo"]], axis_name=axis_name, start=count_examples, check=check)


def _check_sampling(sampling: str) -> None:
    if sampling not in SAMPLINGS:
        raise InputError(f"Unknown sampling {sampling!r}. {nearest(sampling, SAMPLINGS, what='samplings')}")


_NATS = "nats per example"
TERMS = {
    "mutual_info_nats": Term(_NATS, "beta-TC-VAE: mutual information of code and example", True),
    "total_correlation_nats": Term(_NATS, "beta-TC-VAE: KL from q(z) to the product of its marginals", True),
    "dimension_kl_nats": Term(_NATS, "beta-TC-VAE: KL from each marginal of q(z) to the prior, summed", True),
}
METHOD = Method(
    TCVAE, HParams, beta_tc_vae, "variational, total correlation weighted (beta-TC)", "Chen et al. 2018",
    knobs={"alpha": 0.5, "beta": 2.0, "gamma": 0.5}, terms=TERMS,
)  # fmt: skip
