"""One paper, one file. The registry below is what the contract tests and the experiments go through."""

from collections.abc import Callable
from typing import Any, NamedTuple

from aejax.algorithm import Algorithm
from aejax.methods import aae, ae, ae_l2, cae, cae_h, dae, k_sparse, mdae, rcae, scae, sparse_ae, stacked, vae
from aejax.nets import Autoencoder


class Method(NamedTuple):
    model: type[Autoencoder]
    hparams: type[Any]  # a NamedTuple of real numbers
    build: Callable[..., Algorithm]  # (model, hparams, tx) -> Algorithm


METHODS = {
    "ae": Method(ae.AE, ae.HParams, ae.ae),
    "ae_l2": Method(ae.AE, ae_l2.HParams, ae_l2.ae_l2),
    "sparse_ae": Method(sparse_ae.SparseAE, sparse_ae.HParams, sparse_ae.sparse_ae),
    "k_sparse": Method(k_sparse.KSparseAE, k_sparse.HParams, k_sparse.k_sparse),
    "dae": Method(ae.AE, dae.HParams, dae.dae),
    "mdae": Method(ae.AE, mdae.HParams, mdae.mdae),
    "stacked": Method(stacked.StackedAE, stacked.HParams, stacked.stacked),
    "cae": Method(cae.CAE, cae.HParams, cae.cae),
    "scae": Method(cae.CAE, scae.HParams, scae.scae),
    "cae_h": Method(cae.CAE, cae_h.HParams, cae_h.cae_h),
    "rcae": Method(ae.AE, rcae.HParams, rcae.rcae),
    "vae": Method(vae.VAE, vae.HParams, vae.vae),
    "aae": Method(aae.AAE, aae.HParams, aae.aae),
}
