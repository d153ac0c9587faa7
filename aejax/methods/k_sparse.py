"""The k-sparse autoencoder: linear, and only the k largest activations of an example speak.

Makhzani & Frey (2013). The support is chosen, and then the model is linear: with the support fixed it is a linear
autoencoder, and the choice is one step of iterative hard thresholding. There is no penalty and no other non-linearity.
"""

from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from aejax.checks import InputError
from aejax.factory import Method, Positive, one_player
from aejax.methods.ae import AE, ae_loss

__all__ = ["KSparseAE", "k_sparse"]


class KSparseAE(AE):
    """An autoencoder whose code keeps the k largest activations; `dense` builds it as published.

    Attributes:
      k: units that an example keeps in training and in its reconstruction; at most `latent_dim`.
      alpha: `embed`, the features for whoever comes after, keeps `alpha k` (rounded, at most all). The paper has
        alpha above 1 for features.
    """

    likelihood: str = "gaussian"
    k: int = 25
    alpha: float = 1.0

    def setup(self) -> None:
        super().setup()
        _check(self)

    @classmethod
    def dense(cls, data_dim: int, latent_dim: int, *, hidden_dims: tuple[int, ...] = (), **fields: Any) -> Self:
        """One linear layer with tied weights on vectors `[B, D]`; more layers with `hidden_dims`."""
        return super().dense(data_dim, latent_dim, hidden_dims=hidden_dims, **{"tied": True} | fields)

    def encode(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """The code that is trained, k units of it: `[B, ...] -> [B, Z]`."""
        return keep_largest(self.encoder(x, *condition), self.k)

    def embed(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """The features, `alpha k` units of them: `[B, ...] -> [B, Z]`."""
        return keep_largest(self.encoder(x, *condition), min(round(self.alpha * self.k), self.latent_dim))

    def reconstruct(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """x_hat of the code that is trained, in data space: `[B, ...] -> [B, ...]`."""
        return self.generate(self.encode(x, *condition), *condition)


def keep_largest(z: jax.Array, k: int) -> jax.Array:
    """The k largest entries of each code, by value and not by size, and zero elsewhere.

    The gradient goes through the entries that are kept. Of equal entries the first are kept.

    Args:
      z: `[B, Z]`.
      k: between 1 and Z.

    Returns:
      `[B, Z]`.

    Raises:
      InputError: k is not between 1 and Z.

    Example:
      >>> keep_largest(jnp.array([[3.0, -9.0, 1.0, 2.0]]), 2).tolist()
      [[3.0, 0.0, 0.0, 2.0]]

    Reference: Makhzani & Frey (2013), algorithm 1, the support of the k largest activations.
    """
    if not 1 <= k <= z.shape[-1]:
        raise InputError(f"k is {k} for codes of {z.shape[-1]} units; it has to be between 1 and that.")

    def one(z: jax.Array) -> jax.Array:  # scattering is faster on CPU than comparing with the k-th, swept or not
        values, units = jax.lax.top_k(z, k)
        return jnp.zeros_like(z).at[units].set(values)

    return jax.vmap(one)(z)


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""


def _check(model: KSparseAE, *_: Any) -> None:
    if not 1 <= model.k <= model.latent_dim or not model.alpha >= 1:
        raise InputError(
            f"k={model.k} and alpha={model.alpha} with {model.latent_dim} units; k has to be between 1 and the number"
            " of units, alpha at least 1."
        )


k_sparse = one_player(
    "k_sparse",
    ae_loss,
    KSparseAE,
    HParams,
    check=_check,
    notes="""The paper's squared error is twice the Gaussian likelihood here, up to a constant: learning rates of plain
gradient descent differ by that factor. The paper begins with a large k and lowers it, so that fewer units die; here k
is that of the model, and a schedule is a series of runs, each from the parameters of the last.""",
)


METHOD = Method(
    KSparseAE, HParams, k_sparse, title="k-sparse", paper="Makhzani & Frey 2013", noise_free=True, fields={"k": 3}
)
