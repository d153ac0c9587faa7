"""The study of discrete codes: as many bits in every row, refusals before training, the table, and a whole run."""

import json
import math

import jax
import numpy as np
import pytest

from aejax import data, runner
from aejax.checks import InputError
from aejax.nets import init_params
from aejax.runner import launch, study
from aejax.runner.inputs import Spec
from experiments import fsq
from experiments.studies import codebooks, publish


def test_every_row_writes_an_image_in_24_bits_with_the_same_hidden_layers():
    runs = codebooks.runs(codebooks.Config(num_seeds=2, seed=5, hidden_dims=(7,)))
    assert list(runs) == [f"{row}-{seed}" for seed in (5, 6) for row in codebooks.TITLES]
    x = np.random.default_rng(0).random((3, 64), np.float32)
    for name, (experiment, config) in list(runs.items())[:7]:
        model = experiment.build_model(config, Spec((64,), None))
        assert model.encoder.features[0] == 7, name
        params = jax.eval_shape(lambda model=model: init_params(model, jax.random.key(0), x))
        tokens = jax.eval_shape(lambda p, model=model: model.apply({"params": p}, x, method="tokens"), params)
        assert tokens.shape[1] * math.log2(model.num_entries) == 24, name
    differ = {row: runs[f"{row}-5"][1] for row in codebooks.TITLES}
    assert (differ["means"].codebook_by, differ["means"].revival) == ("means", 0)
    assert (differ["gradient_revived"].codebook_by, differ["gradient_revived"].revival) == ("gradient", 0.1)
    assert differ["lfq_alone"].hparams == differ["lfq"].hparams._replace(entropy=0.0)


def test_on_a_grid_a_token_tells_of_its_own_quarter_and_what_surrounds_it():
    """Four convolutions of 3 x 3, of which two halve: a place of the grid sees up to 8 pixels past its own 4."""
    config = codebooks.Config(dataset="two.npz", net="conv", rows=("fsq", "gradient"))
    images = np.random.default_rng(0).random((20, 32, 32), np.float32)
    np.savez("two.npz", x=images)
    for experiment, own in codebooks.runs(config).values():
        model = experiment.build_model(own, Spec((32, 32, 1), None))
        x = images[:1, ..., None]
        params = init_params(model, jax.random.key(0), x)
        vectors = jax.jit(lambda x, p=params, m=model: m.apply({"params": p}, x, method="vectors"))
        assert vectors(x).shape[1] == 8 * 8
        changed = x.copy()
        changed[0, 16, 16] = 1 - changed[0, 16, 16]
        moved = np.abs(vectors(changed) - vectors(x)).max(axis=(0, 2)).reshape(8, 8) > 0
        assert moved[4, 4]
        assert not moved[[0, 1, 6, 7]].any()
        assert not moved[:, [0, 1, 6, 7]].any()


def test_rows_that_are_unknown_or_twice_are_refused():
    with pytest.raises(InputError, match="no row 'fsk'"):
        codebooks.runs(codebooks.Config(rows=("fsk",)))
    np.savez("rows.npz", x=np.zeros((9, 16), np.float32))
    with pytest.raises(InputError, match="needs images; rows"):
        codebooks.runs(codebooks.Config(dataset="rows.npz", net="conv"))
    with pytest.raises(InputError, match="--grid is for --net conv"):
        fsq.EXPERIMENT.build_model(fsq.Config(grid=True), Spec((64,), None))
    with pytest.raises(InputError, match="none twice"):
        codebooks.runs(codebooks.Config(rows=("fsq", "fsq")))


