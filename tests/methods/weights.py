"""What every weight of a loss has to do: zero removes exactly the gradient of its term, and doubling doubles it."""

import jax
import numpy as np


def check_weights(loss, params, knobs, weighed):
    """Refuses a weight whose part of the gradient is not its value times the gradient of what it weighs.

    Args:
      loss: `(params, **knobs) -> (scalar, metrics)`, in float64.
      params: where; of the groups that have a gradient.
      knobs: all weights at values of which none is 0.
      weighed: of each of the knobs asked for, metrics -> the scalar that it weighs.
    """
    of_loss = jax.jit(jax.grad(lambda p, knobs: loss(p, **knobs)[0]))
    of_terms = jax.jit(jax.jacrev(lambda p: {knob: of(loss(p)[1]) for knob, of in weighed.items()}))(params)
    for knob, own in of_terms.items():
        size = max(np.abs(leaf).max() for leaf in jax.tree.leaves(own))
        assert size > 1e-4, knob  # a term without a gradient would show nothing
        without = of_loss(params, knobs | {knob: 0.0})
        for weight in (knobs[knob], 2 * knobs[knob]):
            found = of_loss(params, knobs | {knob: weight})
            off = jax.tree.map(lambda a, b, c, w=weight: np.abs(a - b - w * c).max(), found, without, own)
            assert max(jax.tree.leaves(off)) < 1e-8 * size, (knob, weight)


def wide(tree):
    """The same in float64; under `jax.enable_x64(True)`."""
    return jax.tree.map(lambda v: v.astype(float), tree)
