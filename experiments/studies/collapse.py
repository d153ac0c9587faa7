"""Which VAEs collapse, what the report on collapse says of them, and which remedies help.

Four situations, each with its remedies: the weight of the KL; a Gaussian likelihood of variance 1 on pixels in [0, 1];
a code of 50 numbers; a deep decoder. A remedy that changes only the way, a weight that rises from 0 (warm-up, Sonderby
et al. 2016) or does so again and again (cyclic, Fu et al. 2019), cannot help where the optimum itself has collapsed;
another weight, another variance or a learned one changes the optimum (Lucas et al. 2019).

The report is `evaluation.collapse` on the test images, as every run prints it. KL, mutual information and the KL of the
aggregate posterior are `evaluation.decompose` on the first 2,000 training images: the mutual information is at most the
logarithm of their number, 7.28 of 1,455 digits, and what stands a little below zero is zero but for the draws. Bounds
of one likelihood can be compared, those of two cannot.

On the digits (2 seeds, 2026-11-26, 8 CPU minutes on two shared cores):

- The optimum has collapsed with beta 10, and with a variance of 1, which is more than any direction of the digits has.
  Warm-up and cycles end where the constant weight ends: no unit is active, the KL is below 0.008 nats. Beta 0.05 at a
  variance of 1 has all 8 units and 9.8 nats.
- A learned variance starts at 1, and Adam moves it by its rate: after these passes it is still too large, and nothing
  is encoded. With ten times the rate it falls to 0.07, what pixels have around their mean, and the bound to 7.1, but
  the encoder is dead: of 64 units in its last hidden layer 1 and 0 ever speak. With warm-up too 5 units are active, at
  a bound of -29.0 +- 0.4.
- A code of 50 numbers is not reported, but slow: of 26.3 +- 0.2 nats warm-up takes 0.8 and cycles 0.5.
- The deep decoder loses units on the way, not in the optimum: 1 and 2 of 8 are active, and one of the two seeds is
  reported. Warm-up gives 5 or 6 units, and a bound of 23.73 in place of 24.9 +- 0.8; cycles give 23.84.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from aejax import evaluation, nets, runner
from aejax.checks import InputError
from aejax.data import Batch, Dataset
from aejax.evaluation.apply import over_batches
from aejax.methods.vae import VAE, HParams
from aejax.nets import MLP
from aejax.runner import Optimizers, Trained, study
from aejax.runner.inputs import Spec
from aejax.runner.study import Runs, Study
from aejax.schedules import Cycle
from experiments import vae

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_IMAGES = 2000  # training images that are decomposed
_CYCLES = 4  # as Fu et al. (2019) have them by default
FINDINGS = {  # metric -> its name in the table, and what is in the sentence of the report
    "finds_posterior": ("collapsed posterior", "dimensions of the posterior"),
    "finds_outputs": ("identical outputs", "reconstructions vary"),
    "finds_samples": ("identical samples", "draws from the prior vary"),
    "finds_mean": ("no better than the mean", "mean of the data"),
    "finds_untrained": ("no better than untrained", "untrained parameters"),
    "finds_dead": ("dead units", "units of the code"),
}


class Setting(NamedTuple):
    """A row of the study."""

    title: str
    group: str  # the panel of the picture in which it stands
    fields: dict[str, Any] = {}  # noqa: RUF012
    beta: float = 1.0
    way: str = "constant"  # or ramp, or cycle
    rate: float = 1.0  # of Adam, in those of the configuration


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npy or .npz (x) with values in [0, 1]."""
    latent_dim: int = 8
    """Size of the code, where it is not large."""
    large_dim: int = 50
    """Size of the large code."""
    hidden_dims: tuple[int, ...] = (128, 64)
    """Widths of the hidden layers of the encoder; the decoder mirrors them, where it is not deep."""
    decoder_dims: tuple[int, ...] = (512, 512, 512, 512, 512, 512)
    """Widths of the hidden layers of the deep decoder."""
    num_epochs: int = 100
    """Passes over the training examples, half of them for a warm-up; they cannot grow with --resume."""
    batch_size: int = 128
    """Examples per step, over all devices."""
    lr: float = 1e-3
    """Learning rate of Adam, its peak; it falls along a cosine."""
    num_seeds: int = 2
    """Runs of each row."""
    seed: int = 0
    """The first one."""


