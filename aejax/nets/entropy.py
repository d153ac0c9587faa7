"""Entropy models of quantised codes: a probability for each integer, smooth in between, so that it can be learned.

A code is one number for each channel, or many, and channels are independent: what is between channels or places is
for the encoder to take away.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from aejax.checks import InputError
from aejax.precision import widen

SCALE_FLOOR = -4.0  # of log-scales: an integer at the mean of so narrow a logistic takes 3e-12 nats


class LogisticMixtures(nn.Module):
    """A mixture of logistics for each channel; an integer has what lies within a half of it.

    The distribution function is in closed form, grows, and runs from 0 to 1 whatever the parameters, which are the
    three things that are asked of one. The logarithm of a share is computed from logarithms, so it has a gradient at
    any distance. A departure from the factorised prior of Ballé et al. (2018), whose distribution function is a small
    monotone network.

    Attributes:
      channels: M, of the code.
      mixtures: K, logistics for each channel.

    Example:
      >>> model = LogisticMixtures(1, 1)
      >>> params = model.init(jax.random.key(0), jnp.zeros((1, 1)))
      >>> round(float(model.apply(params, jnp.zeros((1, 1)))[0, 0]), 4)  # -log(sigmoid(1/2) - sigmoid(-1/2))
      1.4068
    """

    channels: int
    mixtures: int = 3

    def setup(self) -> None:
        if min(self.channels, self.mixtures) < 1:
            raise InputError(f"channels={self.channels} and mixtures={self.mixtures}; both have to be at least 1.")
        shape = (self.mixtures, self.channels)
        self.logits = self.param("logits", nn.initializers.zeros, shape)
        self.means = self.param("means", _spread, shape)
        self.log_scales = self.param("log_scales", nn.initializers.zeros, shape)

    def __call__(self, y: jax.Array) -> jax.Array:
        """-log of the share from y - 1/2 to y + 1/2, in nats: `[..., M] -> [..., M]`."""
        logits, means, log_scales = (
            widen(v).reshape(*(1,) * (y.ndim - 1), *v.shape) for v in (self.logits, self.means, self.log_scales)
        )
        away, precision = widen(y)[..., None, :] - means, jnp.exp(-jnp.maximum(log_scales, SCALE_FLOOR))
        below = jax.nn.log_sigmoid((away + 0.5) * precision)  # log of the share below the upper edge
        above = jax.nn.log_sigmoid((0.5 - away) * precision)  # and of that above the lower one
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b))
        share = below + above + jnp.log(-jnp.expm1(-precision))
        return -logsumexp(jax.nn.log_softmax(logits, axis=-2) + share, axis=-2)


def _spread(key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Means from -2 to 2, alike in all channels; in the middle where there is one."""
    means = jnp.linspace(-2, 2, shape[0], dtype=dtype) if shape[0] > 1 else jnp.zeros(1, dtype)
    return jnp.broadcast_to(means[:, None], shape)
