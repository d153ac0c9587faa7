"""The vector-quantised autoencoder, its codebook moved by running means, or by a gradient.

van den Oord, Vinyals & Kavukcuoglu, "Neural discrete representation learning", NIPS 2017. The code of an example is a
few vectors, each replaced by the nearest of a codebook. By default no gradient moves that: each entry is the running
mean of the vectors that chose it (appendix A.1), which is a `Rule`. Entries that hardly anything chooses may begin
anew at vectors of the batch, which the paper does not have.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.scipy.special import entr

from aejax import parallel
from aejax.algorithm import Algorithm, Metrics, Params, Player, Rule, play
from aejax.checks import InputError, nearest
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Probability, Term, Tx, check_data, factory, optimisers
from aejax.methods.ae import AE, reconstruction
from aejax.nets import quantise

__all__ = ["VQVAE", "vq_vae", "vq_vae_loss"]

WAYS = ("means", "gradient")


class VQVAE(AE):
    """An autoencoder whose code is `latent_dim / entry_dim` vectors of a codebook, side by side.

    Attributes:
      num_entries: K, of the codebook.
      entry_dim: of an entry; divides `latent_dim`.
      codebook_by: what moves the entries, `means` or `gradient`.
    """

    num_entries: int = 64
    entry_dim: int = 4
    codebook_by: str = "means"

    def setup(self) -> None:
        super().setup()
        if self.entry_dim < 1 or self.num_entries < 1 or self.latent_dim % self.entry_dim:
            raise InputError(
                f"entry_dim={self.entry_dim} and num_entries={self.num_entries}: both are at least 1, and entry_dim"
                f" divides latent_dim={self.latent_dim}."
            )
        if self.codebook_by not in WAYS:
            raise InputError(f"codebook_by={self.codebook_by!r}. {nearest(self.codebook_by, WAYS, what='ways')}")
        self.codebook = quantise.Codebook(self.num_entries, self.entry_dim, self.codebook_by == "means")

    def vectors(self, x: jax.Array) -> jax.Array:
        """What the encoder returns: `[B, ...] -> [B, slots, entry_dim]`."""
        return self.encoder(x).reshape(x.shape[0], -1, self.entry_dim)

    def tokens(self, x: jax.Array) -> jax.Array:
        """The discrete code: `[B, ...] -> [B, slots]` int32 below `num_entries`."""
        return self.codebook.nearest(self.vectors(x))

    def entries(self, tokens: jax.Array) -> jax.Array:
        """The code that tokens stand for: `[B, slots] -> [B, Z]`."""
        return self.codebook()[tokens].reshape(tokens.shape[0], -1)

    def quantised(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The encoder's vectors, and the entries nearest to them, both `[B, slots, entry_dim]`."""
        return self.vectors(x), jax.lax.stop_gradient(self.codebook()[self.tokens(x)])

    def encode(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """The quantised code, `[B, Z]`; its gradient passes straight through to the encoder."""
        return quantise.straight_through(*self.quantised(x)).reshape(x.shape[0], -1)


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate."""
    commitment: NonNegative = 0.25
    """Weight of the squared distance of the encoder's vectors from their entries."""
    decay: Probability = 0.99
    """The share of the running sums and counts that a step keeps."""


@partial(jax.jit, static_argnames=("model",))
def vq_vae_loss(
    params: Params, batch: Batch, key: jax.Array, *, model: VQVAE, commitment: float | jax.Array = 0.25
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of the reconstruction, plus `commitment` times `|z_e - e|^2`, with e held fixed.

    Equation 3 without its middle term, which the running means replace; `commitment` is its beta. Both terms are sums
    over the numbers of an example; the paper has means over the vectors of its code, and so a smaller weight for more.

    Args:
      params, batch, key, model: as in `ae_loss`, `params["codebook"]` beside; the key is ignored.
      commitment: weight; the paper has 0.25, and found 0.1 to 2 alike.

    Returns:
      The mean over the batch, and `recon_nats`, `sse` and `commitment_sq`, likewise means.
    """
    vectors, entries = model.bind({"params": params}).quantised(batch.x)
    z = quantise.straight_through(vectors, entries).reshape(len(batch.x), -1)
    recon, metrics = reconstruction(params, z, batch, model=model)
    gap = jnp.square(vectors - entries).sum(axis=(1, 2)).mean()
    return recon + commitment * gap, {**metrics, "commitment_sq": gap}


@partial(jax.jit, static_argnames=("model",))
def entries_loss(params: Params, batch: Batch, key: jax.Array, *, model: VQVAE) -> tuple[jax.Array, Metrics]:
    """`|z_e - e|^2` with z_e held fixed, the middle term of equation 3: what moves the entries by a gradient.

    Args:
      params, batch, key, model: as in `vq_vae_loss`.

    Returns:
      The mean over the batch, of sums over the numbers of an example; no terms.
    """
    bound = model.bind({"params": params})
    vectors = jax.lax.stop_gradient(bound.vectors(batch.x))
    return jnp.square(vectors - bound.codebook()[bound.codebook.nearest(vectors)]).sum(axis=(1, 2)).mean(), {}


def codebook_rule(model: VQVAE, decay: float | jax.Array, revival: float = 0.0, axis_name: str | None = None) -> Rule:
    """Moves the codebook; reports `perplexity`, `exp` of the entropy of a batch's choices: 1 to K entries in use.

    Where a gradient moves the entries, the rule counts who chooses them, and revives.
    """
    by_means = model.codebook_by == "means"

    def measure(params: Params, batch: Batch, key: jax.Array, *, decay: Any) -> tuple[Any, Metrics]:
        bound = model.bind({"params": params})
        vectors = bound.vectors(batch.x)
        seen = quantise.choices(vectors, bound.codebook.nearest(vectors), model.num_entries)
        counts = seen["counts"] if axis_name is None else jax.lax.psum(seen["counts"], axis_name)
        if revival:  # what is summed over devices is then what all of them see
            everyone = parallel.gather(vectors.reshape(-1, model.entry_dim), axis_name)
            seen["vectors"] = everyone * (vectors.size / everyone.size)
        return seen, {"perplexity": jnp.exp(entr(counts / counts.sum()).sum())}

    def update(params: Params, seen: Any, key: jax.Array, *, decay: Any) -> Params:
        codebook = params["codebook"]
        new = quantise.moved(codebook, {name: seen[name] for name in codebook}, decay)
        new = new if by_means else {**codebook, "counts": new["counts"]}
        if revival:
            new = quantise.revived(new, seen["vectors"], key, revival, running=by_means)
        return {"codebook": new}

    return Rule(measure, update, ("codebook",), knobs={"decay": decay})


def from_data(model: VQVAE, params: Params, data: Batch, key: jax.Array) -> Params:
    """Begins the codebook with k-means centres of what the encoder returns for up to 16 K examples; ours."""
    rows = jax.random.permutation(key, len(data.x))[: 16 * model.num_entries]
    vectors = model.bind({"params": params}).vectors(jnp.asarray(data.x)[rows])
    centres = quantise.k_means(vectors.reshape(-1, model.entry_dim), model.num_entries)
    return {**params, "codebook": {"sums": centres, "counts": jnp.ones((model.num_entries, 1))}}


@factory
def vq_vae(
    model: VQVAE,
    hparams: HParams = HParams(),
    tx: Tx = optax.adam,
    *,
    revival: float = 0.0,
    axis_name: str | None = None,
) -> Algorithm:
    """A player and a rule in one phase: both see the encoder of before the step, and share its forward pass.

    Args:
      revival: static; an entry whose running count is below this share of the mean count begins anew at a vector of the
        batch. 0 leaves it out.

    Returns:
      `recon` moves `encoder` and `decoder`, the rule `codebook` the codebook; `start` sets that among the data's codes.
      With `codebook_by="gradient"` a player `entries` moves the codebook, at the rate of `recon`, beside it; the rule,
      which counts and revives, follows in a phase of its own, with a pass of its own through the encoder.

    Raises:
      InputError: a share that is not from 0 to below 1.
    """
    if not 0 <= revival < 1:
        raise InputError(f"revival is {revival}; a share of the mean count is wanted, from 0 to below 1.")
    by_gradient = model.codebook_by == "gradient"
    own = optimisers(tx, dict.fromkeys(["recon", *["entries"] * by_gradient], hparams.lr))
    loss = partial(vq_vae_loss, model=model)
    players: dict[str, Player | Rule] = {
        "recon": Player(loss, model.groups, own["recon"], knobs={"commitment": hparams.commitment}),
        "codebook": codebook_rule(model, hparams.decay, revival, axis_name),
    }
    phases = [["recon", "codebook"]]
    if by_gradient:
        decayed = {"codebook": {"sums": True, "counts": False}}  # what is counted is no weight
        of_entries = optax.masked(own["entries"], decayed)
        players["entries"] = Player(partial(entries_loss, model=model), ("codebook",), of_entries)
        phases = [["recon", "entries"], ["codebook"]]
    start, check = partial(from_data, model), partial(check_data, model)
    return play(players, phases, axis_name=axis_name, start=start, check=check)


TERMS = {
    "commitment_sq": Term("code units^2 per example", "squared distance of the encoder's vectors from their entries"),
    "perplexity": Term("entries", "exp of the entropy of the choices among the codebook's entries", True),
    "test_perplexity": Term("entries", "the same of the whole test split"),
    "code_nats": Term(
        "nats per image", "tokens of a test image, by an autoregressive prior of those of training images"
    ),
    "code_apart_nats": Term("nats per image", "the same, each token by how often it stands at its place"),
    "used_entries": Term("count", "entries that the test split uses"),
}
METHOD = Method(
    VQVAE, HParams, vq_vae, "vector-quantised, codebook by running means or a gradient", "van den Oord et al. 2017",
    noise_free=True, fields={"num_entries": 8, "entry_dim": 2}, terms=TERMS,
)  # fmt: skip