@dataclasses.dataclass(frozen=True)
class Row(vae.Config):
    """A run of the study."""

    decoder_dims: tuple[int, ...] = ()
    """Widths of the hidden layers of the decoder; by default those of the encoder, mirrored."""
    cycle_epochs: int = 0
    """Length of a cycle, in whose first half beta rises from 0; 0 for none."""


def settings(config: Config) -> dict[str, Setting]:
    """The rows by name."""
    large, deep = {"latent_dim": config.large_dim}, {"decoder_dims": config.decoder_dims}
    wide, learned = {"likelihood": "gaussian"}, {"likelihood": "gaussian_learned"}
    by_beta, by_variance = "cross-entropy, by beta", "Gaussian likelihood"
    by_size, by_depth = f"a code of {config.large_dim} numbers", "a deep decoder"
    return {
        "beta_0.1": Setting("beta 0.1", by_beta, beta=0.1),
        "beta_1": Setting("beta 1", by_beta),
        "beta_10": Setting("beta 10", by_beta, beta=10.0),
        "beta_10_ramp": Setting("beta 10, warm-up", by_beta, beta=10.0, way="ramp"),
        "beta_10_cycle": Setting("beta 10, cyclic", by_beta, beta=10.0, way="cycle"),
        "wide": Setting("variance 1", by_variance, wide),
        "wide_ramp": Setting("variance 1, warm-up", by_variance, wide, way="ramp"),
        "wide_cycle": Setting("variance 1, cyclic", by_variance, wide, way="cycle"),
        "wide_beta": Setting("variance 1, beta 0.05", by_variance, wide, beta=0.05),
        "learned": Setting("variance learned", by_variance, learned),
        "fast": Setting("variance learned, 10 x the rate", by_variance, learned, rate=10.0),
        "fast_ramp": Setting("the same, warm-up", by_variance, learned, way="ramp", rate=10.0),
        "large": Setting(f"{config.large_dim} numbers", by_size, large),
        "large_ramp": Setting(f"{config.large_dim} numbers, warm-up", by_size, large, way="ramp"),
        "large_cycle": Setting(f"{config.large_dim} numbers, cyclic", by_size, large, way="cycle"),
        "deep": Setting("deep decoder", by_depth, deep),
        "deep_ramp": Setting("deep decoder, warm-up", by_depth, deep, way="ramp"),
        "deep_cycle": Setting("deep decoder, cyclic", by_depth, deep, way="cycle"),
    }


def runs(config: Config) -> Runs:
    """Every row with every seed."""
    if config.large_dim < 1 or not config.decoder_dims or min(config.decoder_dims) < 1:
        raise InputError("--large-dim and the widths of --decoder-dims have to be at least 1.")
    if config.num_epochs < _CYCLES:
        raise InputError(f"--num-epochs is {config.num_epochs}; the {_CYCLES} cycles need at least as many.")
    names = ("dataset", "latent_dim", "hidden_dims", "num_epochs", "batch_size")
    shared: dict[str, Any] = {name: getattr(config, name) for name in names} | {"schedule": "cosine", "nll_samples": 0}
    rows = {}
    for name, setting in settings(config).items():
        ways = {
            "warmup_epochs": config.num_epochs // 2 * (setting.way == "ramp"),
            "cycle_epochs": config.num_epochs // _CYCLES * (setting.way == "cycle"),
        }
        rows[name] = (
            EXPERIMENT,
            Row(**shared | setting.fields | ways, hparams=HParams(setting.rate * config.lr, setting.beta)),
        )
    return study.seeded(rows, config.seed, config.num_seeds)


def build_model(config: Row, spec: Spec) -> VAE:
    model = vae.build_model(config, spec)
    if not config.decoder_dims:
        return model
    return model.clone(decoder=MLP((*config.decoder_dims, *spec.shape)))


def build_algorithm(config: Row, model: Any, tx: Optimizers, axis_name: str | None) -> Any:
    if config.cycle_epochs:
        beta: Any = Cycle(0.0, config.hparams.beta, config.cycle_epochs * tx.steps_per_epoch)
        config = dataclasses.replace(config, hparams=config.hparams._replace(beta=beta))
    return vae.build_algorithm(config, model, tx, axis_name)


