"""The deep clustering network: an autoencoder whose codes are drawn to the nearest of K centres, k-means beside it.

Yang, Fu, Sidiropoulos & Hong, "Towards k-means-friendly spaces: simultaneous deep learning and clustering", ICML 2017.
The networks move with the centres held fixed, then the centres by k-means in one pass: each code moves the centre that
it chose by one part in their count, which no gradient does and so is a `Rule`.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from aejax import clusters, likelihoods
from aejax.algorithm import Algorithm, Metrics, Params, Player, Rule, play
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, Tx, check_data, factory, optimisers
from aejax.methods.ae import AE, ae, reconstruction
from aejax.nets import quantise
from aejax.precision import sum_last, widen

__all__ = ["DCN", "dcn", "dcn_loss"]

_FIRST_COUNT = 100.0  # the authors' program: as if so many codes had chosen each centre before


class DCN(AE):
    """An autoencoder with K centres among its codes, and how many codes have chosen each.

    Attributes:
      num_clusters: K, at least 1.
    """

    num_clusters: int = 10

    def setup(self) -> None:
        super().setup()
        shape = (self.num_clusters, self.latent_dim)
        self.centres = self.param("centres", nn.initializers.normal(1.0), shape)
        self.counts = self.param("counts", nn.initializers.constant(_FIRST_COUNT), shape[:1])

    def clusters(self, x: jax.Array) -> jax.Array:
        """That of the nearest centre: `[B, ...] -> [B]` int32 below K."""
        return quantise.nearest(self.embed(x), self.centres)


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate."""
    clustering: NonNegative = 1.0
    """Weight of half the squared distance of a code from its centre."""


@partial(jax.jit, static_argnames=("model",))
def dcn_loss(
    params: Params, batch: Batch, key: jax.Array, *, model: DCN, clustering: float | jax.Array = 1.0
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of the reconstruction, plus `clustering / 2` times `|z - m|^2`, with m held fixed.

    m is the centre nearest to z. `clustering` is the paper's lambda, there beside the squared error, which under a
    Gaussian likelihood of variance 1 is twice the nats: `clustering` is lambda / 2 then. 1 is ours.

    Args:
      params: `{"encoder", "decoder", "centres", "counts"}`.
      batch: `x` `[B, ...]`.
      key: ignored.
      model: static.
      clustering: weight.

    Returns:
      The mean over the batch, and `recon_nats`, `sse` and `cluster_sq`, `|z - m|^2`, likewise means.

    Reference: the paper's objective. An example is assigned by the parameters of this step; in the paper's algorithm by
    those of when it was last seen.
    """
    z = model.bind({"params": params}).embed(batch.x)
    recon, metrics = reconstruction(params, z, batch, model=model)
    centres = jax.lax.stop_gradient(params["centres"])
    gap = sum_last(jnp.square(widen(z) - centres[quantise.nearest(z, centres)])).mean()
    return recon + 0.5 * clustering * gap, {**metrics, "cluster_sq": gap}


def centres_rule(model: DCN) -> Rule:
    """k-means in one pass: a centre becomes the mean of all codes that ever chose it, its start counted 100 times.

    Code after code, the paper's `m <- m + (z - m) / count` comes to the same where all of a batch choose first, as they
    do in the authors' program (boyangumn/DCN, multi_layer_km.py), where the rate, as a quotient of whole numbers in
    Python 2, is zero.
    """

    def measure(params: Params, batch: Batch, key: jax.Array) -> tuple[Any, Metrics]:
        z = model.bind({"params": params}).embed(batch.x)
        return quantise.choices(z, quantise.nearest(z, params["centres"]), model.num_clusters), {}

    def update(params: Params, seen: Any, key: jax.Array) -> Params:
        counts = params["counts"] + seen["counts"][:, 0]
        gaps = seen["sums"] - seen["counts"] * params["centres"]
        return {"centres": params["centres"] + gaps / counts[:, None], "counts": counts}

    return Rule(measure, update, ("centres", "counts"), coupled=False)


def from_data(model: DCN, params: Params, data: Batch, key: jax.Array) -> Params:
    """Begins the centres with k-means of the codes, the best of 20 starts; the counts stay at 100."""
    z = clusters.in_blocks(lambda x: model.bind({"params": params}).embed(x), data.x)
    return {**params, "centres": clusters.k_means(key, widen(z), model.num_clusters)}


@factory
def dcn(model: DCN, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None) -> Algorithm:
    """A player and a rule in two phases, as in the paper's algorithm: the centres see the networks after their step.

    Begin with the parameters of an autoencoder, as `aejax.learn` does. Networks, rates and batch are ours.

    Returns:
      `recon` moves `encoder` and `decoder`, the rule `centres` `centres` and `counts`; `start` sets the centres.
    """
    own = optimisers(tx, {"recon": hparams.lr})["recon"]
    coupled = likelihoods.get(model.likelihood).coupled
    knobs = {"clustering": hparams.clustering}
    players: dict[str, Player | Rule] = {
        "recon": Player(partial(dcn_loss, model=model), model.groups, own, coupled, knobs),
        "centres": centres_rule(model),
    }
    start = partial(from_data, model)
    return play(players, [["recon"], ["centres"]], axis_name=axis_name, start=start, check=partial(check_data, model))


TERMS = {"cluster_sq": Term("code units^2 per example", "squared distance of the code from its cluster's centre")}
METHOD = Method(
    DCN, HParams, dcn, "deep clustering network, k-means beside the autoencoder", "Yang et al. 2017", noise_free=True,
    fields={"num_clusters": 4}, terms=TERMS, first=ae,
)  # fmt: skip
