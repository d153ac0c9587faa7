"""Learning in one line: against PCA, against the library by hand, and back from the disk with the same bits."""

import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import Fitted, learn, likelihoods, recipe, schedules, training
from aejax.as_json import from_json, to_json
from aejax.checks import DivergedError, InputError
from aejax.data import Batch
from aejax.methods import METHODS
from aejax.methods.m2 import SemiBatch
from aejax.methods.vae import VAE, vae
from aejax.nets import MLP, init_params

TRACES = []


def counted(x):
    TRACES.append(None)
    return nn.tanh(x)


SMALL = {"latent_dim": 3, "hidden_dims": (6,), "activation": counted, "num_epochs": 1, "batch_size": 32}


def same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return all(
        np.asarray(u).tobytes() == np.asarray(v).tobytes() for u, v in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    )


@pytest.fixture(scope="module")
def images(digits):
    return digits[:64].reshape(64, 8, 8)


@pytest.fixture(scope="module")
def fitted(images):
    return learn("vae", images, **SMALL, validation=images[:10])


def test_a_linear_autoencoder_finds_the_subspace_of_pca():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 6)) * [3, 2, 1.5, 0.3, 0.2, 0.1] @ np.linalg.qr(rng.standard_normal((6, 6)))[0]
    model = learn("ae", x, latent_dim=3, hidden_dims=(), num_epochs=400, lr=1e-2)
    assert model.model.likelihood == "gaussian"
    centred = x - x.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    z = model.embed(x).astype(np.float64)
    basis = np.linalg.qr(z - z.mean(axis=0))[0]
    cosines = np.linalg.svd(basis.T @ u[:, :3], compute_uv=False)
    assert np.degrees(np.arccos(cosines.clip(max=1))).max() < 2
    error = np.square(model.reconstruct(x) - x).sum()
    np.testing.assert_allclose(error, np.square(s[3:]).sum(), rtol=0.02)
    assert error > 0.999 * np.square(s[3:]).sum()


@pytest.mark.slow
def test_it_is_the_library_by_hand_bit_for_bit(fitted, images):
    x = images.reshape(64, 64)
    model = VAE.dense(64, 3, hidden_dims=(6,), activation=counted)
    init_key, train_key, eval_key = jax.random.split(jax.random.key(0), 3)
    algo = vae(model)
    state = algo.init(init_params(model, init_key, x))
    for chunk in training.train(algo, state, Batch(x), train_key, batch_size=32, num_epochs=1):
        state = chunk.state
    assert fitted.algorithm is algo
    assert same_bits(fitted.state, state)
    params = {"params": state.params}
    np.testing.assert_allclose(fitted.embed(images), model.apply(params, x, method="embed"), atol=1e-6)
    x_hat = model.apply(params, x, method="reconstruct").reshape(64, 8, 8)
    np.testing.assert_allclose(fitted.reconstruct(images), x_hat, atol=1e-6)
    drawn = model.apply(params, jax.random.key(5), 4, method="sample").reshape(4, 8, 8)
    np.testing.assert_allclose(fitted.sample(4, seed=5), drawn, atol=1e-6)
    (row,) = fitted.history
    held_out = training.evaluate(algo, state, Batch(x[:10]), eval_key)
    assert row["step"], row["epoch"] == (2, 1)
    assert {name: row[f"val/{name}"] for name in held_out} == held_out


def test_another_seed_and_other_numbers_compile_nothing(fitted, images):
    fitted.sample(4)
    fitted.embed(images)
    fitted.reconstruct(images)
    before = len(TRACES)
    again = learn("vae", images[::-1], **SMALL, validation=images[:10], seed=1)
    again.sample(4, seed=1)
    again.embed(images)
    again.reconstruct(images)
    assert len(TRACES) == before
    assert not same_bits(again.state, fitted.state)


