"""Documents as counts of words: the layout in which 20 Newsgroups is handed around, and its most frequent words."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from aejax import extras
from aejax.checks import check_count


class Documents(NamedTuple):
    """Counts of words in two parts, sparse, and a label for each document."""

    train: Any  # [N, W] scipy.sparse.csr_matrix of float32, whole numbers
    train_labels: np.ndarray  # [N] int32
    test: Any  # [M, W], likewise
    test_labels: np.ndarray  # [M] int32
    words: np.ndarray  # [W] str
    label_names: np.ndarray  # [K] str


def documents(arrays: Mapping[str, np.ndarray]) -> Documents:
    """Of the arrays of the file: `train_indptr`, `train_indices`, `train_counts`, `train_labels`, and so for `test`.

    `vocab` holds the bytes of all words, with a line feed between two; `label_names` the names.
    """
    from scipy.sparse import csr_matrix

    words = np.array(arrays["vocab"].tobytes().decode("latin1").split("\n"))

    def part(name: str) -> tuple[Any, np.ndarray]:
        counts, indices, indptr = (arrays[f"{name}_{each}"] for each in ("counts", "indices", "indptr"))
        csr = counts.astype(np.float32), indices.astype(np.int32), indptr.astype(np.int32)
        return csr_matrix(csr, shape=(len(indptr) - 1, len(words))), arrays[f"{name}_labels"].astype(np.int32)

    return Documents(*part("train"), *part("test"), words, arrays["label_names"])


def frequent(found: Documents, num_words: int) -> Documents:
    """With the words alone that are most frequent in the training part, the first the most; without stop words.

    Stop words are those of scikit-learn, "ENGLISH_STOP_WORDS".

    Args:
      found: documents.
      num_words: how many words; all but stop words where there are fewer.

    Raises:
      InputError: fewer than one word; scikit-learn is not there.
    """
    check_count(num_words=num_words)
    extras.need("The list of stop words", "sklearn", extra="data")
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    counts = np.asarray(found.train.sum(axis=0)).ravel()
    is_stop = np.isin(found.words, list(ENGLISH_STOP_WORDS))
    order = np.argsort(-counts, kind="stable")
    chosen = order[~is_stop[order]][:num_words]
    return found._replace(train=found.train[:, chosen], test=found.test[:, chosen], words=found.words[chosen])