def measure(trained: Trained) -> dict[str, float]:
    """What the report finds, and the parts of the bound."""
    model, params, (train, test) = trained.model, trained.state.params, (trained.dataset.train, trained.dataset.test)
    report_key, init_key, key = jax.random.split(trained.measure_key, 3)
    untrained = nets.init_params(model, init_key, train.x[:1])
    report = evaluation.collapse(model, params, test.x, report_key, untrained=untrained)
    parts = evaluation.decompose(model, params, train.x[:_IMAGES], key)
    return {
        **finds(report.findings),
        "active_units": report.numbers["active_units"],
        "collapsed_units": report.numbers["collapsed_units"],
        "test_sse": report.numbers["sse"],
        "mutual_info_nats": parts.mutual_info_nats,
        "marginal_kl_nats": parts.marginal_kl_nats,
        "train_kl_nats": parts.mutual_info_nats + parts.marginal_kl_nats,
        "train_bound_nats": parts.bound_nats,
    }


def finds(findings: tuple[str, ...]) -> dict[str, float]:
    """Whether the report has a sentence of each kind, 1 or 0."""
    return {name: float(any(words in each for each in findings)) for name, (_, words) in FINDINGS.items()}


EXPERIMENT = vae.EXPERIMENT._replace(
    name="collapse_run", config=Row, build_model=build_model, build_algorithm=build_algorithm, measure=measure,
    draw=lambda _: {}, reference=lambda config: {},
)  # fmt: skip


def kl_by_dimension(model: nets.Autoencoder, params: Any, x: np.ndarray) -> np.ndarray:
    """KL(q(z_j|x) | N(0, 1)) in nats, mean over x, `[Z]`, the largest first."""
    encode = jax.jit(lambda x: model.apply({"params": params}, x, method="encode"))
    mean, logvar = (v.astype(np.float64) for v in over_batches(encode, x, batch_size=256))
    return np.sort(0.5 * (np.square(mean) + np.expm1(logvar) - logvar).mean(axis=0))[::-1]


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """The KL of each dimension, sorted, of every seed; and what the first one makes of test images."""
    from aejax import plots

    panels: dict[str, dict[str, Any]] = {}
    rows = {"image": dataset.test.x[:16]}
    for name, setting in settings(config).items():
        curves = panels.setdefault(setting.group, {})
        found = []
        for seed in range(config.seed, config.seed + config.num_seeds):
            _, model, state = runner.load(path / f"{name}-{seed}")
            found.append(kl_by_dimension(model, state.params, dataset.test.x))
            if seed == config.seed:
                rows[setting.title] = evaluation.reconstruct(model, state.params, Batch(dataset.test.x[:16]))
        ranks = 1 + np.arange(len(found[0]))
        curves[setting.title] = plots.Curve(ranks, np.stack(found), len(curves), setting.way != "constant")
    lines = {group: plots.Lines("dimension of the code, by rank", "KL to the prior, nats", curves)
             for group, curves in panels.items()}  # fmt: skip
    figures = {"kl": plots.line_panels(lines, title=f"{dataset.name}: which dimensions the posterior uses")}
    if dataset.image_shape is not None:
        figures["reconstructions"] = plots.image_rows(rows, dataset.image_shape, title="test images, reconstructed")
    return figures


def table(summary: dict[str, Any]) -> str:
    """A row for each setting."""
    head = ("", "the report finds (seeds)", "active units", "KL, nats", "mutual information", "KL of q(z)", "bound",
            "test SSE", "seeds, seconds a run")  # fmt: skip
    keys = ("active_units", "train_kl_nats", "mutual_info_nats", "marginal_kl_nats", "train_bound_nats", "test_sse")
    names = {field.name for field in dataclasses.fields(Config)}
    config = Config(**{name: summary[name] for name in names if name in summary})
    rows = []
    for name, setting in settings(config).items():
        found = summary["metrics"][name]
        said = [f"{title} ({sum(found[key]):.0f})" for key, (title, _) in FINDINGS.items() if any(found[key])]
        cells = (study.spread(found[key]) for key in keys)
        size = summary["large_dim"] if setting.fields.get("latent_dim") else summary["latent_dim"]
        units, *others = cells
        rows.append([setting.title, ", ".join(said) or "nothing", f"{units} of {size}", *others, study.cost(found)])
    return study.table(head, rows)


STUDY = Study("collapse", Config, runs, table, draw)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
