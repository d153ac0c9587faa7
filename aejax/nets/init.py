"""First parameters: fresh ones, and the output bias at the mean of the data."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aejax import likelihoods, priors
from aejax.checks import InputError
from aejax.nets.autoencoder import Autoencoder, inputs
from aejax.nets.checks import check_networks, check_rows, is_ours

T = TypeVar("T")

_BOUND = 1e-3  # of a mean whose log-odds are taken


def init_params(model: Autoencoder, key: jax.Array, data: Any, *, output_bias: bool = False) -> dict[str, Any]:
    """Fresh parameters by group, with the module checked against the data first.

    Where key and data are concrete, the data have two rows, and some module or function is not of this library or of
    JAX, `check_rows` is asked too; whoever calls this within a trace does that.

    Args:
      model: an `Autoencoder`.
      key: consumed.
      data: examples `x` `[B, ...]`, or a `Batch`; one row is enough but for `output_bias`.
      output_bias: whether the output starts at the mean of the data, by `start_bias`.

    Returns:
      `{"encoder": ..., "decoder": ..., ...}`.

    Raises:
      InputError: the module cannot be a static argument of `jit` (a list or a lambda among its fields), keeps state
        beside its parameters (BatchNorm), draws random numbers (Dropout), or couples examples; its shapes do not fit x
        and `latent_dim`; x is not real or has no rows; a conditioned model came without labels.
    """
    check_networks(model)
    likelihoods.get(model.likelihood)
    if model.prior is not None:
        priors.get(model.prior, model.latent_dim)
    arrays = inputs(model, data)
    _check_data(arrays[0])
    row = tuple(array[:1] for array in arrays)
    variables = _naming_the_layer(lambda: jax.jit(model.init)(key, *row))
    extra = sorted(set(variables) - {"params"})
    if extra:
        raise InputError(
            f"The module keeps {extra} beside its parameters. Losses here are pure and per example:"
            " use LayerNorm or GroupNorm in place of BatchNorm, and no mutable collections."
        )
    _naming_the_layer(lambda: _check_shapes(model, variables, row))
    params = dict(variables["params"])
    if output_bias:
        params = start_bias(model, params, data)
    traced = any(isinstance(v, jax.core.Tracer) for v in (*jax.tree.leaves(params), *arrays))
    if len(arrays[0]) > 1 and not traced and not is_ours(model):
        check_rows(model, params, data)
    return params


def start_bias(model: Autoencoder, params: dict[str, Any], data: Any) -> dict[str, Any]:
    """The parameters with the bias of the output at the mean of the data, so that training need not find it first.

    The mean itself under a Gaussian likelihood (a log-variance beside it stays), its log-odds under the Bernoulli one;
    of each component, or of each channel where the decoder has a bias for each channel alone. Which parameter that is,
    is found, not named: the one of the decoder that is added to what `decode` returns, and enters nowhere else. Works
    within a trace.

    Args:
      model: an `Autoencoder`; its decoder may be of any kind.
      params: by group.
      data: all that is trained on, `x` `[N, ...]`, or a `Batch`.

    Returns:
      The parameters, those of the decoder renewed.

    Raises:
      InputError: the likelihood is another, or no parameter is the bias of the output.

    Example:
      >>> model = aejax.AE.dense(2, 1, likelihood="gaussian")
      >>> x = jnp.array([[0.0, 2.0], [1.0, 6.0]])
      >>> params = start_bias(model, init_params(model, jax.random.key(0), x), x)
      >>> params["decoder"]["dense_1"]["bias"].tolist()
      [0.5, 4.0]

    Reference: Burda, Grosse & Salakhutdinov (2016); means are kept within [0.001, 0.999], as in their code. The
    Gaussian case and the channels are ours.
    """
    x, *condition = inputs(model, data)
    likelihood = likelihoods.get(model.likelihood)
    if not isinstance(likelihood, likelihoods.Bernoulli | likelihoods.Gaussian):
        raise InputError(
            f"The output starts at a mean under Bernoulli and Gaussian likelihoods, not under {likelihood}."
        )
    outputs = likelihood.outputs(x.shape[1:])
    path = _output_bias(model, params, outputs, condition)

    def start(leaf: jax.Array) -> jax.Array:
        is_whole = leaf.size == math.prod(outputs)
        axes = 0 if is_whole else tuple(range(x.ndim - 1))
        mean = jnp.mean(x, axes) if isinstance(x, jax.core.Tracer) else np.mean(np.asarray(x), axes, np.float64)
        if isinstance(likelihood, likelihoods.Bernoulli):
            mean = mean.clip(_BOUND, 1 - _BOUND)
            mean = jnp.log(mean / (1 - mean))
        numbers = jnp.reshape(leaf, outputs if is_whole else outputs[-1:])
        return numbers.at[..., : x.shape[-1]].set(jnp.asarray(mean, leaf.dtype)).reshape(leaf.shape)

    renew = lambda where, leaf: start(leaf) if where == path else leaf
    return params | {"decoder": jax.tree_util.tree_map_with_path(renew, params["decoder"])}


def _output_bias(model: Autoencoder, params: dict[str, Any], outputs: tuple[int, ...], condition: list[Any]) -> Any:
    """The path, within the decoder's, of the parameter with respect to which the output has the derivative one."""
    sizes = {math.prod(outputs), outputs[-1]}
    leaves = jax.tree_util.tree_leaves_with_path(params.get("decoder", {}))  # a stack has several
    paths = [path for path, leaf in leaves if leaf.size in sizes and jnp.issubdtype(leaf.dtype, jnp.floating)]
    rng = np.random.default_rng(0)
    # Any numbers of these shapes do, and these are concrete within a trace, too.
    draw = lambda leaf: rng.standard_normal(leaf.shape).astype(leaf.dtype)
    drawn = jax.tree.map(draw, params)
    moves = {path: draw(leaf) for path, leaf in leaves if path in paths}
    z = rng.standard_normal((1, model.latent_dim)).astype(np.float32)
    first: list[Any] = [np.zeros((1, *array.shape[1:]), array.dtype) for array in condition]

    def moved(path: Any) -> jax.Array:
        def decode(leaf: jax.Array) -> jax.Array:
            decoder = jax.tree_util.tree_map_with_path(lambda p, v: leaf if p == path else v, drawn["decoder"])
            return model.bind({"params": drawn | {"decoder": decoder}}).decode(jnp.asarray(z), *first)

        return jax.jvp(decode, (jnp.asarray(moves[path]),), (jnp.asarray(moves[path]),))[1]

    with jax.ensure_compile_time_eval():
        results = jax.jit(lambda: [moved(path) for path in paths])()
    for path, result in zip(reversed(paths), reversed(results), strict=True):
        wanted = moves[path].reshape((1, *outputs) if moves[path].size == math.prod(outputs) else (-1,))
        found, attached = np.split(np.asarray(result), outputs[-1:], axis=-1)  # a variance of its own comes behind
        if found.shape == (1, *outputs) and np.allclose(found, wanted, rtol=2e-2, atol=1e-3) and not attached.any():
            return path
    raise InputError(
        "No parameter of the decoder is the bias of its output, added to it after everything else, one for each number"
        f" of {outputs} or for each channel: give the last layer a bias, or leave the start as it is."
    )


