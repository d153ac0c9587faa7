"""The marginalised denoising autoencoder: the noise is integrated out instead of drawn.

Linear: Chen, Xu, Weinberger & Sha, "Marginalized denoising autoencoders for domain adaptation" (ICML 2012), a layer in
closed form. Nonlinear: Chen, Weinberger, Sha & Bengio, "Marginalized denoising auto-encoders for nonlinear
representations" (ICML 2014), an expansion of the expected loss to second order in the noise.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from aejax import corruption as corruptions
from aejax import jacobian as jac
from aejax import likelihoods
from aejax.algorithm import Metrics
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, Positive, one_player
from aejax.methods.ae import AE
from aejax.nets import check_plain, inputs

__all__ = ["linear_dae", "mdae", "mdae_loss"]

Array = jax.Array


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""
    level: float = 0.3
    """Of the corruption: standard deviation (gaussian), or the share of components that it hits."""


# The root of the second derivative of the nll in the decoder's output: for Bernoulli sqrt(p (1 - p)) of logits, which
# as a product has no infinite slope where p is 0 or 1.
_ROOT_CURVATURE: dict[likelihoods.Likelihood, Callable[[Array], Array]] = {
    likelihoods.Gaussian(): jnp.ones_like,
    likelihoods.Bernoulli(): lambda logits: jnp.exp(0.5 * (jax.nn.log_sigmoid(logits) + jax.nn.log_sigmoid(-logits))),
}


@partial(jax.jit, static_argnames=("model", "corruption"))
def mdae_loss(
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: AE,
    corruption: str = "masking",
    level: float | jax.Array = 0.3,
) -> tuple[jax.Array, Metrics]:
    """The expected loss of the denoising autoencoder to second order in the noise, in nats per example.

    Let m be the mean of x_tilde given x, v the variance of each of its components, f = decode(encode(.)) and J its
    Jacobian at m, and h the second derivative of the negative log-likelihood in each output, at f(m): 1 (Gaussian) or
    p (1 - p) (Bernoulli). The loss is

        nll(f(m), x) + 1/2 |diag(h)^(1/2) J diag(v)^(1/2)|_F^2,

    which is `dae_loss` on average over the noise where f is affine and the likelihood Gaussian. Elsewhere it leaves out
    what is of higher order in the noise and, as Gauss and Newton do, the curvature of f.

    The paper expands about the mean in the same way, and approximates further: it keeps only the diagonal of the
    Hessian in the code, of what the decoder and the likelihood make of it, where here all of
    `J_decoder diag(h)^(1/2)` stays. Its masking noise is unbiased: what is kept is divided by 1 - level, so that m = x
    and v = level / (1 - level) x^2. Here nothing is rescaled, m = (1 - level) x and v = level (1 - level) x^2, as
    `dae_loss` has it.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`, clean; `y` where the model is conditioned.
      key: ignored.
      model: static.
      corruption: a name of `aejax.corruption.CORRUPTIONS`; static.
      level: of the corruption; at zero this is `ae_loss`.

    Returns:
      The mean over the batch, and `recon_nats` and `sse` at m against the clean x, and `noise_nats`, what the noise
      adds, likewise means. With the Gaussian likelihood and f affine, the expected squared error is
      `sse + 2 noise_nats`.

    Raises:
      InputError: unknown corruption, a likelihood whose curvature is not known here, or a model with an `nll` or
        `generate` of its own.
    """
    root_curvature = _curvature(model)
    mean, variance = corruptions.moments(corruption, batch.x, level)
    bound = model.bind({"params": params})
    _, *condition = inputs(model, batch)
    output = bound(mean, *condition)
    likelihood = likelihoods.get(model.likelihood)
    recon = likelihood.nll(output, batch.x).mean()

    def around(noise: Array, mean: Array, std: Array, weight: Array, *condition: Array) -> Array:
        return weight * bound((mean + std * noise)[None], *(y[None] for y in condition))[0]

    added = partial(jac.frobenius_sq, around, batch_size=len(batch.x))
    std = jnp.sqrt(variance + 1e-30)  # has a slope where the variance is zero; what it adds is lost in rounding
    of_each = jnp.zeros_like(mean), mean, std, root_curvature(output), *condition
    noise = 0.5 * jax.vmap(added)(*of_each).mean()
    sse = likelihoods.sse(likelihood.mean(output), batch.x).mean()
    return recon + noise, {"recon_nats": recon, "noise_nats": noise, "sse": sse}


def _check(model: AE, hparams: HParams, *, corruption: str) -> None:
    corruptions.check_level(corruption, hparams.level)
    _curvature(model)


mdae = one_player("mdae", mdae_loss, AE, HParams, check=_check)


def linear_dae(x: np.ndarray, corruption: str, level: float, *, latent_dim: int | None = None) -> dict[str, Any]:
    """The best affine denoiser of the rows of x, in closed form: no other has a smaller expected squared error.

    With C the covariance of x_tilde and x, and T that of x_tilde, over rows and noise, the affine map is
    `W = T^-1 C` about the two means; of rank k, it is `W V V^T` with V the k leading eigenvectors of `C^T T^-1 C`
    (reduced-rank regression), and the encoder has `W V`, the decoder `V^T`. For Gaussian noise W is the Wiener filter
    `(Sigma + sigma^2 I)^-1 Sigma`, and without noise this is PCA.

    Chen et al. (2012) have this W for masking noise, of full rank; what is kept is not rescaled there either.
    Departures: they append a constant to x, which is never masked, where here both sides are centred, with the same
    result; where T is singular (pixels that are always zero), they add a small number to its diagonal, and here its
    null space is left out; they put tanh on top, and stack; the rank is ours.

    Args:
      x: `[N, D]` float, computed with in float64.
      corruption: a name of `aejax.corruption.CORRUPTIONS`.
      level: of the corruption.
      latent_dim: the rank k, 1 to D; D by default.

    Returns:
      `params` of `AE.dense(D, k, hidden_dims=(), likelihood="gaussian")`, NumPy arrays with the dtype of x.

    Raises:
      InputError: unknown corruption, a level that it cannot have, or a rank that D does not allow.

    Example:
      >>> x = np.array([[-1.0, 0.0], [1.0, 0.0]])
      >>> params = linear_dae(x, "gaussian", 1.0, latent_dim=1)  # variance 1, noise 1: half of it is signal
      >>> kernels = (params[group]["dense_0"]["kernel"] for group in ("encoder", "decoder"))
      >>> np.abs(np.matmul(*kernels)).round(6).tolist()
      [[0.5, 0.0], [0.0, 0.0]]
    """
    data_dim = x.shape[1]
    k = data_dim if latent_dim is None else latent_dim
    if not 1 <= k <= data_dim:
        raise InputError(f"latent_dim is {latent_dim}; a linear map of {data_dim} components has rank 1 to {data_dim}.")
    found = second_moments(x, corruption, level)
    values, basis = np.linalg.eigh(found.cov_tilde)
    kept = values > values[-1] * data_dim * np.finfo(np.float64).eps
    whitener = basis[:, kept] / np.sqrt(values[kept])
    whitened = whitener.T @ found.cross
    v = np.linalg.eigh(whitened.T @ whitened)[1][:, ::-1][:, :k]
    kernel = whitener @ (whitened @ v)
    layers = {"encoder": (kernel, -found.mean_tilde @ kernel), "decoder": (v.T, found.mean)}
    return {
        group: {"dense_0": {"kernel": kernel.astype(x.dtype), "bias": bias.astype(x.dtype)}}
        for group, (kernel, bias) in layers.items()
    }


class Moments(NamedTuple):
    """First and second moments of x and x_tilde, over the rows of the data and the noise; float64."""

    mean: np.ndarray  # [D]
    cov: np.ndarray  # [D, D]
    mean_tilde: np.ndarray  # [D]
    cov_tilde: np.ndarray  # [D, D]
    cross: np.ndarray  # [D, D] covariance, a row for each component of x_tilde, a column for each of x


def second_moments(x: np.ndarray, corruption: str, level: float) -> Moments:
    """All that a linear denoiser can see of the data and the noise.

    Args:
      x: `[N, D]` float, clean.
      corruption: a name of `aejax.corruption.CORRUPTIONS`.
      level: of the corruption.

    Raises:
      InputError: unknown corruption, or a level that it cannot have.
    """
    corruptions.check_level(corruption, level)
    chex.assert_rank(x, 2)
    x = np.asarray(x, np.float64)
    means, variances = corruptions.moments(corruption, x, level)
    mean, mean_tilde = x.mean(axis=0), means.mean(axis=0)
    centred, centred_tilde = x - mean, means - mean_tilde
    cov_tilde = centred_tilde.T @ centred_tilde / len(x) + np.diag(variances.mean(axis=0))
    return Moments(mean, centred.T @ centred / len(x), mean_tilde, cov_tilde, centred_tilde.T @ centred / len(x))


def linear_denoising_sse(params: Any, moments: Moments) -> float:
    """Expected squared error of a linear denoiser, exact: no noise is drawn.

    Args:
      params: of `AE.dense` without hidden layers, with biases, not tied, Gaussian likelihood.
      moments: of the data and the noise.

    Returns:
      `E |x - f(x_tilde)|^2`, summed over components, mean over rows.

    Example:
      >>> x = np.array([[-1.0], [1.0]])
      >>> linear_denoising_sse(linear_dae(x, "gaussian", 1.0), second_moments(x, "gaussian", 1.0))
      0.5
    """
    layers = [params[group]["dense_0"] for group in ("encoder", "decoder")]
    (first, b), (second, c) = ([np.asarray(layer[name], np.float64) for name in ("kernel", "bias")] for layer in layers)
    matrix = first @ second
    shift = moments.mean - (moments.mean_tilde @ first + b) @ second - c
    spread = np.trace(moments.cov) - 2 * np.vdot(matrix, moments.cross) + np.vdot(matrix, moments.cov_tilde @ matrix)
    return float(spread + shift @ shift)


def _curvature(model: AE) -> Callable[[Array], Array]:
    check_plain(model, any_likelihood=False)
    likelihood = likelihoods.get(model.likelihood)
    if likelihood not in _ROOT_CURVATURE:
        known = " and ".join(map(str, _ROOT_CURVATURE))
        raise InputError(f"The curvature of {likelihood} is not known here, only those of {known}.")
    return _ROOT_CURVATURE[likelihood]


METHOD = Method(
    AE,
    HParams,
    mdae,
    title="marginalised denoising, linear in closed form",
    paper="Chen et al. 2014, 2012",
    noise_free=True,
)
