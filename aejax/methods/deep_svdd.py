"""Deep support vector data description: an encoder that maps normal examples close to one point.

Ruff, Vandermeulen, Goernitz, Deecke, Siddiqui, Binder, Mueller & Kloft, "Deep one-class classification", ICML 2018; the
one-class objective, equation 4. The centre is the mean code of the data under the parameters that the training begins
with, and does not move. How odd an example is, is the squared distance of its code from the centre.
"""

from functools import partial
from typing import Any, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from aejax import clusters, likelihoods
from aejax.algorithm import Algorithm, Metrics, Params, Player, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, Tx, check_data, factory, optimisers
from aejax.methods.ae import AE, ae, decoder_loss
from aejax.precision import sum_last, widen

__all__ = ["DeepSVDD", "deep_svdd", "deep_svdd_loss"]

LEAST = 0.1  # the least absolute value of a coordinate of the centre


class DeepSVDD(AE):
    """An autoencoder with a centre among its codes.

    The encoder of `dense` and `conv` has no biases: with them a network can map all examples to one point whatever its
    weights (section 3.3, proposition 2). `dense(..., use_bias=True)` has them all the same.
    """

    def setup(self) -> None:
        super().setup()
        self.centre = self.param("centre", nn.initializers.ones, (self.latent_dim,))

    @classmethod
    def dense(cls, data_dim: int, latent_dim: int, *, use_bias: bool = False, **fields: Any) -> Self:
        """As that of `Autoencoder`, without biases."""
        return super().dense(data_dim, latent_dim, use_bias=use_bias, **fields)

    @classmethod
    def conv(cls, data_shape: tuple[int, int, int], latent_dim: int, **fields: Any) -> Self:
        """As that of `Autoencoder`, its encoder without biases."""
        model = super().conv(data_shape, latent_dim, **fields)
        return model.clone(encoder=model.encoder.clone(use_bias=False))

    def distances(self, x: jax.Array) -> jax.Array:
        """The squared distance of the code from the centre: `[B, ...] -> [B]`, float32 at least."""
        return sum_last(jnp.square(widen(self.embed(x)) - widen(self.centre)[None]))


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate."""
    weight_decay: NonNegative = 1e-6
    """Weight of half the squared weights of the encoder."""


@partial(jax.jit, static_argnames=("model",))
def deep_svdd_loss(
    params: Params, batch: Batch, key: jax.Array, *, model: DeepSVDD, weight_decay: float | jax.Array = 1e-6
) -> tuple[jax.Array, Metrics]:
    """Mean squared distance of the codes from the centre, and the decay of the weights.

    Args:
      params: `{"encoder", "decoder", "centre"}`.
      batch: `x` `[B, ...]`.
      key: ignored.
      model: static.
      weight_decay: lambda of equation 4, whose half stands before the squared weights.

    Returns:
      `centre_sq + weight_decay / 2 weights_sq`; `centre_sq`, in squared code units per example, and `weights_sq`, the
      sum of the squared weights of the encoder.
    """
    distance = model.bind({"params": params}).distances(batch.x).mean()
    squares = jnp.stack([jnp.square(widen(leaf)).sum() for leaf in jax.tree.leaves(params["encoder"])]).sum()
    return distance + 0.5 * weight_decay * squares, {"centre_sq": distance, "weights_sq": squares}


def from_data(model: DeepSVDD, params: Params, data: Batch, key: jax.Array) -> Params:
    """The centre is the mean code; its coordinates within 0.1 of zero become 0.1 or -0.1, as in the authors' code.

    A coordinate of zero could be reached by an encoder whose weights are zero.
    """
    centre = clusters.in_blocks(lambda x: model.bind({"params": params}).embed(x), data.x).mean(axis=0)
    signs = jnp.where(centre < 0, -1, 1)
    return {**params, "centre": jnp.where(jnp.abs(centre) < LEAST, LEAST * signs, centre)}


@factory
def deep_svdd(
    model: DeepSVDD, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None
) -> Algorithm:
    """Two players in one phase: the codes, and a decoder that is looked at and has no say in them.

    Begin with the parameters of an autoencoder, as `aejax.learn` does, or with fresh ones. Where this departs from the
    paper: the decoder, which is dropped there, learns on; and the learning rate does not fall.

    Returns:
      `svdd` moves the encoder, `recon` the decoder; `start` sets the centre, which nothing moves.
    """
    own = optimisers(tx, {"svdd": hparams.lr, "recon": hparams.lr})
    coupled = likelihoods.get(model.likelihood).coupled
    loss, decoder = partial(deep_svdd_loss, model=model), tuple(group for group in model.groups if group != "encoder")
    if not decoder:
        raise InputError("A tied decoder has no weights of its own to learn; use tied=False.")
    players = {
        "svdd": Player(loss, ("encoder",), own["svdd"], knobs={"weight_decay": hparams.weight_decay}),
        "recon": Player(partial(decoder_loss, model=model), decoder, own["recon"], coupled),
    }
    start, check = partial(from_data, model), partial(check_data, model)
    return play(players, [["svdd", "recon"]], axis_name=axis_name, start=start, check=check)


TERMS = {"centre_sq": Term("code units^2 per example", "squared distance of the code from the centre")}
METHOD = Method(
    DeepSVDD, HParams, deep_svdd, "deep support vector data description", "Ruff et al. 2018", noise_free=True,
    terms=TERMS, first=ae,
)  # fmt: skip
