"""One paper, one file. The registry below is what the contract tests and the experiments go through."""

from collections.abc import Callable
from typing import Any, NamedTuple

from aejax.algorithm import Algorithm
from aejax.methods import aae, ae, cae, cae_h, dae, rcae, scae, vae
from aejax.nets import Autoencoder


class Method(NamedTuple):
    model: type[Autoencoder]
    hparams: type[Any]  # a NamedTuple of real numbers
    build: Callable[..., Algorithm]  # (model, hparams, tx) -> Algorithm


METHODS = {
    "ae": Method(ae.AE, ae.HParams, ae.ae),
    "dae": Method(ae.AE, dae.HParams, dae.dae),
    "cae": Method(cae.CAE, cae.HParams, cae.cae),
    "scae": Method(cae.CAE, scae.HParams, scae.scae),
    "cae_h": Method(cae.CAE, cae_h.HParams, cae_h.cae_h),
    "rcae": Method(ae.AE, rcae.HParams, rcae.rcae),
    "vae": Method(vae.VAE, vae.HParams, vae.vae),
    "aae": Method(aae.AAE, aae.HParams, aae.aae),
}