def own_ways():
    """The last method of each model and each way with data; what else is a method's own, the contract asks."""
    ways = {(entry.model, entry.batch, entry.batch_size, entry.first): name for name, entry in METHODS.items()}
    return [pytest.param(name, marks=[] if name == "vq_vae" else pytest.mark.slow) for name in ways.values()]


@pytest.mark.parametrize("name", own_ways())
def test_every_model_learns(name, images):
    options = {**METHODS[name].fields, "hidden_dims": (4,), "num_epochs": 1, "batch_size": 32}
    y = np.arange(64) % 3
    if likelihoods.get(METHODS[name].model.likelihood).support.step == 1:  # of counts
        images = np.round(16 * images)
    model = learn(name, images, y, latent_dim=4, **options)
    z = model.embed(images, y)
    assert z.shape == (64, model.model.latent_dim)
    assert model.model.latent_dim == {"aae_semi": 3 + 4, "aae_cluster": 16 + 4}.get(name, 4)
    assert np.isfinite(z).all()
    assert z.std(axis=0).max() > 0
    assert model.reconstruct(images, y).shape == images.shape
    assert int(model.state.step) == {"m2": 4}.get(name, 2)
    if model.model.prior is not None:
        assert model.sample(5, y=y[:5]).shape == (5, 8, 8)


@pytest.mark.slow
def test_images_go_through_convolutions(images):
    model = learn("ae", images, net="conv", features=[3], strides=[2], latent_dim=2, num_epochs=1)
    assert model.model.encoder.features == (3,)
    assert model.reconstruct(images).shape == (64, 8, 8)
    whole = model.model.apply({"params": model.params}, images[..., None], method="embed")
    np.testing.assert_allclose(model.embed(images), whole, atol=1e-6)


def test_bytes_are_divided_by_255_then_and_later(images):
    grey = np.round(images * 255).astype(np.uint8)
    by_hand = grey / np.float32(255)
    ours, theirs = learn("vae", grey, **SMALL), learn("vae", by_hand, **SMALL)
    assert same_bits(ours.state, theirs.state)
    dark = grey[:5] // 255  # no value above 1, and still grey values
    for x in (grey, dark):
        np.testing.assert_array_equal(ours.embed(x), theirs.embed(x / np.float32(255)))
    np.testing.assert_array_equal(ours.embed(jnp.asarray(by_hand)), theirs.embed(by_hand))
    with pytest.raises(InputError, match="dtype uint8, and what was learnt float32; scale it as that was"):
        theirs.embed(grey)
    binary = learn("vae", (grey > 100).astype(np.uint8), **SMALL)
    assert same_bits(binary.state, learn("vae", (grey > 100).astype(np.float32), **SMALL).state)


def test_labels_that_are_not_known_are_not_learnt_from(images, monkeypatch):
    y, seen, batch = np.where(np.arange(64) < 20, np.arange(64) % 4, -1), [], METHODS["m2"].batch
    spy = METHODS["m2"]._replace(batch=lambda x, y: seen.append(batch(x, y)) or seen[-1])
    monkeypatch.setitem(METHODS, "m2", spy)
    monkeypatch.setattr(training, "train", lambda *args, **kwargs: [])
    assert learn("m2", images, y, **SMALL).model.num_classes == 4
    assert isinstance(seen[0], SemiBatch)
    np.testing.assert_array_equal(seen[0].labelled.x, images[:20].reshape(20, 64))
    np.testing.assert_array_equal(seen[0].labelled.y, y[:20])
    np.testing.assert_array_equal(seen[0].unlabelled.x, images.reshape(64, 64))
    with pytest.raises(InputError, match="None of the 64 labels is known"):
        learn("m2", images, np.full(64, -1), **SMALL)


