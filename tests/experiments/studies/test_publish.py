"""Every published table is that of its published runs."""

import json
from importlib import import_module
from pathlib import Path

import pytest
from small_run import contents

from aejax.checks import InputError
from experiments.studies import deep_ae, publish

PAGES = "".join(page.read_text() for page in publish.DOCS.glob("*.md"))
MARKED = [line for line in PAGES.splitlines() if line.startswith("<!-- ") and line.endswith("experiments publish -->")]
STUDIES = list(Path(publish.__file__).parent.glob("*.py"))
NAMES = [line.split()[1].rstrip(":") for line in MARKED]
SUMMARY = {
    "experiment": "deep_ae", "dataset": "mnist", "hidden_dims": [9], "latent_dim": 30,
    "environment": {"commit": "1a2b3c4"},
    "metrics": {
        "deep": {"train_sse": [1.0], "test_sse": [2.0], "seconds": [3.0]},
        "pca": {"train_sse": [4.0], "test_sse": [5.0]},
    },
}  # fmt: skip

PUBLISHED = {
    "experiment": "bounds", "dataset": "mnist", "num_epochs": 3, "hidden_dims": [9], "latent_dim": 2, "validation": 0.0,
    "nll_samples": 2,
}  # fmt: skip
MEASURED = {"test_l1_nats": [90.0], "nll_ess": [1.5], "active_units": [2]}


@pytest.mark.parametrize("name", NAMES)
def test_a_published_table_is_that_of_its_summary(name):
    summary = json.loads((publish.DOCS / f"{name}.json").read_text())
    start, end = publish.marks(name)
    study = max((path.stem for path in STUDIES if f"{name}_".startswith(f"{path.stem}_")), key=len)
    of_the_set = f"{study}_{summary['dataset']}_" if "dataset" in summary else f"{study}_"
    assert name == study or f"{name}_".startswith(of_the_set)
    assert PAGES.split(start)[1].split(end)[0] == import_module(f"experiments.studies.{study}").table(summary)
    assert {"date", "environment"} <= set(summary)


def test_what_is_published_replaces_what_was_there(tmp_path):
    run, docs = tmp_path / "run", tmp_path / "docs"
    (run / "figures").mkdir(parents=True)
    docs.mkdir()
    start, end = publish.marks("deep_ae")
    (docs / "another.md").write_text("no marks\n")
    (docs / "classical.md").write_text(f"before\n{start}old\n{end}after\n")
    (run / "figures" / "reconstructions.png").write_bytes(b"picture")
    with pytest.raises(InputError, match="no finished study"):
        publish.publish(run, docs=docs)
    (run / "summary.json").write_text(json.dumps(SUMMARY))
    with pytest.raises(InputError, match=r"There is no .*filters\.png"):
        publish.publish(run, ("filters",), docs)
    assert not (docs / "deep_ae.json").exists()
    for _ in range(2):
        publish.publish(run, ("reconstructions",), docs)
    assert (docs / "classical.md").read_text() == f"before\n{start}{deep_ae.table(SUMMARY)}{end}after\n"
    assert json.loads((docs / "deep_ae.json").read_text()) == SUMMARY
    assert (docs / "deep_ae_reconstructions.png").read_bytes() == b"picture"
    (docs / "classical.md").rename(docs / "deep.md")  # a page of its own
    (docs / "deep.md").write_text(f"{start}old\n{end}")
    publish.publish(run, docs=docs)
    assert (docs / "deep.md").read_text() == f"{start}{deep_ae.table(SUMMARY)}{end}"
    start, end = marks_of_a_set = publish.marks("deep_ae_faces")
    (docs / "faces.md").write_text("".join(marks_of_a_set))
    (run / "summary.json").write_text(json.dumps(SUMMARY | {"dataset": "faces"}))
    publish.publish(run, docs=docs)
    assert (docs / "faces.md").read_text() == f"{start}{deep_ae.table(SUMMARY | {'dataset': 'faces'})}{end}"
    assert json.loads((docs / "deep_ae.json").read_text()) == SUMMARY
    before = contents(docs)
    for changed, message in (
        ({"environment": {"commit": "1a2b3c4-dirty"}}, "the commit 1a2b3c4-dirty"),
        ({"environment": {"commit": None}}, "the commit None"),
        ({"dataset": "digits"}, "A run on mnist is published, and this one is on digits"),
    ):
        (run / "summary.json").write_text(json.dumps(SUMMARY | changed))
        with pytest.raises(InputError, match=message):
            publish.publish(run, docs=docs)
    assert contents(docs) == before
    (run / "summary.json").write_text(json.dumps(SUMMARY))
    (docs / "deep.md").write_text("nothing\n")
    with pytest.raises(InputError, match="has a place for deep_ae"):
        publish.publish(run, docs=docs)


