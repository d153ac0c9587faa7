"""The rows of `retrieval`: what asks what, codes without a network, and codes of networks."""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from aejax import data, training
from aejax.checks import InputError, check_count, check_non_negative, check_positive, check_probability
from aejax.data import Batch
from aejax.evaluation import embed, retrieval
from aejax.hamming import cut, medians
from aejax.likelihoods import Weighted
from aejax.methods import semantic_hash, vdsh
from aejax.nets import MLP, init_params

WORDS, DOCUMENTS = 2000, "newsgroups20"
FIRST = 100  # of whose relevant share precision is
ROUNDS = 50  # of ITQ
SCALE = 10.0  # of tf-idf at length 1, so that a document counts as some ten to seventy events
_BLOCK = 512  # rows whose cosines with all others exist at a time


class Options(NamedTuple):
    """How the networks are trained."""

    hidden_dims: tuple[int, ...] = (500,)
    """Widths of the hidden layers of the encoders; the decoders are linear."""
    num_epochs: int = 200
    """Passes over the training part."""
    batch_size: int = 100
    """Examples per step."""
    lr: float = 3e-3
    """Learning rate of Adam."""
    dropout: float = 0.2
    """Share of the input that is lost."""
    noise: float = 1.0
    """Deviation of the noise on the inputs of the code units, of semantic hashing."""
    beta: float = 1.0
    """Weight of the KL term, of VDSH."""
    neighbours: int = 50
    """Of an example, by cosine, whose mean is decoded in its place."""
    own: float = 0.0
    """Weight of the example itself in what is decoded; its neighbours have the rest."""


class Asked(NamedTuple):
    """A database and the queries that are put to it; labels only score."""

    x: np.ndarray  # [N, D] float32: pixels, or tf-idf at length 1
    y: np.ndarray  # [N] int32
    queries: np.ndarray  # [Q, D] float32
    query_labels: np.ndarray  # [Q] int32
    counts: tuple[Any, Any] | None  # of words, database and queries: the frequent ones, as counts
    whole: tuple[Any, Any] | None  # of all words, sparse


def check(options: Options) -> None:
    """Refuses what cannot be trained."""
    counts = {name: getattr(options, name) for name in ("num_epochs", "batch_size", "neighbours")}
    check_count(**{f"--nets.{name.replace('_', '-')}": value for name, value in counts.items()})
    check_count(**{f"--nets.hidden-dims, layer {i}": width for i, width in enumerate(options.hidden_dims)})
    check_positive(**{"--nets.lr": options.lr})
    check_probability(**{"--nets.own": options.own, "--nets.dropout": options.dropout})
    check_non_negative(**{"--nets.noise": options.noise, "--nets.beta": options.beta})
    if options.dropout == 1:
        raise InputError("--nets.dropout is 1, which leaves nothing of the input; below 1 is needed.")


def tf_idf(counts: np.ndarray, known: np.ndarray, *, smooth: bool) -> np.ndarray:
    """`log(1 + count)` times how rare a word is, rows at length 1: `[N, W] -> [N, W]` float32.

    Args:
      counts: of words in the documents that are weighed.
      known: those of the training documents, of which n, and df with the word. Rare is `log(n / df)`.
      smooth: whether that is `1 + log((1 + n) / (1 + df))`, as in scikit-learn.
    """
    n, df = len(known), (known > 0).sum(axis=0)
    rare = 1 + np.log((1 + n) / (1 + df)) if smooth else np.log(n / np.maximum(df, 1))
    weighed = np.log1p(counts) * rare
    lengths = np.maximum(np.linalg.norm(weighed, axis=1, keepdims=True), 1e-12)
    return np.asarray(weighed / lengths, np.float32)


@cache
def asked(dataset: str, validate: bool, num_items: int, num_queries: int) -> Asked:
    """What is asked of which database; the same for all seeds.

    Args:
      dataset: `newsgroups20`, or images.
      validate: whether the last tenth of the training part asks the rest of it; else the test part asks all of it.
      num_items: the first of the training part, which are the database; 0 for all.
      num_queries: the first of those that ask; 0 for all.
    """
    loaded = data.flatten(data.load(dataset, validation=0.1 if validate else 0.0))
    known, asking = loaded.train, loaded.validation if validate else loaded.test
    assert asking is not None
    if known.y is None or asking.y is None:
        raise InputError(f"{dataset} has no labels in both parts, by which to score what is found.")
    few = slice(num_queries or None)
    items, y = known.x[: num_items or None], known.y[: num_items or None]
    queries, query_labels = asking.x[few], asking.y[few]
    if len(items) < FIRST:
        raise InputError(f"The database has {len(items)} examples of {dataset}; at least {FIRST} are needed.")
    if dataset != DOCUMENTS:
        data.check(items, "bernoulli", name=dataset)
        return Asked(items, y, queries, query_labels, None, None)
    x, asks = (tf_idf(counts, items, smooth=False) for counts in (items, queries))
    whole = None if validate or num_items else (data.load_documents(dataset), few)
    return Asked(x, y, asks, query_labels, (items, queries), whole)


