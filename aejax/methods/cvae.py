"""The conditional variational autoencoder.

Sohn, Lee & Yan, "Learning structured output representation using deep conditional generative models", NIPS 2015. All
networks see a condition y beside their input, so that p(x|y) is modelled and the code holds what y does not tell.
Here y is a class, or numbers, such as the pixels of an image that are seen where x are those that are not
(`data.parts`). The prior is N(0, I) whatever y is: the case that section 4.1 of the paper allows for, and that of M2 by
Kingma et al. (2014). The paper's own prior is a Gaussian whose mean and deviation are networks of y; that is a code
from N(0, I), scaled and moved by y before the decoder, which sees y here and can do so itself.
"""

from typing import Any, ClassVar

from aejax.data import Batch
from aejax.factory import Method, one_player
from aejax.methods.vae import VAE, HParams, check_samples, vae_loss
from aejax.nets import Labelled

__all__ = ["CVAE", "cvae"]


class CVAE(VAE):
    """A VAE whose encoder and decoder take a condition: `encode(x, y)`, `decode(z, y)`, `sample(key, n, y)`.

    `dense` and `conv` make networks that see a label as one-hot numbers beside their input, and numbers as they are
    (`nets.Labelled`). Other networks of `(x, y)` and `(z, y)` can stand in their place.

    Attributes:
      num_classes: labels y `[B]` are integers from 0 to below it; None where y `[B, ...]` is of numbers.

    Example:
      >>> import jax, numpy as np
      >>> from aejax.data import parts
      >>> x = np.zeros((5, 8, 8, 1), np.float32)
      >>> batch = parts.split(x, parts.region(x.shape[1:], "lower_left"))  # its x [5, 48], its y [5, 16]
      >>> model = CVAE.dense(48, 2, num_classes=None)
      >>> encode = lambda: model.init_with_output(jax.random.key(0), *batch, method="encode")[0]
      >>> jax.eval_shape(encode).mean.shape
      (5, 2)
    """

    num_classes: int | None = 10

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
