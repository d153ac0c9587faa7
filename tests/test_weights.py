"""Every weight of every loss multiplies the term that it is said to, and the larger it is the less of that is left.

What a method's own tests say of its weights is not said again. The second is a theorem of optima: of `f + w t` and
`f + w' t` with w' above w, the minimum of the second has no more of t.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import KEY, make_algo, make_batch, make_data, make_model, make_params, the_game

from aejax import training
from aejax.methods import METHODS

# Of each knob its player, what it multiplies as a sum of terms, and a value that a run of the digits feels.
WEIGHTS = {
    "ae_l2": {"weight_decay": ("recon", {"weights_sq": 1}, 0.01)},
    "alice": {"cycle": ("gen", {"recon_nats": 1}, 1.0)},
    "annealed_vae": {"gamma": ("elbo", {"capacity_gap_nats": 1}, 0.3)},
    "autorec": {"weight_decay": ("recon", {"weights_sq": 1}, 0.1)},
    "beta_tc_vae": {
        "alpha": ("elbo", {"mutual_info_nats": 1}, 0.5),
        "beta": ("elbo", {"total_correlation_nats": 1}, 1.0),
        "gamma": ("elbo", {"dimension_kl_nats": 1}, 0.5),
    },
    "cae": {"contraction": ("recon", {"jacobian_sq": 1}, 0.1)},
    "cae_h": {
        "contraction": ("recon", {"jacobian_sq": 1}, 0.1),
        "gamma": ("recon", {"jacobian_change_sq": 1}, 1.0),
    },
    "compressive_ae": {"distortion": ("rd", {"sse": 1}, 10.0)},
    "count_vae": {"beta": ("elbo", {"kl_nats": 1}, 0.5)},
    "cvae": {"beta": ("elbo", {"kl_nats": 1}, 0.5)},
    "dcn": {"clustering": ("recon", {"cluster_sq": 0.5}, 0.3)},
    "deep_svdd": {"weight_decay": ("svdd", {"weights_sq": 0.5}, 0.1)},
    "dfc_vae": {
        "beta": ("elbo", {"kl_nats": 1}, 0.5),
        "perception": ("elbo", {"feature_gap": 1}, 100.0),
    },
    "dip_vae": {
        "lambda_od": ("elbo", {"off_diagonal_sq": 1}, 1.0),
        "lambda_d": ("elbo", {"diagonal_sq": 1}, 1.0),
    },
    "ebgan": {"repelling": ("gen", {"pulling_away": 1}, 1.0)},
    "factor_vae": {"gamma": ("elbo", {"disc_tc_nats": 1}, 1.0)},
    "idec": {"gamma": ("recon", {"cluster_kl_nats": 1}, 3.0)},
    "iaf_vae": {"beta": ("elbo", {"kl_nats": 1}, 0.5)},
    "info_vae": {
        "alpha": ("elbo", {"mmd_code_sq": 1, "kl_nats": -1}, 0.25),
        "scale": ("elbo", {"mmd_code_sq": 1}, 10.0),
    },
    "iwae": {"tightness": ("bound", {"bound_nats": 1, "elbo_nats": -1}, 0.5)},
    "lfq": {
        "entropy": ("recon", {"token_entropy_nats": 1, "codebook_entropy_nats": -1}, 1.0),
        "commitment": ("recon", {"commitment_sq": 1}, 0.25),
    },
    "m2": {
        "alpha": ("elbo", {"class_nats": 1}, 0.02),
        "labelled": ("elbo", {"labelled_bound_nats": 1}, 0.02),
    },
    "ms_ssim_vae": {
        "beta": ("elbo", {"kl_nats": 1}, 0.5),
        "similarity": ("elbo", {"ms_ssim_gap": 1}, 100.0),
    },
    "mult_dae": {"weight_decay": ("recon", {"weights_sq": 1}, 0.1)},
    "mult_vae": {"beta": ("elbo", {"kl_nats": 1}, 0.5)},
    "pixel_vae": {"beta": ("elbo", {"kl_nats": 1}, 0.5)},
    "rae": {
        "beta": ("recon", {"code_length_sq": 0.5}, 0.1),
        "penalty": ("recon", {"decoder_weights_sq": 1}, 0.01),
    },
    "rcae": {"contraction": ("recon", {"reconstruction_jacobian_sq": 1}, 0.1)},
    "scae": {"contraction": ("recon", {"shift_sq": 1}, 1.0)},
    "sparse_ae": {
        "sparsity": ("recon", {"sparsity": 1}, 1.0),
        "weight_decay": ("recon", {"weights_sq": 1}, 0.01),
    },
    "two_layer_vae": {"beta": ("elbo", {"kl_nats": 1}, 0.5)},
    "vade": {"beta": ("elbo", {"kl_nats": 1}, 0.01)},
    "vae": {"beta": ("elbo", {"kl_nats": 1}, 0.5)},
    "vae_gan": {"gamma": ("dec", {"feature_nats": 1}, 1.0)},
    "vamp_vae": {"beta": ("elbo", {"kl_nats": 1}, 0.5)},
    "vdsh": {"beta": ("elbo", {"kl_nats": 1}, 0.5)},
    "vq_vae": {"commitment": ("recon", {"commitment_sq": 1}, 0.25)},
    "wae_gan": {"penalty": ("recon", {"surprise_nats": 1}, 1.0)},
    "wae_mmd": {"mmd_weight": ("recon", {"mmd_sq": 1}, 10.0)},
    "wgan_gp": {"gradient_penalty": ("critic", {"slope_gap_sq": 1}, 1.0)},
}
OTHERS = {  # what is no weight of a term: noise, targets, a controller, components
    "aae_cluster": {"noise"}, "annealed_vae": {"capacity"}, "began": {"gamma", "gain"}, "cae_h": {"sigma"},
    "dae": {"level", "corrupted", "intact"}, "ebgan": {"margin"}, "lfq": {"temperature"}, "mdae": {"level"},
    "mult_dae": {"dropout"}, "mult_vae": {"dropout"}, "scae": {"sigma"}, "semantic_hash": {"noise", "dropout"},
    "sparse_ae": {"rate"}, "stacked": {"level"}, "vdsh": {"dropout"}, "vq_vae": {"decay"},
}  # fmt: skip
ALL = [(name, knob) for name, weights in WEIGHTS.items() for knob in weights]
each_weight = pytest.mark.parametrize(("name", "knob"), ALL)


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


def knobs(name):
    """With the value of each weight."""
    values = {knob: value for knob, (_, _, value) in WEIGHTS[name].items()}
    return METHODS[name].hparams(**METHODS[name].knobs)._replace(**values)


@pytest.mark.parametrize("name", METHODS)
def test_every_knob_of_every_method_is_here(name):
    here = set(WEIGHTS.get(name, ())) | OTHERS.get(name, set())
    assert here == {knob for knob in METHODS[name].hparams._fields if not knob.endswith("lr")}


@pytest.mark.slow
@each_weight
def test_without_its_weight_the_gradient_of_its_term_is_gone(name, knob):
    """`grad (loss at w) - w grad term == grad (loss at 0)`, and that is another."""
    player, parts, w = WEIGHTS[name][knob]
    loss, own = the_game(name)[0][player].loss, the_game(name)[0][player].knobs
    values = {knob: getattr(knobs(name), knob) for knob in own}
    params, batch = make_params(name), make_batch(name)

    def term(params):
        metrics = loss(params, batch, KEY, **values)[1]
        return sum(sign * metrics[part] for part, sign in parts.items())

    def loss_at(params, w):
        return loss(params, batch, KEY, **{**values, knob: w})[0]

    of_term = jax.jit(jax.grad(term))(params)
    whole, none = (jax.jit(jax.grad(loss_at))(params, weight) for weight in (w, 0.0))
    size, own_size = (max(float(jnp.abs(v).max()) for v in jax.tree.leaves(tree)) for tree in (whole, of_term))
    assert w * own_size > 1e-4 * size
    jax.tree.map(
        lambda a, t, b: np.testing.assert_allclose(a - w * t, b, rtol=0, atol=2e-6 * size), whole, of_term, none
    )


# Where targets are made anew in training, what is minimised changes, and the theorem says nothing.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "knob"), [(name, knob) for name, knob in ALL if not make_algo(name).refreshes])
def test_trained_with_twice_the_weight_there_is_less_of_its_term(name, knob):
    player, parts, w = WEIGHTS[name][knob]
    method, whole, params = METHODS[name], make_data(name), make_params(name)
    size = method.batch_size(64)  # all examples, since some terms are of a batch

    @jax.jit
    def left(w):
        algo = method.build(make_model(name), knobs(name)._replace(lr=3e-3, **{knob: w}), optax.adam)
        state, _ = training.fit(algo, algo.init(params), whole, KEY, batch_size=size, num_epochs=300)
        keys = jax.random.split(jax.random.key(1), 30)
        metrics = jax.vmap(lambda key: algo.evaluate(state, whole, key))(keys)
        return sum(sign * metrics[f"{player}/{part}"].mean() for part, sign in parts.items())

    once, twice = float(left(w)), float(left(2 * w))
    assert twice < once, (once, twice)
