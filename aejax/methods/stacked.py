"""Stacked autoencoders: layer upon layer, each an autoencoder of the code below it; then all of them as one.

Hinton & Salakhutdinov (2006) and Bengio et al. (2007) for the order: greedy layers first, then the whole. Vincent et
al. (2008; 2010) for the stacked *denoising* autoencoder: each layer undoes noise put on what it sees, which is the
clean code of the layers below; Masci et al. (2011) for convolutional layers, which here have strides in place of their
max-pooling.

Every layer is a player over groups of its own, `encoder_0` and `decoder_0`, `encoder_1` and so on. Greedy training is
one stage after the other, `stacked(model, layers=(0,))` first and each next one from the parameters of the last
(`init(old.params)`); without `layers`, all of them are trained at once, each on the code that those below have by then.
`unrolled` goes on with all layers as one deep autoencoder, and `aejax.evaluation.fine_tune` with a classifier on top.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Self

import flax.linen as nn
import jax
import optax

from aejax import corruption as corruptions
from aejax import likelihoods
from aejax.algorithm import Algorithm, Metrics, Player, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, Positive, check_data, factory, optimisers
from aejax.methods.ae import AE, ae_loss
from aejax.nets import MLP, Conv, ConvTranspose, TiedMLP, check_plain

__all__ = ["StackedAE", "layer_loss", "stacked", "unrolled"]


class StackedAE(AE):
    """A chain of encoders and the decoders that undo them.

    Attributes:
      encoder: L modules; the first takes the data, each other the code of the one before it.
      decoder: L modules; `decoder[i]` undoes `encoder[i]`, in logits or means of what that one takes.
      latent_dim: Z, the size of the last code.
      likelihood: of the data.
      inner_likelihood: of the codes between, as the input of the next layer: `bernoulli` where they are in [0, 1].
    """

    encoder: tuple[nn.Module, ...]  # type: ignore[assignment]
    decoder: tuple[nn.Module, ...]  # type: ignore[assignment]
    inner_likelihood: str = "bernoulli"

    @classmethod
    def dense(
        cls,
        data_dim: int,
        latent_dim: int,
        *,
        hidden_dims: tuple[int, ...] = (256,),
        activation: Callable[[jax.Array], jax.Array] = nn.sigmoid,
        tied: bool = True,
        **fields: Any,
    ) -> Self:
        """Dense layers on vectors `[B, D]`; by default as published, sigmoids with tied weights.

        The inner likelihood is Bernoulli for sigmoids, and Gaussian for other activations.
        """
        encoder = tuple(MLP((width,), final_activation=activation) for width in (*hidden_dims, latent_dim))
        outputs = cls.decoder_shape((data_dim,), tied=tied, **fields)
        decoder = tuple(
            TiedMLP(layer) if tied else MLP((width,))
            for layer, width in zip(encoder, (*outputs, *hidden_dims), strict=True)
        )
        fields = {"inner_likelihood": _likelihood(activation), **fields}
        return cls(encoder=encoder, decoder=decoder, latent_dim=latent_dim, **fields)

    @classmethod
    def conv(
        cls,
        data_shape: tuple[int, int, int],
        latent_dim: int,
        *,
        features: tuple[int, ...] = (32, 64),
        strides: tuple[int, ...] = (2, 2),
        activation: Callable[[jax.Array], jax.Array] = nn.sigmoid,
        **fields: Any,
    ) -> Self:
        """Convolutional layers on images `[B, H, W, C]`, and a dense one on top of them."""
        shape = data_shape
        encoder: list[nn.Module] = []
        decoder: list[nn.Module] = []
        for width, stride in zip(features, strides, strict=True):
            encoder.append(nn.Sequential((Conv(width, stride), activation)))
            channels = shape[2] if decoder else cls.decoder_shape(shape, **fields)[2]
            decoder.append(ConvTranspose(channels, shape[:2], stride))
            shape = (-(-shape[0] // stride), -(-shape[1] // stride), width)
        encoder.append(nn.Sequential((_flat, MLP((latent_dim,), final_activation=activation))))
        decoder.append(nn.Sequential((MLP((shape[0] * shape[1] * shape[2],)), _Shaped(shape))))
        fields = {"inner_likelihood": _likelihood(activation), **fields}
        return cls(encoder=tuple(encoder), decoder=tuple(decoder), latent_dim=latent_dim, **fields)

    @property
    def groups(self) -> tuple[str, ...]:
        """The parameter groups, `encoder_0`, `decoder_0`, `encoder_1`, ..."""
        return tuple(group for i in range(len(self.encoder)) for group in self.layer_groups(i))

    def layer_groups(self, layer: int) -> tuple[str, ...]:
        """Those of one layer; a learned variance belongs to the first one, which reconstructs the data."""
        own = likelihoods.get(self.likelihood).own_parameter
        extra = (own,) if own is not None and layer == 0 else ()
        return (f"encoder_{layer}", f"decoder_{layer}", *extra)

    def layer_likelihood(self, layer: int) -> likelihoods.Likelihood:
        """That of what a layer takes: the data, or the code of the one below."""
        return likelihoods.get(self.likelihood if layer == 0 else self.inner_likelihood)

    def features(self, x: jax.Array, layer: int) -> jax.Array:
        """What encoder `layer` takes: x for the first one, else the code of the one below, `[B, ...]`."""
        for encoder in self.encoder[:layer]:
            x = encoder(x)
        return x

    def encode(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        return self.features(x, len(self.encoder))

    def decode(self, z: jax.Array, *condition: jax.Array) -> jax.Array:
        for decoder in self.decoder[:0:-1]:
            z = likelihoods.get(self.inner_likelihood).mean(decoder(z))
        return self.with_own_parameter(self.decoder[0](z))


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""
    level: float = 0.25
    """Of the corruption: standard deviation (gaussian), or the share of components that it hits."""


@partial(jax.jit, static_argnames=("model", "layer", "corruption"))
def layer_loss(
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: StackedAE,
    layer: int,
    corruption: str | None = "masking",
    level: float | jax.Array = 0.25,
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of the code below a layer, given that of its corrupted self, in nats per example.

    Args:
      params: by group, `encoder_0`, `decoder_0`, ...; those above the layer are not used.
      batch: `x` `[B, ...]`.
      key: consumed by the corruption.
      model: static.
      layer: static, counted from 0; the first one reconstructs the data.
      corruption: static, a name of `aejax.corruption.CORRUPTIONS`; None for a plain autoencoder.
      level: of the corruption.

    Returns:
      The mean over the batch, and `recon_nats` and `sse`, likewise means, in the units of what the layer takes.

    Raises:
      InputError: unknown corruption.
    """
    bound = model.bind({"params": params})
    h = bound.features(batch.x, layer)
    h_tilde = h if corruption is None else corruptions.get(corruption)(key, h, level)
    output = bound.decoder[layer](bound.encoder[layer](h_tilde))
    if layer == 0:
        output = bound.with_own_parameter(output)
    likelihood = model.layer_likelihood(layer)
    recon = likelihood.nll(output, h).mean()
    return recon, {"recon_nats": recon, "sse": likelihoods.sse(likelihood.mean(output), h).mean()}


