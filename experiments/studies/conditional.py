"""The rest of an image from a part of it: a network that predicts it, and a conditional VAE that draws it.

Sohn et al. (2015): of the four quadrants of a digit one, two or three are seen, the lower left one first, then the
upper left, then the upper right; the loss covers the others only. The network (NN) gives every pixel a probability of
its own, so that it cannot know that pixels go together; the CVAE can, the more so the less is seen. The paper has it
ahead by a gap that shrinks from one quadrant to three. So it is on MNIST: 97.9, 61.4 and 25.4 nats of the NN, 69.9,
48.3 and 21.7 of the CVAE's bound (docs/variational.md); on the digits it is behind the NN.

Each row is trained by Adam until the validation loss has not fallen for `--patience` epochs, and has the parameters of
its lowest. Pixels are grey, so that a row is a cross-entropy in nats per image, sum over the pixels not seen. The CVAE
has three: the negative bound from one draw per image; the Monte Carlo estimate, `-log 1/k sum p(x|z, y)` with z from
the prior; and the same by importance sampling from the encoder. The last two have their effective sample size beside.

Published for the recipe `--dataset mnist --hidden-dims 500 500 --latent-dim 200 --patience 3` are the figures of Pyro's
tutorial (tutorial/source/cvae.ipynb): NN 100.4, 61.9, 25.4, CVAE 71.8, 51.0, 24.2. Its code (examples/cvae/util.py)
calls the latter Monte Carlo and computes the negative bound, from ten draws, and it stops early by the test images;
here by 10 % of the training images. Its CVAE has a prior network that sees the prediction of the NN, and a decoder that
sees the code alone; here the decoder sees the seen part, and the prior is N(0, I).
"""

import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import optax
from flax import linen as nn

from aejax import evaluation, likelihoods, runner, training
from aejax.algorithm import Algorithm, Player, play
from aejax.checks import InputError, check_count, check_positive
from aejax.data import Batch, Dataset, parts
from aejax.methods import cvae as method
from aejax.methods.cvae import CVAE
from aejax.nets import MLP, init_params
from aejax.posteriors import DiagonalGaussian
from aejax.runner import study
from aejax.runner.config import to_dict

if TYPE_CHECKING:
    from aejax.runner.console import Bars
    from aejax.runner.options import Launch

ORDER = ("lower_left", "upper_left", "upper_right")  # in which quadrants are seen
PUBLISHED = {1: (100.4, 71.8), 2: (61.9, 51.0), 3: (25.4, 24.2)}  # NN and CVAE of Pyro's tutorial
SHOWN, DRAWN = 12, 4  # images and draws of the picture


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npy or .npz with images."""
    quadrants: tuple[int, ...] = (1, 2, 3)
    """How many are seen."""
    latent_dim: int = 20
    """Size of the code."""
    hidden_dims: tuple[int, ...] = (200, 200)
    """Widths of the hidden layers of the NN and of the encoder; the decoder mirrors them."""
    num_epochs: int = 100
    """Passes over the training examples, at most."""
    patience: int = 10
    """Epochs without a lower validation loss after which it ends."""
    batch_size: int = 128
    """Examples per step."""
    lr: float = 1e-3
    """Learning rate of Adam."""
    num_samples: int = 100
    """Draws per test image, from the prior and from the encoder."""
    num_train: int | None = None
    """Only the first so many training examples."""
    num_test: int | None = None
    """Only the first so many test examples."""
    num_seeds: int = 1
    """Runs of every row."""
    seed: int = 0
    """The first one."""


class FromPrior(CVAE):
    """A CVAE whose encoder says nothing: its importance weights are `p(x|z, y)` of codes from the prior N(0, I)."""

    def encode(self, x: jax.Array, *condition: jax.Array) -> DiagonalGaussian:
        zeros = jax.numpy.zeros((len(x), self.latent_dim), x.dtype)
        return DiagonalGaussian(zeros, zeros)


class Row(NamedTuple):
    """What is trained, and how."""

    algorithm: Algorithm
    init: Callable[[jax.Array, Batch], Any]  # (key, an example) -> params


@partial(jax.jit, static_argnames="net")
def nn_loss(params: Any, batch: Batch, key: jax.Array, *, net: nn.Module) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The cross-entropy of x `[B, U]` under logits that `net` makes of y `[B, S]`, in nats per example."""
    logits: Any = net.apply({"params": params["net"]}, batch.y)
    recon = likelihoods.get("bernoulli").nll(logits, batch.x).mean()
    return recon, {"recon_nats": recon}


