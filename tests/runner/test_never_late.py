"""Nothing is refused after training that could have been before: a run is refused at once, or ends with a summary."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_run import read

from experiments import ae, cvae, dae, vae

EXPERIMENTS = {"ae": ae, "cvae": cvae, "dae": dae, "vae": vae}
LABELS = {
    "none": lambda n, rng: None,
    "one kind": lambda n, rng: np.zeros(n, np.int64),
    "all different": lambda n, rng: rng.permutation(n),
    "three": lambda n, rng: rng.integers(0, 3, n),
    "negative": lambda n, rng: rng.integers(-1, 2, n),
    "far": lambda n, rng: np.where(rng.random(n) < 0.1, 10**6, 1),
    "columns": lambda n, rng: rng.integers(0, 3, (n, 1)),
    "bool": lambda n, rng: rng.random(n) < 0.5,
}
VALUES = {
    "unit": lambda size, rng: rng.random(size),
    "zero": lambda size, rng: np.zeros(size),
    "binary": lambda size, rng: rng.random(size) < 0.2,
    "bytes": lambda size, rng: rng.integers(0, 256, size),
    "standard": lambda size, rng: rng.normal(size=size),
    "large": lambda size, rng: 1e4 * rng.normal(size=size),
    "tiny": lambda size, rng: 1e-30 * rng.random(size),
}
SHAPES = st.one_of(
    st.tuples(st.integers(1, 40)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6)),
)


@st.composite
def cases(draw):
    files = {
        "shape": draw(SHAPES), "size": draw(st.integers(1, 60)), "test": draw(st.none() | st.integers(1, 20)),
        "values": draw(st.sampled_from(sorted(VALUES))), "labels": draw(st.sampled_from(sorted(LABELS))),
        "dtype": draw(st.sampled_from(["float32", "float64", "uint8", "int32", "bool", "float16"])),
        "seed": draw(st.integers(0, 3)),
    }  # fmt: skip
    flags = {
        "--likelihood": draw(st.sampled_from(["bernoulli", "gaussian", "continuous_bernoulli"])),
        "--net": draw(st.sampled_from(["dense", "dense", "conv"])),
        "--latent-dim": draw(st.integers(1, 5)),
        "--batch-size": draw(st.sampled_from([1, 4, 16])),
        "--validation": draw(st.sampled_from([0.0, 0.1, 0.5])),
        "--num-epochs": 1,
    }
    if flags["--net"] == "dense":
        flags["--hidden-dims"] = draw(st.sampled_from([3, 8]))
    return draw(st.sampled_from(sorted(EXPERIMENTS))), files, flags


def write(files):
    rng = np.random.default_rng(files["seed"])
    parts = {"": files["size"]} | ({"_test": files["test"]} if files["test"] else {})
    arrays = {}
    with np.errstate(all="ignore"):
        for part, size in parts.items():
            arrays[f"x{part}"] = VALUES[files["values"]]((size, *files["shape"]), rng).astype(files["dtype"])
            arrays[f"y{part}"] = LABELS[files["labels"]](size, rng)
    np.savez("case.npz", **{name: array for name, array in arrays.items() if array is not None})


def check(call, case):
    name, files, flags = case
    for left in ("run", "case.npz"):
        shutil.rmtree(left, ignore_errors=True)
    write(files)
    if flags.get("--net") == "conv":
        flags = flags | {"--hidden-dims": "256 64"}  # as by default, where convolutions take none
    words = " ".join(f"{flag} {value}" for flag, value in flags.items()).split()
    outcome = call(
        "--dataset", "case.npz", "--workdir", "run", *words, experiment=EXPERIMENTS[name].EXPERIMENT
    )  # fmt: skip
    lines = Path("run/metrics.jsonl")
    if outcome.code == 2:
        assert outcome.err.startswith("error: ")
        assert "\n" not in outcome.err.strip()
        assert not Path("run").exists()  # nothing was begun
    elif outcome.code == 1:
        assert "not finite" in outcome.err or "NaN" in outcome.err  # diverged, and said so
    else:
        summary = read(Path("run/summary.json"))
        assert len(lines.read_text().splitlines()) >= 1
        assert "metrics" not in summary.get("notes", {})
    return outcome


@pytest.mark.slow
@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_a_run_is_refused_at_once_or_ends_with_a_summary(call, case):
    check(call, case)


PLAIN = {"shape": (5,), "size": 40, "test": None, "values": "unit", "labels": "three", "dtype": "float32", "seed": 0}
FLAGS = {"--hidden-dims": 3, "--latent-dim": 2, "--batch-size": 4, "--num-epochs": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "files", "flags", "code"),
    [
        ("vae", {"size": 14}, {}, 0),  # one test example, and twelve others
        # Images of which one pair can be walked between.
        pytest.param("vae", {"shape": (8, 8), "size": 20}, {}, 0, marks=pytest.mark.slow),
        pytest.param("ae", {"shape": (1, 50, 1)}, {"--net": "conv"}, 0, marks=pytest.mark.slow),
        ("ae", {"labels": "one kind"}, {}, 0),
        ("ae", {"shape": (4, 4, 6)}, {}, 0),
        pytest.param(
            "ae", {"values": "standard", "shape": (4, 4, 3)}, {"--likelihood": "gaussian"}, 0, marks=pytest.mark.slow
        ),
        pytest.param("ae", {"labels": "all different"}, {}, 0, marks=pytest.mark.slow),
        ("cvae", {"labels": "far"}, {}, 2),
        ("ae", {"labels": "columns"}, {}, 0),
        ("ae", {"size": 2}, {}, 2),
    ],
)
def test_cases_that_were_refused_late_once(call, name, files, flags, code):
    assert check(call, (name, PLAIN | files, FLAGS | flags)).code == code
