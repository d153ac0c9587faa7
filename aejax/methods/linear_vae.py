"""The linear variational autoencoder, whose optimum is known: it is probabilistic PCA.

Lucas, Tucker, Grosse & Norouzi, "Don't blame the ELBO! A linear VAE perspective on posterior collapse", NeurIPS 2019;
Dai, Wang, Aston, Hua & Wipf, "Connections with robust PCA and the role of emergent sparsity in variational autoencoder
models", JMLR 2018. The likelihood of the model is that of a Gaussian, and at the optimum the posterior is exact. There
every bound equals the likelihood, which makes it an exact oracle for whatever measures one.
"""

import math
from functools import partial
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from aejax import likelihoods
from aejax.algorithm import Metrics
from aejax.checks import InputError
from aejax.data import Batch
from aejax.evaluation import call
from aejax.factory import Method, Positive, Term, one_player
from aejax.likelihoods import Gaussian, Likelihood
from aejax.methods.vae import VAE, vae_loss
from aejax.nets import MLP, Autoencoder, ConvDecoder, TiedMLP
from aejax.posteriors import DiagonalGaussian
from aejax.precision import widen

__all__ = ["LinearVAE", "linear_log_likelihood", "linear_vae", "linear_vae_loss", "ppca"]

Array = jax.Array


def identity(x: Array) -> Array:
    """The activation of networks that stay affine."""
    return x


class LinearVAE(VAE):
    """q(z|x) = N(V x + c, diag(exp(posterior_logvar))) and p(x|z) = N(W z + b, s2 I), with s2 learned.

    As in the paper the posterior variances are the same for every x: parameters of the module, `[Z]`. Hidden layers and
    convolutions have no activation, so that all remains affine. A decoder of your own has to be affine too.
    """

    likelihood: str | Likelihood = "gaussian_learned"

    def setup(self) -> None:
        super().setup()
        _check(self)
        self.posterior_logvar = self.param("posterior_logvar", jax.nn.initializers.zeros, (self.latent_dim,))

    @classmethod
    def code_size(cls, latent_dim: int, **fields: Any) -> int:
        return latent_dim

    @classmethod
    def dense(cls, data_dim: int, latent_dim: int, *, hidden_dims: tuple[int, ...] = (), **fields: Any) -> Self:
        """One affine layer on vectors `[B, D]`; a product of several with `hidden_dims`."""
        return super().dense(data_dim, latent_dim, hidden_dims=hidden_dims, **{"activation": identity} | fields)

    @classmethod
    def conv(cls, data_shape: tuple[int, int, int], latent_dim: int, **fields: Any) -> Self:
        """Convolutions without activation on images `[B, H, W, C]`; arguments as in `Autoencoder.conv`."""
        return super().conv(data_shape, latent_dim, **{"activation": identity} | fields)

    def encode(self, x: Array, *condition: Array) -> DiagonalGaussian:
        """The posterior, of means and log-variances `[B, Z]`."""
        mean = self.encoder(x, *condition)
        return DiagonalGaussian(mean, jnp.broadcast_to(self.posterior_logvar, mean.shape))

    @property
    def groups(self) -> tuple[str, ...]:
        return (*super().groups, "posterior_logvar")


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""


@partial(jax.jit, static_argnames=("model", "analytic"))
def linear_vae_loss(
    params: Any, batch: Batch, key: Array, *, model: LinearVAE, analytic: bool = True
) -> tuple[Array, Metrics]:
    """The negative evidence lower bound, its expectation over z taken exactly, in nats per example.

    With mean m and variances v of the posterior of x,

        E_q[-log p(x|z)] = -log p(x|m) + sum_j v_j |W_j|^2 / (2 s2),

    where W_j are the columns of W: the trace of `W diag(v) W^T` over twice the noise variance. That holds for a
    Gaussian likelihood of one variance, fixed or learned, and the prior N(0, I). Other models get `vae_loss`.

    Args:
      params: `{"encoder": ..., "decoder": ..., "posterior_logvar": ..., "logvar": ...}`.
      batch: `x` `[B, ...]`.
      key: ignored where the expectation is exact.
      model: static; its decoder is affine.
      analytic: static; False estimates the expectation from one sample for each example: `vae_loss`.

    Returns:
      `mean(recon + kl)` over the batch, and the means `recon_nats`, `kl_nats`, `bound_nats` (the loss) and `sse` (of
      the decoded code, its expectation likewise).

    Reference: Lucas et al. (2019), whose encoder is `V (x - mu)`; here it is `V x + c`, which are the same functions.
    """
    if not (analytic and _is_exact(model)):
        return vae_loss(params, batch, key, model=model)
    posterior = model.bind({"params": params}).encode(batch.x)
    kl = posterior.kl_standard_normal().mean()
    weights, bias, logvar = _generative(params, model=model)
    x_hat = (widen(posterior.mean) @ weights.T + bias.reshape(1, -1)).reshape(batch.x.shape)
    trace = jnp.exp(widen(posterior.logvar)) @ jnp.square(weights).sum(axis=0)
    recon = (likelihoods.gaussian_nll(x_hat, batch.x, logvar) + 0.5 * jnp.exp(-logvar) * trace).mean()
    sse = (likelihoods.sse(x_hat, batch.x) + trace).mean()
    return recon + kl, {"recon_nats": recon, "kl_nats": kl, "bound_nats": recon + kl, "sse": sse}


