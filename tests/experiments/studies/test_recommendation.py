"""The study of recommendation: its splits, what is chosen on which data, its table, and a whole run."""

import json
from pathlib import Path

import numpy as np
import pytest

from aejax.checks import InputError
from aejax.data import load_ratings
from aejax.data.ratings import Ratings, Truth
from aejax.evaluation.recommenders import popularity
from aejax.runner import launch
from aejax.runner.pieces import body
from experiments.studies import recommendation, recommendation_lists, recommendation_ratings

RATINGS = recommendation_ratings.Options(latent_dim=8, num_epochs=3, batch_size=10, decays=(1e-3, 1e-2))
LISTS = recommendation_lists.Options(latent_dim=8, hidden_dims=(8,), num_epochs=4, batch_size=20)


def few(users=150):
    """The first users of the made-up set."""
    whole = load_ratings("ratings")
    kept = whole.user < users
    truth = Truth(whole.truth.mean[:users], whole.truth.seen[:users], whole.truth.noise)
    arrays = (each[kept] for each in whole[1:4])
    return Ratings("ratings", *arrays, (users, whole.shape[1]), whole.liked, truth)


def test_a_tenth_is_hidden_and_a_tenth_of_the_rest_chooses():
    parts = recommendation_ratings.split(1000, 3)
    assert [len(part) for part in parts] == [810, 90, 100]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1000))
    assert (recommendation_ratings.split(1000, 4).test != parts.test).any()
    # root of (1 + 4 + 4) / 3, not the mean of roots
    assert recommendation_ratings.rmse(np.array([1.0, 2, 3]), np.array([2.0, 4, 1])) == pytest.approx(3**0.5)


def test_ratings_that_are_asked_for_change_no_answer():
    """Nor do those that wait for later: all but the ones to train on are set to something else."""
    found = few(60)
    parts = recommendation_ratings.split(len(found.rating), 0)
    other = found.rating.copy()
    other[parts.test] = 100
    other[parts.validation] = -100
    answers = []
    for rating in (found.rating, other):
        own = found._replace(rating=rating)
        base = recommendation_ratings.base(own, parts.train, with_biases=True)
        added = recommendation_ratings.trained(
            own, parts.train, parts.test, rating - base, "items", (1e-3,), RATINGS, 0
        )
        answers.append(base[parts.test] + added[0])
    np.testing.assert_array_equal(*answers)


def test_the_base_is_the_mean_and_biases_of_what_is_trained_on():
    found = few(60)
    train = np.arange(0, len(found.rating), 2)
    mean = recommendation_ratings.base(found, train, with_biases=False)
    np.testing.assert_allclose(mean, np.full(len(found.rating), found.rating[train].mean(dtype=np.float64)))
    fitted = recommendation_ratings.base(found, train, with_biases=True) - mean
    rest = found.rating[train] - mean[train] - fitted[train]
    # Ridge 5: where the gradient vanishes, the sum of what is left is 5 times the bias.
    of_user = {user: rest[found.user[train] == user].sum() / 5 for user in range(60)}
    of_item = {item: rest[found.item[train] == item].sum() / 5 for item in set(found.item[train].tolist())}
    wanted = [of_user[u] + of_item.get(i, 0) for u, i in zip(found.user.tolist(), found.item.tolist(), strict=True)]
    np.testing.assert_allclose(fitted, wanted, atol=1e-6)


