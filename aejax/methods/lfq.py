"""Lookup-free quantisation: each number of the code is its sign, and an entropy term keeps the words of bits in use.

Yu et al., "Language model beats diffusion: tokenizer is key to visual generation", ICLR 2024, section 3.1. No codebook
is learned: the entries are the corners of a cube. The code of an example is a few words of bits, side by side.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from aejax import parallel
from aejax.algorithm import Metrics, Params
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, one_player
from aejax.methods.ae import AE, reconstruction
from aejax.nets import quantise
from aejax.precision import widen

__all__ = ["LFQ", "lfq", "lfq_loss"]

_MOST = 16  # bits of a word: the entropy term has a number for each word and vector


class LFQ(AE):
    """An autoencoder whose code is `latent_dim / bits` words of signs, side by side.

    Attributes:
      bits: of a word, up to 16; divides `latent_dim`.
    """

    bits: int = 8

    def setup(self) -> None:
        super().setup()
        if not 1 <= self.bits <= _MOST or self.latent_dim % self.bits:
            raise InputError(f"bits={self.bits}: from 1 to {_MOST}, and divides latent_dim={self.latent_dim}.")

    @property
    def num_entries(self) -> int:
        """K, the words."""
        return 2**self.bits

    def vectors(self, x: jax.Array) -> jax.Array:
        """What the encoder returns: `[B, ...] -> [B, slots, bits]`."""
        return self.encoder(x).reshape(x.shape[0], -1, self.bits)

    def tokens(self, x: jax.Array) -> jax.Array:
        """The discrete code: `[B, ...] -> [B, slots]` int32 below `num_entries`, the first bit the lowest."""
        return quantise.to_tokens(self.vectors(x) > 0, (2,) * self.bits)

    def entries(self, tokens: jax.Array) -> jax.Array:
        """The code that tokens stand for, -1 and 1: `[B, slots] -> [B, Z]`."""
        return (2.0 * quantise.to_digits(tokens, (2,) * self.bits) - 1.0).reshape(tokens.shape[0], -1)

    def encode(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """The signs, `[B, Z]`; their gradient passes straight through to the encoder."""
        vectors = self.vectors(x)
        return quantise.straight_through(vectors, signs(vectors)).reshape(x.shape[0], -1)


def signs(vectors: jax.Array) -> jax.Array:
    """1 for positive numbers, else -1."""
    return jnp.where(vectors > 0, 1.0, -1.0)


def entropies(vectors: jax.Array, temperature: float | jax.Array) -> tuple[jax.Array, jax.Array]:
    """How sure words are, and how evenly they are used, of a softmax over all words c of `-|v - c|^2 / temperature`.

    Bits are independent within a word: each is 1 with the probability `sigmoid(4 v / temperature)`.

    Args:
      vectors: `[N, bits]`.
      temperature: positive.

    Returns:
      The mean entropy of the words of single vectors, and that of the mean of their distributions, nats both.

    Example:
      >>> sure, even = entropies(jnp.array([[9.0, 9.0], [-9.0, 9.0]]), 1.0)
      >>> round(float(sure), 4), round(float(even), 4)  # each is one word for sure, the other has another: log 2
      (0.0, 0.6931)
    """
    bits = vectors.shape[-1]
    odds = 4 * vectors / temperature
    words = quantise.to_digits(jnp.arange(2**bits), (2,) * bits).astype(odds.dtype)  # [K, bits]
    log_no = jax.nn.log_sigmoid(-odds)
    log_q = jnp.matmul(odds, words.T, precision="highest") + log_no.sum(axis=1, keepdims=True)
    p = jax.nn.sigmoid(odds)
    single = -(p * jax.nn.log_sigmoid(odds) + (1 - p) * log_no).sum(axis=1).mean()
    log_mean = logsumexp(log_q, axis=0) - math.log(len(log_q))  # a word that nobody is near has a probability of 0
    return single, -(jnp.exp(log_mean) * log_mean).sum()


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate."""
    entropy: NonNegative = 0.1
    """Weight of the entropy term."""
    commitment: NonNegative = 0.25
    """Weight of the squared distance of the encoder's numbers from their signs."""
    temperature: Positive = 1.0
    """Of the softmax over words; the lower, the surer."""


@partial(jax.jit, static_argnames=("model", "axis_name"))
def lfq_loss(
    params: Params,
    batch: Batch,
    key: jax.Array,
    *,
    model: LFQ,
    entropy: float | jax.Array = 0.1,
    commitment: float | jax.Array = 0.25,
    temperature: float | jax.Array = 1.0,
    axis_name: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of the reconstruction, plus the entropy term, plus `commitment` times `|z - sign z|^2`.

    The entropy term is that of the words of single vectors, less that of the words of all: less the information that a
    word has of its vector. It is at least `-slots bits log 2`. Both parts are sums over the words of an example. The
    words of all slots and of all examples of the batch count as one set.

    Departures: the weights and the temperature are ours; of the losses of the paper's tokenizer, which has a
    discriminator and a perceptual distance, the reconstruction alone.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`.
      key: ignored.
      model: static.
      entropy, commitment: weights.
      temperature: of the softmax over words.
      axis_name: static; the mapped axis, if any, over whose shards the vectors are gathered.

    Returns:
      The loss; `recon_nats`, `sse` and `commitment_sq`, means over the batch; `token_entropy_nats`, the first part, a
      mean; and `codebook_entropy_nats`, the second, of the batch.
    """
    vectors = model.bind({"params": params}).vectors(batch.x)
    z = quantise.straight_through(vectors, signs(vectors)).reshape(len(batch.x), -1)
    recon, metrics = reconstruction(params, z, batch, model=model)
    vectors = widen(vectors)
    everyone = parallel.gather(vectors.reshape(-1, model.bits), axis_name)
    single, together = (vectors.shape[1] * each for each in entropies(everyone, temperature))
    gap = jnp.square(vectors - signs(vectors)).sum(axis=(1, 2)).mean()
    terms = {"commitment_sq": gap, "token_entropy_nats": single, "codebook_entropy_nats": together}
    return recon + entropy * (single - together) + commitment * gap, {**metrics, **terms}


lfq = one_player("lfq", lfq_loss, LFQ, HParams, coupled=True)

TERMS = {
    "token_entropy_nats": Term("nats per example", "entropy of the words of an example, by the softmax, as if alone"),
    "codebook_entropy_nats": Term(
        "nats per example", "entropy of the words of all, times the words of an example", True
    ),
}
METHOD = Method(
    LFQ, HParams, lfq, "lookup-free quantisation: a code of signs, whose words an entropy term spreads",
    "Yu et al. 2024", noise_free=True, fields={"bits": 2}, terms=TERMS,
)  # fmt: skip
