"""Schedules against values worked out by hand, and against optax where optax has the same."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax import schedules
from aejax.checks import InputError


def values(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_constant_is_the_peak_at_every_step():
    assert values(schedules.constant(0.3, 10), [0, 5, 10, 1000]) == [0.3] * 4


def test_linear_goes_in_equal_steps_to_zero_and_stays_there():
    np.testing.assert_allclose(values(schedules.linear(0.8, 4), range(6)), [0.8, 0.6, 0.4, 0.2, 0, 0], atol=1e-7)


def test_cosine_is_half_a_period():
    third = 0.8 * (1 + math.cos(math.pi / 3)) / 2  # = 0.6
    np.testing.assert_allclose(values(schedules.cosine(0.8, 6), [0, 2, 3, 6, 7]), [0.8, third, 0.4, 0, 0], atol=1e-7)


@pytest.mark.parametrize(("num_steps", "warmup_steps"), [(12, 4), (12, 11), (100, None)])
def test_warmup_cosine_equals_that_of_optax(num_steps, warmup_steps):
    ours = schedules.warmup_cosine(0.2, num_steps, warmup_steps=warmup_steps)
    theirs = optax.warmup_cosine_decay_schedule(0.0, 0.2, 5 if warmup_steps is None else warmup_steps, num_steps)
    steps = range(num_steps + 2)
    np.testing.assert_allclose(values(ours, steps), values(theirs, steps), rtol=1e-6, atol=1e-9)


def test_a_run_too_short_to_warm_up_starts_at_the_peak():
    assert values(schedules.warmup_cosine(0.2, 10), range(11)) == values(schedules.cosine(0.2, 10), range(11))


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_every_schedule_sweeps_under_vmap(name):
    peaks = jnp.array([0.1, 0.5])

    def rates(peak):
        return jax.vmap(schedules.get(name)(peak, 40))(jnp.arange(42)) * jnp.ones(42)

    swept = jax.jit(jax.vmap(rates))(peaks)
    np.testing.assert_allclose(swept, jnp.stack([rates(0.1), rates(0.5)]), rtol=1e-6, atol=1e-7)
    assert float(swept[1].max()) == 0.5  # reached by all


@pytest.mark.parametrize("name", sorted(set(schedules.SCHEDULES) - {"constant"}))
def test_a_schedule_without_steps_is_refused(name):
    with pytest.raises(InputError, match="num_steps=0; a schedule needs at least 1"):
        schedules.get(name)(0.1, 0)


def test_a_warmup_that_leaves_no_decay_is_refused():
    with pytest.raises(InputError, match="warmup_steps=10; 0 to 9 fit into num_steps=10"):
        schedules.warmup_cosine(0.1, 10, warmup_steps=10)


def test_an_unknown_schedule_names_the_nearest():
    with pytest.raises(InputError, match=r"Unknown schedule 'cosin'.*'cosine'"):
        schedules.get("cosin")