def test_users_are_held_out_and_a_fifth_of_their_items_is_to_be_found():
    found = few()
    split = recommendation_lists.held(found, 1)
    liked = np.zeros(found.shape, bool)
    good = found.rating >= 4
    liked[found.user[good], found.item[good]] = True
    test, validation = split.test, split.validation
    assert not set(test.user) & set(validation.user)
    rest = [u for u in range(150) if liked[u].sum() >= 5 and u not in {*test.user, *validation.user}]
    trained = {tuple(row) for row in split.train.astype(bool)}
    assert trained <= {tuple(liked[u, split.items]) for u in rest}
    np.testing.assert_array_equal(split.train.any(axis=0), np.ones(len(split.items), bool))
    for users in (test, validation):
        assert not (users.told & users.held_out).any()
        np.testing.assert_array_equal(users.told | users.held_out, liked[np.ix_(users.user, split.items)])
        counts = (users.told | users.held_out).sum(axis=1)
        assert counts.min() >= 5
        np.testing.assert_array_equal(users.held_out.sum(axis=1), counts // 5)
    with pytest.raises(InputError, match="too few users who liked 5"):
        recommendation_lists.held(found._replace(liked=99.0), 0)


def test_what_is_chosen_is_chosen_by_the_validation_users():
    """A recommender that knows the validation users wins, whatever it is worth for the test users."""
    split = recommendation_lists.held(few(), 0)
    told, wanted = split.validation.told.astype(float), split.validation.held_out.astype(float)
    knows = np.linalg.pinv(told) @ wanted
    popular = np.tile(popularity(split.train), (len(split.items), 1))
    scores = recommendation_lists.linear(split, {1.0: lambda: popular, 2.0: lambda: knows, 3.0: lambda: -popular})
    assert scores["chosen"] == 2.0
    again = recommendation_lists.scored(split.test.told @ knows, split.test)
    assert scores["ndcg_100"] == again["ndcg_100"]


def test_the_true_probabilities_are_those_of_many_draws():
    found = few(20)
    mean, seen, noise = found.truth
    users = recommendation_lists.Users(np.arange(20), np.zeros(()), np.zeros(()))
    exact = recommendation_lists.true_scores(found, users, np.arange(30))
    rng, n = np.random.default_rng(0), 2000
    is_liked = (rng.random((n, 20, 30)) < seen[:, :30]) & (rng.normal(mean[:, :30], noise, (n, 20, 30)) >= 4.0)
    z = (is_liked.mean(0) - exact) / np.sqrt(exact * (1 - exact) / n + 1e-6)
    assert np.abs(z).max() < 5
    assert abs(z.mean()) < 0.3


def test_the_table_has_a_row_for_whatever_was_measured():
    metrics = {
        "ratings": {"mean": {"rmse": [1.0, 1.2]}, "i_autorec": {"rmse": [0.9, 0.9], "decay": [1e-4, 5e-4]}},
        "lists": {"ease": {"recall_20": [0.25], "recall_50": [0.5], "ndcg_100": [0.125], "chosen": [30.0]}},
    }
    lines = recommendation.table({"metrics": metrics}).splitlines()
    assert lines[2] == "| mean rating | 1.10 ± 0.14 | | 2 |"
    assert lines[3] == "| I-AutoRec | 0.9 ± 0 | 0.0001, 0.0005 | 2 |"
    assert lines[7] == "| EASE | 0.25 | 0.5 | 0.125 | 30 | | 1 |"


def test_the_page_has_the_tables_of_its_files():
    docs = Path(__file__).parents[3] / "docs"
    files = sorted(docs.glob("recommendation*.json"))
    assert files
    for file in files:
        assert recommendation.table(json.loads(file.read_text())) in (docs / "recommendation.md").read_text()


def test_what_cannot_be_run_is_refused():
    for options, match in (
        ({"num_seeds": 0}, "--num-seeds=0"),
        ({"ratings": RATINGS._replace(decays=(-1.0,))}, "decays is -1"),
        ({"lists": LISTS._replace(every=5)}, "--lists.every is 5, and there are 4"),
        ({"lists": LISTS._replace(ridges=())}, "ridges=0"),
    ):
        with pytest.raises(InputError, match=match):
            list(recommendation.pieces(recommendation.Config(**options)))


@pytest.mark.slow
def test_a_study_ends_with_both_tables_and_what_is_done_is_not_repeated(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recommendation, "load_ratings", lambda name: few())
    flags = ["--ratings.latent-dim", "20", "--ratings.num-epochs", "200", "--ratings.decays", "2e-4", "1e-3"]
    flags += ["--lists.latent-dim", "8", "--lists.hidden-dims", "8", "--lists.num-epochs", "4", "--num-seeds", "2"]
    call = lambda *more: launch.command_line(
        "recommendation", recommendation.Config, "", body(recommendation.STUDY),
        [*flags, "--workdir", str(tmp_path / "run"), *more],
    )  # fmt: skip
    measure = recommendation_lists.measure

    def broken(found, options, seed, say):
        if seed == 1:
            raise OSError("the disk is full")
        return measure(found, options, seed, say)

    monkeypatch.setattr(recommendation_lists, "measure", broken)
    with pytest.raises(SystemExit):
        call()
    monkeypatch.setattr(recommendation_lists, "measure", measure)
    first = (tmp_path / "run" / "ratings-1.json").read_text()
    monkeypatch.setattr(recommendation_ratings, "measure", lambda *_: pytest.fail("measured again"))
    call("--resume")
    assert (tmp_path / "run" / "ratings-1.json").read_text() == first
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert {*recommendation_ratings.TITLES, "times"} == set(metrics["ratings"])
    assert {*recommendation_lists.TITLES, "told"} == set(metrics["lists"])
    errors = {row: np.mean(found["rmse"]) for row, found in metrics["ratings"].items() if "rmse" in found}
    assert errors["truth"] < errors["i_autorec_biases"] < errors["biases"] < errors["mean"]
    assert 0.5 < errors["truth"] < 0.7  # the deviation of the noise is 0.6
    gains = {row: np.mean(found["ndcg_100"]) for row, found in metrics["lists"].items() if "ndcg_100" in found}
    assert max(gains, key=gains.get) == "truth"
    assert (tmp_path / "run" / "figures" / "groups.png").is_file()
    assert "| EASE |" in capsys.readouterr().out