def cosine(found: Asked) -> float:
    return retrieval.by_cosine(found.queries, found.x, found.query_labels, found.y, k=FIRST)


def cosine_smooth(found: Asked) -> float:
    assert found.counts is not None
    known, queries = found.counts
    x, asks = (tf_idf(counts, known, smooth=True) for counts in (known, queries))
    return retrieval.by_cosine(asks, x, found.query_labels, found.y, k=FIRST)


def cosine_whole(found: Asked) -> float:
    """All words, stop words too, `1 + log(count)` and the smooth weights: as scikit-learn has them."""
    from sklearn.feature_extraction.text import TfidfTransformer

    assert found.whole is not None
    whole, few = found.whole
    weigh = TfidfTransformer(sublinear_tf=True).fit(whole.train)
    known, asks = weigh.transform(whole.train), weigh.transform(whole.test[few])
    return retrieval.by_cosine(asks, known, whole.test_labels[few], whole.train_labels, k=FIRST)


Codes = tuple[np.ndarray, np.ndarray]  # bits of the database and of the queries


def lsa(found: Asked, num_bits: int, seed: int, options: Options) -> Codes:
    """The largest singular vectors, not centred, cut at the medians."""
    return _lsa(found.x, found.queries, num_bits)


def lsa_smooth(found: Asked, num_bits: int, seed: int, options: Options) -> Codes:
    assert found.counts is not None
    known, queries = found.counts
    return _lsa(tf_idf(known, known, smooth=True), tf_idf(queries, known, smooth=True), num_bits)


def _lsa(x: np.ndarray, queries: np.ndarray, num_bits: int) -> Codes:
    axes = _axes(x, num_bits)
    z, asks = x @ axes, queries @ axes
    return cut(z, medians(z)), cut(asks, medians(z))


def _axes(x: np.ndarray, num_bits: int) -> np.ndarray:
    """The eigenvectors of `x'x` of largest eigenvalue: `[N, D] -> [D, num_bits]`."""
    from scipy.linalg import eigh

    dim = x.shape[1]
    return eigh(x.T @ x, subset_by_index=(dim - num_bits, dim - 1))[1][:, ::-1]


def pca_sign(found: Asked, num_bits: int, seed: int, options: Options) -> Codes:
    """Signs of the largest principal components."""
    x, queries = found.x - found.x.mean(axis=0), found.queries - found.x.mean(axis=0)
    axes = _axes(x, num_bits)
    return x @ axes > 0, queries @ axes > 0


def itq(found: Asked, num_bits: int, seed: int, options: Options) -> Codes:
    """Signs of these after a rotation that brings them near to the corners of a cube (Gong & Lazebnik, CVPR 2011)."""
    x, queries = found.x - found.x.mean(axis=0), found.queries - found.x.mean(axis=0)
    axes = _axes(x, num_bits)
    return _rotated(x @ axes, queries @ axes, seed)


def itq_near(found: Asked, num_bits: int, seed: int, target: np.ndarray) -> Codes:
    """ITQ of what a ridge regression on x says of the principal components of the targets.

    The ridge is the mean eigenvalue of `x'x`.
    """
    x, queries = found.x - found.x.mean(axis=0), found.queries - found.x.mean(axis=0)
    target = target - target.mean(axis=0)
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += np.trace(gram) / len(gram)
    weights = np.linalg.solve(gram, x.T @ (target @ _axes(target, num_bits)))
    return _rotated(x @ weights, queries @ weights, seed)


def _rotated(v: np.ndarray, queries: np.ndarray, seed: int) -> Codes:
    num_bits = v.shape[1]
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(num_bits, num_bits)))[0]
    for _ in range(ROUNDS):
        left, _, right = np.linalg.svd(v.T @ np.sign(v @ rotation))
        rotation = left @ right
    return v @ rotation > 0, queries @ rotation > 0


def hyperplanes(found: Asked, num_bits: int, seed: int, options: Options) -> Codes:
    """Signs of random projections of the centred data (Charikar, STOC 2002)."""
    normal = np.random.default_rng(seed).normal(size=(found.x.shape[1], num_bits)).astype(np.float32)
    mean = found.x.mean(axis=0)
    return (found.x - mean) @ normal > 0, (found.queries - mean) @ normal > 0