@factory
def stacked(
    model: StackedAE,
    hparams: HParams = HParams(),
    tx: Callable[..., Any] | Mapping[str, Any] = optax.adam,
    *,
    corruption: str | None = "masking",
    layers: tuple[int, ...] | None = None,
    axis_name: str | None = None,
) -> Algorithm:
    """Greedy training: a player for each layer.

    Args:
      model: the module.
      hparams: knobs; may hold traced values. Each may be given by its name too.
      tx: learning rate -> optimiser, called once a layer; or a dict of such by player.
      corruption: a name of `aejax.corruption.CORRUPTIONS`; None for stacked plain autoencoders.
      layers: which are trained, counted from 0; all by default.
      axis_name: as in `play`.

    Returns:
      Player `layer_i` moves `encoder_i` and `decoder_i`; one phase for each, from the lowest up.

    Raises:
      InputError: unknown corruption, a level that it cannot have, a layer that is not there, or a model with an `nll`
        or `generate` of its own.
    """
    check_plain(model)
    if corruption is not None:
        corruptions.check_level(corruption, hparams.level)
    count = len(model.encoder)
    chosen = tuple(range(count)) if layers is None else layers
    if not chosen or not all(0 <= layer < count for layer in chosen):
        raise InputError(f"layers={layers}; the stack has the layers {list(range(count))}.")
    names = {f"layer_{i}": i for i in sorted(chosen)}
    txs = optimisers(tx, dict.fromkeys(names, hparams.lr))
    loss = partial(layer_loss, model=model, corruption=corruption)

    def player(name: str, layer: int) -> Player:
        coupled = model.layer_likelihood(layer).coupled
        knobs = {"level": hparams.level}
        return Player(partial(loss, layer=layer), model.layer_groups(layer), txs[name], coupled, knobs)

    players = {name: player(name, layer) for name, layer in names.items()}
    return play(players, [[name] for name in players], axis_name=axis_name, check=partial(check_data, model))


@factory
def unrolled(
    model: StackedAE,
    hparams: HParams = HParams(),
    tx: Callable[..., Any] | Mapping[str, Any] = optax.adam,
    *,
    axis_name: str | None = None,
) -> Algorithm:
    """The stack as one deep autoencoder, on clean data; its level is not used.

    Args:
      model, hparams, tx, axis_name: as in `stacked`.

    Returns:
      Player `recon` moves all groups; one phase.
    """
    txs = optimisers(tx, {"recon": hparams.lr})
    coupled = model.layer_likelihood(0).coupled
    recon = Player(partial(ae_loss, model=model), model.groups, txs["recon"], coupled)
    return play({"recon": recon}, [["recon"]], axis_name=axis_name, check=partial(check_data, model))


def _likelihood(activation: Callable[[jax.Array], jax.Array]) -> str:
    return "bernoulli" if activation is nn.sigmoid else "gaussian"


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1)


class _Shaped(nn.Module):
    shape: tuple[int, ...]

    def __call__(self, x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0], *self.shape)


METHOD = Method(
    StackedAE, HParams, stacked, title="stacked, plain and denoising", paper="Bengio et al. 2007; Vincent et al. 2010"
)
