"""Improved deep embedded clustering: DEC that goes on to reconstruct, so that its codes keep telling examples apart.

Guo, Gao, Liu & Yin, "Improved deep embedded clustering with local structure preservation", IJCAI 2017. The module, the
targets and their refresh are those of `dec`.
"""

from functools import partial
from typing import NamedTuple

import jax
import optax

from aejax import likelihoods
from aejax.algorithm import Algorithm, Metrics, Params, Player, Refresh, play
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Tx, check_data, factory, optimisers
from aejax.methods.ae import ae, ae_loss
from aejax.methods.dec import DEC, divergence, from_data, refreshed

__all__ = ["idec", "idec_loss"]


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate."""
    gamma: NonNegative = 1.0
    """Weight of the divergence from the targets; not in the paper's units."""


@partial(jax.jit, static_argnames=("model",))
def idec_loss(
    params: Params, batch: Batch, key: jax.Array, *, model: DEC, gamma: float | jax.Array = 1.0
) -> tuple[jax.Array, Metrics]:
    """The loss of the autoencoder, plus `gamma` times that of DEC, in nats per example.

    The paper's 0.1 stands beside the squared error of an image, and in its authors' program beside the *mean* over
    pixels. Under a Gaussian likelihood of variance 1, whose nats are half the sum, these are `gamma=0.05` and
    `gamma=0.05 D`, 39.2 for the 784 pixels of MNIST. 1 is ours; at 0.1 clusters of the digits stay what they were.

    Args:
      params, batch, key, model: as in `dec_loss`; the key is ignored.
      gamma: weight.

    Returns:
      The mean over the batch, and `recon_nats`, `sse` and `cluster_kl_nats`, likewise means.

    Reference: the paper's objective, `L_r + gamma L_c`, with `L_c` and its targets by equations 1 to 3 of DEC.
    """
    recon, metrics = ae_loss(params, batch, key, model=model)
    kl = divergence(params, batch, model=model).mean()
    return recon + gamma * kl, {**metrics, "cluster_kl_nats": kl}


@factory
def idec(
    model: DEC,
    hparams: HParams = HParams(),
    tx: Tx = optax.adam,
    *,
    refresh_every: int = 140,
    axis_name: str | None = None,
) -> Algorithm:
    """One player, and the refresh of `dec`, which see there.

    Args:
      model: a `DEC`.
      hparams: knobs; each may be traced, or a schedule; or each by its own name.
      tx: learning rate -> optimiser; or a dict, {"recon": ...}. The authors' program has Adam on MNIST, too.
      refresh_every: steps between two refreshes; static.
      axis_name: as in `play`.

    Returns:
      `recon` moves `encoder`, `decoder` and `centres`, the refresh `snapshot`; `start` sets the centres and the
      snapshot.
    """
    own = optimisers(tx, {"recon": hparams.lr})["recon"]
    coupled = likelihoods.get(model.likelihood).coupled
    loss, groups = partial(idec_loss, model=model), (*model.groups, "centres")
    return play(
        {"recon": Player(loss, groups, own, coupled, {"gamma": hparams.gamma})},
        [["recon"]],
        axis_name=axis_name,
        start=partial(from_data, model),
        refreshes=[Refresh(partial(refreshed, model), ("snapshot",), refresh_every)],
        check=partial(check_data, model),
    )


METHOD = Method(
    DEC, HParams, idec, "deep embedded clustering that reconstructs", "Guo et al. 2017", noise_free=True,
    fields={"num_clusters": 4}, first=ae,
)  # fmt: skip