def _check_data(x: Any) -> None:
    if not hasattr(x, "dtype") or not hasattr(x, "shape"):
        raise InputError(f"x is a {type(x).__name__}; an array [B, ...] is needed.")
    if not (jnp.issubdtype(x.dtype, jnp.floating) or x.dtype.kind in "bui"):
        raise InputError(f"x has dtype {x.dtype}; real numbers are needed (uint8, bool, float or int).")
    if len(x.shape) < 2 or 0 in x.shape:
        raise InputError(f"x has shape {x.shape}; [B, ...] is needed, at least one example along the first axis.")


def _check_shapes(model: Autoencoder, variables: Any, row: tuple[Any, ...]) -> None:
    shape, name, likelihood = row[0].shape[1:], type(model).__name__, likelihoods.get(model.likelihood)
    z = jax.eval_shape(lambda: model.apply(variables, *row, method="embed"))
    x_hat = jax.eval_shape(lambda: model.apply(variables, *row, method="reconstruct"))
    if z.ndim > 2 and z.shape[1:-1] == shape[:-1]:
        conv = f", or use {name}.conv({shape}, {model.latent_dim})" if len(shape) == 3 else ""
        raise InputError(
            f"The encoder maps examples of shape {shape} to {z.shape[1:]}, along the last axis alone: a dense network"
            f" takes vectors. Flatten x: x.reshape(-1, {math.prod(shape)}) (a Dataset: aejax.data.flatten){conv}."
        )
    if (z.shape[-1:] if model.takes_places else z.shape[1:]) != (model.latent_dim,):
        raise InputError(
            f"The code of one example has shape {z.shape[1:]}; latent_dim={model.latent_dim} asks for an encoder that"
            f" returns {model.code_size(model.latent_dim)} numbers."
        )
    if x_hat.shape != (1, *shape):
        message = (
            f"The decoder returns {likelihood.outputs(x_hat.shape[1:])} for an example of shape {shape};"
            f" {likelihood} wants {likelihood.outputs(shape)}."
        )
        if x_hat.ndim == 2 and shape == (model.latent_dim,):
            message += f" The size of the data comes first: {name}.dense({model.latent_dim}, {x_hat.shape[1]})."
        raise InputError(message)


def _naming_the_layer(run: Callable[[], T]) -> T:
    """`run()`; where a layer wants to know whether it is trained, or a random number, it is refused by its place."""

    def watch(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except (flax.errors.InvalidRngError, ValueError) as error:
            layer, path = type(context.module).__name__, "/".join(context.module.path)
            if isinstance(context.module, nn.BatchNorm):
                why = "which keeps state and couples examples: use LayerNorm or GroupNorm in its place"
            elif isinstance(context.module, nn.Dropout):
                why = "which draws, and modules here draw nothing: leave it out, or make it with deterministic=True"
            elif isinstance(error, flax.errors.InvalidRngError):
                why = "which draws, and modules here draw nothing: noise belongs to a loss, which has the key"
            else:
                raise
            raise InputError(f"{path} is a {layer}, {why}.") from error

    try:
        return run()
    except InputError:
        raise
    except (flax.errors.InvalidRngError, ValueError):
        with nn.intercept_methods(watch):
            return run()