@lru_cache(maxsize=8)  # the same algorithm is the same program, whatever the number of seeds
def nn_row(unseen: int, hidden_dims: tuple[int, ...], lr: float) -> tuple[nn.Module, Row]:
    net = MLP((*hidden_dims, unseen))
    player = Player(partial(nn_loss, net=net), ("net",), optax.adam(lr))
    return net, Row(play({"nn": player}, [["nn"]]), lambda key, one: {"net": net.init(key, one.y)["params"]})


@lru_cache(maxsize=8)
def cvae_row(unseen: int, hidden_dims: tuple[int, ...], latent_dim: int, lr: float) -> tuple[CVAE, Row]:
    model = CVAE.dense(unseen, latent_dim, num_classes=None, hidden_dims=hidden_dims)
    return model, Row(method.cvae(model, lr=lr), partial(init_params, model))


def train(
    row: Row, data: Batch, held_out: Batch, config: Config, seed: int, say: Callable[[str], None] = lambda text: None
) -> tuple[Any, int]:
    """The parameters of the epoch with the lowest validation loss, and how many epochs were trained.

    Every epoch is judged with the same noise.
    """
    init_key, train_key, judge_key = jax.random.split(jax.random.key(seed), 3)
    state = row.algorithm.init(row.init(init_key, jax.tree.map(lambda v: v[:1], data)))
    steps, best, lowest, epoch, at = training.count_steps(data, config.batch_size), state.params, np.inf, 0, 0
    chunks = training.train(
        row.algorithm, state, data, train_key, batch_size=config.batch_size, num_epochs=config.num_epochs,
        boundary=steps,
    )  # fmt: skip
    for chunk in chunks:
        if chunk.step % steps:
            continue
        epoch = chunk.step // steps
        terms = training.evaluate(row.algorithm, chunk.state, held_out, judge_key)
        loss = next(value for name, value in terms.items() if name.endswith("/loss"))
        if loss < lowest:
            best, lowest, at = chunk.state.params, loss, epoch
        say(f"epoch {epoch}, validation {loss:.2f}, lowest {lowest:.2f} at {at}")
        if epoch - at >= config.patience:
            break
    return best, epoch


def measure(model: CVAE, params: Any, row: Row, test: Batch, num_samples: int, key: jax.Array) -> dict[str, float]:
    """The three numbers of a CVAE, nats per image, and the effective sample sizes of two."""
    bound_key, nll_key, prior_key = jax.random.split(key, 3)
    terms = training.evaluate(row.algorithm, row.algorithm.init(params), test, bound_key)
    own = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)} | {"parent": None}
    nll = evaluation.nll(model, params, test, nll_key, num_samples=num_samples)
    prior = evaluation.nll(FromPrior(**own), params, test, prior_key, num_samples=num_samples)
    return {
        "bound_nats": terms["elbo/bound_nats"],
        "prior_nats": prior.nll_nats, "prior_ess": prior.ess,
        "nll_nats": nll.nll_nats, "nll_ess": nll.ess,
    }  # fmt: skip


