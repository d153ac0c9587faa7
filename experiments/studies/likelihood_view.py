"""Why the likelihood matters: gradients at saturated outputs, and what a squared error is in nats.

For an output unit with logit a, p = sigmoid(a) and target x, the Bernoulli likelihood has the gradient p - x, the
Gaussian one with mean p has (p - x) p (1 - p), which vanishes where the unit is saturated, wrong or right. So two small
autoencoders start from outputs that are saturated and wrong, biases of -6 where the mean pixel is bright and of 6 where
it is dark, and from ordinary ones. Each is trained with every rate of a grid and every seed, the best rate is shown.
On the digits both likelihoods end at about the same squared error from the ordinary start. From the saturated one the
Gaussian stays behind, by a factor of four with plain SGD, and of less than three with Adam, which divides by the size
of the gradient.

A squared error becomes nats by a variance v: SSE / (2 v) + D / 2 log(2 pi v), least at v = SSE / D, where it is
D / 2 log(2 pi e SSE / D). With v = 1, as in training here, nats hardly move when the error does.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aejax import data, likelihoods, nets, runner
from aejax.algorithm import Algorithm, Player, play
from aejax.checks import InputError
from aejax.methods.ae import AE, HParams
from aejax.runner import measures, study
from aejax.runner.config import to_dict
from aejax.sweep import sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aejax.runner.console import Bars
    from aejax.runner.options import Launch

TARGETS = (0.0, 0.3, 1.0)
STARTS = {"ordinary start": 0.0, "saturated start": 6.0}
OPTIMIZERS = {
    "SGD": (optax.sgd, (1e-3, 1e-2, 0.1, 0.3, 1.0)),
    "Adam": (optax.adam, (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1)),
}


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npy or .npz (x, optional y)."""
    num_train: int | None = None
    """Only the first so many training examples."""
    latent_dim: int = 10
    """Size of the code."""
    hidden_dims: tuple[int, ...] = (32,)
    """Widths of the hidden layers of the encoder; the decoder mirrors them."""
    num_epochs: int = 30
    """Passes over the training examples."""
    batch_size: int = 128
    """Examples per step."""
    num_seeds: int = 2
    """Runs of each rate."""
    seed: int = 0
    """The first one."""


def squared_nll(logits: jax.Array, x: jax.Array) -> jax.Array:
    """The Gaussian likelihood of unit variance with the mean sigmoid(logits), nats per example."""
    return likelihoods.gaussian_nll(jax.nn.sigmoid(logits), x)


NLLS = {"cross-entropy": likelihoods.bernoulli_nll, "squared error": squared_nll}


def by_logit(nll: Callable[..., jax.Array], logits: np.ndarray, x: float) -> tuple[np.ndarray, np.ndarray]:
    """A likelihood of one unit and its derivative, each `[K]`, at logits `[K]` and the target x."""
    one = lambda logit: nll(logit[None, None], jnp.full((1, 1), x))[0]
    loss, slope = jax.vmap(jax.value_and_grad(one))(jnp.asarray(logits))
    return np.asarray(loss), np.asarray(slope)


def build(hparams: HParams, *, nll: Any, model: AE, tx: Any) -> Algorithm:
    """The autoencoder whose outputs are logits, with that likelihood; its `sse` is that of the sigmoid, for both."""

    def loss(params: Any, batch: data.Batch, key: jax.Array) -> Any:
        logits = model.bind({"params": params}).decode(model.bind({"params": params}).encode(batch.x))
        return nll(logits, batch.x).mean(), {"sse": likelihoods.sse(jax.nn.sigmoid(logits), batch.x).mean()}

    return play({"recon": Player(loss, ("encoder", "decoder"), tx(hparams.lr))}, [["recon"]])


def init(key: jax.Array, *, model: AE, x: np.ndarray, bias: float) -> Any:
    """Fresh parameters, the biases of the outputs of that size and of the wrong sign."""
    params = nets.init_params(model, key, x[:1])
    last = max(params["decoder"], key=lambda name: int(name.rpartition("_")[2]))
    wrong = jnp.where(x.mean(axis=0) > 0.5, -bias, bias)
    return params | {"decoder": params["decoder"] | {last: params["decoder"][last] | {"bias": wrong}}}


def train(config: Config, dataset: data.Dataset) -> dict[str, dict[str, dict[str, Any]]]:
    """By optimiser, start and likelihood: the best rate, and the mean SSE of each epoch `[S, E]` of each seed."""
    x = dataset.train.x
    model = AE.dense(x.shape[1], config.latent_dim, hidden_dims=config.hidden_dims)
    seeds = range(config.seed, config.seed + config.num_seeds)
    found: dict[str, Any] = {}
    for optimizer, (tx, rates) in OPTIMIZERS.items():
        for start, bias in STARTS.items():
            for name, nll in NLLS.items():
                result = sweep(
                    partial(build, nll=nll, model=model, tx=tx), partial(init, model=model, x=x, bias=bias),
                    data.Batch(x), hparams=[HParams(lr) for lr in rates], seeds=seeds,
                    batch_size=config.batch_size, num_epochs=config.num_epochs,
                )  # fmt: skip
                sse = result.metrics["recon/sse"].mean(axis=3)
                best = int(np.nanargmin(np.where(np.isfinite(sse), sse, np.inf)[:, :, -1].mean(axis=1)))
                here = found.setdefault(optimizer, {}).setdefault(start, {})
                here[name] = {"lr": rates[best], "sse": sse[best].tolist()}
    return found


