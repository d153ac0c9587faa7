"""Whether a trained model has collapsed, in any of the ways in which autoencoders do: one report for all of them.

The thresholds are such that what is found is wrong in any application: a code that is partly unused is no finding yet.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from aejax import likelihoods
from aejax.checks import InputError
from aejax.data import Batch
from aejax.evaluation.apply import examples, num_rows, over_batches
from aejax.evaluation.codes import active_units, perplexity
from aejax.evaluation.sparsity import dead_units
from aejax.nets import Autoencoder
from aejax.posteriors import DiagonalGaussian

# Ours: of codes with rare features some units are silent for good, and do no harm.
_DEAD = 0.1
# Lucas et al. (2019), section 6.2: a dimension is collapsed where its KL to the prior is below epsilon for all examples
# but a share delta, which is 0.01 there. Epsilon is ours: Burda et al. (2016) call a unit active from a variance of its
# mean of 0.01 on, which is worth half as many nats.
_NATS, _SHARE = 0.01, 0.99
# The published VAEs of Burda et al. with one layer use 19 of 50 dimensions and more; a quarter is less than any.
_IN_USE = 0.25
# Ours: outputs that vary so little are one picture to the eye, and errors so close are that of one picture.
_VARIANCE, _GAIN = 0.01, 0.01
# Ours: of all entries but one.
_ENTRIES = 0.1
_DRAWS = 256

_Found = tuple[dict[str, float], str]  # what was measured, and what is wrong, if anything


class Collapse(NamedTuple):
    """What is wrong with a model."""

    findings: tuple[str, ...]  # sentences with the numbers and what they are compared with; none of a sound model
    numbers: dict[str, float]  # all that were compared, by name


def collapse(
    model: Autoencoder, params: Any, data: ArrayLike | Batch, key: jax.Array, *, untrained: Any = None
) -> Collapse:
    """Looks for what makes a trained model worthless, whatever its method.

    | finding | where |
    | --- | --- |
    | dead units | more than 10 % of the code is exactly 0 for all examples, those left out that may be so by chance |
    | collapsed posterior | less than a quarter of the dimensions of a Gaussian posterior are in use |
    | identical outputs | reconstructions vary less than 1 % as much as the data, or decoded draws from the prior do |
    | unused codebook | the perplexity of discrete codes is below 1 and a tenth of the other entries |
    | no better than the mean | the error is not below that of the mean of the data, by 1 % |
    | no better than untrained | nor below that with the parameters before training |

    A dimension is in use where its KL to N(0, 1) is above 0.01 nats for one example of a hundred at least, and where
    the variance of its mean is above 0.01, as `active_units` has it. Under another prior only the latter is asked, of
    codes divided by the deviation of q(z), whose scale then means nothing. Half of the dimensions unused is usual: the
    bound prunes what it does not need.

    The error is the squared one; of counts it is the -log p(x) of a Poisson with the means x_hat, less what is left at
    x_hat = x, in nats. The squares of counts hang on the few largest, which a likelihood of counts takes for noise. Of
    all constants the mean of the data has the least of either error. A model that is told the `library` of an example,
    as `CountVAE` is, knows it without a code: the mean is then one of shares, times the library, and shares have to
    vary.

    Args:
      model: any `Autoencoder`. A codebook is looked for where there are `tokens`, draws are made where there is a prior
        or a `sample` of its own, and a posterior is known as a `DiagonalGaussian`.
      params: by group.
      data: x, `[N, ...]`, of at least two examples, or `Batch(x, y)` for a conditioned model; the more, the surer.
      key: consumed by up to 256 draws.
      untrained: other parameters by group, such as those that the training began with, or None.

    Returns:
      `Collapse(findings, numbers)`. The numbers, each where it is measured: `dead_units` (a share), `collapsed_units`
      and `active_units` (counts), `kl_nats` (per example), `output_variance` and `sample_variance` (over that of the
      data), `perplexity`, and errors per example: `sse`, `mean_sse` and `untrained_sse`, of counts `poisson_nats`,
      `mean_poisson_nats` and `untrained_poisson_nats`.

    Raises:
      InputError: fewer than two examples, or such as the model is not trained on; x that was not all observed; labels
        missing or unknown.

    Example:
      >>> from aejax.methods.ae import AE
      >>> model, x = AE.dense(4, 2), np.eye(4, dtype=np.float32)
      >>> zeros = jax.tree.map(np.zeros_like, model.init(jax.random.key(0), x)["params"])
      >>> print(collapse(model, zeros, x, jax.random.key(1)).findings[0])
      2 of 2 units of the code are 0 for all of 4 examples; up to 10 % may be.

    Reference: Lucas et al., Don't blame the ELBO (2019), section 6.2; Burda, Grosse & Salakhutdinov (2016), section 5.2
      and table 1.
    """
    arrays = tuple(map(np.asarray, examples(model, data, likelihood=model.likelihood)))
    if num_rows(*arrays) < 2:
        raise InputError("One example does not tell whether a model has collapsed; at least 2 do.")
    if np.isnan(arrays[0]).any():
        raise InputError("Some of x was not observed, and of what is not there nothing has to vary.")
    z, x_hat, tokens, posterior, library = over_batches(partial(_maps, params, model=model), *arrays)
    x, x_hat = _rows(arrays[0]), _rows(x_hat)
    size = np.ones((len(x), 1)) if library is None else _rows(library)
    mean = size * (x.sum(axis=0) / size.sum())
    error = _poisson if likelihoods.get(model.likelihood).support == likelihoods.COUNTS else _squared
    found = [
        _units(z),
        _variety(x / size, x_hat / size, "output_variance", "reconstructions"),
        error(x, x_hat, mean, "mean", "of the mean of the data"),
    ]
    if posterior is not None:
        found.append(_posterior(posterior, model.prior is not None and model.has_normal_prior))
    if model.prior is not None or type(model).sample is not Autoencoder.sample:
        told = arrays[1:] if library is None else (np.ones_like(library),)
        drawn = _sample(params, key, *(a[:_DRAWS] for a in told), model=model, n=min(len(x), _DRAWS))
        found.append(_variety(x / size, _rows(np.asarray(drawn)), "sample_variance", "decoded draws from the prior"))
    if tokens is not None:
        found.append(_codebook(tokens, model.num_entries))
    if untrained is not None:
        other = over_batches(partial(_maps, untrained, model=model), *arrays)[1]
        found.append(error(x, x_hat, _rows(other), "untrained", "with the untrained parameters"))
    numbers: dict[str, float] = {}
    for measured, _ in found:
        numbers |= measured
    return Collapse(tuple(text for _, text in found if text), numbers)


def _units(z: np.ndarray) -> _Found:
    dead = dead_units(z)
    answers = np.count_nonzero(z, axis=0)
    # A unit that answers as seldom as the others may be silent for all examples.
    silent = (1 - answers.sum() / max(1, np.count_nonzero(answers)) / len(z)) ** len(z) if answers.any() else 0.0
    most = _DEAD + silent
    text = f"{np.sum(answers == 0)} of {z.shape[1]} units of the code are 0 for all of {len(z)} examples"
    return {"dead_units": dead}, f"{text}; up to {100 * most:.0f} % may be." if dead > most else ""


def _variety(x: np.ndarray, outputs: np.ndarray, name: str, what: str) -> _Found:
    """The variance of outputs over that of data, both summed over the components."""
    total = x.var(axis=0).sum()
    if not total:
        return {}, ""  # nothing varies
    share = float(outputs.var(axis=0).sum() / total)
    text = (
        f"The {what} vary {100 * share:.2f} % as much as the data; below {100 * _VARIANCE:.0f} % they are all the same."
    )
    return {name: share}, "" if share >= _VARIANCE else text


def _squared(x: np.ndarray, x_hat: np.ndarray, other: np.ndarray, name: str, what: str) -> _Found:
    """Whether the squared error is below that of other outputs."""
    error, limit = (float(np.square(v - x).sum(axis=1).mean()) for v in (x_hat, other))
    return {"sse": error, f"{name}_sse": limit}, _not_below(
        "The squared error is {:.4g} per example", error, limit, what
    )


def _poisson(x: np.ndarray, x_hat: np.ndarray, other: np.ndarray, name: str, what: str) -> _Found:
    """Whether the error of counts is below that of other outputs, in nats: `x log(x / v) - x + v`."""
    seen = x > 0
    with np.errstate(divide="ignore"):  # a mean of 0 for what was counted: infinite
        error, limit = (
            float((v - x - x * np.log(np.where(seen, v, 1) / np.where(seen, x, 1))).sum(axis=1).mean())
            for v in (x_hat, other)
        )
    text = _not_below("The Poisson error is {:.4g} nats per example", error, limit, what)
    return {"poisson_nats": error, f"{name}_poisson_nats": limit}, text


def _not_below(text: str, error: float, limit: float, what: str) -> str:
    if error < (1 - _GAIN) * limit or not limit:
        return ""
    return f"{text.format(error)}, not below {limit:.4g} {what} by {100 * _GAIN:.0f} %."


def _posterior(posterior: DiagonalGaussian, has_normal_prior: bool) -> _Found:
    mean, logvar = (v.astype(np.float64) for v in posterior)
    size, numbers, collapsed, told = mean.shape[1], {}, 0, ""
    if has_normal_prior:
        kl = 0.5 * (np.square(mean) + np.expm1(logvar) - logvar)
        collapsed, total = int(((kl < _NATS).mean(axis=0) >= _SHARE).sum()), float(kl.sum(axis=1).mean())
        numbers = {"kl_nats": total, "collapsed_units": collapsed}
        told = f" ({collapsed} have a KL to the prior below {_NATS} nats; that of all is {total:.3g} nats)"
    else:
        mean = mean / np.sqrt(mean.var(axis=0) + np.exp(logvar).mean(axis=0))
    active = active_units(mean)
    used = min(active, size - collapsed)
    text = f"{used} of {size} dimensions of the posterior depend on the data{told}; in a sound model a quarter do."
    return {**numbers, "active_units": active}, text if used < _IN_USE * size else ""


def _codebook(tokens: np.ndarray, num_entries: int) -> _Found:
    used, least = perplexity(tokens), 1 + _ENTRIES * (num_entries - 1)
    text = (
        f"Of {num_entries} entries of the codebook the codes use {used:.3g}, by perplexity; {least:.3g} are expected."
    )
    return {"perplexity": used}, text if used < least else ""


def _rows(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1).astype(np.float64)


@partial(jax.jit, static_argnames="model")
def _maps(params: Any, *inputs: jax.Array, model: Autoencoder) -> tuple[Any, ...]:
    """Codes, reconstructions, and tokens, Gaussian posteriors and libraries of models that have such."""
    bound = model.bind({"params": params})
    tokens = bound.tokens(*inputs) if hasattr(bound, "tokens") else None
    posterior = bound.encode(*inputs)
    known = posterior if isinstance(posterior, DiagonalGaussian) else None
    library = bound.library(*inputs) if hasattr(bound, "library") else None
    return bound.embed(*inputs), bound.reconstruct(*inputs), tokens, known, library


@partial(jax.jit, static_argnames=("model", "n"))
def _sample(params: Any, key: jax.Array, *condition: jax.Array, model: Autoencoder, n: int) -> jax.Array:
    return model.bind({"params": params}).sample(key, n, *condition)
