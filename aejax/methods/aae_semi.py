"""The semi-supervised adversarial autoencoder: a class and a style, each made to follow its prior.

Makhzani, Shlens, Jaitly, Goodfellow & Frey, "Adversarial Autoencoders", 2015 (arXiv:1511.05644), section 5. The encoder
returns shares of the classes, by a softmax, and a style; one discriminator tells the shares from one-hot classes,
another the style from normal draws. Few examples have labels, from which the encoder learns too.
"""

from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from aejax import divergences, likelihoods, priors
from aejax.algorithm import Algorithm, Metrics, Params, Player, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, Positive, Term, Tx, factory, optimisers
from aejax.methods.ae import AE, ae_loss
from aejax.methods.gan import told_apart
from aejax.methods.m2 import SemiBatch, check_streams, split
from aejax.nets import MLP, check_labels, shaped
from aejax.precision import widen

__all__ = ["SemiAAE", "aae_semi"]


class SplitAAE(AE):
    """Abstract base: an encoder, a decoder, and two discriminators; a code is shares of K kinds, and a style behind.

    Attributes:
      discriminator: any Linen module, of a style: log-odds `[B, 1]` of being a normal draw.
      class_discriminator: likewise of shares `[B, K]`, of being one-hot.
      prior: the `ClassAndStyle` of these sizes, which `dense` and `conv` set.
    """

    discriminator: nn.Module = MLP((256, 256, 1), nn.relu)
    class_discriminator: nn.Module = MLP((256, 256, 1), nn.relu)
    networks: ClassVar[tuple[str, ...]] = (*AE.networks, "discriminator", "class_discriminator")
    kinds: ClassVar[str]  # the field that says how many, K; the style is what a code of `latent_dim` has beside

    @property
    def num_kinds(self) -> int:
        """K."""
        return getattr(self, self.kinds)

    @classmethod
    def dense(cls, data_dim: int, latent_dim: int, **fields: Any) -> Self:
        """As of any autoencoder, with a style of `latent_dim` numbers behind the shares."""
        return super().dense(data_dim, cls._size(fields, latent_dim), **fields)

    @classmethod
    def conv(cls, data_shape: tuple[int, int, int], latent_dim: int, **fields: Any) -> Self:
        """Likewise, on images."""
        return super().conv(data_shape, cls._size(fields, latent_dim), **fields)

    @classmethod
    def _size(cls, fields: dict[str, Any], latent_dim: int) -> int:
        count = fields.get(cls.kinds, getattr(cls, cls.kinds))
        cls.check_kinds(count)
        return count + latent_dim

    @classmethod
    def check_kinds(cls, count: int | None) -> None:
        """Refuses fewer than two kinds."""
        if count is None or count < 2:
            raise InputError(f"{cls.__name__} needs {cls.kinds} of 2 or more; got {count}.")

    @classmethod
    def completed(cls, model: Any) -> Any:
        """With its prior."""
        return model.clone(prior=model.prior or priors.ClassAndStyle(model.num_kinds, model.latent_dim))

    def __call__(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        z = self.embed(x)
        self.discriminate(z)
        return self.decode(z)

    def encode(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """Shares and style: `[B, ...] -> [B, Z]`."""
        found = self.encoder(x)
        shares = jax.nn.softmax(widen(found[:, : self.num_kinds])).astype(found.dtype)
        return jnp.concatenate([shares, found[:, self.num_kinds :]], axis=1)

    def classify(self, x: jax.Array) -> jax.Array:
        """Logits of the kinds: `[B, ...] -> [B, K]`."""
        return self.encoder(x)[:, : self.num_kinds]

    def clusters(self, x: jax.Array) -> jax.Array:
        """The most likely kind: `[B, ...] -> [B]` int32."""
        return self.classify(x).argmax(axis=1)

    def discriminate(self, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Log-odds that the style, and that the shares, are draws from the prior: `[B, Z] -> [B, 1], [B, 1]`."""
        shares, style = z[:, : self.num_kinds], z[:, self.num_kinds :]
        of_style = shaped("discriminator", self.discriminator(style), (len(z), 1))
        return of_style, shaped("class_discriminator", self.class_discriminator(shares), (len(z), 1))


class SemiAAE(SplitAAE):
    """A code is the shares of the classes, and the style.

    Attributes:
      num_classes: K, of which `dense` and `conv` make a code of K numbers and those of the style.
    """

    num_classes: int = 10
    learns_labels: ClassVar[bool] = True
    kinds: ClassVar[str] = "num_classes"

    @classmethod
    def check_kinds(cls, count: int | None) -> None:
        """Refuses fewer than two classes, and data without labels."""
        if count is None or count < 2:
            raise InputError(f"{cls.__name__} needs labels of two classes or more; num_classes is {count}.")


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate of reconstruction."""
    disc_lr: Positive = 1e-3
    """Learning rate of the discriminators."""
    gen_lr: Positive = 1e-3
    """Learning rate of the encoder against the discriminators."""
    class_lr: Positive = 1e-3
    """Learning rate of the encoder on the labelled examples."""


def aae_semi_recon_loss(params: Params, batch: SemiBatch, key: jax.Array, *, model: AE) -> tuple[jax.Array, Metrics]:
    """`ae_loss` of the examples without labels, from the shares as they are."""
    return ae_loss(params, batch.unlabelled, key, model=model)


@partial(jax.jit, static_argnames=("model", "of_classes"))
def aae_semi_disc_loss(
    params: Params, batch: SemiBatch, key: jax.Array, *, model: SemiAAE, of_classes: bool
) -> tuple[jax.Array, Metrics]:
    """The two cross-entropies of one discriminator, in nats: 2 log 2 where it cannot tell.

    Args:
      params: `{"encoder", "decoder", "discriminator", "class_discriminator"}`.
      batch: `SemiBatch`; its examples without labels are used.
      key: consumed by as many draws of the prior.
      model: static.
      of_classes: static: of the shares, or of the style.

    Returns:
      The mean over the batch, and `accuracy`, as in `aae_disc_loss`.
    """
    bound, x = model.bind({"params": params}), batch.unlabelled.x
    real = bound.discriminate(bound.sample_prior(key, len(x)))[of_classes]
    fake = bound.discriminate(bound.encode(x))[of_classes]
    return told_apart(real, fake)


@partial(jax.jit, static_argnames=("model",))
def aae_semi_gen_loss(params: Params, batch: SemiBatch, key: jax.Array, *, model: SemiAAE) -> tuple[jax.Array, Metrics]:
    """The encoder's loss against both discriminators, non-saturating; 2 log 2 where neither can tell.

    Returns:
      The mean over the examples without labels of the sum of `style_nats` and `share_nats`.
    """
    bound = model.bind({"params": params})
    logits = bound.discriminate(bound.encode(batch.unlabelled.x))
    style, share = (divergences.generator_loss(each).mean() for each in logits)
    return style + share, {"style_nats": style, "share_nats": share}


@partial(jax.jit, static_argnames=("model",))
def aae_semi_class_loss(
    params: Params, batch: SemiBatch, key: jax.Array, *, model: SemiAAE
) -> tuple[jax.Array, Metrics]:
    """The cross-entropy of the classes of labelled examples, in nats, and `error`, the share that is put wrong."""
    few: Batch = batch.labelled
    logits = widen(model.bind({"params": params}).classify(few.x))
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, few.y).mean()
    return loss, {"error": jnp.mean(logits.argmax(axis=1) != few.y, dtype=logits.dtype)}


def check(model: AE, data: SemiBatch) -> None:
    """Refuses streams as M2 does, and labels that are missing or none of the classes."""
    check_streams(model, data)
    if data.labelled.y is None:
        raise InputError("The labelled examples have no labels: give SemiBatch(Batch(x, y), Batch(x)).")
    check_labels(model, data.labelled.y)


def check_prior(model: SplitAAE) -> None:
    """Refuses another prior than that of the model's kinds and style."""
    wanted = priors.ClassAndStyle(model.num_kinds, model.latent_dim)
    if model.prior != wanted:
        raise InputError(f"The prior is {model.prior!r}; the classes and the style of this model need {wanted!r}.")


@factory
def aae_semi(
    model: SemiAAE, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None
) -> Algorithm:
    """Five players in four phases, in the order of section 5: reconstruction, regularisation, classification.

    Departures from the paper, whose training is told in prose: Adam in place of SGD with momentum; hidden layers and
    rates are ours.

    Returns:
      `recon` moves `encoder` and `decoder`; `disc` and `class_disc` their discriminators, together; `gen` and then
      `class` move `encoder`.

    Raises:
      InputError: another prior than that of the model's classes and style.
    """
    check_prior(model)
    rates = {
        "recon": hparams.lr, "disc": hparams.disc_lr, "class_disc": hparams.disc_lr, "gen": hparams.gen_lr,
        "class": hparams.class_lr,
    }  # fmt: skip
    txs = optimisers(tx, rates)
    disc = partial(aae_semi_disc_loss, model=model)
    coupled = likelihoods.get(model.likelihood).coupled
    players = {
        "recon": Player(partial(aae_semi_recon_loss, model=model), model.groups, txs["recon"], coupled),
        "disc": Player(partial(disc, of_classes=False), ("discriminator",), txs["disc"]),
        "class_disc": Player(partial(disc, of_classes=True), ("class_discriminator",), txs["class_disc"]),
        "gen": Player(partial(aae_semi_gen_loss, model=model), ("encoder",), txs["gen"]),
        "class": Player(partial(aae_semi_class_loss, model=model), ("encoder",), txs["class"]),
    }
    phases = [["recon"], ["disc", "class_disc"], ["gen"], ["class"]]
    return play(players, phases, axis_name=axis_name, check=partial(check, model))


TERMS = {
    "style_nats": Term("nats", "surprise of a discriminator told that styles are normal draws"),
    "share_nats": Term("nats", "surprise of a discriminator told that shares of classes are one-hot"),
}
METHOD = Method(
    SemiAAE, HParams, aae_semi, "semi-supervised adversarial", "Makhzani et al. 2015", terms=TERMS,
    batch=split, batch_size=lambda size: SemiBatch(size, size),
)  # fmt: skip
