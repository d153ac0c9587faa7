"""The variational autoencoder whose prior is made of its own posteriors.

Tomczak & Welling, "VAE with a VampPrior", AISTATS 2018. The prior that maximises the bound is the aggregate posterior,
the mean of q(z|x) over the data; this one is the mean of q(z|u) over K pseudo-inputs, which are learned with all else.
"""

from aejax import priors
from aejax.factory import Method, one_player
from aejax.methods.vae import VAE, HParams, check_samples, vae_loss

__all__ = ["VampVAE", "vamp_vae"]


class VampVAE(VAE):
    """A VAE with a VampPrior of 500 pseudo-inputs, the number of the paper; their parameters are the group `prior`.

    Attributes:
      prior: `VampPrior(K)`, which says where it departs from the authors' program; or any other, as in `VAE`.
    """

    prior: str | priors.Prior | priors.LearnedPrior | None = priors.VampPrior(500)


vamp_vae = one_player(
    "vamp_vae",
    vae_loss,
    VampVAE,
    HParams,
    player="elbo",
    learns_prior=True,
    check=check_samples,
    notes=(
        "The bound of the paper's equation 9 with one draw, its KL estimated from that. The paper's networks are gated,"
        " those of `VampVAE.dense` are not; its warm-up of the KL term is `beta=schedules.Ramp(0.0, 1.0, steps)`. The"
        " hierarchical model of its section 4 is not here."
    ),
)

METHOD = Method(
    VampVAE,
    HParams,
    vamp_vae,
    title="variational, its prior learned as a mixture of its posteriors (VampPrior)",
    paper="Tomczak & Welling 2018",
    fields={"prior": priors.VampPrior(8)},
    knobs={"beta": 0.5},  # at 1 the convolutional code of 64 digits collapses, as it may without warm-up
)
