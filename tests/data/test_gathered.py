"""Sets in the folder AEJAX_DATA, in the layouts in which they are handed around."""

import numpy as np
import pytest

from aejax import data
from aejax.checks import InputError
from aejax.data import gathered


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the sets, of few examples: pixel i of image n of a split is lit where n has bit i."""
    monkeypatch.setenv("AEJAX_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))

    def save(name, **arrays):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / f"{name}.npz", **arrays)

    bits = (np.arange(20)[:, None] >> np.arange(784) % 32) & 1
    packed = np.packbits(bits.astype(np.uint8), axis=1)
    save("binarized_mnist", train=packed[:12], valid=packed[12:15], test=packed[15:])
    grey = np.arange(6, dtype=np.uint8)[:, None, None] * np.full((1, 28, 28), 51, np.uint8)
    save("omniglot28", x_train=grey[:4], y_train=np.arange(4, dtype=np.uint16), x_test=grey[4:], y_test=np.arange(2))
    log_means = np.random.default_rng(1).normal(-1, 1.5, (30, 8)) + np.linspace(0, 2.4, 8)  # the largest vary least
    counts = np.random.default_rng(0).poisson(np.exp(log_means))
    counts[:, 5] = counts[:, 0] = counts[3] = 0  # two genes and a cell without a count
    indptr = np.r_[0, np.cumsum(np.count_nonzero(counts, axis=1))].astype(np.uint32)
    csr = {"indices": np.nonzero(counts)[1].astype(np.uint16), "counts": counts[counts > 0].astype(np.uint16)}
    save("worm_neurons", shape=np.array([30, 8]), indptr=indptr, **csr, labels=(np.arange(30) % 10).astype(np.uint8))
    np.save(tmp_path / "counts.npy", counts)
    return tmp_path


def which(part):
    """Which of the images a split holds."""
    return (part.x.reshape(len(part.x), -1)[:, :10] @ (2 ** np.arange(10))).astype(int).tolist()


def test_binarised_mnist_has_its_own_three_splits(folder):
    loaded = data.load("binarized_mnist")
    assert loaded.train.x.shape == (12, 28, 28, 1)
    assert loaded.name == "binarized_mnist"
    assert sorted(which(loaded.train)) == list(range(12))
    assert which(loaded.train) != list(range(12))  # the file is sorted by class
    assert which(loaded.validation) == [12, 13, 14]
    assert which(loaded.test) == [15, 16, 17, 18, 19]
    assert loaded.train.y is None
    assert data.load("binarized_mnist", validation=0.0).validation is None


def test_omniglot_is_scaled_and_has_no_classes(folder):
    loaded = data.load("omniglot28", validation=0.25)
    assert sorted(loaded.train.x.max(axis=(1, 2, 3)).tolist() + loaded.validation.x.max(axis=(1, 2, 3)).tolist()) == [
        np.float32(i / 5) for i in range(4)
    ]
    np.testing.assert_array_equal(loaded.test.x[:, 3, 4, 0], np.float32([0.8, 1.0]))
    assert loaded.train.y is loaded.test.y is None


def test_every_character_is_in_both_parts_where_drawings_are_split(folder):
    """Image n, whose pixels are its bits, is drawing `n mod 20` of character `n // 20`; characters come in turn."""
    images = ((np.arange(60)[:, None] >> np.arange(784) % 32) & 1).astype(np.uint8).reshape(60, 28, 28)
    order = np.arange(60).reshape(3, 20).T.ravel()
    first, last = order[order < 40], order[order >= 40]

    def save(last):
        parts = {"train": first, "test": last}
        arrays = {f"x_{name}": images[rows] for name, rows in parts.items()}
        arrays |= {f"y_{name}": rows // 20 for name, rows in parts.items()}
        np.savez(folder / "omniglot28" / "omniglot28.npz", **arrays)

    save(last)
    loaded = data.load("omniglot28_drawings", validation=0.0)
    for part, wanted in ((loaded.train, range(15)), (loaded.test, range(15, 20))):
        assert part.x.shape == (3 * len(wanted), 28, 28, 1)
        assert sorted(which(part)) == [20 * character + i for character in range(3) for i in wanted]
        assert part.y is None
    save(last[1:])
    with pytest.raises(InputError, match="its characters do not have 20 drawings each"):
        data.load("omniglot28_drawings")
    (folder / "omniglot28" / "omniglot28.npz").unlink()
    with pytest.raises(InputError, match=r"'omniglot28_drawings' is not in .* Put omniglot28/omniglot28.npz there"):
        data.load("omniglot28_drawings")


def test_counts_are_the_genes_that_vary_most_in_that_order(folder, monkeypatch):
    counts = np.load(folder / "counts.npy")
    library = counts.sum(axis=1, keepdims=True)
    variance = np.log1p(1e4 * counts / np.maximum(library, 1)).var(axis=0)
    assert np.sort(variance)[2] > np.sort(variance)[1] == 0  # two genes without a count
    for kept in (5, 2000):
        monkeypatch.setattr(gathered, "_GENES", kept)
        wanted = counts[:, np.argsort(-variance, kind="stable")[:kept]]
        loaded = data.load("worm_neurons")
        parts = (loaded.train, loaded.validation, loaded.test)
        found = np.concatenate([np.c_[part.x, part.y] for part in parts])
        assert sorted(found.tolist()) == sorted(np.c_[wanted, np.arange(30) % 10].tolist())
        assert loaded.train.x.dtype == np.float32


def test_documents_keep_the_words_that_are_most_frequent_where_they_train(folder, monkeypatch):
    """`the` stops nothing; `rocket` is the most frequent word of the test part, and the third of the other."""
    words = ["the", "orbit", "rocket", "goalie", "modem", "disk"]
    train = np.array([[9, 3, 1, 0, 1, 0], [9, 0, 1, 2, 0, 0], [0, 0, 0, 2, 0, 0]] * 4)
    test = np.array([[2, 0, 7, 1, 0, 3], [0, 0, 0, 0, 0, 0]])
    arrays = {"vocab": np.frombuffer("\n".join(words).encode(), np.uint8), "label_names": np.array(["space", "ice"])}
    for part, counts in (("train", train), ("test", test)):
        arrays[f"{part}_indptr"] = np.r_[0, np.cumsum((counts > 0).sum(axis=1))].astype(np.uint32)
        arrays[f"{part}_indices"] = np.nonzero(counts)[1].astype(np.uint16)
        arrays[f"{part}_counts"] = counts[counts > 0].astype(np.uint16)
        arrays[f"{part}_labels"] = np.arange(len(counts), dtype=np.uint8) % 3
    (folder / "newsgroups20").mkdir()
    np.savez(folder / "newsgroups20" / "newsgroups20.npz", **arrays)
    whole = data.load_documents("newsgroups20")
    np.testing.assert_array_equal(whole.train.toarray(), train)
    np.testing.assert_array_equal(whole.test.toarray(), test)
    assert whole.words.tolist() == words
    monkeypatch.setattr(gathered, "_WORDS", 3)
    loaded = data.load("newsgroups20", validation=0.25)
    chosen = [words.index(word) for word in ("goalie", "orbit", "rocket")]  # 16, 12 and 8 times
    np.testing.assert_array_equal(loaded.test.x, test[:, chosen])
    both = np.concatenate([np.c_[part.x, part.y] for part in (loaded.train, loaded.validation)])
    assert sorted(both.tolist()) == sorted(np.c_[train[:, chosen], np.arange(12) % 3].tolist())
    assert len(loaded.validation.x) == 3
    assert loaded.image_shape is None
    with pytest.raises(InputError, match="Did you mean 'newsgroups20'"):
        data.load_documents("newsgroups")


def test_other_content_has_another_digest(folder):
    before = data.digest("omniglot28")
    assert before != data.digest("binarized_mnist")
    assert data.load("omniglot28").train.x.shape[1:] == (28, 28, 1)


def test_what_is_not_there_says_where_it_belongs(folder, monkeypatch):
    path = folder / "binarized_mnist" / "binarized_mnist.npz"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"cannot be read .* Copy it again"):
        data.load("binarized_mnist")
    path.unlink()
    np.savez(path, train=np.zeros((1, 98), np.uint8))
    with pytest.raises(InputError, match=r"binarized_mnist.npz cannot be read .*valid"):
        data.load("binarized_mnist")
    path.unlink()
    with pytest.raises(InputError, match=r"'binarized_mnist' is not in .*aejax.data prepare binarized_mnist"):
        data.load("binarized_mnist")
    monkeypatch.delenv("AEJAX_DATA")
    with pytest.raises(InputError, match=r"looked for in the folder AEJAX_DATA, which is not set. Put omniglot28/omni"):
        data.load("omniglot28")
