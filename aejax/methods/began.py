"""Boundary equilibrium generative adversarial networks: the discriminator is an autoencoder.

Berthelot, Schumm & Metz, "BEGAN", 2017 (arXiv:1703.10717). The autoencoder learns to reconstruct images and to fail at
generated ones; the generator learns to be reconstructed. A `Rule` keeps the errors of the two at the ratio `gamma`.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from aejax import priors
from aejax.algorithm import Algorithm, Metrics, Params, Player, Rule, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, Positive, Probability, Term, Tx, check_data, factory, optimisers
from aejax.methods.ebgan import EBGAN
from aejax.methods.gan import refuse_densities

__all__ = ["BEGAN", "began", "began_disc_loss", "began_gen_loss"]


class BEGAN(EBGAN):
    """An EBGAN, and the weight `balance` that its controller moves.

    Attributes:
      prior: of the generator's noise; uniform in [-1, 1] as in the paper.
    """

    prior: str | priors.Prior | priors.LearnedPrior | None = "uniform"

    def setup(self) -> None:
        super().setup()
        self.balance = self.param("balance", nn.initializers.zeros, ())

    def error(self, x: jax.Array) -> jax.Array:
        """Absolute error of the reconstruction, summed over pixels: `[B, ...] -> [B]`."""
        return jnp.abs(x - self.reconstruct(x)).reshape(len(x), -1).sum(axis=1)


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate of the autoencoder."""
    gen_lr: Positive = 1e-3
    """Learning rate of the generator."""
    gamma: Probability = 0.5
    """The error of generated images as a share of that of real ones; the lower, the more alike they are."""
    gain: Positive = 1e-3
    """Of the controller, on errors as means over pixels: the paper's lambda_k, whose pixels lie in [-1, 1]."""


@partial(jax.jit, static_argnames=("model",))
def began_disc_loss(params: Params, batch: Batch, key: jax.Array, *, model: BEGAN) -> tuple[jax.Array, Metrics]:
    """The absolute error on images, minus `balance` times that on generated ones: L_D of section 3.4.

    Args:
      params, batch, key, model: as in `ae_loss`, `params["balance"]` beside; the key is consumed by B draws of noise.

    Returns:
      The mean over the batch, and the means `abs_error`, of images, and `fake_abs_error`. Errors are sums over pixels.
    """
    began = model.bind({"params": params})
    real, fake = began.error(batch.x).mean(), began.error(began.sample(jax.random.split(key)[0], len(batch.x))).mean()
    return real - began.balance * fake, {"abs_error": real, "fake_abs_error": fake}


@partial(jax.jit, static_argnames=("model",))
def began_gen_loss(params: Params, batch: Batch, key: jax.Array, *, model: BEGAN) -> tuple[jax.Array, Metrics]:
    """The absolute error of the autoencoder on generated images, L_G of section 3.4; arguments of `began_disc_loss`."""
    began = model.bind({"params": params})
    return began.error(began.sample(jax.random.split(key)[1], len(batch.x))).mean(), {}


def balance_rule(model: BEGAN, axis_name: str | None = None, **knobs: Any) -> Rule:
    """The controller: `k <- clip(k + gain (gamma L(x) - L(G(z))), 0, 1)`, with errors as means over pixels.

    Reports k before the step, and `convergence`, equation 6: `L(x) + |gamma L(x) - L(G(z))|` of means over the batch.
    """

    def measure(params: Params, batch: Batch, key: jax.Array, *, gamma: Any, gain: Any) -> tuple[Any, Metrics]:
        began = model.bind({"params": params})
        real, fake = began.error(batch.x), began.error(began.sample(jax.random.split(key)[1], len(batch.x)))
        means = real.mean(), fake.mean()
        means = means if axis_name is None else jax.lax.pmean(means, axis_name)
        convergence = means[0] + jnp.abs(gamma * means[0] - means[1])
        sums = gamma * real.sum() - fake.sum(), jnp.asarray(batch.x.size, real.dtype)
        return sums, {"balance": began.balance, "convergence": convergence}

    def update(params: Params, sums: Any, key: jax.Array, *, gamma: Any, gain: Any) -> Params:
        return {"balance": jnp.clip(params["balance"] + gain * sums[0] / sums[1], 0.0, 1.0)}

    return Rule(measure, update, ("balance",), knobs=knobs)


@factory
def began(
    model: BEGAN, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None
) -> Algorithm:
    """Two players and a rule in one phase. Networks, rates and batch are ours; the paper's rates decay.

    Returns:
      `disc` moves `encoder` and `decoder`, `gen` moves `generator`, the rule `control` `balance`.
    """
    if not isinstance(model, BEGAN):
        raise InputError(f"A BEGAN is needed, which has a balance of its two errors; got a {type(model).__name__}.")
    refuse_densities(model)
    own = optimisers(tx, {"disc": hparams.lr, "gen": hparams.gen_lr})
    players: dict[str, Player | Rule] = {
        "disc": Player(partial(began_disc_loss, model=model), ("encoder", "decoder"), own["disc"]),
        "gen": Player(partial(began_gen_loss, model=model), ("generator",), own["gen"]),
        "control": balance_rule(model, axis_name, gamma=hparams.gamma, gain=hparams.gain),
    }
    return play(players, [["disc", "gen", "control"]], axis_name=axis_name, check=partial(check_data, model))


_PIXELS = "data units per example, summed over pixels"
TERMS = {
    "abs_error": Term(_PIXELS, "absolute error of the reconstruction"),
    "fake_abs_error": Term(_PIXELS, "the same of generated images"),
    "balance": Term("between 0 and 1", "weight of the generated images' error in the autoencoder's loss, k"),
    "convergence": Term(_PIXELS, "`abs_error` plus the gap of `fake_abs_error` from gamma times it", True),
}
METHOD = Method(BEGAN, HParams, began, "boundary equilibrium GAN", "Berthelot et al. 2017", terms=TERMS)