def test_the_table_by_hand():
    row = {
        "code_nats": [14.0, 14.0],
        "code_apart_nats": [15.0, 15.0],
        "test_perplexity": [50.0, 52.0],
        "used_entries": [64, 64],
        "test_sse": [0.9, 1.1],
        "probe_accuracy": [0.5, 0.5],
    }
    metrics = {"fsq": {**row, "seconds": [3.0, 9.0]}, "lfq": {"test_sse": [2.0]}}
    lines = codebooks.table({"rows": ["fsq", "lfq"], "metrics": metrics}).splitlines()
    assert lines[2] == "| FSQ, 4 x 4 x 4 | 51.0 ± 1.4 | 64 ± 0 | 1.00 ± 0.14 | 0.5 ± 0 | 14 ± 0 | 15 ± 0 | 2, 6 |"
    assert lines[3] == "| LFQ, 6 bits | | | 2 | | | | |"


def test_tokens_apart_cost_what_their_counts_say():
    train, test = np.array([[0, 1], [0, 2], [1, 2]]), np.array([[0, 0], [2, 2]])
    exact = -np.log([3 / 6, 1 / 6]).mean() - np.log([1 / 6, 3 / 6]).mean()
    assert codebooks.apart(train, test, 3) == pytest.approx(exact)


@pytest.mark.slow
def test_a_prior_of_tokens_finds_that_one_follows_from_the_other():
    """Eight names, the second token a random permutation of the first: log 8 nats for both, apart twice that."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, 8, 4000)
    tokens = np.stack([first, rng.permutation(8)[first]], axis=1)
    prior = codebooks.learn_prior(tokens[:3000], 8, 0)
    nats = prior.model.bind({"params": prior.params}).nll(
        *codebooks.known(prior, codebooks.as_levels(tokens[3000:], 8))
    )
    assert float(nats.mean()) == pytest.approx(math.log(8), abs=0.03)
    assert codebooks.apart(tokens[:3000], tokens[3000:], 8) == pytest.approx(2 * math.log(8), abs=0.03)
    drawn = codebooks.as_tokens(prior.sample(500, 1), 8)
    follows = dict(tokens.tolist())
    assert np.mean([follows[a] == b for a, b in drawn.tolist()]) > 0.98


@pytest.mark.slow
def test_a_prior_on_a_grid_sees_what_is_above():
    """Names of a column are alike, and drawn evenly: the first row costs log 5 each, the second nothing."""
    tokens = np.random.default_rng(0).integers(0, 5, (2000, 1, 3)).repeat(2, axis=1).reshape(-1, 6)
    prior = codebooks.learn_prior(tokens[:1500], 5, 0, (2, 3))
    x = codebooks.as_levels(tokens[1500:], 5).reshape(-1, 2, 3, 1)
    nats = prior.model.bind({"params": prior.params}).nll(*codebooks.known(prior, x))
    assert float(nats.mean()) == pytest.approx(3 * math.log(5), abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize(("net", "rows"), [("dense", ["gradient", "fsq", "lfq"]), ("conv", ["gradient"])])
def test_a_study_ends_with_a_table_and_its_pictures(net, rows, tmp_path):
    flags = ["--num-epochs", "2", "--batch-size", "400", "--net", net, "--workdir", str(tmp_path / "run")]
    flags += ["--rows", *rows]
    launch.command_line("codebooks", codebooks.Config, "", study.body(codebooks.STUDY), flags)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["metrics"]) == rows
    for found in summary["metrics"].values():
        assert 1 <= found["test_perplexity"][0] <= found["used_entries"][0] <= 64
        assert found["test_sse"][0] < 2 * np.square(data.load("digits").test.x).sum(axis=(1, 2, 3)).mean()
        assert found["code_nats"][0] < 1.1 * 24 * math.log(2)
    assert {path.stem for path in (tmp_path / "run" / "figures").iterdir()} == {"reconstructions", "samples"}
    assert runner.load(tmp_path / "run" / "gradient-0")[1].codebook_by == "gradient"


@pytest.mark.slow
def test_the_example_of_the_page_runs():
    example = (publish.DOCS / "discrete.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(compile(example, "discrete.md", "exec"), names)
    np.testing.assert_array_equal(names["codes"], names["fitted"].embed(names["x"]))
    assert names["tokens"].max() < 64
