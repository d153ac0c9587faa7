"""The conditional variational autoencoder.

Sohn, Lee & Yan, "Learning structured output representation using deep conditional generative models", NIPS 2015. All
networks see a condition y beside their input, so that p(x|y) is modelled and the code holds what y does not tell.
Here y is a class. The prior is N(0, I) whatever y is: the case that section 4.1 of the paper allows for, and that of
M2 by Kingma et al. (2014); the paper's own prior is a network of the condition.
"""

from typing import Any, ClassVar

from aejax.data import Batch
from aejax.factory import Method, one_player
from aejax.methods.vae import VAE, HParams, check_samples, vae_loss
from aejax.nets import Labelled

__all__ = ["CVAE", "cvae"]


class CVAE(VAE):
    """A VAE whose encoder and decoder take labels: `encode(x, y)`, `decode(z, y)`, `sample(key, n, y)`.

    `dense` and `conv` make networks that see the label as one-hot numbers beside their input (`nets.Labelled`). Other
    networks of `(x, y)` and `(z, y)` can stand in their place.

    Attributes:
      num_classes: labels are integers from 0 to below it.
    """

    num_classes: int = 10

    takes_labels: ClassVar[bool] = True

    @classmethod
    def completed(cls, model: Any) -> Any:
        """The networks, told the label beside their input."""
        told = [Labelled(net, model.num_classes) for net in (model.encoder, model.decoder)]
        return model.clone(encoder=told[0], decoder=told[1])


def with_labels(x: Any, y: Any) -> Batch:
    """What a conditioned method is trained on."""
    return Batch(x, y)


cvae = one_player(
    "cvae",
    vae_loss,
    CVAE,
    HParams,
    player="elbo",
    learns_prior=True,
    check=check_samples,
    notes="The bound is on log p(x|y), equation 4 of the paper, with `N(0, I)` for its prior network.",
)

METHOD = Method(CVAE, HParams, cvae, title="conditional variational", paper="Sohn et al. 2015", batch=with_labels)
