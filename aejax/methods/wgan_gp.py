"""The Wasserstein GAN with a penalty on the critic's gradient; the encoder learns to invert the generator.

Gulrajani, Ahmed, Arjovsky, Dumoulin & Courville, "Improved training of Wasserstein GANs", NIPS 2017, algorithm 1. In
place of a discriminator stands a critic, whose scores have a slope of about one along the lines between data and
generated examples; the difference of its mean scores is then an estimate of the Wasserstein distance of the two. The
module is that of `gan`, its `discriminator` the critic, and the encoder is the latent regressor that `gan` has.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from aejax import likelihoods
from aejax.algorithm import Algorithm, Metrics, Params, Phase, Player, play
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, Tx, check_data, factory, optimisers
from aejax.methods.gan import GAN, refuse_densities, refuse_others, regressor_loss
from aejax.precision import sum_event, widen

__all__ = ["wgan_gp", "wgan_gp_critic_loss", "wgan_gp_gen_loss"]

_CRITIC_STEPS = 5  # for one of the generator, the paper's n_critic
_TINY = 1e-12  # squared slopes below have no gradient, which the root would make infinite

adam = partial(optax.adam, b1=0.0, b2=0.9)  # as algorithm 1 has it


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate of the encoder."""
    critic_lr: Positive = 1e-4
    """Learning rate of the critic."""
    gen_lr: Positive = 1e-4
    """Learning rate of the generator, which is the decoder."""
    gradient_penalty: NonNegative = 10.0
    """Weight of the critic's slopes that are not one, the paper's lambda."""


@partial(jax.jit, static_argnames=("model",))
def wgan_gp_critic_loss(
    params: Params, batch: Batch, key: jax.Array, *, model: GAN, gradient_penalty: float | jax.Array = 10.0
) -> tuple[jax.Array, Metrics]:
    """The critic's mean score of generated examples, less that of the batch, plus the weighted penalty.

    The penalty is `(|gradient of the score| - 1)^2` at one point between each example and a generated one, chosen
    evenly. Scores have the unit of the data, and their zero means nothing. Where the data are one point and the
    generated ones another, t apart, the best critic's slope is `1 + t / (2 gradient_penalty)`, and so much too large is
    the distance that it finds.

    Args:
      params: `{"encoder": ..., "decoder": ..., "discriminator": ...}`.
      batch: `x` `[B, ...]`.
      key: consumed by the draws from the prior and the places of the points.
      model: static.
      gradient_penalty: weight of the penalty.

    Returns:
      The mean over the batch, `wasserstein`, the difference of the mean scores, data first, and `slope_gap_sq`, the
      penalty without its weight.

    Reference: equation 3.
    """
    draw_key, place_key = jax.random.split(key)
    bound = model.bind({"params": params})
    score, x, fake = bound.discriminate, batch.x, bound.sample(draw_key, len(batch.x))
    share = jax.random.uniform(place_key, (len(x),) + (1,) * (x.ndim - 1), x.dtype)
    # A critic does not couple examples, so of the sum each row of the gradient is that of its own score.
    slopes = jax.grad(lambda between: score(between).sum())(share * x + (1 - share) * fake)
    norms = jnp.sqrt(jnp.maximum(sum_event(jnp.square(widen(slopes))), _TINY))
    wasserstein, gap = (score(x) - score(fake)).mean(), jnp.square(norms - 1).mean()
    return gradient_penalty * gap - wasserstein, {"wasserstein": wasserstein, "slope_gap_sq": gap}


@partial(jax.jit, static_argnames=("model",))
def wgan_gp_gen_loss(params: Params, batch: Batch, key: jax.Array, *, model: GAN) -> tuple[jax.Array, Metrics]:
    """The critic's score of generated examples, negated; arguments and metrics of `gan_gen_loss`."""
    gan = model.bind({"params": params})
    loss = -gan.discriminate(gan.sample(key, len(batch.x))).mean()
    return loss, {"sse": likelihoods.sse(gan.reconstruct(batch.x), batch.x).mean()}


@factory
def wgan_gp(model: GAN, hparams: HParams = HParams(), tx: Tx = adam, *, axis_name: str | None = None) -> Algorithm:
    """Three players in three phases, the first of them played five times on parts of the batch, as in algorithm 1.

    So a batch has to be a multiple of 5, and the other players see as many generated examples as a part has. Rates and
    Adam's decays, 0 and 0.9, are the paper's; departures are the networks, and the encoder, which the paper has not.

    Returns:
      `critic` moves `discriminator`, five times; then `gen` moves `decoder`; then `regress` moves `encoder`.

    Raises:
      InputError: a likelihood with more to learn than a mean, or a model that is no `GAN`; from `step`, a batch that 5
        does not divide.
    """
    refuse_others(model, GAN)
    refuse_densities(model)
    txs = optimisers(tx, {"critic": hparams.critic_lr, "gen": hparams.gen_lr, "regress": hparams.lr})
    penalty = {"gradient_penalty": hparams.gradient_penalty}
    critic_loss = partial(wgan_gp_critic_loss, model=model)
    players = {
        "critic": Player(critic_loss, ("discriminator",), txs["critic"], knobs=penalty),
        "gen": Player(partial(wgan_gp_gen_loss, model=model), ("decoder",), txs["gen"]),
        "regress": Player(partial(regressor_loss, model=model), ("encoder",), txs["regress"]),
    }
    phases = [Phase(("critic",), _CRITIC_STEPS), Phase(("gen",)), Phase(("regress",))]
    return play(players, phases, axis_name=axis_name, check=partial(check_data, model))


def _multiple(size: int) -> int:
    return max(_CRITIC_STEPS, size - size % _CRITIC_STEPS)


TERMS = {
    "wasserstein": Term("data units", "the critic's mean score of data, less that of generated examples"),
    "slope_gap_sq": Term(
        "none", "squared difference of the critic's slope from 1, between data and generated examples"
    ),
}
METHOD = Method(
    GAN, HParams, wgan_gp, "Wasserstein GAN with gradient penalty, inverted by a regressor", "Gulrajani et al. 2017",
    batch_size=_multiple, terms=TERMS,
)  # fmt: skip
