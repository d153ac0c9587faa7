"""A flow that is fitted to the codes of a trained autoencoder, so that it can be sampled.

A Gaussian and a mixture of Gaussians are `priors.GaussianMixture.of(codes, K)`, and then `model.clone(prior=...)`.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from aejax import training
from aejax.algorithm import Metrics, Params, Player, play
from aejax.checks import InputError, check_count, check_positive
from aejax.data import Batch
from aejax.nets import Autoencoder, Couplings, Rescaled
from aejax.priors import FlowPrior


def with_flow(
    model: Autoencoder,
    params: Params,
    codes: ArrayLike,
    key: jax.Array,
    *,
    num_steps: int = 6,
    num_epochs: int = 100,
    batch_size: int = 128,
    lr: float = 1e-3,
) -> tuple[Autoencoder, Params]:
    """The model with a flow as its prior, of the greatest likelihood of given codes; the model itself stays.

    `Couplings` after which each component is rescaled. They begin as the identity, the scales as the mean and the
    deviation of the codes, so fitting begins at the Gaussian without correlations; Adam, no held-out codes.

    Args:
      model: of codes of at least 2 numbers; a prior that it has is replaced.
      params: by group.
      codes: `[N, Z]`, such as `evaluation.embed` of the training part.
      key: consumed.
      num_steps: couplings.
      num_epochs: passes over the codes.
      batch_size: codes per step; all of them where they are fewer.
      lr: learning rate.

    Returns:
      The model, and the parameters with the group `prior`: `model.apply({"params": params}, key, n, method="sample")`.

    Raises:
      InputError: codes of another shape, that are not finite, or that have a component that is constant; a size that
        is not positive.

    Reference: Ghosh et al., "From variational to deterministic autoencoders" (2020), has Gaussians and mixtures; a flow
    in their place is ours.
    """
    check_count(num_steps=num_steps, num_epochs=num_epochs, batch_size=batch_size)
    check_positive(lr=lr)
    codes = np.asarray(codes, np.float64)
    if codes.ndim != 2 or codes.shape[1] != model.latent_dim or len(codes) < 2 or not np.isfinite(codes).all():
        raise InputError(
            f"The codes are an array {codes.shape}; finite numbers [N, {model.latent_dim}] are wanted, N at least 2."
        )
    mean, deviation = codes.mean(axis=0), codes.std(axis=0)
    if not deviation.min() > 0:
        constant = np.flatnonzero(deviation <= 0).tolist()
        raise InputError(f"The codes are constant in the components {constant}, where no density is; leave those out.")
    prior = FlowPrior(Rescaled(Couplings(num_steps)))
    # The same for every model of as many numbers, so that one program serves them all.
    alone = Autoencoder(nn.Dense(1), nn.Dense(1), model.latent_dim, prior=prior)
    z = jnp.asarray(codes, jnp.float32)
    init_key, fit_key = jax.random.split(key)
    flow = prior.init(init_key, z[:1], z[:1])["params"]["flow"]
    scales = {"shift": jnp.asarray(mean, z.dtype), "log_scale": jnp.asarray(np.log(deviation), z.dtype)}
    sizes = {"batch_size": min(batch_size, len(z)), "num_epochs": num_epochs}
    found = _fitted({"prior": {"flow": {**flow, **scales}}}, z, fit_key, jnp.float32(lr), model=alone, **sizes)
    return model.clone(prior=prior), {**params, **found}


@partial(jax.jit, static_argnames=("model", "batch_size", "num_epochs"))
def _fitted(
    own: Params, z: jax.Array, key: jax.Array, lr: jax.Array, *, model: Autoencoder, batch_size: int, num_epochs: int
) -> Params:
    algo = play({"flow": Player(partial(_loss, model=model), ("prior",), optax.adam(lr))}, [["flow"]])
    state, _ = training.fit(algo, algo.init(own), Batch(z), key, batch_size=batch_size, num_epochs=num_epochs)
    return state.params


def _loss(params: Any, batch: Batch, key: jax.Array, *, model: Autoencoder) -> tuple[jax.Array, Metrics]:
    """-log p(z) in nats per code; without noise."""
    return -model.bind({"params": params}).log_prior(batch.x).mean(), {}