class LinearGaussian(NamedTuple):
    """x ~ N(W z + b, exp(logvar) I)."""

    weights: Array  # [D, Z]
    bias: Array  # [D]
    logvar: Array  # []


@partial(jax.jit, static_argnames=("model",))
def _generative(params: Any, *, model: Autoencoder) -> LinearGaussian:
    """What the decoder is, found by differentiating it at 0."""
    bound, gaussian = model.bind({"params": params}), likelihoods.get(model.likelihood)
    assert isinstance(gaussian, Gaussian)

    def mean(z: Array) -> tuple[Array, tuple[Array, Array]]:
        mean, logvar = gaussian.moments(bound.decode(z[None]))
        return mean.ravel(), (mean.ravel(), jnp.asarray(logvar, mean.dtype).ravel()[0])

    weights, (bias, logvar) = jax.jacfwd(mean, has_aux=True)(jnp.zeros(model.latent_dim))
    return LinearGaussian(weights, bias, logvar)


def linear_log_likelihood(model: Autoencoder, params: Any, data: ArrayLike | Batch) -> np.ndarray:
    """The exact log-likelihood of a model with an affine decoder, log N(x; b, W W^T + s2 I), in nats per example.

    The encoder has no part in it. All is computed in float64, from the parameters as they are, and through the singular
    values of W: no matrix of `[D, D]` is formed.

    Args:
      model: any `Autoencoder` whose decoder is affine, with the prior N(0, I) and a Gaussian likelihood of one
        variance, fixed or learned: a `LinearVAE`, or a `VAE` without hidden layers.
      params: by group.
      data: x, `[N, ...]`, or `Batch(x)`.

    Returns:
      `[N]` float64; a density, so it may be positive.

    Raises:
      InputError: another likelihood or prior, a model with an `nll` or `generate` of its own, or a decoder that is not
        affine.

    Reference: Tipping & Bishop (1999), "Probabilistic principal component analysis".
    """
    if not _is_exact(model):
        raise InputError(
            "A likelihood in closed form takes a Gaussian likelihood of one variance, 'gaussian_learned' or"
            f" Gaussian(variance), and the prior 'normal'; this {type(model).__name__} has {model.likelihood!r} and"
            f" {model.prior!r}. Use aejax.evaluation.nll or ais."
        )
    with jax.enable_x64(True):
        wide = jax.tree.map(partial(np.asarray, dtype=np.float64), params)
        weights, bias, logvar = map(np.asarray, _generative(wide, model=model))
        z = np.random.default_rng(0).normal(size=(3, model.latent_dim))
        means = np.asarray(call(model, wide, "generate", z)).reshape(len(z), -1)
    expected = z @ weights.T + bias
    if not np.allclose(means, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max()):
        raise InputError(
            f"The decoder of this {type(model).__name__} is not affine: its likelihood has no closed form."
        )
    x = np.asarray(getattr(data, "x", data))
    x, data_dim, noise = x.reshape(len(x), -1), len(bias), math.exp(logvar)
    directions, lengths, _ = np.linalg.svd(weights, full_matrices=False)
    signal = lengths**2
    log_det = np.log1p(signal / noise).sum() + data_dim * logvar

    def density(x: np.ndarray) -> np.ndarray:
        off = x.astype(np.float64) - bias
        explained = np.square(off @ directions) @ (signal / (signal + noise))
        return -0.5 * ((np.square(off).sum(axis=1) - explained) / noise + log_det + data_dim * math.log(2 * math.pi))

    return np.concatenate([density(x[start : start + 4096]) for start in range(0, len(x), 4096)])


