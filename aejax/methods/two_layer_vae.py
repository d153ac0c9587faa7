"""The variational autoencoder with two stochastic layers, inferred from below or as a ladder.

Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", ICLR 2016, whose larger model this is. The prior of
the lower layer, which the decoder sees, is a Gaussian that the upper one tells. Sonderby, Raiko, Maaloe, Sonderby &
Winther, "Ladder variational autoencoders", NIPS 2016: the posterior of the lower layer is what x says of it, merged
with that prior by their precisions.
"""

import dataclasses
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from aejax import posteriors, priors
from aejax.checks import InputError
from aejax.factory import Method, one_player
from aejax.methods.vae import VAE, HParams, check_samples, vae_loss
from aejax.nets import MLP
from aejax.posteriors import DiagonalGaussian
from aejax.precision import wide, widen

__all__ = ["TwoLayerVAE", "two_layer_vae"]

Array = jax.Array


def merged(a: DiagonalGaussian, b: DiagonalGaussian) -> DiagonalGaussian:
    """The Gaussian whose density is the product of two, scaled: precisions add, and weigh the means.

    Example:
      >>> one, other = DiagonalGaussian(jnp.zeros(1), jnp.zeros(1)), DiagonalGaussian(jnp.array([3.0]), jnp.log(0.5))
      >>> mean, logvar = merged(one, other)  # precisions 1 and 2
      >>> round(float(mean[0]), 4), round(float(jnp.exp(logvar)[0]), 4)
      (2.0, 0.3333)
    """
    share = jax.nn.sigmoid(widen(b.logvar) - widen(a.logvar))
    mean = share * widen(a.mean) + (1 - share) * widen(b.mean)
    return DiagonalGaussian(mean, -jnp.logaddexp(-widen(a.logvar), -widen(b.logvar)))


@partial(jax.tree_util.register_dataclass, data_fields=["lower", "upper", "params"], meta_fields=["net", "size"])
@dataclasses.dataclass(frozen=True)
class TwoLayers:
    """The posterior of both layers, z = (lower, upper) along its last axis.

    One of the layers is drawn first, and a network makes of it the Gaussian of the other: without `upper` that is
    q(lower|x) q(upper|lower); with it q(upper|x) q(lower|upper, x), whose second part is `lower` merged with what the
    network returns.

    Attributes:
      lower: of the lower layer given x, `[B, L]`.
      upper: of the upper one given x, `[B, U]`, or None.
      params: of the network, `{"params": ...}`.
      net: a Linen module, from a draw of the layer that comes first to mean and log-variance of the other; static.
      size: L + U; static.
    """

    lower: DiagonalGaussian
    upper: DiagonalGaussian | None
    params: Any
    net: nn.Module
    size: int

    @property
    def mode(self) -> Array:
        """The means, that of the layer that comes second given the mean of the first."""
        first = self._first
        return self._joined(widen(first.mean), self._second(widen(first.mean)).mean)

    def sample(self, key: Array) -> Array:
        return self.sample_and_log_prob(key)[0]

    def sample_and_log_prob(self, key: Array) -> tuple[Array, Array]:
        first = self._first
        rows, width = first.mean.shape
        standard = posteriors.noise(key, (rows, self.size), wide(first.mean.dtype))
        place = lambda q, e: widen(q.mean) + jnp.exp(0.5 * widen(q.logvar)) * e
        a = place(first, standard[:, :width])
        second = self._second(a)
        b = place(second, standard[:, width:])
        return self._joined(a, b), first.log_prob(a) + second.log_prob(b)

    def log_prob(self, z: Array) -> Array:
        """Log-density in nats: `[B, L + U] -> [B]`."""
        lower, upper = jnp.split(widen(z), [self.lower.mean.shape[-1]], axis=-1)
        a, b = (lower, upper) if self.upper is None else (upper, lower)
        return self._first.log_prob(a) + self._second(a).log_prob(b)

    @property
    def _first(self) -> DiagonalGaussian:
        return self.lower if self.upper is None else self.upper

    def _second(self, first: Array) -> DiagonalGaussian:
        code: Any = self.net.apply(self.params, first)
        told = gaussian(code)
        return told if self.upper is None else merged(self.lower, told)

    def _joined(self, first: Array, second: Array) -> Array:
        return jnp.concatenate([first, second] if self.upper is None else [second, first], axis=-1)


def gaussian(code: Array) -> DiagonalGaussian:
    """Means and log-variances that stand side by side."""
    return DiagonalGaussian(*jnp.split(code, 2, axis=-1))