def neighbour_means(x: np.ndarray, k: int) -> np.ndarray:
    """The mean of the k nearest others of each row, by cosine, k below N: `[N, D] -> [N, D]`."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    unit, means = x / np.maximum(lengths, 1e-12), np.empty_like(x)
    for start in range(0, len(x), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(x)))
        near = unit[rows] @ unit.T
        near[np.arange(len(rows)), rows] = -np.inf
        means[rows] = x[np.argpartition(-near, k - 1, axis=1)[:, :k]].mean(axis=1)
    return means


def targets(found: Asked, means: np.ndarray, options: Options) -> np.ndarray:
    """What is decoded: the mean of the neighbours, and `own` of the example itself."""
    return options.own * found.x + (1 - options.own) * means


@lru_cache(maxsize=1)
def _means(k: int, *what: Any) -> np.ndarray:
    return neighbour_means(asked(*what).x, k)


def net(name: str, found: Asked, num_bits: int, seed: int, options: Options, target: np.ndarray | None) -> Codes:
    """The bits of a trained network, cut at the medians of the database."""
    dim, of_words = found.x.shape[1], found.counts is not None
    knobs: dict[str, Any] = {"lr": options.lr, "dropout": options.dropout}
    likelihood: Any = Weighted() if of_words or name == "vdsh" else "bernoulli"
    fields: dict[str, Any] = {"hidden_dims": options.hidden_dims, "likelihood": likelihood}
    if name == "vdsh":
        model: Any = vdsh.VDSH.dense(dim, num_bits, **fields)
        algo = vdsh.vdsh(model, beta=options.beta, **knobs)
    else:
        model = semantic_hash.SemanticHash.dense(dim, num_bits, **fields).clone(decoder=MLP((dim,)))
        algo = semantic_hash.semantic_hash(model, noise=options.noise, **knobs)
    scale = np.float32(SCALE if of_words else 1)
    batch = Batch(scale * found.x, None if target is None else scale * target)
    init_key, train_key = jax.random.split(jax.random.key(seed))
    state = algo.init(init_params(model, init_key, batch.x[:1]))
    sizes: dict[str, Any] = {"batch_size": min(options.batch_size, len(found.x)), "num_epochs": options.num_epochs}
    for chunk in training.train(algo, state, batch, train_key, **sizes):
        state = chunk.state
    z, asks = (embed(model, state.params, x) for x in (batch.x, scale * found.queries))
    return cut(z, medians(z)), cut(asks, medians(z))


def scored(found: Asked, codes: Codes) -> dict[str, Any]:
    """`precision` of the first 100, and by radius `ball`, precision, and `empty`, the share that finds nothing."""
    known, queries = codes
    labels = found.query_labels, found.y
    balls = retrieval.balls(queries, known, *labels)
    return {
        "precision": retrieval.by_bits(queries, known, *labels, k=FIRST),
        "ball": [each.precision for each in balls],
        "recall": [each.recall for each in balls],
        "empty": [each.empty for each in balls],
    }


REAL: dict[str, Callable[[Asked], float]] = {
    "cosine_smooth": cosine_smooth, "cosine_whole": cosine_whole, "cosine": cosine,
}  # fmt: skip
LINEAR: dict[str, Callable[[Asked, int, int, Options], Codes]] = {
    "lsa_smooth": lsa_smooth, "lsa": lsa, "pca_sign": pca_sign, "itq": itq, "hyperplanes": hyperplanes,
}  # fmt: skip
NETS = ("semantic_hash", "vdsh", "semantic_hash_near", "vdsh_near")
NEAR = ("itq_near", "semantic_hash_near", "vdsh_near")  # that are told the neighbours
OF_WORDS = ("cosine_smooth", "cosine_whole", "lsa_smooth")


def measure(
    row: str, what: tuple[Any, ...], seed: int, bits: tuple[int, ...], options: Options, say: Callable[[str], None]
) -> dict[str, Any]:
    """Of a row: `cosine`, or by number of bits what `scored` says; `what` are the arguments of `asked`."""
    found = asked(*what)
    if row in REAL:
        return {"cosine": REAL[row](found)}
    target = None
    if row in NEAR:
        say("neighbours")
        target = targets(found, _means(options.neighbours, *what), options)
    results = {}
    for num_bits in bits:
        say(f"{num_bits} bits")
        if row in LINEAR:
            codes = LINEAR[row](found, num_bits, seed, options)
        elif row == "itq_near":
            assert target is not None
            codes = itq_near(found, num_bits, seed, target)
        else:
            codes = net(row.removesuffix("_near"), found, num_bits, seed, options, target)
        results[str(num_bits)] = scored(found, codes)
    return results
