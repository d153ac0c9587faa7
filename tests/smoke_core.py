"""What the core alone can do, in an environment that has no more than `pip install aejax` brings.

.ci/package runs it with the wheel, from a folder of its own: python smoke_core.py. It needs no pytest.
"""

import importlib
import pkgutil
import tempfile
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np

import aejax
from aejax import evaluation, runner
from aejax.checkpoint import Checkpoints
from aejax.sweep import sweep

CODES, LABELS = np.eye(4, dtype=np.float32), np.arange(4) % 2
# What the core lacks, by what lacks it: the module, and the extra that is named.
MISSING = {
    "data.load('digits')": ("sklearn", "data"),
    "data.load('kmnist')": ("tensorflow_datasets", "data"),
    "plots.images(np.zeros((2, 4, 4)), (4, 4))": ("matplotlib", "runner"),
    "plots.latent_scatter(CODES, None)": ("matplotlib", "runner"),
    "evaluation.linear_probe(CODES, LABELS, CODES, LABELS)": ("sklearn", "sklearn"),
    "evaluation.knn(CODES, LABELS, CODES, LABELS, k=1)": ("sklearn", "sklearn"),
    "evaluation.trustworthiness(CODES, CODES, k=1)": ("sklearn", "sklearn"),
    "evaluation.continuity(CODES, CODES, k=1)": ("sklearn", "sklearn"),
    "evaluation.neighborhood_hit(CODES, LABELS, k=1)": ("sklearn", "sklearn"),
    "evaluation.bits_back.encode(aejax.VAE.dense(4, 2), {}, CODES)": ("constriction", "compress"),
    "evaluation.beta_vae_score(CODES, LABELS, None)": ("sklearn", "sklearn"),
    "evaluation.dci(CODES, LABELS, CODES, LABELS)": ("sklearn", "sklearn"),
    "evaluation.sap(CODES, LABELS, CODES, LABELS)": ("sklearn", "sklearn"),
    "importlib.import_module('aejax.estimators').AutoencoderTransformer()": ("sklearn", "sklearn"),
    "runner.run(EXPERIMENT, runner.Config())": ("sklearn", "runner"),
    "runner.main(EXPERIMENT, None, [])": ("tyro", "runner"),
}


def complaint(call: str) -> str:
    """What a call says before it fails; of a command line, what it exits with."""
    experiment = runner.of_method("vae", runner.Config)
    try:
        eval(call, {**vars(aejax), **globals(), "EXPERIMENT": experiment})
    except aejax.InputError as error:
        return str(error)
    except SystemExit as end:
        return "" if end.code == 2 else f"exit code {end.code}"  # said on stderr
    raise AssertionError(f"{call} found what it needs")


def main() -> None:
    for info in pkgutil.walk_packages(aejax.__path__, "aejax."):
        if not info.name.endswith("__main__") and not info.name.startswith("aejax.estimators."):
            importlib.import_module(info.name)
    for module in ("sklearn", "tensorflow_datasets", "matplotlib", "tyro", "experiments"):
        assert find_spec(module) is None, f"the core brings {module}"

    data_key, init_key, train_key, eval_key = jax.random.split(jax.random.key(0), 4)
    centre = jax.random.bernoulli(data_key, 0.5, (2, 12)).astype(jnp.float32)
    x = np.asarray(0.8 * jnp.tile(centre, (64, 1)) + 0.1)
    model = aejax.VAE.dense(12, latent_dim=2, hidden_dims=(16,))
    algo = aejax.vae(model, lr=1e-2)
    start = algo.init(aejax.init_params(model, init_key, x))
    for chunk in aejax.train(algo, start, aejax.Batch(x), train_key, batch_size=32, num_epochs=40):
        state = chunk.state
    before, after = (aejax.evaluate(algo, s, aejax.Batch(x), eval_key)["elbo/bound_nats"] for s in (start, state))
    assert after < before - 1, (before, after)

    with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as checkpoints:
        checkpoints.save(state, extra={"epoch": 40})
        restored, extra = checkpoints.restore(start)
    assert extra == {"epoch": 40}
    assert jax.tree.all(jax.tree.map(np.array_equal, restored, state))

    nll = evaluation.nll(model, state.params, x, eval_key, num_samples=10)
    assert np.isfinite(nll.nll_nats)
    penalty = aejax.jacobian.embedding_sq(model, state.params, x)
    assert penalty.shape == (len(x),)
    curves = sweep(
        lambda hparams: aejax.vae(model, hparams),
        lambda key: aejax.init_params(model, key, x),
        aejax.Batch(x),
        hparams=aejax.methods.vae.HParams(beta=jnp.array([1.0, 4.0])),
        seeds=range(2),
        batch_size=64,
        num_epochs=2,
    )
    assert curves.metrics["elbo/loss"].shape == (2, 2, 2, 2)  # settings, seeds, epochs, steps

    for call, (module, extra) in MISSING.items():
        said = complaint(call)
        assert not said or (module in said and said.endswith(f"pip install 'aejax[{extra}]'")), (call, said)
    print(f"aejax {aejax.__version__} on jax {jax.__version__}: the core does what it promises.")


if __name__ == "__main__":
    main()