def nats(sse: float, dim: int) -> tuple[float, float]:
    """A squared error, sum over `dim` pixels, in nats per example: at unit variance, and at the best one."""
    x = jnp.full((1, dim), (sse / dim) ** 0.5)
    values = (likelihoods.gaussian_nll(jnp.zeros_like(x), x, logvar)[0] for logvar in (0.0, np.log(sse / dim)))
    return tuple(map(float, values))  # type: ignore[return-value]


def readings(dataset: data.Dataset) -> dict[str, dict[str, float]]:
    """Test SSE of the mean image and of PCA, and what they are in nats."""
    train_x, test_x = dataset.train.x, dataset.test.x
    dim = train_x.shape[1]
    errors = {"mean image": float(np.square(test_x - train_x.mean(axis=0)).sum(axis=1, dtype=np.float64).mean())}
    errors |= {f"PCA, {k}": measures.pca_sse(train_x, test_x, k) for k in (2, 10, 30) if k < dim}
    return {
        name: dict(zip(("test_sse", "deviation", "unit_nats", "best_nats"), (sse, (sse / dim) ** 0.5, *nats(sse, dim)),
                       strict=True))
        for name, sse in errors.items()
    }  # fmt: skip


def draw(trained: dict[str, Any], dataset_name: str) -> "Figure":
    from aejax import plots

    logits = np.linspace(-10, 10, 401)
    units: list[dict[str, Any]] = [{}, {}]
    for name, nll in NLLS.items():
        for i, x in enumerate(TARGETS):
            for panel, y in zip(units, by_logit(nll, logits, x), strict=True):
                panel[f"{name}, x = {x:g}"] = plots.Curve(logits, y, i, name == "squared error")
    panels = {
        "loss of one output unit": plots.Lines("logit", "nats", units[0]),
        "its gradient": plots.Lines("logit", "nats per unit of the logit", units[1]),
    }
    for optimizer, starts in trained.items():
        lines = {}
        for i, (start, by_name) in enumerate(starts.items()):
            for name, run in by_name.items():
                epochs = 1 + np.arange(len(run["sse"][0]))
                lines[f"{name}, {start}"] = plots.Curve(epochs, run["sse"], i, name == "squared error")
        panels[f"training by {optimizer}"] = plots.Lines("epoch", "SSE, mean over the training steps", lines, log=True)
    return plots.line_panels(panels, title=f"sigmoid outputs by cross-entropy and by squared error, {dataset_name}")


def body(config: Config, launch: "Launch", bars: "Bars") -> Callable[[], None]:
    """Trains, draws the sheet, and writes the summary."""
    from aejax import plots
    from aejax.runner.environment import provenance
    from aejax.runner.folder import open_folder, write_json
    from aejax.runner.options import refuse_for_sweeps

    refuse_for_sweeps(launch)
    if config.num_seeds < 1:
        raise InputError(f"--num-seeds is {config.num_seeds}; it has to be at least 1.")
    shared = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    own = runner.Config(**{name: value for name, value in shared.items() if name != "num_seeds"})
    runner.check(own)
    folder = open_folder("likelihood_view", config, launch.workdir, resume=launch.resume)
    if not folder.is_finished:
        dataset = runner.load_data(own)
        bars.say("training")
        trained = train(config, dataset)
        folder.start()
        folder.figures.mkdir(exist_ok=True)
        plots.save(draw(trained, dataset.name), folder.figures / "likelihood_view.png")
        summary = {"experiment": "likelihood_view", **to_dict(config), **provenance()}
        write_json(folder.path / "summary.json", summary | {"trained": trained, "readings": readings(dataset)})

    def report() -> None:
        from aejax.runner.console import list_figures

        bars.console.print(table(folder.summary), markup=False, highlight=False)
        list_figures(bars.console, folder.path)

    return report


def table(summary: dict[str, Any]) -> str:
    """The last epoch of every training, and the readings."""
    rows = []
    for optimizer, starts in summary["trained"].items():
        for start, by_name in starts.items():
            last = [f"{study.spread([sse[-1] for sse in run['sse']])} ({run['lr']:g})" for run in by_name.values()]
            rows.append([f"{optimizer}, {start}", *last])
    nats_rows = [[name, *(f"{value:.4g}" for value in row.values())] for name, row in summary["readings"].items()]
    first = study.table(["training SSE, last epoch (rate)", *NLLS], rows)
    head = ["test", "SSE", "best deviation", "nats, unit variance", "nats, best variance"]
    return first + "\n" + study.table(head, nats_rows)


if __name__ == "__main__":
    study.command_line("likelihood_view", Config, __doc__, body)
