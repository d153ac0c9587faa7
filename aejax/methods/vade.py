"""Variational deep embedding: a VAE whose prior is a mixture of Gaussians, one for each cluster.

Jiang, Zheng, Tan, Tang & Zhou, "Variational deep embedding: an unsupervised and generative approach to clustering",
IJCAI 2017. Weights, means and variances of the mixture are learned with the networks. Parameters are those of an
autoencoder without noise, `vade_ae`; the mixture starts from one that is fitted to its codes.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from aejax import clusters, likelihoods, priors
from aejax.algorithm import Algorithm, Metrics, Params, Player, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Tx, check_data, factory, optimisers
from aejax.methods.ae import reconstruction
from aejax.methods.vae import VAE
from aejax.precision import sum_last, widen

__all__ = ["VaDE", "vade", "vade_ae", "vade_loss"]


class VaDE(VAE):
    """A VAE with a mixture of Gaussians as prior; its parameters are the group `prior`.

    Attributes:
      prior: `LearnedMixture(K)`, of K clusters.
    """

    prior: str | priors.Prior | priors.LearnedPrior | None = priors.LearnedMixture(10)

    def mixture(self) -> clusters.Mixture:
        """The prior as it is."""
        return clusters.Mixture(*self.prior.components())  # type: ignore[union-attr]

    def log_assignments(self, x: jax.Array) -> jax.Array:
        """log p(c|z) at the posterior mean: `[B, ...] -> [B, K]`."""
        return jax.nn.log_softmax(self.mixture().log_joint(widen(self.embed(x))))

    def clusters(self, x: jax.Array) -> jax.Array:
        """The most probable cluster: `[B, ...] -> [B]` int32 below K."""
        return self.log_assignments(x).argmax(axis=1)


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate."""
    beta: NonNegative = 1.0
    """Weight of the KL term; 1 is the bound itself."""


def kl(posterior: Any, z: jax.Array, mixture: clusters.Mixture) -> jax.Array:
    """`KL(q(z, c|x) | p(z, c))` of each example, in nats, `[B]`: that to each Gaussian, weighted, plus that of c.

    Closed in z given c, with `q(c|x) = p(c|z)` at the draw z, of equation 16. All in logarithms, so that neither a
    variance near zero nor a cluster that is far away divides by zero.

    Args:
      posterior: a `DiagonalGaussian` of `[B, Z]`.
      z: a draw of it, `[B, Z]`.
      mixture: of K.
    """
    mean, logvar = widen(posterior.mean)[:, None], widen(posterior.logvar)[:, None]
    means, logvars = mixture.means[None], mixture.logvars[None]
    gap = jnp.exp(logvar - logvars) + jnp.square(mean - means) * jnp.exp(-logvars)
    each = 0.5 * sum_last(logvars - logvar + gap - 1.0)
    log_gamma = jax.nn.log_softmax(mixture.log_joint(z))
    return sum_last(jnp.exp(log_gamma) * (each + log_gamma - mixture.log_weights[None]))


@partial(jax.jit, static_argnames=("model",))
def vade_loss(
    params: Params, batch: Batch, key: jax.Array, *, model: VaDE, beta: float | jax.Array = 1.0
) -> tuple[jax.Array, Metrics]:
    """The negative evidence lower bound, its KL term weighted by beta, in nats per example.

    Args:
      params: `{"encoder", "decoder", "prior"}`.
      batch: `x` `[B, ...]`.
      key: consumed, by one draw for each example.
      model: static.
      beta: weight of the KL term.

    Returns:
      `mean(recon + beta * kl)` over the batch, and the means `recon_nats`, `kl_nats` (unweighted), `bound_nats`
      (`recon_nats + kl_nats`) and `sse` (of the decoded draws).

    Reference: equation 12 with one draw. Gradients go through q(c|x) too, as in the authors' program. That differs from
    the paper, and this from it, in two constants: it counts the weight of a cluster once for each dimension of the code
    in p(c|z), and adds `Z / 2 log(2 pi)` for each of them.
    """
    bound = model.bind({"params": params})
    posterior = bound.encode(batch.x)
    z = posterior.sample(key)
    recon, x_hat = bound.nll_and_mean(z, batch.x)
    terms = {"recon_nats": recon.mean(), "kl_nats": kl(posterior, z, bound.mixture()).mean()}
    loss = terms["recon_nats"] + beta * terms["kl_nats"]
    bound_nats = terms["recon_nats"] + terms["kl_nats"]
    return loss, {**terms, "bound_nats": bound_nats, "sse": likelihoods.sse(x_hat, batch.x).mean()}


@partial(jax.jit, static_argnames=("model",))
def vade_ae_loss(params: Params, batch: Batch, key: jax.Array, *, model: VaDE) -> tuple[jax.Array, Metrics]:
    """`ae_loss` of posterior means; arguments as there."""
    return reconstruction(params, model.bind({"params": params}).embed(batch.x), batch, model=model)


def from_data(model: VaDE, params: Params, data: Batch, key: jax.Array) -> Params:
    """Begins the prior with a mixture fitted to the posterior means by EM, as the authors' program does."""
    z = clusters.in_blocks(lambda x: model.bind({"params": params}).embed(x), data.x)
    count = model.prior.num_components  # type: ignore[union-attr]
    means, logvars, log_weights = clusters.gaussian_mixture(key, widen(z), count)
    return {**params, "prior": {"means": means, "logvars": logvars, "logits": log_weights}}


@factory(learns_prior=True)
def vade(model: VaDE, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None) -> Algorithm:
    """One player. Begin with the parameters that `vade_ae` has trained, as `aejax.learn` does.

    Where this departs from the paper: one rate, which stays, for networks and mixture, where the authors' program has
    0.002 for both, and less after every tenth pass; and autoencoders are not stacked layer by layer before.

    Returns:
      `elbo` moves `encoder`, `decoder` and `prior`; `start` sets the prior.

    Raises:
      InputError: a model whose prior is another one.
    """
    if not isinstance(model.prior, priors.LearnedMixture):
        raise InputError(f"VaDE has a mixture as prior, and here it is {model.prior!r}: prior=LearnedMixture(10).")
    own = optimisers(tx, {"elbo": hparams.lr})["elbo"]
    coupled = likelihoods.get(model.likelihood).coupled
    elbo = Player(partial(vade_loss, model=model), model.groups, own, coupled, {"beta": hparams.beta})
    start, checked = partial(from_data, model), partial(check_data, model)
    return play({"elbo": elbo}, [["elbo"]], axis_name=axis_name, start=start, check=checked)


@factory(learns_prior=True)
def vade_ae(
    model: VaDE, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None
) -> Algorithm:
    """The autoencoder whose parameters `vade` begins with: codes are posterior means; beta is not used.

    Returns:
      `recon` moves all groups but the prior; nothing moves the half of the encoder that returns log-variances.
    """
    own = optimisers(tx, {"recon": hparams.lr})["recon"]
    groups = tuple(group for group in model.groups if group != "prior")
    recon = Player(partial(vade_ae_loss, model=model), groups, own, likelihoods.get(model.likelihood).coupled)
    return play({"recon": recon}, [["recon"]], axis_name=axis_name, check=partial(check_data, model))


METHOD = Method(
    VaDE, HParams, vade, "variational deep embedding, a prior of clusters", "Jiang et al. 2017",
    fields={"prior": priors.LearnedMixture(2)},
    knobs={"beta": 0.01},  # at 1 fresh codes, all alike, are far closer to each other than their posteriors are wide
    first=vade_ae,
)  # fmt: skip
