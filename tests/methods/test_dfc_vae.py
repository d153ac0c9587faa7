"""DFC-VAE: the loss in float64, what the layers see and do not see, a classifier that is trained first and stays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.dfc_vae import DFCVAE, classifier_loss, dfc_vae, dfc_vae_loss
from aejax.methods.vae import VAE
from aejax.nets import MLP, ConvEncoder, init_params

KEY = jax.random.key(0)
MODEL = DFCVAE.dense(3, 2, hidden_dims=(4,), num_classes=2, likelihood="gaussian", activation=jnp.tanh)
BATCH = Batch(jax.random.uniform(jax.random.key(1), (5, 3)), jnp.array([0, 1, 1, 0, 1]))


def wide(tree):
    return jax.tree.map(lambda v: np.asarray(v, np.float64), tree)


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def test_the_loss_by_hand():
    params = init_params(MODEL, KEY, BATCH.x)
    value, metrics = dfc_vae_loss(params, BATCH, KEY, model=MODEL, beta=0.5, perception=7.0)
    own, x = wide(params), wide(BATCH.x)
    through = lambda net, v: dense(net["dense_1"], np.tanh(dense(net["dense_0"], v)))
    mean, logvar = np.split(through(own["encoder"], x), 2, axis=1)
    z = mean + np.exp(logvar / 2) * wide(jax.random.normal(jax.random.clone(KEY), (5, 2)))
    x_hat = through(own["decoder"], z)
    hidden = [np.tanh(dense(own["classifier"]["dense_0"], v)) for v in (x, x_hat)]
    gap = (np.square(hidden[0] - hidden[1]).sum(axis=1) / (2 * 4)).mean()
    kl = 0.5 * (mean**2 + np.exp(logvar) - logvar - 1).sum(axis=1).mean()
    assert float(metrics["feature_gap"]) == pytest.approx(gap, rel=1e-5)
    assert float(metrics["kl_nats"]) == pytest.approx(kl, rel=1e-5)
    assert float(metrics["sse"]) == pytest.approx(np.square(x - x_hat).sum(axis=1).mean(), rel=1e-5)
    assert float(value) == pytest.approx(0.5 * kl + 7 * gap, rel=1e-5)


def test_of_several_layers_each_counts_by_its_mean_unit():
    """Two hidden layers of 4 and 2 units, by the layers of the network itself."""
    model = DFCVAE.dense(3, 2, hidden_dims=(4, 2), likelihood="gaussian")
    params = init_params(model, KEY, BATCH.x)
    _, metrics = dfc_vae_loss(params, BATCH, KEY, model=model)
    bound = model.bind({"params": params})
    mean, logvar = bound.encode(BATCH.x)
    x_hat = bound.generate(mean + jnp.exp(logvar / 2) * jax.random.normal(jax.random.clone(KEY), (5, 2)))
    layers = [wide(bound.classifier.layers(v)) for v in (BATCH.x, x_hat)]
    assert [v.shape[1] for v in layers[0]] == [4, 2, 10]
    gap = sum(np.square(a - b).mean() / 2 for a, b in zip(*(each[:2] for each in layers), strict=True))
    assert float(metrics["feature_gap"]) == pytest.approx(gap, rel=1e-5)


def test_what_the_classifier_does_not_see_has_no_gradient():
    params = init_params(MODEL, KEY, BATCH.x)
    kernel = params["classifier"]["dense_0"]["kernel"]
    params["classifier"]["dense_0"]["kernel"] = kernel.at[1].set(0)
    slope = jax.grad(lambda p: dfc_vae_loss(p, BATCH, KEY, model=MODEL)[0])(params)["decoder"]["dense_1"]["bias"]
    assert slope[1] == 0
    assert (abs(slope[jnp.array([0, 2])]) > 1e-4).all()


def test_the_classifier_is_trained_first_and_then_stays():
    """On 400 digits it ends at least as good, on those, as a linear one, and no step moves it."""
    x, y = load_digits(return_X_y=True)
    data = Batch(jnp.float32(x[:400] / 16), jnp.int32(y[:400]))
    model = DFCVAE.dense(64, 2, hidden_dims=(32,))
    params = init_params(model, KEY, data.x)
    algo = dfc_vae(model, tx=optax.sgd, classifier_epochs=100)
    begun = algo.start(params, data, jax.random.key(2))
    for group in ("encoder", "decoder"):
        jax.tree.map(np.testing.assert_array_equal, begun[group], params[group])
    _, before = classifier_loss(params, data, KEY, model=model)
    loss, after = classifier_loss(begun, data, jax.random.clone(KEY), model=model)
    linear = LogisticRegression(max_iter=100).fit(data.x, data.y)
    assert float(before["error"]) > 0.5
    assert float(after["error"]) <= 1 - linear.score(data.x, data.y) + 0.01
    logits = np.asarray(model.apply({"params": begun}, data.x, method="classify"), np.float64)
    nats = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(400), data.y]
    assert float(loss) == pytest.approx(nats.mean(), rel=1e-4)
    state, _ = jax.jit(algo.step)(algo.init(begun), data, jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, state.params["classifier"], begun["classifier"])
    assert any(
        (a != b).any() for a, b in zip(*map(jax.tree.leaves, (state.params["decoder"], begun["decoder"])), strict=True)
    )


@pytest.mark.parametrize("net", [MLP((4, 3)), MLP((4, 3), final_activation=jnp.tanh), ConvEncoder(3, (2, 4), (1, 2))])
def test_layers_end_with_the_output(net):
    x = jax.random.normal(KEY, (2, 4, 4, 1) if isinstance(net, ConvEncoder) else (2, 5))
    variables = net.init(jax.random.key(1), x)
    *hidden, last = net.apply(variables, x, method="layers")
    np.testing.assert_allclose(last, net.apply(variables, x), rtol=1e-5, atol=1e-6)
    if isinstance(net, MLP):
        relu = np.maximum(dense(wide(variables["params"]["dense_0"]), wide(x)), 0)
        np.testing.assert_allclose(hidden[0], relu, rtol=1e-5, atol=1e-6)
    else:
        assert [v.shape for v in hidden] == [(2, 4, 4, 2), (2, 2, 2, 4)]


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="give hidden_dims"):
        DFCVAE.dense(6, 2, hidden_dims=())
    DFCVAE.dense(6, 2, hidden_dims=(3,))
    for net, message in ((MLP((10,)), "the classifier has none"), (MLP((4, 3)), r"\(10,\) is wanted")):
        with pytest.raises(InputError, match=message):
            init_params(DFCVAE.dense(6, 2, classifier=net), KEY, np.zeros((1, 6), np.float32))
    with pytest.raises(InputError, match="which has a classifier beside"):
        dfc_vae(VAE.dense(6, 2))
    with pytest.raises(InputError, match="beyond the cube of the uniform prior"):
        dfc_vae(DFCVAE.dense(6, 2, prior="uniform"))
    with pytest.raises(InputError, match="use bernoulli or gaussian"):
        dfc_vae(DFCVAE.dense(6, 2, likelihood="gaussian_learned"))
    with pytest.raises(InputError, match="classifier_epochs"):
        dfc_vae(MODEL, classifier_epochs=0)
    algo = dfc_vae(MODEL)
    with pytest.raises(InputError, match=r"give Batch\(x, y\)"):
        algo.check(Batch(BATCH.x))
    with pytest.raises(InputError, match="build it with num_classes=8"):
        algo.check(Batch(BATCH.x, np.array([0, 1, 7, 0, 1])))
    algo.check(BATCH)
