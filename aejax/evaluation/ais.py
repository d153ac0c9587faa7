"""The likelihood of data under a latent-variable model, by annealed importance sampling: it needs no good encoder."""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from aejax.checks import InputError, check_count
from aejax.data import Batch
from aejax.evaluation.apply import num_rows, pad
from aejax.evaluation.likelihood import encoded, measurable, std_error, summarise, threefry
from aejax.nets import Autoencoder
from aejax.posteriors import noise

Array = jax.Array

ACCEPTANCE = 0.65  # that the step sizes aim at
_GAIN = 0.3  # of the logarithm of a step size, for each unit of acceptance that it is off
_FIRST_STEP = 0.25
_STEEPNESS = 4.0  # of the temperatures


class AIS(NamedTuple):
    """An estimate of the negative log-likelihood by annealed importance sampling, in nats per example."""

    nll_nats: float  # an upper bound on the negative log-likelihood in expectation; mean over examples
    std_error: float  # Monte-Carlo error of nll_nats, to first order; too small where some ess are low; NaN for 1 chain
    ess: float  # effective number of chains, between 1 and all of them, mean over examples
    acceptance: float  # mean over chains and temperatures, of the run that counts; NaN without transitions
    log_p: np.ndarray  # [N] float64, the estimate of log p(x) of each example, nats