# --- the disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"activation": nn.gelu, "likelihood": likelihoods.Gaussian("learned"), "beta": schedules.Ramp(0.0, 1.0, 3)},
        pytest.param(
            {"method": "aae", "discriminator": MLP((3, 1), nn.leaky_relu), "disc_lr": np.float32(0.1), "tied": True},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_was_saved_comes_back_with_its_bits(options, images, tmp_path):
    first = learn(**{"method": "vae", **SMALL, **options}, x=images)
    first.save(tmp_path / "a" / "model")
    back = Fitted.load(tmp_path / "a" / "model")
    assert same_bits(back.state, first.state)
    assert (back.history, back.recipe, back.model) == (first.history, first.recipe, first.model)
    np.testing.assert_array_equal(back.embed(images), first.embed(images))
    np.testing.assert_array_equal(back.sample(3), first.sample(3))
    go_on = lambda m: list(
        training.train(
            m.algorithm, m.state, Batch(images.reshape(64, 64)), jax.random.key(7), batch_size=32, num_epochs=2
        )
    )
    assert same_bits(go_on(back)[-1].state, go_on(first)[-1].state)
    with pytest.raises(InputError, match="holds something; give the name of a new folder"):
        first.save(tmp_path / "a" / "model")
    first.save(tmp_path / "a" / "new")


def test_what_cannot_be_saved_is_refused_before_anything_is_written(fitted, images, tmp_path, monkeypatch):
    def local(x):
        return nn.tanh(x)

    unnamed = learn("vae", images, **{**SMALL, "activation": local})
    with pytest.raises(InputError, match="'local' is of test_fitted, where no other process finds it"):
        unnamed.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    fitted.save(tmp_path / "model")  # whose activation is at the level of this module
    assert Fitted.load(tmp_path / "model").model == fitted.model
    for spoil in (lambda file: file.write_text(file.read_text()[:-9]), lambda file: file.unlink()):
        spoil(tmp_path / "model" / "fitted.json")
        with pytest.raises(InputError, match=r"model holds nothing that Fitted\.save wrote to the end"):
            Fitted.load(tmp_path / "model")
    with pytest.raises(InputError, match="gone cannot be imported here; start Python where the module nets is"):
        from_json({"function": "nets:gone"})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "own_layers.py").write_text("def bend(x):\n    return x\n")
    with pytest.raises(InputError, match="start Python where the module own_layers is"):
        from_json({"function": "own_layers:bend"})
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")  # as Python does with the folder that it starts in
    assert from_json({"function": "own_layers:bend"})(3) == 3
    with pytest.raises(InputError, match="has no form in JSON"):
        to_json(np.ones(2))


# --- interruption and refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [0, 2])
def test_an_interruption_keeps_what_was_learnt(chunks, images, monkeypatch, capsys):
    train = training.train

    def interrupted(*args, **kwargs):
        for _, chunk in zip(range(chunks), train(*args, **kwargs), strict=False):
            yield chunk
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    options = {**SMALL, "num_epochs": 5, "verbose": True}
    if not chunks:
        with pytest.raises(KeyboardInterrupt):
            learn("vae", images, **options)
        return
    with pytest.warns(UserWarning, match="this is what was learnt in 2 of 10 steps"):
        model = learn("vae", images, **options)
    monkeypatch.undo()
    once = learn("vae", images, **SMALL)
    assert same_bits(model.state, once.state)
    assert [row["step"] for row in model.history] == [2]
    assert capsys.readouterr().err == "vae: 64 examples, 10 steps; compiling\n"  # and nothing every three seconds