def piece(
    config: Config, dataset: Dataset, count: int, seed: int, say: Callable[[str], None]
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Both rows for one number of quadrants and one seed: metrics, and what they make of the first test images."""
    assert dataset.image_shape
    assert dataset.validation
    seen = parts.region(dataset.image_shape, *ORDER[:count])
    data, held_out, test = (parts.split(each.x, seen) for each in (dataset.train, dataset.validation, dataset.test))
    unseen = data.x.shape[1]
    net, row = nn_row(unseen, config.hidden_dims, config.lr)
    params, epochs = train(row, data, held_out, config, seed, lambda text: say(f"NN, {text}"))
    measure_key, draw_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1))
    found = training.evaluate(row.algorithm, row.algorithm.init(params), test, measure_key)
    metrics = {"pixels": unseen, "nn_nats": found["nn/recon_nats"], "nn_epochs": epochs}
    first = jax.tree.map(lambda v: v[:SHOWN], test)
    logits: Any = net.apply({"params": params["net"]}, first.y)
    images = {
        "seen": parts.join(np.full_like(first.x, 0.5), first.y, seen),
        "image": parts.join(first.x, first.y, seen),
    }
    images["NN"] = parts.join(jax.nn.sigmoid(logits), first.y, seen)

    model, row = cvae_row(unseen, config.hidden_dims, config.latent_dim, config.lr)
    params, epochs = train(row, data, held_out, config, seed, lambda text: say(f"CVAE, {text}"))
    say("measuring")
    metrics |= measure(model, params, row, test, config.num_samples, measure_key) | {"cvae_epochs": epochs}
    for i, key in enumerate(jax.random.split(draw_key, DRAWN)):
        x = model.apply({"params": params}, key, len(first.y), first.y, method="sample")
        images[f"CVAE, draw {i + 1}"] = parts.join(x, first.y, seen)
    return metrics, images


def load(config: Config) -> Dataset:
    """The data, and a refusal of what cannot be run on them."""
    own = runner.Config(
        dataset=config.dataset, num_train=config.num_train, num_test=config.num_test, latent_dim=config.latent_dim,
        hidden_dims=config.hidden_dims, num_epochs=config.num_epochs, batch_size=config.batch_size, seed=config.seed,
    )  # fmt: skip
    runner.check(own)
    for name in ("patience", "num_samples", "num_seeds"):
        check_count(**{f"--{name.replace('_', '-')}": getattr(config, name)})
    check_positive(**{"--lr": config.lr})
    if not config.quadrants or not set(config.quadrants) <= {1, 2, 3}:
        raise InputError(f"--quadrants are {config.quadrants}; of four 1, 2 or 3 can be seen.")
    dataset = runner.load_data(own)
    if dataset.image_shape is None:
        raise InputError(
            f"--dataset {config.dataset} holds vectors; quadrants are of images, [N, H, W] or [N, H, W, C]."
        )
    training.count_steps(dataset.train.x, config.batch_size)
    return dataset


def body(config: Config, launch: "Launch", bars: "Bars") -> Callable[[], None]:
    """Trains number by number and seed by seed; what is done is kept, and not repeated with `--resume`."""
    from aejax import plots
    from aejax.runner.console import list_figures
    from aejax.runner.environment import provenance
    from aejax.runner.folder import open_folder, read_json, write_json
    from aejax.runner.options import refuse_for_sweeps

    refuse_for_sweeps(launch)
    folder = open_folder("conditional", config, launch.workdir, resume=launch.resume)
    if not folder.is_finished:
        dataset = load(config)
        assert dataset.image_shape
        folder.start()
        folder.figures.mkdir(exist_ok=True)
        metrics: dict[str, dict[str, list[float]]] = {}
        for seed in range(config.seed, config.seed + config.num_seeds):
            for count in dict.fromkeys(config.quadrants):
                name = f"quadrants_{count}-{seed}"
                file: Path = folder.path / f"{name}.json"
                kept = read_json(file)
                if kept is None or kept["num_epochs"] != config.num_epochs:
                    found, images = piece(config, dataset, count, seed, partial(_say, bars, name))
                    title = f"{dataset.name}, {count} of 4 quadrants seen"
                    figure = plots.image_rows(images, dataset.image_shape, title=title)
                    plots.save(figure, folder.figures / f"{name}.png")
                    kept = {"num_epochs": config.num_epochs, "metrics": found}
                    write_json(file, kept)
                row = metrics.setdefault(str(count), {})
                for metric, value in kept["metrics"].items():
                    row.setdefault(metric, []).append(value)
        summary = {"experiment": "conditional", **to_dict(config), **provenance(), "metrics": metrics}
        write_json(folder.path / "summary.json", summary)

    def report() -> None:
        bars.console.print(table(folder.summary), markup=False, highlight=False)
        list_figures(bars.console, folder.path)

    return report


def _say(bars: "Bars", name: str, text: str) -> None:
    bars.say(f"{name}, {text}")


def table(summary: dict[str, Any]) -> str:
    """By quadrants: mean and deviation over seeds, in nats per image; published figures where the recipe is theirs."""
    recipe = {"dataset": "mnist", "hidden_dims": [500, 500], "latent_dim": 200, "batch_size": 128, "lr": 1e-3}
    same = {"num_train": None, "num_test": None, "patience": 3, **recipe}
    published = all(summary[name] == value for name, value in same.items())
    k = summary["num_samples"]
    head = [
        "quadrants seen",
        "NN",
        "CVAE, bound",
        f"CVAE, {k} from the prior (ESS)",
        f"CVAE, {k} weighted (ESS)",
        "gap",
    ]
    head += ["NN, Pyro", "CVAE, Pyro"] if published else []
    rows = []
    for count, found in summary["metrics"].items():
        gap = [nn - nll for nn, nll in zip(found["nn_nats"], found["nll_nats"], strict=True)]
        ess = {name: f" ({np.mean(found[name]):.3g})" for name in ("prior_ess", "nll_ess")}
        cells = [study.spread(found["nn_nats"]), study.spread(found["bound_nats"])]
        cells += [
            study.spread(found["prior_nats"]) + ess["prior_ess"],
            study.spread(found["nll_nats"]) + ess["nll_ess"],
        ]
        rows.append([count, *cells, study.spread(gap)])
        rows[-1] += [f"{value:g}" for value in PUBLISHED[int(count)]] if published else []
    return study.table(head, rows)


if __name__ == "__main__":
    study.command_line("conditional", Config, __doc__, body)
