"""How much of the encoder's gradient is signal, by estimator and draws: the second picture of `bounds`.

Rainforth et al., "Tighter variational bounds are not necessarily better", ICML 2018: the more draws, the tighter the
bound of the IWAE, and the less its gradient tells the encoder. Tucker et al., "Doubly reparameterized gradient
estimators for Monte Carlo objectives", ICLR 2019, mend that. Both take the ratio of each parameter; ours is that of the
gradient as a whole.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from aejax import nets
from aejax.data import Batch
from aejax.methods.iwae import ESTIMATORS, iwae_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS = (1, 2, 5, 10, 20, 50)
NAMES = {"plain": "IWAE", "stl": "STL", "dreg": "DReG"}


@partial(jax.jit, static_argnames=("model", "num_samples", "estimator", "num_gradients"))
def signal_to_noise(
    params: Any,
    x: jax.Array,
    key: jax.Array,
    *,
    model: nets.Autoencoder,
    num_samples: int,
    estimator: str,
    num_gradients: int = 400,
) -> jax.Array:
    """Of the encoder's gradient on the examples `[B, ...]`: the length of its mean over the root of its total variance.

    The noise is that of the codes alone. The squared length of a mean of `num_gradients` is too large by their
    variance over their number, which is taken off, down to 0: below 0.05 little is known of the ratio.

    Example:
      >>> from aejax.methods.vae import VAE
      >>> model, x = VAE.dense(4, 2), jnp.eye(4)
      >>> params = nets.init_params(model, jax.random.key(0), x)
      >>> found = signal_to_noise(params, x, jax.random.key(1), model=model, num_samples=1, estimator="plain")
      >>> bool(found > 0)
      True
    """

    def loss(encoder: Any, key: jax.Array) -> jax.Array:
        whole = {**params, "encoder": encoder}
        return iwae_loss(whole, Batch(x), key, model=model, num_samples=num_samples, estimator=estimator)[0]

    def add(sums: tuple[jax.Array, jax.Array], key: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        gradient = ravel_pytree(jax.grad(loss)(params["encoder"], key))[0]
        return (sums[0] + gradient, sums[1] + gradient**2), None

    zeros = jnp.zeros_like(ravel_pytree(params["encoder"])[0])
    (total, squares), _ = jax.lax.scan(add, (zeros, zeros), jax.random.split(key, num_gradients))
    mean = total / num_gradients
    variance = jnp.sum(squares - num_gradients * mean**2) / (num_gradients - 1)
    signal = jnp.maximum(jnp.sum(mean**2) - variance / num_gradients, 0.0)
    return jnp.sqrt(signal / jnp.maximum(variance, jnp.finfo(variance.dtype).tiny))


def measured(
    model: nets.Autoencoder, params: Any, x: jax.Array, key: jax.Array, say: Callable[[str], None]
) -> dict[str, float]:
    """Of every estimator and number of draws."""
    found = {}
    for estimator in ESTIMATORS:
        for k in DRAWS:
            say(f"{NAMES[estimator]}, k = {k}")
            ratio = signal_to_noise(params, x, key, model=model, num_samples=k, estimator=estimator)
            found[f"snr_{estimator}_{k}"] = float(ratio)
    return found


def drawn(found: Mapping[str, float], title: str) -> "Figure":
    from aejax import plots

    ratios = {name: jnp.array([found[f"snr_{name}_{k}"] for k in DRAWS]) for name in ESTIMATORS}
    x = jnp.log10(jnp.array(DRAWS))
    curves = {NAMES[name]: plots.Curve(x, y, i) for i, (name, y) in enumerate(ratios.items())}
    panel = plots.Lines("draws of the code, their logarithm to base 10", "signal to noise", curves, log=True)
    return plots.line_panels({"gradient of the encoder": panel}, title=title)