def test_a_second_table_on_a_set_has_marks_that_are_asked_for(tmp_path):
    start, end = publish.marks("deep_ae_mnist_wide")
    first = "".join(publish.marks("deep_ae_mnist"))
    (tmp_path / "page.md").write_text(first + start + end)
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    publish.publish(tmp_path, docs=tmp_path, place="deep_ae_mnist_wide")
    assert (tmp_path / "page.md").read_text() == first + start + deep_ae.table(SUMMARY) + end
    assert json.loads((tmp_path / "deep_ae_mnist_wide.json").read_text()) == SUMMARY
    for place in ("wide", "deep_ae_mnist", "deep_ae_faces_wide"):  # the last is of another set
        with pytest.raises(InputError, match="begins with deep_ae_mnist_"):
            publish.publish(tmp_path, docs=tmp_path, place=place)
    with pytest.raises(InputError, match="has a place for deep_ae_mnist_narrow: the lines <!-- deep_ae_mnist_narrow:"):
        publish.publish(tmp_path, docs=tmp_path, place="deep_ae_mnist_narrow")


def test_seeds_and_rows_of_a_further_run_join_those_that_are_published(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    start, end = publish.marks("bounds_mnist")
    (docs / "variational.md").write_text(f"{start}{end}")

    def publish_run(commit, seed, metrics, add, **changed):
        run = tmp_path / f"{commit}"
        run.mkdir(exist_ok=True)
        own = {"rows": [*metrics], "seed": seed, "num_seeds": 1, "date": f"day {seed}", "metrics": metrics}
        own |= {"environment": {"commit": commit}}
        (run / "config.json").write_text(json.dumps({"data_digest": changed.pop("data_digest", "one")}))
        (run / "summary.json").write_text(json.dumps(PUBLISHED | own | changed))
        publish.publish(run, docs=docs, add=add)

    vae, iwae = ({"test_nll_nats": [nats], "seconds": [9.0], **MEASURED} for nats in (87.0, 86.0))
    with pytest.raises(InputError, match="Nothing is published yet"):
        publish_run("a1", 0, {"vae_1": vae}, add=True)
    publish_run("a1", 0, {"vae_1": vae}, add=False)
    publish_run("b2", 1, {"vae_1": vae | {"test_nll_nats": [88.0]}}, add=True)
    publish_run("c3", 0, {"iwae_5": iwae}, add=True)
    found = json.loads((docs / "bounds_mnist.json").read_text())
    assert found["metrics"]["vae_1"]["test_nll_nats"] == [87.0, 88.0]
    assert found["metrics"]["iwae_5"]["test_nll_nats"] == [86.0]
    assert (found["rows"], found["seed"], found["num_seeds"]) == (["vae_1", "iwae_5"], 0, 2)
    parts = [(part["environment"]["commit"], part["rows"], part["seeds"]) for part in found["parts"]]
    assert parts == [("a1", ["vae_1"], [0]), ("b2", ["vae_1"], [1]), ("c3", ["iwae_5"], [0])]
    assert "| 87.50 ± 0.71 |" in (docs / "variational.md").read_text()
    more = iwae | {"test_nll_nats": [85.0]}
    again = iwae | {"seconds": [7.0]}
    publish_run("c4", 0, {"iwae_5": again, "iwae_50": more}, add=True)  # the same again, beside a new row
    found = json.loads((docs / "bounds_mnist.json").read_text())
    assert found["metrics"]["iwae_5"]["test_nll_nats"] == [86.0]
    assert found["metrics"]["iwae_50"]["test_nll_nats"] == [85.0]
    assert found["parts"][-1]["rows"] == ["iwae_50"]
    before = contents(docs)
    with pytest.raises(InputError, match=r"Published are seeds \[0\] of iwae_50"):
        publish_run("c5", 0, {"iwae_50": more}, add=True)  # nothing new
    with pytest.raises(InputError, match=r"Published are seeds \[1\] of vae_1"):
        publish_run("d4", 1, {"vae_1": vae, "iwae_5": iwae}, add=True)
    with pytest.raises(InputError, match="differs from what is published in num_epochs; leave out --add"):
        publish_run("e5", 2, {"vae_1": vae}, add=True, num_epochs=9)
    with pytest.raises(InputError, match="differs from what is published in data_digest"):
        publish_run("f6", 2, {"vae_1": vae}, add=True, data_digest="another")
    with pytest.raises(InputError, match="leave them out with --add"):
        publish.publish(tmp_path / "e5", ("bounds",), docs, add=True)
    assert contents(docs) == before
    publish_run("e5", 2, {"vae_1": vae}, add=False, num_epochs=9)
    assert json.loads((docs / "bounds_mnist.json").read_text())["metrics"] == {"vae_1": vae}


def test_a_further_seed_with_the_values_of_another_is_added_all_the_same():
    one = {"experiment": "bounds", "seed": 0, "num_seeds": 1, "rows": ["a"], "metrics": {"a": {"m": [1.0]}}}
    one |= {"date": "today", "environment": {"commit": "a1"}}
    both = publish.added({**one, "seed": 1}, one)
    assert both["metrics"] == {"a": {"m": [1.0, 1.0]}}
    assert [part["seeds"] for part in both["parts"]] == [[0], [1]]


def test_counts_name_the_rows_of_a_study_without_rows():
    one = {"experiment": "few_labels_aae", "seed": 0, "num_seeds": 1, "date": "today", "environment": {"commit": "a1"}}
    few = {**one, "num_labels": [100], "num_clusters": [16], "metrics": {"labels_100": {"m": [1.0]}}}
    more = {**one, "num_labels": [], "num_clusters": [16, 30], "metrics": {"clusters_30": {"m": [2.0]}}}
    both = publish.added(more, few)
    assert (both["num_labels"], both["num_clusters"]) == ([100], [16, 30])
    assert both["metrics"] == {"labels_100": {"m": [1.0]}, "clusters_30": {"m": [2.0]}}
    with pytest.raises(InputError, match="differs from what is published in num_labels"):  # rows of another study
        publish.added(*({**one, "experiment": "semi_supervised"} for one in (more, few)))


def test_a_second_table_of_a_study_without_a_set(tmp_path):
    summary = json.loads((publish.DOCS / "modes.json").read_text())
    start, end = publish.marks("modes_random")
    (tmp_path / "page.md").write_text(start + end)
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    publish.publish(tmp_path, docs=tmp_path, place="modes_random")
    assert json.loads((tmp_path / "modes_random.json").read_text()) == summary
    with pytest.raises(InputError, match="begins with modes_"):
        publish.publish(tmp_path, docs=tmp_path, place="random")
    with pytest.raises(InputError, match="more than one table of rows; leave out --add"):
        publish.publish(tmp_path, docs=tmp_path, place="modes_random", add=True)
