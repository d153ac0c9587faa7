"""M2: the bounds against a mixture of Gaussians, where they are exact, and streams that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from aejax import training
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.m2 import M2, SemiBatch, m2, m2_loss
from aejax.nets import init_params

KEY = jax.random.key(0)
MODEL = M2.dense(2, 1, num_classes=3, hidden_dims=(), likelihood="gaussian")
MEANS = np.array([[0.0, 0.0], [2.0, -1.0], [-1.0, 1.5]])
X = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
Y = np.array([0, 1, 2, 1], np.int32)
DATA = SemiBatch(Batch(X[:4], Y), Batch(X))


@pytest.fixture(scope="module")
def params():
    """x = mean of its class + noise, the code unused: posterior N(0, 1), and the classifier that Bayes has."""
    fresh = jax.tree.map(jnp.zeros_like, init_params(MODEL, KEY, DATA.labelled))
    kernel = jnp.concatenate([jnp.zeros((1, 2)), jnp.asarray(MEANS, jnp.float32)])  # of the code, then of the classes
    bayes = {"kernel": jnp.asarray(MEANS.T, jnp.float32), "bias": jnp.asarray(-0.5 * (MEANS**2).sum(1), jnp.float32)}
    decoder = {"net": {"dense_0": {"kernel": kernel, "bias": jnp.zeros(2)}}}
    return fresh | {"decoder": decoder, "classifier": {"dense_0": bayes}}


def joint(x):
    """log p(x, y) of every class, `[N, 3]`."""
    return np.stack([multivariate_normal.logpdf(x, mean, np.eye(2)) for mean in MEANS], axis=1) - np.log(3)


def test_the_bounds_are_the_likelihoods_where_the_posteriors_are_exact(params):
    loss, terms = m2_loss(params, DATA, KEY, model=MODEL, alpha=2.0)
    few, many = joint(X[:4]), joint(X)
    assert float(terms["labelled_bound_nats"]) == pytest.approx(-few[np.arange(4), Y].mean(), rel=1e-5)
    assert float(terms["unlabelled_bound_nats"]) == pytest.approx(-logsumexp(many, axis=1).mean(), rel=1e-5)
    log_q = few - logsumexp(few, axis=1, keepdims=True)
    assert float(terms["class_nats"]) == pytest.approx(-log_q[np.arange(4), Y].mean(), rel=1e-5)
    assert float(terms["error"]) == np.mean(few.argmax(axis=1) != Y)
    assert float(loss) == pytest.approx(
        sum(float(terms[name]) for name in ("labelled_bound_nats", "unlabelled_bound_nats"))
        + 2 * float(terms["class_nats"]),
        rel=1e-6,
    )


def test_another_posterior_loosens_the_bounds_by_its_divergence(params):
    """The decoder does not look at the code, so KL(N(m, 1) | N(0, 1)) = m^2 / 2 is all that comes in."""
    encoder = {"net": {"dense_0": params["encoder"]["net"]["dense_0"] | {"bias": jnp.array([1.5, 0.0])}}}
    shifted, exact = (m2_loss(p, DATA, KEY, model=MODEL)[1] for p in (params | {"encoder": encoder}, params))
    for name in ("labelled_bound_nats", "unlabelled_bound_nats"):
        assert float(shifted[name] - exact[name]) == pytest.approx(1.5**2 / 2, rel=1e-5)


def test_another_classifier_loosens_the_bound_by_its_divergence(params):
    """L(q) = -log p(x) + KL(q(y|x) | p(y|x))."""
    flat = params | {"classifier": jax.tree.map(jnp.zeros_like, params["classifier"])}
    _, terms = m2_loss(flat, DATA, KEY, model=MODEL)
    many = joint(X)
    posterior = many - logsumexp(many, axis=1, keepdims=True)
    divergence = (-np.log(3) - posterior).mean(axis=1)  # of the uniform from the posterior
    expected = (-logsumexp(many, axis=1) + divergence).mean()
    assert float(terms["unlabelled_bound_nats"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_it_trains_on_two_streams_and_refuses_one(params):
    algo = m2(MODEL, lr=1e-2)
    state = algo.init(init_params(MODEL, KEY, DATA.labelled))
    sizes = SemiBatch(2, 4)
    last = list(training.train(algo, state, DATA, KEY, batch_size=sizes, num_epochs=40))[-1]
    before, after = (training.evaluate(algo, s, DATA, KEY, batch_size=sizes)["elbo/loss"] for s in (state, last.state))
    assert after < before - 1
    with pytest.raises(InputError, match=r"The data are a Batch; wanted is m2\.SemiBatch"):
        training.train(algo, state, Batch(X), KEY, batch_size=2, num_epochs=1)
    with pytest.raises(InputError, match="conditioned on labels"):
        training.train(algo, state, SemiBatch(Batch(X), Batch(X)), KEY, batch_size=sizes, num_epochs=1)
    unknown = SemiBatch(Batch(X[:4], Y - 1), Batch(X))
    with pytest.raises(InputError, match="num_classes=None; at least 1"):
        M2.dense(2, 1, num_classes=None)  # it sums over classes, where a CVAE may be told numbers
    with pytest.raises(InputError, match="num_classes=3"):
        training.train(algo, state, unknown, KEY, batch_size=sizes, num_epochs=1)


@pytest.mark.slow
def test_the_terms_have_the_weights_of_sums_over_all_data(params):
    """Equation 9 of the paper, over n = N + M examples: sum L + sum U + alpha n mean(-log q), over M."""
    few, many, alpha = 4, 8, 0.1
    term = lambda name: jax.grad(lambda p: m2_loss(p, DATA, KEY, model=MODEL)[1][name])(params)
    terms = [term(name) for name in ("labelled_bound_nats", "unlabelled_bound_nats", "class_nats")]
    objective = jax.tree.map(lambda a, b, c: few * a + many * b + alpha * (few + many) * c, *terms)
    weights = {"labelled": few / many, "alpha": alpha * (few + many) / many}
    ours = jax.grad(lambda p: m2_loss(p, DATA, KEY, model=MODEL, **weights)[0])(params)
    close = lambda found, wanted: np.testing.assert_allclose(many * found, wanted, rtol=1e-4, atol=1e-4)
    jax.tree.map(close, ours, objective)
    assert float(jnp.abs(ours["classifier"]["dense_0"]["kernel"]).max()) > 0.01