def test_progress_is_told_when_it_is_asked_for(images, capsys):
    learn("vae", images, **SMALL, verbose=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"vae: 64 examples, 2 steps; compiling\nstep 2 of 2: elbo/loss \d+\.\d+\n", err)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "vea"}, "Unknown method 'vea'. Did you mean 'vae'"),
        ({"betta": 2.0}, "vae, dense, has no option 'betta'. Did you mean 'beta'"),
        ({"features": (3,)}, "vae, dense, has no option 'features'"),
        ({"axis_name": "i"}, "no option 'axis_name'"),
        ({"net": "convolution"}, "net='convolution'. Did you mean 'conv'"),
        ({"latent_dim": 0}, "latent_dim=0; at least 1"),
        ({"num_epochs": 0.5}, "num_epochs=0.5; at least 1"),
        ({"seed": -1}, "seed=-1; a whole number from 0"),
        ({"beta": -1.0}, "beta is -1.0; it has to be zero or more"),
        ({"likelihood": "bernouli"}, "Did you mean 'bernoulli'"),
        ({"x": np.full((4, 3), np.nan)}, "x holds NaN or infinity .* in 4 of its 4 examples"),
        ({"x": np.full((4, 3), 1e300)}, "x holds NaN or infinity"),
        ({"x": np.array([["a", "b"]])}, "x has dtype <U1; real numbers are needed"),
        ({"x": np.ones(4)}, r"x has shape \(4,\)"),
        ({"x": np.ones((4, 9)), "net": "conv"}, "takes images"),
        ({"x": np.full((4, 3), 2.0), "likelihood": "bernoulli"}, "x holds values from 2 to 2"),
        ({"validation": np.ones((4, 7, 7))}, r"x of validation has shape \(4, 7, 7\); \[N, 8, 8\] is needed"),
        ({"validation": np.full((4, 8, 8), 2.0)}, "x of validation holds values from 2 to 2"),
        ({"method": "cvae"}, r"cvae goes by labels, and none came: give learn\('cvae', x, y\)"),
        ({"method": "cvae", "y": np.zeros(3)}, "needs 64 rows"),
        ({"method": "cvae", "y": np.full(64, "a")}, "y has dtype <U1.*np.unique"),
        ({"method": "stacked", "use_bias": False}, "StackedAE.dense does not take .*use_bias"),
    ],
)
def test_refuses_before_training(change, message, images, monkeypatch):
    monkeypatch.setattr(training, "train", lambda *args, **kwargs: pytest.fail("it trained"))
    with pytest.raises(InputError, match=message):
        learn(**{"method": "vae", "x": images, "latent_dim": 3, **change})


def test_refuses_later_what_it_was_not_trained_on_and_the_advice_helps(fitted, images):
    with pytest.raises(InputError, match=r"Use x\.reshape\(-1, 8, 8\)\."):
        fitted.embed(images.reshape(64, 64))
    np.testing.assert_array_equal(fitted.embed(images.reshape(64, 64).reshape(-1, 8, 8)), fitted.embed(images))
    with pytest.raises(InputError, match=r"x has shape \(8, 8\); \[N, 8, 8\] .*Use x\.reshape\(-1, 8, 8\)"):
        fitted.reconstruct(images[0])
    with pytest.raises(InputError, match="x holds values from 0 to 2; the bernoulli likelihood needs"):
        fitted.embed(2 * images)
    with pytest.raises(InputError, match="n=0; at least 1"):
        fitted.sample(0)
    made = dataclasses.replace(fitted.recipe, method="ae")
    plain = dataclasses.replace(fitted, model=made.model(), recipe=made)
    with pytest.raises(InputError, match=r"^ae has no prior to draw codes from; learn one that has, such as 'vae'\.$"):
        plain.sample(3)
    assert fitted.recipe.method == "vae"
    assert len(fitted.sample(3)) == 3


@pytest.mark.parametrize(
    ("change", "message", "mended"),
    [
        (
            {"validation": np.ones((4, 64))},
            r"x of validation .* Use x\.reshape\(-1, 8, 8\)\.$",
            lambda x: x.reshape(-1, 8, 8),
        ),
        ({"validation": np.full((4, 8, 8), 9, np.uint8)}, "scale it as that was", lambda x: x / np.float32(255)),
    ],
)
def test_validation_data_are_mended_as_the_refusal_says(change, message, mended, images, monkeypatch):
    monkeypatch.setattr(training, "count_steps", lambda *_: pytest.fail("all was accepted"))
    with pytest.raises(InputError, match=message):
        learn("vae", images, **{**SMALL, **change})
    with pytest.raises(pytest.fail.Exception, match="all was accepted"):
        learn("vae", images, **{**SMALL, "validation": mended(change["validation"])})


