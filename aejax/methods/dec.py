"""Deep embedded clustering: the encoder and K centres are drawn towards what they are already sure of.

Xie, Girshick & Farhadi, "Unsupervised deep embedding for clustering analysis", ICML 2016. Parameters are those of a
trained autoencoder; centres start from k-means of its codes. The targets of all examples are made now and then from the
whole set, which is a `Refresh`: `snapshot` keeps the encoder, the centres and the frequencies of the clusters of that
moment, from which the target of each example follows exactly, without a row of its own anywhere.
"""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from aejax import clusters, likelihoods
from aejax.algorithm import Algorithm, Metrics, Params, Player, Refresh, play
from aejax.checks import check_count
from aejax.data import Batch
from aejax.factory import Method, Positive, Term, Tx, check_data, factory, optimisers
from aejax.methods.ae import AE, ae, decoder_loss
from aejax.precision import sum_last, widen

__all__ = ["DEC", "dec", "dec_loss"]


def log_assignments(z: jax.Array, centres: jax.Array) -> jax.Array:
    """log q, of Student's t-kernel with one degree of freedom: `[B, Z], [K, Z] -> [B, K]`, equation 1 with alpha 1."""
    return jax.nn.log_softmax(-jnp.log1p(clusters.squared_distances(widen(z), widen(centres))))


def log_targets(log_q: jax.Array, frequencies: jax.Array) -> jax.Array:
    """log p, of `p_j ~ q_j^2 / f_j` for each example: `[B, K], [K] -> [B, K]`, equation 3.

    Args:
      log_q: as of `log_assignments`.
      frequencies: f, the sum of q over the whole set, or its mean: a factor that all share drops out.

    Example:
      >>> p = jnp.exp(log_targets(jnp.log(jnp.array([[0.75, 0.25]])), jnp.array([0.5, 0.5])))
      >>> [round(float(each), 4) for each in p[0]]
      [0.9, 0.1]
    """
    return jax.nn.log_softmax(2 * log_q - jnp.log(frequencies)[None])