class TwoLayerVAE(VAE):
    """p(z) = N(upper; 0, I) N(lower; m(upper), v(upper)), p(x|lower), for a code z = (lower, upper).

    A third of the code is the upper layer, as in the paper, where it is 50 of 150. The networks between the layers have
    two hidden layers as wide as the lower one, as there.

    Departures from the ladder's paper: what the upper layer is told of x is the mean that x gives the lower one, not a
    hidden layer below it; log-variances come from the networks as they are, without a softplus; no batch norm.

    Attributes:
      encoder: `[B, ...] -> [B, 2 L]`, mean and log-variance of the lower layer.
      decoder: of the lower layer, `[B, L] -> [B, ...]`.
      upper_encoder: `[B, L] -> [B, 2 U]`, of the upper layer: from a draw of the lower one, in a ladder from its mean.
      upper_decoder: `[B, U] -> [B, 2 L]`, the prior of the lower layer.
      latent_dim: Z = L + U, where U is Z / 3, rounded down, and at least 1.
      prior: of the upper layer; N(0, I) is the only one.
      ladder: whether the posterior is q(upper|x) q(lower|upper, x), merged with the prior of the lower layer; else it
        is q(lower|x) q(upper|lower).
    """

    upper_encoder: nn.Module | None = None
    upper_decoder: nn.Module | None = None
    ladder: bool = False

    networks: ClassVar[tuple[str, ...]] = ("encoder", "decoder", "upper_encoder", "upper_decoder")

    def setup(self) -> None:
        super().setup()
        check_prior(self)

    @classmethod
    def code_size(cls, latent_dim: int, **fields: Any) -> int:
        return 2 * (latent_dim - upper_dim(latent_dim))

    @classmethod
    def completed(cls, model: Any) -> Any:
        upper = upper_dim(model.latent_dim)
        lower, activation = model.latent_dim - upper, model.encoder.activation
        return model.clone(
            upper_encoder=model.upper_encoder or MLP((lower, lower, 2 * upper), activation),
            upper_decoder=model.upper_decoder or MLP((lower, lower, 2 * lower), activation),
        )

    def __call__(self, x: Array, *condition: Array) -> Array:
        z = self.embed(x, *condition)
        self.log_prior(z)
        return self.decode(z, *condition)

    def encode(self, x: Array, *condition: Array) -> TwoLayers:  # type: ignore[override]
        """The posterior of both layers, `[B, L]` and `[B, U]`."""
        assert self.upper_encoder is not None
        assert self.upper_decoder is not None
        lower = gaussian(self.encoder(x, *condition))
        told = gaussian(self.upper_encoder(lower.mean)) if self.ladder or self.is_initializing() else None
        if self.is_initializing():
            assert told is not None
            self.upper_decoder(told.mean)
        net, params = (self.upper_decoder if self.ladder else self.upper_encoder).unbind()
        return TwoLayers(lower, told if self.ladder else None, params, net, self.latent_dim)

    def decode(self, z: Array, *condition: Array) -> Array:
        """What the likelihood takes, of the lower layer of a code: `[B, Z] -> [B, ...]`."""
        return super().decode(self._split(z)[0], *condition)

    def log_prior(self, z: Array) -> Array:
        """log p(upper) + log p(lower|upper), in nats: `[..., Z] -> [...]`."""
        lower, upper = self._split(widen(z))
        standard = priors.StandardNormal(upper.shape[-1])
        return standard.log_prob(upper) + self._lower(upper).log_prob(lower)

    def sample_prior(self, key: Array, n: int) -> Array:
        """Independent draws of both layers, `[n, Z]`; the key is consumed."""
        upper_key, lower_key = jax.random.split(key)
        upper = priors.StandardNormal(upper_dim(self.latent_dim)).sample(upper_key, n)
        return jnp.concatenate([self._lower(upper).sample(lower_key), upper], axis=-1)

    @property
    def groups(self) -> tuple[str, ...]:
        return (*super().groups, "upper_encoder", "upper_decoder")

    def _lower(self, upper: Array) -> DiagonalGaussian:
        """The prior of the lower layer."""
        assert self.upper_decoder is not None
        return gaussian(self.upper_decoder(upper))

    def _split(self, z: Array) -> tuple[Array, Array]:
        lower, upper = jnp.split(z, [self.latent_dim - upper_dim(self.latent_dim)], axis=-1)
        return lower, upper


def upper_dim(latent_dim: int) -> int:
    """The size of the upper layer of a code; `InputError` for a code of one number."""
    if latent_dim < 2:
        raise InputError(f"latent_dim is {latent_dim}; two layers take at least 2.")
    return max(1, latent_dim // 3)


def check_prior(model: TwoLayerVAE) -> None:
    """Refuses another prior of the upper layer than N(0, I)."""
    if model.prior != "normal" and not isinstance(model.prior, priors.StandardNormal):
        raise InputError(f"The prior is {model.prior!r}; that of the upper of two layers is 'normal'.")


def _check(model: TwoLayerVAE, hparams: Any, **options: Any) -> None:
    check_samples(model, hparams, **options)
    check_prior(model)


two_layer_vae = one_player(
    "two_layer_vae",
    vae_loss,
    TwoLayerVAE,
    HParams,
    player="elbo",
    check=_check,
    notes=(
        "The KL, of both layers together, is estimated from the draw. The bound of k draws is `iwae(model,"
        " num_samples=k)`. The warm-up of the ladder's paper is `beta=schedules.Ramp(0.0, 1.0, steps)`;"
        " without it a ladder may not use its code."
    ),
)

METHOD = Method(
    TwoLayerVAE,
    HParams,
    two_layer_vae,
    title="variational, two stochastic layers, from below or as a ladder",
    paper="Burda et al. 2016; Sonderby et al. 2016",
)