def test_a_recipe_of_images_takes_what_it_asks_for():
    x, of = np.ones((4, 9), np.float32), lambda x: recipe.of("ae", x, None, "conv", 2, None, {})
    with pytest.raises(InputError, match=r"takes images, \[N, H, W\] or \[N, H, W, C\]: x.reshape"):
        of(x)
    for shape in ((-1, 3, 3), (-1, 3, 3, 1)):
        assert of(x.reshape(*shape)).net_shape == (3, 3, 1)


@pytest.mark.parametrize(
    "given", [lambda y: np.eye(3)[y], lambda y: y * 1.0, lambda y: np.array(["a", "b", "c"])[y], lambda y: y[:, None]]
)
def test_labels_of_other_kinds_are_refused_with_what_makes_labels_of_them(images, given):
    y = given(np.arange(64) % 3)
    with pytest.raises(InputError) as error:
        learn("cvae", images, y, **SMALL)
    advice = re.search(r": (y\.\w+\(.*?\)|np\.unique\(.*?\)\[1\])", str(error.value))[1]
    assert "to 9" not in str(error.value)
    taken = recipe.of("cvae", images, eval(advice, {"y": y, "np": np}), "dense", 2, likelihoods.Bernoulli(), {})
    assert taken.options["num_classes"] == 3
    np.testing.assert_array_equal(eval(advice, {"y": y, "np": np}), np.arange(64) % 3)


@pytest.mark.slow
def test_a_conditioned_model_asks_for_labels(images):
    y = np.arange(64) % 3
    model = learn("m2", images, y, **SMALL, validation=(images[:9], y[:9]))
    assert model.model.num_classes == 3
    assert "val/elbo/loss" in model.history[0]
    with pytest.raises(InputError, match=r"give \(x, y\), with an integer for each row"):
        model.embed(images)
    with pytest.raises(InputError, match="labels from 0 to 3"):
        model.embed(images, y + (np.arange(64) == 63) * 3)
    with pytest.raises(InputError, match=r"give sample\(n, seed, y\)"):
        model.sample(3)
    with pytest.raises(InputError, match="it needs 3 rows"):
        model.sample(3, y=[0, 1])
    with pytest.raises(InputError, match="labels from 0 to 9"):
        model.sample(3, y=[0, 1, 9])
    drawn = [model.sample(3, y=[label] * 3) for label in (0, 1)]
    assert np.abs(drawn[0] - drawn[1]).max() > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("VAE", {}), r"Did you mean 'vae'\?"),
        (("vae", {"latentdim": 2}), r"Did you mean 'latent_dim'\?"),
        (("vae", {"epochs": 2}), "num_epochs"),
    ],
)
def test_what_was_meant_is_found(arguments, says):
    method, options = arguments
    with pytest.raises(InputError, match=says):
        learn(method, np.zeros((8, 4), np.float32), **options)


@pytest.mark.slow
def test_data_on_another_scale_are_told_to_be_scaled_and_then_learn():
    x = 1e3 * np.random.default_rng(0).gamma(0.3, size=(64, 6)).astype(np.float32)
    x[3, 2] = 5e5
    small = {"num_epochs": 1, "latent_dim": 2, "hidden_dims": 4, "batch_size": 32}
    with pytest.raises(
        DivergedError, match=r"brought to \[0, 1\] first: \(x - x.min\(\)\) / \(x.max\(\) - x.min\(\)\)"
    ):
        learn("vae", x, **small)
    assert np.isfinite(learn("vae", (x - x.min()) / (x.max() - x.min()), **small).history[-1]["elbo/loss"])
