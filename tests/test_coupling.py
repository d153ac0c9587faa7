"""The finder of coupled losses, on losses that are known to be so or not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupling import is_coupled, second_differences

from aejax.divergences import mmd_sq

KEY = jax.random.key(0)
NOISE = np.random.default_rng(1).normal(size=(8, 3))


def judge(loss):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        batch, *others = (jnp.asarray(rng.random((8, 3))) for _ in range(3))
        others += [jnp.zeros((8, 3)), jnp.ones((8, 3))]
        return is_coupled(second_differences(lambda x: {"loss": loss(x)}, batch, others))


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: jnp.square(x).sum(1).mean(),
        lambda x: jnp.exp(5 * x).sum(1).mean() + 1e6,  # beside a large constant
        lambda x: jnp.square(x + NOISE).sum(1).mean(),
        lambda x: jax.lax.top_k(x, 2)[0].mean(),
        lambda x: jnp.abs(x - 0.5).sum(1).mean() + jnp.log(jnp.abs(x).sum(1) + 1e-3).mean(),
        lambda x: jnp.zeros(()),
    ],
)
def test_sums_over_rows_are_not_coupled(loss):
    assert not judge(loss)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: x.var(axis=0).sum(),
        lambda x: jnp.square(x).mean() + 1e-2 * jnp.prod(x.mean(axis=0)),
        lambda x: jnp.abs(x.mean() - 0.6),  # linear on either side of its kink
        lambda x: x.max(),
        lambda x: jnp.log(jnp.mean(jnp.square(x)) + 0.1),
        lambda x: mmd_sq(x, jnp.asarray(NOISE), bandwidth=1.0),
        lambda x: jnp.square(x[:4] - x[4:]).mean(),
        lambda x: jnp.square(x[::2] - x[1::2]).mean(),
        lambda x: x[0, 0] * x[2, 0] + jnp.square(x).mean(),
    ],
)
def test_what_rows_do_together_is_coupled(loss):
    assert judge(loss)


def test_where_rounding_decides_there_is_no_verdict():
    with pytest.raises(AssertionError, match="cannot tell"):
        judge(lambda x: jnp.square(x.astype(jnp.float32)).sum(1).mean())
    with pytest.raises(AssertionError, match="cannot tell"):
        judge(lambda x: jnp.nan * x.mean())