class Snapshot(nn.Module):
    """What the targets are made of: encoder, centres and frequencies as they were when all examples were last seen.

    Attributes:
      encoder: as that of the model.
      num_clusters: K.
      dim: Z.

    Call: log-targets, `[B, ...] -> [B, K]`.
    """

    encoder: nn.Module
    num_clusters: int
    dim: int

    def setup(self) -> None:
        self.centres = self.param("centres", nn.initializers.normal(1.0), (self.num_clusters, self.dim))
        self.frequencies = self.param(
            "frequencies", nn.initializers.constant(1 / self.num_clusters), self.centres.shape[:1]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return log_targets(log_assignments(self.encoder(x), self.centres), self.frequencies)


class DEC(AE):
    """An autoencoder with K centres among its codes.

    Attributes:
      num_clusters: K.
      snapshot: what the targets are made of; `dense` and `conv` make it of a copy of the encoder.
    """

    num_clusters: int = 10
    snapshot: Any = None
    networks: ClassVar[tuple[str, ...]] = (*AE.networks, "snapshot")

    @classmethod
    def completed(cls, model: Any) -> Any:
        """With a snapshot of the encoder."""
        check_count(num_clusters=model.num_clusters)
        made = model.snapshot or Snapshot(model.encoder.clone(), model.num_clusters, model.latent_dim)
        return model.clone(snapshot=made)

    def setup(self) -> None:
        super().setup()
        self.centres = self.param("centres", nn.initializers.normal(1.0), (self.num_clusters, self.latent_dim))

    def __call__(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        self.log_targets(x)
        return super().__call__(x, *condition)

    def log_assignments(self, x: jax.Array) -> jax.Array:
        """log q, of every cluster given x: `[B, ...] -> [B, K]`."""
        return log_assignments(self.embed(x), self.centres)

    def log_targets(self, x: jax.Array) -> jax.Array:
        """log p, by the snapshot: `[B, ...] -> [B, K]`."""
        return self.snapshot(x)

    def clusters(self, x: jax.Array) -> jax.Array:
        """The most probable cluster, that of the nearest centre: `[B, ...] -> [B]` int32 below K."""
        return self.log_assignments(x).argmax(axis=1)


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""


def divergence(params: Params, batch: Batch, *, model: DEC) -> jax.Array:
    """`KL(p | q)` of each example, in nats: `[B]`, with the targets p held fixed."""
    bound = model.bind({"params": params})
    log_q, log_p = bound.log_assignments(batch.x), jax.lax.stop_gradient(bound.log_targets(batch.x))
    return sum_last(jnp.exp(log_p) * (log_p - log_q))


@partial(jax.jit, static_argnames=("model",))
def dec_loss(params: Params, batch: Batch, key: jax.Array, *, model: DEC) -> tuple[jax.Array, Metrics]:
    """The divergence of the soft assignments from their targets, in nats per example.

    Args:
      params: `{"encoder", "decoder", "centres", "snapshot"}`.
      batch: `x` `[B, ...]`.
      key: ignored.
      model: static.

    Returns:
      The mean of `KL(p | q)` over the batch, which is `cluster_kl_nats` too.

    Reference: equation 2, there a sum over examples. The targets are of the last refresh, of any example, also of one
    that was not among those whose frequencies are known.
    """
    kl = divergence(params, batch, model=model).mean()
    return kl, {"cluster_kl_nats": kl}


def refreshed(model: DEC, params: Params, data: Batch, key: jax.Array) -> Params:
    """The snapshot as of now: frequencies are means of q over the whole set."""
    log_q = clusters.in_blocks(lambda x: model.bind({"params": params}).log_assignments(x), data.x)
    now = {"encoder": params["encoder"], "centres": params["centres"]}
    return {"snapshot": {**now, "frequencies": jnp.exp(log_q).mean(axis=0)}}


def from_data(model: DEC, params: Params, data: Batch, key: jax.Array) -> Params:
    """Begins the centres with k-means of the codes, the best of 20 starts, as in section 3.2, and the snapshot."""
    z = clusters.in_blocks(lambda x: model.bind({"params": params}).embed(x), data.x)
    params = {**params, "centres": clusters.k_means(key, widen(z), model.num_clusters)}
    return {**params, **refreshed(model, params, data, key)}


@factory
def dec(
    model: DEC,
    hparams: HParams = HParams(),
    tx: Tx = optax.adam,
    *,
    refresh_every: int = 140,
    axis_name: str | None = None,
) -> Algorithm:
    """Two players in one phase, and a refresh of the targets from the whole set.

    Begin with the parameters of an autoencoder, as `aejax.learn` does: from fresh ones, clusters are those of codes
    that mean nothing. Where this departs from the paper: Adam at 1e-3 for SGD at 0.01; training ends after so many
    passes, not where fewer than 0.1 % of the examples change their cluster between two refreshes; and the decoder,
    which the paper drops, learns on, so that codes and centres can be looked at: no gradient of that reaches a code.

    Args:
      model: a `DEC`.
      hparams: knobs; each may be traced; or each by its own name.
      tx: learning rate -> optimiser, for both players; or a dict of such by player.
      refresh_every: steps between two refreshes; static. 140 of 256 images are those of DEC-keras on MNIST.
      axis_name: as in `play`.

    Returns:
      `cluster` moves `encoder` and `centres`, `recon` the decoder, the refresh `snapshot`; `start` sets the centres and
      the snapshot.
    """
    own = optimisers(tx, {"cluster": hparams.lr, "recon": hparams.lr})
    coupled = likelihoods.get(model.likelihood).coupled
    decoder = tuple(group for group in model.groups if group != "encoder")
    players = {
        "cluster": Player(partial(dec_loss, model=model), ("encoder", "centres"), own["cluster"]),
        "recon": Player(partial(decoder_loss, model=model), decoder, own["recon"], coupled),
    }
    return play(
        players,
        [["cluster", "recon"]],
        axis_name=axis_name,
        start=partial(from_data, model),
        refreshes=[Refresh(partial(refreshed, model), ("snapshot",), refresh_every)],
        check=partial(check_data, model),
    )


TERMS = {
    "cluster_kl_nats": Term("nats per example", "divergence of the soft assignments to clusters from their targets"),
}
METHOD = Method(
    DEC, HParams, dec, "deep embedded clustering", "Xie et al. 2016", noise_free=True,
    fields={"num_clusters": 4}, terms=TERMS, first=ae,
)  # fmt: skip
