"""The regularised autoencoder: a plain one whose codes stay near the origin and whose decoder stays smooth.

Ghosh, Sajjadi, Vergari, Black & Scholkopf, "From variational to deterministic autoencoders", ICLR 2020. No noise, and
no prior: what is sampled is a density that is fitted to the codes afterwards, `evaluation.ex_post`.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aejax import jacobian as jac
from aejax.algorithm import Metrics, Params
from aejax.checks import InputError, nearest
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, one_player
from aejax.methods.ae import AE, reconstruction
from aejax.methods.ae_l2 import kernels_of
from aejax.nets import TiedMLP, inputs
from aejax.precision import sum_last, widen

__all__ = ["rae", "rae_loss"]

REGULARIZERS = {"weights": "decoder_weights_sq", "gradient": "decoder_jacobian_sq", "spectral": "decoder_spectral_sq"}


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate."""
    beta: NonNegative = 1e-2
    """Weight of half the squared length of the code against the reconstruction in nats."""
    penalty: NonNegative = 1e-3
    """Weight of what is asked of the decoder, the paper's lambda."""


@partial(jax.jit, static_argnames=("model", "regularizer"))
def rae_loss(
    params: Params,
    batch: Batch,
    key: jax.Array,
    *,
    model: AE,
    beta: float | jax.Array = 1e-2,
    penalty: float | jax.Array = 1e-3,
    regularizer: str = "weights",
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of the reconstruction, plus `beta |z|^2 / 2`, plus `penalty` times one of three:

    - `weights` (RAE-L2): the squares of all kernels of the decoder, summed; biases are free.
    - `gradient` (RAE-GP): `|d x_hat / d z|_F^2`, exact, at the codes of the batch, mean over the examples. x_hat is the
      mean in data space. The encoder has a gradient of it too, for it may move codes to where the decoder is flat.
    - `spectral` (RAE-SN): the square of the largest singular value of each kernel of the decoder, exact, summed. It
      costs the eigenvalues of a matrix of the smaller side of each kernel, at every step.

    A convolution's kernel is a matrix of one column for each last index. Kernels of a tied decoder are the encoder's.

    Departures: the paper divides each kernel by an estimate of its largest singular value, which power iteration
    carries from step to step. Here that value is penalised, as in Yoshida & Miyato, "Spectral norm regularization"
    (2017): nothing is carried, and the network is what it was. The paper weighs against the squared error; the Gaussian
    likelihood is half of that, so there both weights are half the paper's. The default weights are ours.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`, and `y` where the model is conditioned.
      key: ignored.
      model: static.
      beta: weight of half the squared length of the code; with `penalty` at zero too, this is `ae_loss`.
      penalty: weight of what is asked of the decoder.
      regularizer: `weights`, `gradient` or `spectral`; static.

    Returns:
      The mean over the batch; `recon_nats` and `sse`, means; `code_length_sq`, the mean of `|z|^2`; and, by
      `regularizer`, `decoder_weights_sq`, `decoder_jacobian_sq` (a mean) or `decoder_spectral_sq`.

    Raises:
      InputError: an unknown regularizer.
    """
    _check(model, regularizer=regularizer)
    _, *condition = inputs(model, batch)
    z = model.bind({"params": params}).encode(*inputs(model, batch))
    recon, metrics = reconstruction(params, z, batch, model=model)
    if regularizer == "gradient":
        asked = jac.generated_sq(model, params, z, *condition).mean()
    else:
        kernels = kernels_of(params["encoder" if isinstance(model.decoder, TiedMLP) else "decoder"])
        of_one = _spectral_sq if regularizer == "spectral" else lambda kernel: jnp.square(widen(kernel)).sum()
        asked = sum(map(of_one, kernels), jnp.zeros(()))
    code_length_sq = sum_last(jnp.square(widen(z))).mean()
    terms = {**metrics, "code_length_sq": code_length_sq, REGULARIZERS[regularizer]: asked}
    return recon + 0.5 * beta * code_length_sq + penalty * asked, terms


def _spectral_sq(kernel: jax.Array) -> jax.Array:
    """The largest squared singular value of a kernel as a matrix `[-1, out]`: an eigenvalue of the smaller Gram."""
    matrix = widen(kernel).reshape(-1, kernel.shape[-1])
    matrix = matrix if matrix.shape[0] > matrix.shape[1] else matrix.T
    return jnp.linalg.eigvalsh(jnp.matmul(matrix.T, matrix, precision="highest"))[-1]


def _check(model: AE, *_: Any, regularizer: str) -> None:
    if regularizer not in REGULARIZERS:
        raise InputError(
            f"Unknown regularizer {regularizer!r}. {nearest(regularizer, REGULARIZERS, what='regularizers')}"
        )


rae = one_player("rae", rae_loss, AE, HParams, check=_check)


METHOD = Method(
    AE,
    HParams,
    rae,
    title="regularised, to be sampled by a density of its codes (RAE)",
    paper="Ghosh et al. 2020",
    noise_free=True,
    terms={
        "code_length_sq": Term("squared code units", "squared length of the code"),
        "decoder_weights_sq": Term(
            "of one layer (data units / code units)^2", "squared kernels of the decoder, summed"
        ),
        "decoder_jacobian_sq": Term("(data units / code units)^2", "squared Frobenius norm of the decoder's Jacobian"),
        "decoder_spectral_sq": Term(
            "of one layer (data units / code units)^2",
            "squared largest singular value of each kernel of the decoder, summed",
        ),
    },
)
