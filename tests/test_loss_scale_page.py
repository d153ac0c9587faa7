"""docs/loss_scale.md: each translation gives the gradients of the other loss, up to one factor."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.data import Batch
from aejax.likelihoods import Gaussian
from aejax.methods.vae import VAE, vae_loss
from aejax.nets import init_params

PAGE = (Path(__file__).parents[1] / "docs" / "loss_scale.md").read_text()
D, Z, W = 12, 3, 0.02
X, KEY = jax.random.uniform(jax.random.key(0), (8, D)), jax.random.key(1)


def gradients(likelihood, loss):
    model = VAE.dense(D, Z, hidden_dims=(5,), likelihood=likelihood)
    return jax.grad(lambda params: loss(model, params))(init_params(model, jax.random.key(2), X))


def written_out(recon, recon_sum, kl_sum):
    """Errors or cross-entropies and KLs, summed or averaged."""

    def loss(model, params):
        mean, logvar = posterior = model.apply({"params": params}, X, method="encode")
        out = model.apply({"params": params}, posterior.sample(KEY), method="decode")
        each = recon(out).reshape(len(X), D)
        kl = 0.5 * (mean**2 + jnp.exp(logvar) - 1 - logvar)
        reduced = (
            values.sum(axis=1) if is_sum else values.mean(axis=1)
            for values, is_sum in ((each, recon_sum), (kl, kl_sum))
        )
        error, divergence = reduced
        return error.mean() + W * divergence.mean()

    return loss


def squared(out):
    return (out - X) ** 2


def cross_entropy(logits):
    rates = jax.nn.sigmoid(logits)
    return -(X * jnp.log(rates) + (1 - X) * jnp.log(1 - rates))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "likelihood", "theirs", "beta"),
    [
        ("`beta = w` |", "bernoulli", written_out(cross_entropy, True, True), W),
        ("`beta = w D` |", "bernoulli", written_out(cross_entropy, False, True), W * D),
        ("`beta = w / 2` |", "gaussian", written_out(squared, True, True), W / 2),
        ("`beta = w D / 2` |", "gaussian", written_out(squared, False, True), W * D / 2),
        ("`beta = w D / (2 Z)` |", "gaussian", written_out(squared, False, False), W * D / (2 * Z)),
    ],
)
def test_a_row_of_the_table_is_the_same_direction(row, likelihood, theirs, beta):
    assert PAGE.count(row) == 1
    ours = gradients(likelihood, lambda model, params: vae_loss(params, Batch(X), KEY, model=model, beta=beta)[0])
    other = gradients(likelihood, theirs)
    a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (ours, other))
    np.testing.assert_allclose(a / np.linalg.norm(a), b / np.linalg.norm(b), atol=1e-6)


@pytest.mark.slow
def test_a_weight_is_a_variance():
    def bound(beta):
        return lambda model, params: vae_loss(params, Batch(X), KEY, model=model, beta=beta)[0]

    weighted = gradients("gaussian", bound(0.3))
    at_variance = gradients(Gaussian(variance=0.3), bound(1.0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 0.3 * b, rtol=1e-4, atol=1e-6), weighted, at_variance)


@pytest.mark.slow
def test_the_example_runs_and_says_what_it_does(capsys):
    assert f"`beta = {0.00025 * 64 * 64 * 3 / 2}`" in PAGE
    exec(compile(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], "loss_scale.md", "exec"), {"__name__": "page"})
    ratios = [float(number) for number in re.findall(r"Array\(([\d.]+)", capsys.readouterr().out)]
    np.testing.assert_allclose(ratios, 32, rtol=1e-4)
    assert len(ratios) == 8
