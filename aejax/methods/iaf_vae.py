"""The variational autoencoder whose posterior is a normalising flow.

Kingma, Salimans, Jozefowicz, Chen, Sutskever & Welling, "Improved variational inference with inverse autoregressive
flow", NIPS 2016, algorithm 1. Each step of the flow is autoregressive in what it is given, so a draw and its density
take one pass, and with a few steps the components of a code may depend on each other given x.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from aejax import posteriors
from aejax.factory import Method, one_player
from aejax.methods.vae import VAE, HParams, check_samples, vae_loss
from aejax.nets import Autoregressive

__all__ = ["IAFVAE", "iaf_vae"]


class IAFVAE(VAE):
    """A VAE whose encoder returns mean, log-variance and a context, which a flow is told at every step.

    Attributes:
      encoder: `[B, ...] -> [B, 2 Z + C]`; here C is Z, which is ours. Encoders of one's own choose C, also none.
      flow: as in `aejax.nets.flows`; its parameters are the group `flow`. `dense` and `conv` take `Autoregressive()`
        by default, which starts as the identity, where this is the Gaussian VAE.
    """

    flow: nn.Module | None = None

    networks: ClassVar[tuple[str, ...]] = ("encoder", "decoder", "flow")

    @classmethod
    def code_size(cls, latent_dim: int, **fields: Any) -> int:
        return 3 * latent_dim

    @classmethod
    def completed(cls, model: Any) -> Any:
        return model if model.flow is not None else model.clone(flow=Autoregressive())

    def encode(self, x: jax.Array, *condition: jax.Array) -> posteriors.Flow:  # type: ignore[override]
        """The posterior, of means and log-variances `[B, Z]` and a context `[B, C]`."""
        ends = [self.latent_dim, 2 * self.latent_dim]
        mean, logvar, context = jnp.split(self.encoder(x, *condition), ends, axis=-1)
        told = (context,) if context.shape[-1] else ()
        assert self.flow is not None
        if self.is_initializing():
            self.flow(mean, *told)
        flow, params = self.flow.unbind()
        return posteriors.Flow(posteriors.DiagonalGaussian(mean, logvar), told, params, flow)

    @property
    def groups(self) -> tuple[str, ...]:
        return (*super().groups, "flow")


iaf_vae = one_player(
    "iaf_vae",
    vae_loss,
    IAFVAE,
    HParams,
    player="elbo",
    learns_prior=True,
    check=check_samples,
    notes=(
        "The KL is estimated from the draw. The steps are those of `nets.Autoregressive`, with its departures from the"
        " paper; its residual and recurrent networks and its free bits are not here."
    ),
)

METHOD = Method(
    IAFVAE,
    HParams,
    iaf_vae,
    title="variational, its posterior an inverse autoregressive flow",
    paper="Kingma et al. 2016",
    knobs={"beta": 0.5},  # at 1 the convolutional code of 64 digits needs three times as long
)