def ais(
    model: Autoencoder,
    params: Any,
    data: ArrayLike | Batch,
    key: jax.Array,
    *,
    num_temperatures: int = 1000,
    num_chains: int = 16,
    num_leapfrog: int = 10,
    start: Literal["prior", "posterior"] = "prior",
    max_rows: int = 1024,
) -> AIS:
    """Negative log-likelihood of a model with a prior, by chains that go from it to the true posterior of each x.

    Chain c of example i begins with a draw from `s(z)`, the prior or the encoder's posterior, and follows

        f_t(z) = s(z) (p(x|z) p(z) / s(z))^beta_t,   0 = beta_0 < ... < beta_T = 1:

    its log weight grows by `(beta_t - beta_(t-1)) log(p(x|z) p(z) / s(z))`, and then one transition of Hamiltonian
    Monte Carlo, with a fresh momentum, leaves f_t invariant. The mean weight of the chains is an unbiased estimate of
    p(x). So by Jensen's inequality its logarithm is a stochastic lower bound: in expectation at most log p(x), and
    above it by luck alone. More temperatures and more chains make it tighter. With T = 1 there are no transitions, and
    from the posterior it is the estimate of `nll`.

    Step sizes are found by a first run with noise of its own, which aims at an acceptance of 0.65. They start at 0.25
    and belong to one example and one temperature; from one temperature to the next the logarithm grows by 0.3 times
    what the mean acceptance probability of the chains of the example is above 0.65. The run that counts keeps these
    steps. They do not depend on its noise, so its weights are unbiased and the bound holds. Chains draw from
    `fold_in(fold_in(key, i), c)`, so neither `max_rows` nor the examples behind it change their noise; keys of another
    kind than threefry are made into one, as in `nll`.

    Args:
      model: with a prior; `nll` and `log_prior` are its own. It needs an encoder only for `start="posterior"`, and then
        one whose posterior has `log_prob`.
      params: by group.
      data: x, `[N, ...]`, or `Batch(x, y)` for a conditioned model, whose likelihood is then that of x given y.
      key: consumed.
      num_temperatures: T.
      num_chains: for each example.
      num_leapfrog: steps of a transition, each a gradient of the decoder; the whole takes about
        `2 N num_chains num_temperatures (num_leapfrog + 1)` of them.
      start: s. From the prior, an encoder that is wrong or blind to a mode does no harm.
      max_rows: how often the decoder runs at once; bounds the memory. At least `num_chains`.

    Returns:
      `AIS(nll_nats, std_error, ess, acceptance, log_p)`.

    Raises:
      InputError: no examples, or such as cannot be trained on; counts below one, fewer rows than chains, an unknown
        start, labels missing or unknown, a model without a prior, or a posterior without the density.

    Reference: Neal (2001); Wu, Burda, Salakhutdinov & Grosse (2017), "On the quantitative analysis of decoder-based
    generative models", whose code has the temperatures: sigmoids of evenly spaced numbers from -4 to 4, stretched to
    [0, 1]. Departure: in their code the step size goes on adapting in the run that counts.
    """
    arrays = measurable(model, data)
    count = num_rows(*arrays)
    check_count(num_temperatures=num_temperatures, num_chains=num_chains, num_leapfrog=num_leapfrog)
    if start not in ("prior", "posterior"):
        raise InputError(f"start is {start!r}; it has to be 'prior' or 'posterior'.")
    if max_rows < num_chains:
        raise InputError(f"max_rows={max_rows} with num_chains={num_chains}; the chains of an example run at once.")
    size = min(count, max_rows // num_chains)
    betas = temperatures(num_temperatures)
    pilot_key, key = jax.random.split(threefry(key))
    run = partial(_anneal, params, model=model, num_chains=num_chains, num_leapfrog=num_leapfrog)
    parts = []
    for first in range(0, count, size):
        batch = [pad(a[first : first + size], size) for a in arrays]
        posterior = encoded(model, params, batch, "log_prob") if start == "posterior" else None
        steps = np.zeros((num_temperatures - 1, size), np.float32)
        _, steps, _ = run(posterior, pilot_key, first, betas, steps, True, *batch)
        log_w, _, acceptance = run(posterior, key, first, betas, steps, False, *batch)
        bound, ess = summarise([log_w], ks=(num_chains,))
        parts.append(jax.device_get((bound[:, 0], ess, acceptance)))
    log_p, ess, acceptance = (np.concatenate(part, dtype=np.float64)[:count] for part in zip(*parts, strict=True))
    return AIS(float(-log_p.mean()), std_error(ess, num_chains), float(ess.mean()), float(acceptance.mean()), log_p)


def temperatures(count: int) -> np.ndarray:
    """`beta_0, ..., beta_count` from 0 to 1, dense at both ends, where the distributions change fastest.

    Example:
      >>> temperatures(4).round(3).tolist()
      [0.0, 0.105, 0.5, 0.895, 1.0]
    """
    gammas = 1 / (1 + np.exp(-np.linspace(-_STEEPNESS, _STEEPNESS, count + 1)))
    return (gammas - gammas[0]) / (gammas[-1] - gammas[0])


@partial(jax.jit, static_argnames=("model", "num_chains", "num_leapfrog"))
def _anneal(
    params: Any,
    posterior: Any,
    key: Array,
    first: Any,
    betas: Array,
    log_steps: Array,
    adapts: Any,
    x: Array,
    *condition: Array,
    model: Autoencoder,
    num_chains: int,
    num_leapfrog: int,
) -> tuple[Array, Array, Array]:
    """Log weights `[B, C]`, logarithms of the step sizes `[T - 1, B]`, acceptance `[B]`; from the prior by default."""
    bound, batch, rows = model.bind({"params": params}), len(x), first + jnp.arange(len(x))
    chain_key = lambda i, c: jax.random.fold_in(jax.random.fold_in(key, i), c)
    keys = jax.vmap(jax.vmap(chain_key, (None, 0)), (0, None))(rows, jnp.arange(num_chains))  # [B, C]
    repeated = [jnp.repeat(a, num_chains, axis=0) for a in (x, *condition)]

    def densities(z: Array) -> tuple[Array, Array]:
        """log s(z) and log p(x, z) - log s(z), `[B, C, Z] -> [B, C]` each."""
        flat = z.reshape(-1, z.shape[-1])
        log_prior, nll = (v.reshape(batch, num_chains) for v in (bound.log_prior(flat), bound.nll(flat, *repeated)))
        if posterior is None:
            return log_prior, -nll
        log_q = jax.vmap(posterior.log_prob, 1, 1)(z)
        return log_q, log_prior - nll - log_q

    def at(beta: Array, z: Array) -> tuple[Array, Array, Array]:
        """log f(z) `[B, C]`, its gradient `[B, C, Z]`, and the log ratio `[B, C]` that weights grow by."""

        def log_f(z: Array) -> tuple[Array, Array]:
            log_s, ratio = densities(z)
            return log_s + beta * ratio, ratio

        value, pull, ratio = jax.vjp(log_f, z, has_aux=True)
        return value, pull(jnp.ones_like(value))[0], ratio

    def transition(beta: Array, log_step: Array, t: Array, z: Array, ratio: Array) -> tuple[Array, Array, Array]:
        """One of Hamiltonian Monte Carlo: z, its log ratio, and the probability that the proposal was accepted with."""
        own = jax.vmap(jax.vmap(lambda k: jax.random.split(jax.random.fold_in(k, t))))(keys)  # [B, C, 2]
        momentum = jax.vmap(lambda k: noise(k, z.shape[1:], z.dtype))(own[..., 0])
        uniform = jax.vmap(jax.vmap(jax.random.uniform))(own[..., 1])
        step = jnp.exp(log_step).reshape(-1, 1, 1)

        def leapfrog(_: Any, now: Any) -> Any:
            z, p, (_, slope, _) = now
            half = p + 0.5 * step * slope
            z = z + step * half
            there = at(beta, z)
            return z, half + 0.5 * step * there[1], there

        here = at(beta, z)
        proposed, p, there = jax.lax.fori_loop(0, num_leapfrog, leapfrog, (z, momentum, here))
        gain = there[0] - here[0] + 0.5 * (jnp.square(momentum) - jnp.square(p)).sum(axis=-1)
        probability = jnp.exp(jnp.minimum(jnp.where(jnp.isnan(gain), -jnp.inf, gain), 0.0))
        accepted = uniform < probability
        return jnp.where(accepted[..., None], proposed, z), jnp.where(accepted, there[2], ratio), probability

    def anneal(now: Any, each: Any) -> Any:
        z, ratio, log_w, log_step = now
        t, beta, increment, given = each
        log_step = jnp.where(adapts, log_step, given)
        z, ratio, probability = transition(beta, log_step, t, z, ratio)
        acceptance = probability.mean(axis=1)
        now = z, ratio, log_w + increment * ratio, log_step + _GAIN * (acceptance - ACCEPTANCE)
        return now, (log_step, acceptance)

    begin = jax.vmap(jax.vmap(lambda k: jax.random.fold_in(k, 0)))(keys)
    if posterior is None:
        z = jax.vmap(jax.vmap(lambda k: bound.sample_prior(k, 1)[0]))(begin)
    else:
        z = jax.vmap(posterior.sample, 1, 1)(begin)
    ratio = densities(z)[1]
    increments = jnp.diff(betas)
    log_step = jnp.full(batch, jnp.log(_FIRST_STEP))
    each = jnp.arange(1, len(betas) - 1), betas[1:-1], increments[1:], log_steps
    (_, _, log_w, _), (steps, acceptance) = jax.lax.scan(anneal, (z, ratio, increments[0] * ratio, log_step), each)
    return log_w, steps, acceptance.mean(axis=0)
