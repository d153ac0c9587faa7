"""The variational autoencoder of counts: negative binomial, with the size of each library given.

Lopez, Regier, Cole, Jordan & Yosef, "Deep generative modeling for single-cell transcriptomics", Nature Methods 2018:
scVI. What it infers is which share each gene has of a cell; how many counts the cell has in all is an accident of the
measurement, and is taken as it is seen.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aejax import likelihoods, posteriors
from aejax.checks import InputError
from aejax.factory import Method, one_player
from aejax.likelihoods import Likelihood, NegativeBinomial
from aejax.methods.vae import VAE, HParams, check_samples, vae_loss
from aejax.precision import sum_event, widen

__all__ = ["CountVAE", "count_vae"]


class PerGene(nn.Module):
    """A decoder network, and a dispersion of each gene beside what it returns: `[B, Z] -> [B, ..., 2 C]`.

    Attributes:
      net: `[B, Z] -> [B, ..., C]`.

    Parameters: those of `net`, and `log_dispersion` `[..., C]`, which starts at 0.
    """

    net: nn.Module

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        logits = widen(self.net(z))
        log_dispersion = self.param("log_dispersion", nn.initializers.zeros, logits.shape[1:])
        raw = NegativeBinomial.raw_dispersion(widen(log_dispersion))
        return jnp.concatenate([logits, jnp.broadcast_to(raw[None], logits.shape)], axis=-1)


class CountVAE(VAE):
    """q(z|x) = N(m(log(1 + x)), v(log(1 + x))), and x_g a count of mean `l softmax(f(z))_g`, given its library l.

    The library of a cell is the sum of its counts; of an empty one it is taken to be 1. Of codes that come without a
    cell, as `sample` draws them, it is `library_size`, or what is given: `generate(z, library)`, library `[B]`.

    Departures from scVI: no zero inflation, dropout, batch norm or batches of cells; the dispersion of a gene is kept
    between 1e-4 and 1e4, as `NegativeBinomial` has it. In the paper the library is a latent variable; that it is
    the one seen is the default of scvi-tools 1.1 (`use_observed_lib_size`), as are dispersions by gene and an encoder
    that sees log(1 + x). Given l the genes are taken to be independent, although their sum is known.

    Attributes:
      decoder: returns the numbers that the likelihood takes for a gene, in blocks; of each gene the first is a logit of
        its share. `dense` and `conv` put a network of the logits alone in a `PerGene`, whose dispersions are those of
        genes; a network of one's own that returns both blocks has them by gene and cell.
      likelihood: `negative_binomial` or `poisson`.
      library_size: of cells that are generated.
    """

    likelihood: str | Likelihood = "negative_binomial"
    library_size: float = 1e4

    def setup(self) -> None:
        super().setup()
        _check_likelihood(self)

    @classmethod
    def decoder_shape(cls, shape: tuple[int, ...], *, tied: bool = False, **fields: Any) -> tuple[int, ...]:
        """Of the logits alone."""
        return shape

    @classmethod
    def completed(cls, model: Any) -> Any:
        has_dispersion = isinstance(likelihoods.get(model.likelihood), NegativeBinomial)
        return model.clone(decoder=PerGene(model.decoder)) if has_dispersion else model

    def encode(self, x: jax.Array, *condition: jax.Array) -> posteriors.DiagonalGaussian:
        """The posterior, of means and log-variances `[B, Z]`, from counts `[B, ...]`."""
        return super().encode(jnp.log1p(x), *condition)

    def decode(self, z: jax.Array, *library: jax.Array) -> jax.Array:
        """What the likelihood takes, for libraries `[B]`, by default of `library_size`: `[B, Z] -> [B, ...]`."""
        logits, *rest = jnp.split(widen(super().decode(z)), likelihoods.get(self.likelihood).numbers, axis=-1)
        log_shares = jax.nn.log_softmax(logits, axis=tuple(range(1, logits.ndim)))
        (size,) = library or (jnp.full(len(z), self.library_size),)
        log_size = jnp.log(size).reshape(-1, *[1] * (logits.ndim - 1))
        return jnp.concatenate([log_size + log_shares, *rest], axis=-1)

    def reconstruct(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """The means of cells with the codes and the libraries of x: `[B, ...] -> [B, ...]`."""
        return self.generate(self.embed(x), self.library(x))

    def library(self, x: jax.Array) -> jax.Array:
        """The libraries of cells, `[B, ...] -> [B]`: the sums of their counts, of an empty one 1."""
        return jnp.maximum(sum_event(x), 1.0)

    def nll(self, z: jax.Array, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """-log p(x|z) given the library, in nats per example: `[B, Z], [B, ...] -> [B]`."""
        return self.nll_and_mean(z, x)[0]

    def nll_and_mean(self, z: jax.Array, x: jax.Array, *condition: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`nll`, and the means of cells with the libraries of x: `[B], [B, ...]`."""
        likelihood, output = likelihoods.get(self.likelihood), self.decode(z, self.library(x))
        return likelihood.nll(output, x), likelihood.mean(output)


def _check_likelihood(model: CountVAE) -> None:
    if likelihoods.get(model.likelihood).support != likelihoods.COUNTS:
        raise InputError(
            f"The likelihood is {model.likelihood!r}; {type(model).__name__} takes one of counts, negative_binomial or"
            " poisson. Data that are no counts are for a VAE."
        )


def _check(model: CountVAE, hparams: Any, **options: Any) -> None:
    check_samples(model, hparams, **options)
    _check_likelihood(model)


count_vae = one_player(
    "count_vae",
    vae_loss,
    CountVAE,
    HParams,
    player="elbo",
    learns_prior=True,
    check=_check,
    notes=(
        "The warm-up of the KL term in the paper's program is `beta=schedules.Ramp(0.0, 1.0, steps)`. `recon_nats` are"
        " probabilities of counts, so those of Poisson and negative binomial may be compared."
    ),
)

METHOD = Method(
    CountVAE,
    HParams,
    count_vae,
    title="variational, of counts: negative binomial, the size of the library given (scVI)",
    paper="Lopez et al. 2018",
)
