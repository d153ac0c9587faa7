"""Conditioned models under the losses of the family of the plain autoencoder: labels go where x goes."""

import dataclasses
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.aae import AAE, aae_disc_loss, aae_gen_loss
from aejax.methods.ae import AE, ae, ae_loss
from aejax.methods.cae import cae_loss
from aejax.methods.cae_h import cae_h_loss
from aejax.methods.dae import dae_loss
from aejax.methods.iwae import iwae_loss
from aejax.methods.k_sparse import KSparseAE
from aejax.methods.mdae import mdae_loss
from aejax.methods.rcae import rcae_loss
from aejax.methods.scae import scae_loss
from aejax.methods.sparse_ae import SparseAE, sparse_ae_loss
from aejax.methods.stacked import StackedAE, stacked
from aejax.methods.vae import VAE
from aejax.methods.vq_vae import VQVAE, vq_vae
from aejax.methods.wae_mmd import WAE, wae_mmd_loss
from aejax.nets import Labelled, init_params
from aejax.priors import StandardNormal

KEY = jax.random.key(0)
CLASSES, X = 3, jnp.asarray(np.random.default_rng(0).uniform(size=(4, 6)), jnp.float32)

LOSSES = {
    "ae": (AE, {}, ae_loss), "dae": (AE, {}, dae_loss), "mdae": (AE, {}, mdae_loss), "rcae": (AE, {}, rcae_loss),
    "cae": (AE, {}, cae_loss), "cae_hutchinson": (AE, {}, partial(cae_loss, jacobian="hutchinson")),
    "cae_h": (AE, {}, cae_h_loss), "scae": (AE, {}, scae_loss), "k_sparse": (KSparseAE, {"k": 2}, ae_loss),
    "sparse_ae": (SparseAE, {}, partial(sparse_ae_loss, weight_decay=0.0)), "wae_mmd": (WAE, {}, wae_mmd_loss),
    "iwae": (VAE, {}, iwae_loss), "iwae_dreg": (VAE, {}, partial(iwae_loss, estimator="dreg")),
    "aae_disc": (AAE, {}, partial(aae_disc_loss, prior=StandardNormal(4))), "aae_gen": (AAE, {}, aae_gen_loss),
}  # fmt: skip


def labelled(cls, **fields):
    """The model with networks that take a class, and the one without."""

    class Conditioned(cls):
        takes_labels: ClassVar[bool] = True

    plain = cls.dense(6, 4, **{"hidden_dims": (5,), "tied": False} | fields)
    nets = {name: Labelled(getattr(plain, name), CLASSES) for name in ("encoder", "decoder")}
    own = {f.name: getattr(plain, f.name) for f in dataclasses.fields(plain) if f.name not in ("parent", "name")}
    return Conditioned(**own | nets), plain


def told(params, y):
    """The parameters of the plain model that is what the conditioned one is for class y: another first bias."""

    def one(net):
        first = net["dense_0"]
        kernel = first["kernel"]
        return {**net, "dense_0": {"kernel": kernel[:-CLASSES], "bias": first["bias"] + kernel[-CLASSES + y]}}

    return {name: one(group["net"]) if "net" in group else group for name, group in params.items()}


@pytest.mark.first(1)
@pytest.mark.parametrize("name", LOSSES)
def test_a_label_is_another_bias(name):
    cls, fields, loss = LOSSES[name]
    model, plain = labelled(cls, **fields)
    params = init_params(model, KEY, Batch(X, jnp.zeros(4, jnp.int32)))
    for y in (0, 2):
        got = loss(params, Batch(X, jnp.full(4, y)), KEY, model=model)
        wanted = loss(told(params, y), Batch(X), KEY, model=plain)
        for _, terms in (got, wanted):
            terms.pop("weights_sq", None)  # those of the labels are weights, too
        jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6), got, wanted)
    assert len({float(loss(params, Batch(X, jnp.full(4, y)), KEY, model=model)[0]) for y in range(CLASSES)}) == CLASSES


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["ae", "rcae", "cae", "mdae"])  # means over examples, without noise
def test_each_example_has_its_own_label(name):
    cls, fields, loss = LOSSES[name]
    model, plain = labelled(cls, **fields)
    y = jnp.array([0, 2, 1, 2])
    params = init_params(model, KEY, Batch(X, y))
    alone = [loss(told(params, int(label)), Batch(x[None]), KEY, model=plain)[0] for x, label in zip(X, y, strict=True)]
    np.testing.assert_allclose(loss(params, Batch(X, y), KEY, model=model)[0], np.mean(alone), rtol=2e-5)


def test_missing_labels_are_refused_by_the_loss_and_before_training():
    model, _ = labelled(AE)
    params = init_params(model, KEY, Batch(X, jnp.zeros(4, jnp.int32)))
    with pytest.raises(InputError, match="conditioned on labels, and none came"):
        ae_loss(params, Batch(X), KEY, model=model)
    with pytest.raises(InputError, match="conditioned on labels, and none came"):
        ae(model).check(Batch(np.asarray(X)))


def test_methods_without_a_place_for_labels_refuse_the_model():
    class Conditioned(VQVAE):
        takes_labels: ClassVar[bool] = True

    with pytest.raises(InputError, match="Conditioned is conditioned on labels, and no loss here gives them"):
        vq_vae(Conditioned.dense(6, 4, entry_dim=2))

    class Stack(StackedAE):
        takes_labels: ClassVar[bool] = True

    with pytest.raises(InputError, match="Stack is conditioned on labels"):
        stacked(Stack.dense(6, 2, hidden_dims=(4,)))