def ppca(x: np.ndarray, latent_dim: int) -> dict[str, Any]:
    """The optimum of the linear VAE on the rows of x, in closed form: probabilistic PCA, and its posterior.

    With the k largest eigenvalues L of the covariance and their eigenvectors U, s2 is the mean of the eigenvalues that
    are left, `W = U (L - s2)^(1/2)` and b the mean; the posterior has the mean `(L - s2)^(1/2) / L U^T (x - b)` and the
    variances `s2 / L`. Of all rotations of W that have this likelihood it is one whose posterior is diagonal, so that
    the bound is the likelihood itself.

    Args:
      x: `[N, D]` float, computed with in float64.
      latent_dim: k, 1 to D - 1.

    Returns:
      `params` of `LinearVAE.dense(D, k)`, NumPy arrays with the dtype of x.

    Raises:
      InputError: x is no matrix, D does not allow that k, or k directions leave a variance that is not above the floor
        of the learned ones, `exp(-12)`.

    Example:
      >>> x = np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, -1.0], [0.0, 1.0]])  # variances 2 and 1/2
      >>> params = ppca(x, 1)
      >>> np.abs(params["decoder"]["dense_0"]["kernel"]).round(6).tolist()  # (2 - 1/2)^(1/2)
      [[1.224745, 0.0]]
      >>> round(float(linear_log_likelihood(LinearVAE.dense(2, 1), params, x).mean()), 6)  # -log(2 pi) - 1
      -2.837877

    Reference: Tipping & Bishop (1999), the maximum-likelihood solution with R = I; Lucas et al. (2019) for the bound.
    """
    if np.ndim(x) != 2:
        raise InputError(f"x has shape {np.shape(x)}; a matrix [N, D] is needed: x.reshape(len(x), -1).")
    count, data_dim = x.shape
    if not 1 <= latent_dim < data_dim:
        raise InputError(
            f"latent_dim is {latent_dim}; probabilistic PCA of {data_dim} components has 1 to {data_dim - 1}."
        )
    mean = x.mean(axis=0, dtype=np.float64)
    off = x - mean
    is_tall = count >= data_dim  # the smaller of two matrices with the same eigenvalues
    values, vectors = np.linalg.eigh((off.T @ off if is_tall else off @ off.T) / count)
    values, vectors = np.maximum(values[::-1][:latent_dim], 0), vectors[:, ::-1][:, :latent_dim]
    noise = float((np.square(off).sum() / count - values.sum()) / (data_dim - latent_dim))
    raw = Gaussian.raw_logvar(noise)  # refuses what is not above 0, so that no value is 0 below
    directions = vectors if is_tall else off.T @ vectors / np.sqrt(count * values)
    weights = directions * np.sqrt(np.maximum(values - noise, 0))
    values = np.maximum(values, noise)
    encoder = weights / values
    params = {
        "encoder": {"dense_0": {"kernel": encoder, "bias": -mean @ encoder}},
        "decoder": {"dense_0": {"kernel": weights.T, "bias": mean}},
        "posterior_logvar": np.log(noise / values),
        "logvar": raw,
    }
    return jax.tree.map(partial(np.asarray, dtype=x.dtype), params)


def _is_exact(model: Autoencoder) -> bool:
    """Whether the expectation over z is known where the decoder is affine."""
    likelihood = likelihoods.get(model.likelihood)
    is_plain = type(model).nll is Autoencoder.nll and type(model).generate is Autoencoder.generate
    has_one_variance = isinstance(likelihood, Gaussian) and likelihood.variance not in ("per_pixel", "optimal")
    return has_one_variance and is_plain and not model.takes_labels and model.has_normal_prior


def _check(model: LinearVAE, *_: Any, **__: Any) -> None:
    net = model.decoder
    hidden = isinstance(net, ConvDecoder) or (isinstance(net, MLP | TiedMLP) and len(_features(net)) > 1)
    if (hidden and net.activation is not identity) or getattr(net, "final_activation", None) is not None:
        raise InputError("The decoder has an activation, and that of a linear VAE none: leave it out, or use a VAE.")


def _features(net: MLP | TiedMLP) -> tuple[int, ...]:
    return net.features if isinstance(net, MLP) else net.encoder.features


linear_vae = one_player("linear_vae", linear_vae_loss, LinearVAE, HParams, player="elbo", check=_check)


METHOD = Method(
    LinearVAE,
    HParams,
    linear_vae,
    title="linear variational, its optimum probabilistic PCA in closed form",
    paper="Lucas et al. 2019; Dai et al. 2018; Tipping & Bishop 1999",
    noise_free=True,
    terms={
        "train_exact_nats, test_exact_nats": Term(
            "nats per image, in closed form", "negative log-likelihood of a model with an affine decoder"
        ),
        "ppca_train_nats, ppca_test_nats": Term(
            "nats per image, of probabilistic PCA", "the same of the optimum for the training split, in closed form"
        ),
    },
)
