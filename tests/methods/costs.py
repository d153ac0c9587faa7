"""What a step costs, by the compiler's count."""

import jax
import jax.numpy as jnp


def flops(function, *args):
    """Of the compiled program."""
    return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]


def check_cost(algo, params, batch, outputs):
    """Refuses a step of two players with more products than one pass and two ways back.

    Args:
      algo: under SGD; `disc` moves `discriminator`, `gen` all other groups.
      params, batch: of `algo`.
      outputs: `(params, key) -> ((loss of disc, loss of gen), what else is reported)`, of one pass.
    """

    def fused(params, key):
        each, back, others = jax.vjp(lambda params: outputs(params, key), params, has_aux=True)
        disc, gen = (back(tuple(jnp.float32(v) for v in ones))[0] for ones in ((1, 0), (0, 1)))
        grads = {group: (disc if group == "discriminator" else gen)[group] for group in params}
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads), each, others

    key = jax.random.key(0)
    played, by_hand = flops(algo.step, algo.init(params), batch, key), flops(fused, params, key)
    assert by_hand > 3 * 2 * len(batch.x) * sum(v.size for v in jax.tree.leaves(params))  # the count is of the products
    assert played <= 1.02 * by_hand
