"""Dense autoencoders without a learning rate: what each layer should change is a linear least-squares problem.

Erdogmus, Fontenla-Romero, Principe, Alonso-Betanzos & Castillo, "Linear-least-squares initialization of multilayer
perceptrons through backpropagation of the desired response", IEEE Transactions on Neural Networks 2005: what the output
ought to be is sent back through weights and inverse activations, and the weights of a layer are the regression of what
it ought to return on what it takes. Martens & Grosse, "Optimizing neural networks with Kronecker-factored approximate
curvature", ICML 2015, for what counts most in that regression, and for the length of the step.

Where this departs from the first: the inverse activation is that of the tangent, so an error counts by the slope of
what it goes through. With the exact inverse the error of a deep autoencoder rises from sweep to sweep (found on the
digits). From the second: all curvature is of the rows at hand, without running averages; as there, that behind a layer
is taken through the means of slopes, which is exact where one bend at most lies between the layer and the output.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from aejax import data, likelihoods
from aejax.checks import InputError, check_count
from aejax.methods.ae import AE
from aejax.nets import MLP

_FIRST, _LEAST = 1e-3, 1e-8  # damping, of a product of two Gram matrices: its root is that of each
_HALVINGS = 10  # of a step, before it is given up
_SPREAD = 0.5  # deviation of what a layer's activation is given at the start: about where tanh begins to bend

Weights = list[jax.Array]  # of each layer, `[in + 1, out]`; the last row is the bias


class Layers(NamedTuple):
    """What `fit_layers` returns."""

    params: Any  # by group
    sse: tuple[float, ...]  # before each sweep, of the rows that it is about to see


def fit_layers(
    model: AE,
    params: Any,
    x: ArrayLike,
    key: jax.Array,
    *,
    sweeps: int = 20,
    rows: int = 5000,
    say: Callable[[int, Any], None] = lambda done, params: None,
) -> Layers:
    """Trains all layers of a dense autoencoder on the squared error, without a gradient step.

    It begins with the principal components of what each layer of the encoder takes, random hidden layers of the decoder
    and the regression of x on the last of them. In a sweep every layer gets the change of its weights that, as a linear
    regression on what it takes, comes nearest to what the error wants of it; the changes of all layers, and those of
    the sweep before, are taken as far as a third least-squares problem says, and half as far again and again until the
    error falls.

    Args:
      model: an `AE` whose networks are `MLP` with biases, of the `gaussian` likelihood; activations such as tanh.
      params: by group, of `init_params`; the hidden layers of the decoder begin there.
      x: `[N, D]`, N at least 2; float32 is what is computed with.
      key: consumed; of the rows that are drawn.
      sweeps: 0 leaves it at the beginning.
      rows: how many examples a sweep sees, drawn anew each time; all of them where there are fewer.
      say: is told the number of sweeps done and the parameters, first with 0.

    Returns:
      Parameters for `model`, and the squared error, summed over D and averaged over examples.

    Example:
      >>> import aejax, jax, jax.numpy as jnp
      >>> x = jax.random.normal(jax.random.key(0), (200, 8)) @ jnp.diag(jnp.arange(8.0))
      >>> model = aejax.AE.dense(8, 3, hidden_dims=(16,), activation=jnp.tanh, likelihood="gaussian")
      >>> params = aejax.init_params(model, jax.random.key(1), x)
      >>> found = fit_layers(model, params, x, jax.random.key(2), sweeps=5)
      >>> found.sse[-1] < found.sse[0]
      True

    Raises:
      InputError: the model is another kind, x does not go with it or its squares are beyond float32, or a number is
        out of range.
    """
    chain = activations(model)
    if not (isinstance(sweeps, int | np.integer) and not isinstance(sweeps, bool) and sweeps >= 0):
        raise InputError(f"sweeps={sweeps!r}; a whole number, 0 or more, is needed.")
    check_count(rows=rows)
    x = np.asarray(x)
    if x.ndim != 2 or len(x) < 2:
        raise InputError(f"x has shape {x.shape}; wanted are vectors [N, D] of at least two examples.")
    data.check(x, "gaussian", name="x")
    mean = x.mean(axis=0, dtype=np.float64)
    scale = np.sqrt(x.var(axis=0, dtype=np.float64).mean()) or 1.0
    if not scale**2 * x.shape[1] < np.finfo(np.float32).max:
        raise InputError(f"The squares of x, of deviation {scale:.3g}, are beyond float32; divide it by that.")
    units = jnp.asarray(mean, jnp.float32), jnp.float32(scale)
    x = jnp.asarray((x - mean) / scale, jnp.float32)
    with jax.default_matmul_precision("highest"):
        weights = begin(_weights(model, params), x, chain=chain, encoded=len(model.encoder.features))
        say(0, _params(model, weights, *units))
        last, damping, errors = [jnp.zeros_like(each) for each in weights], jnp.asarray(_FIRST, x.dtype), []
        for done in range(sweeps):
            some = x
            if rows < len(x):
                some = x[jax.random.choice(jax.random.fold_in(key, done), len(x), (rows,), replace=False)]
            weights, last, damping, sse = sweep(weights, last, damping, some, chain=chain)
            errors.append(float(sse * scale**2))
            say(done + 1, _params(model, weights, *units))
    return Layers(_params(model, weights, *units), tuple(errors))


def activations(model: AE) -> tuple[Callable[[jax.Array], jax.Array] | None, ...]:
    """Those behind each layer of encoder and decoder; `InputError` for a model that is no chain of dense layers."""
    nets = (model.encoder, model.decoder)
    if type(model) is not AE:
        raise InputError(
            f"This is a {type(model).__name__}, whose loss or code is more than that of an AE; use AE.dense."
        )
    if not all(type(net) is MLP and net.use_bias for net in nets):
        raise InputError("Layers in closed form are those of AE.dense, untied and with biases.")
    if likelihoods.get(model.likelihood) != likelihoods.get("gaussian"):
        raise InputError(f"The likelihood is {model.likelihood!r}; in closed form it is the squared error: 'gaussian'.")
    return tuple(
        activation
        for net in nets
        for activation in (*(net.activation,) * (len(net.features) - 1), net.final_activation)
    )


@partial(jax.jit, static_argnames=("chain", "encoded"))
def begin(weights: Weights, x: jax.Array, *, chain: tuple[Any, ...], encoded: int) -> Weights:
    """Components for the first `encoded` layers, the weights that came for those behind them, and one regression."""
    weights, h = list(weights), x
    for i, activation in enumerate(chain):
        if i < encoded:
            weights[i] = _components(weights[i], h)
        elif i == len(chain) - 1:
            ones = _with_ones(h)
            gram = ones.T @ ones
            least = 10 * jnp.finfo(gram.dtype).eps * jnp.trace(gram)
            weights[i] = jax.scipy.linalg.solve(_damped(gram, least), ones.T @ x, assume_a="pos")
        h = _layer(weights[i], activation, h)
    return weights


def _components(weights: jax.Array, h: jax.Array) -> jax.Array:
    """To principal components at one scale, as many as there are; other units stay as they came."""
    mean = h.mean(axis=0, keepdims=True)
    vectors = jnp.linalg.eigh((h - mean).T @ (h - mean))[1][:, ::-1]
    vectors = jnp.concatenate([vectors[:, : weights.shape[1]], weights[:-1, vectors.shape[1] :]], axis=1)
    spread = ((h - mean) @ vectors).std()
    vectors = vectors * (_SPREAD / jnp.where(spread > 0, spread, 1))
    return jnp.concatenate([vectors, -mean @ vectors])


@partial(jax.jit, static_argnames="chain")
def sweep(
    weights: Weights, last: Weights, damping: jax.Array, x: jax.Array, *, chain: tuple[Any, ...]
) -> tuple[Weights, Weights, jax.Array, jax.Array]:
    """One change of all layers.

    Args:
      weights: of each layer.
      last: the change of the sweep before, zeros at first.
      damping: `[]`, above 0.
      x: `[N, D]`.
      chain: static; the activation behind each layer, or None.

    Returns:
      The new weights, whose error on x is no larger; their change; the next damping; and the squared error before.
    """
    changes, slopes, residual = _regressions(weights, damping, x, chain)
    before = jnp.square(residual).sum(axis=1).mean()
    output = lambda weights: _output(weights, chain, x)
    # How far along the changes, and along those of the last sweep: least squares in the tangent of the network.
    ways = [jax.jvp(output, (weights,), (way,))[1] for way in (changes, last)]
    curvature = jnp.array([[jnp.vdot(a, b) for b in ways] for a in ways]) / len(x)
    curvature += damping * jnp.array([[_dot(a, b) for b in (changes, last)] for a in (changes, last)])
    downhill = -jnp.stack([_dot(slopes, way) for way in (changes, last)])
    lengths = jnp.linalg.solve(curvature + jnp.diag(1e-6 * jnp.diag(curvature) + 1e-12), downhill)
    expected = lengths @ curvature @ lengths - 2 * downhill @ lengths
    steps = [lengths[0] * a + lengths[1] * b for a, b in zip(changes, last, strict=True)]

    def error(share: jax.Array) -> jax.Array:
        moved = [each + share * step for each, step in zip(weights, steps, strict=True)]
        return jnp.square(output(moved) - x).sum(axis=1).mean()

    share, after = jax.lax.while_loop(
        lambda found: ~(found[1] < before) & (found[0] > 0.5**_HALVINGS),
        lambda found: (found[0] / 2, error(found[0] / 2)),
        (jnp.ones_like(damping), error(jnp.ones_like(damping))),
    )
    taken = jnp.where(after < before, share, 0)
    gain = (after - before) / expected  # 1 where the tangent was right
    factor = jnp.where((gain > 0.75) & (taken == 1), 0.7, jnp.where((gain < 0.25) | (taken < 1), 1.5, 1.0))
    steps = [jnp.where(taken > 0, taken * step, 0) for step in steps]
    weights = [each + step for each, step in zip(weights, steps, strict=True)]
    return weights, steps, jnp.maximum(damping * factor, _LEAST), before


def _regressions(
    weights: Weights, damping: jax.Array, x: jax.Array, chain: Sequence[Any]
) -> tuple[Weights, Weights, jax.Array]:
    """The change of each layer, the gradient of half the squared error, and the residual `[N, D]`.

    A change solves `min_C E |M^(1/2) (C^T [h, 1] + M^-1 g)|^2`, where h is what the layer takes, g the gradient of what
    it gives before its activation, and M stands for the mean of `J^T J`, J the Jacobian of the output with respect to
    that: from the output down, `M = E[s s^T] * W M' W^T`, with the slopes s of the layer, and W and M' of the one
    behind it. That is the mean itself where slopes do not vary together with those behind them.
    """
    inputs, slopes, h = [], [], x
    for each, activation in zip(weights, chain, strict=True):
        inputs.append(_with_ones(h))
        before = inputs[-1] @ each
        h, slope = jax.jvp(activation or (lambda a: a), (before,), (jnp.ones_like(before),))
        slopes.append(slope)
    residual = error = h - x
    metric = jnp.eye(x.shape[1], dtype=x.dtype)
    changes, gradients = [], []
    for each, ones, slope in zip(reversed(weights), reversed(inputs), reversed(slopes), strict=True):
        error, metric = error * slope, metric * (slope.T @ slope) / len(x)
        gram = ones.T @ ones / len(x)
        ratio = jnp.sqrt(jnp.trace(gram) / len(gram) / (jnp.trace(metric) / len(metric)))
        gradients.append(ones.T @ error / len(x))
        wanted = jax.scipy.linalg.solve(_damped(metric, jnp.sqrt(damping) / ratio), gradients[-1].T, assume_a="pos").T
        changes.append(-jax.scipy.linalg.solve(_damped(gram, jnp.sqrt(damping) * ratio), wanted, assume_a="pos"))
        error, metric = error @ each[:-1].T, each[:-1] @ metric @ each[:-1].T
    return changes[::-1], gradients[::-1], residual


def _output(weights: Weights, chain: Sequence[Any], h: jax.Array) -> jax.Array:
    for each, activation in zip(weights, chain, strict=True):
        h = _layer(each, activation, h)
    return h


def _layer(weights: jax.Array, activation: Callable[[jax.Array], jax.Array] | None, h: jax.Array) -> jax.Array:
    before = _with_ones(h) @ weights
    return before if activation is None else activation(before)


def _with_ones(h: jax.Array) -> jax.Array:
    return jnp.concatenate([h, jnp.ones_like(h[:, :1])], axis=1)


def _damped(matrix: jax.Array, more: jax.Array) -> jax.Array:
    return matrix + more * jnp.eye(len(matrix), dtype=matrix.dtype)


def _dot(a: Weights, b: Weights) -> jax.Array:
    return jnp.stack([jnp.vdot(p, q) for p, q in zip(a, b, strict=True)]).sum()


def _weights(model: AE, params: Any) -> Weights:
    nets = (("encoder", model.encoder), ("decoder", model.decoder))
    layers = [params[group][f"dense_{i}"] for group, net in nets for i in range(len(net.features))]
    return [jnp.concatenate([layer["kernel"], layer["bias"][None]]) for layer in layers]


def _params(model: AE, weights: Weights, mean: jax.Array, scale: jax.Array) -> dict[str, Any]:
    """Of a model of x, from weights of `(x - mean) / scale`."""
    first, *between, last = weights
    first = first.at[:-1].divide(scale)
    first = first.at[-1].add(-mean @ first[:-1])
    layers = iter([first, *between, (last * scale).at[-1].add(mean)])
    params: dict[str, Any] = {}
    for group, net in (("encoder", model.encoder), ("decoder", model.decoder)):
        own = zip(range(len(net.features)), layers, strict=False)
        params[group] = {f"dense_{i}": {"kernel": each[:-1], "bias": each[-1]} for i, each in own}
    return params
