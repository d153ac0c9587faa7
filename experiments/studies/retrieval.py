"""Retrieval by bits: semantic hashing and VDSH beside tf-idf, LSA, PCA signs, ITQ and random hyperplanes.

The test part asks, the training part is the database, and what is found is relevant where it has the label of the
query; no row is trained on a label. Precision is that of the first 100 by Hamming distance, ties counted by their
expectation; and that within 2 bits, where a query that finds nothing counts as 0. `--validate` asks with the last tenth
of the training part instead: by that the options of the networks were chosen on 20 Newsgroups at 32 bits, which is all
that labels decided; the linear rows have none to choose. Passes and dropout of each run are in its command.

Documents are weighed by `log(1 + count) log(n / df)`, at length 1; images are pixels. The rows with neighbours decode,
in place of an example, the mean of its nearest by cosine, in the space of the input, among the training part. ITQ with
neighbours is the same without a network: ridge regression on x of the principal components of these means, then ITQ.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from aejax.checks import InputError, check_count
from aejax.runner import study
from aejax.runner.pieces import Found, Piece, PiecedStudy, check_rows, main
from experiments.studies import retrieval_rows
from experiments.studies.retrieval_rows import DOCUMENTS, NEAR, NETS, OF_WORDS, Options

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "cosine_whole": "tf-idf of all words, cosine",
    "cosine_smooth": "tf-idf, smooth, cosine",
    "cosine": "cosine",
    "lsa_smooth": "LSA of smooth tf-idf, medians",
    "lsa": "LSA, medians",
    "pca_sign": "PCA, signs",
    "itq": "ITQ",
    "itq_near": "ITQ, neighbours",
    "hyperplanes": "random hyperplanes",
    "semantic_hash": "semantic hashing",
    "vdsh": "VDSH",
    "semantic_hash_near": "semantic hashing, neighbours",
    "vdsh_near": "VDSH, neighbours",
}
SEEDED = ("itq", "itq_near", "hyperplanes", *NETS)
RADIUS = 2
_DRAWN = 32  # bits, of the second panel, where they were measured


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits; a prepared image set with labels, such as mnist; or newsgroups20 in AEJAX_DATA."""
    rows: tuple[str, ...] = ()
    """Rows of the table; all that the set allows by default."""
    bits: tuple[int, ...] = (8, 16, 32, 64)
    """Lengths of the codes."""
    num_items: int = 0
    """The first of the training part that are the database, on which all is trained; 0 for all."""
    num_queries: int = 0
    """The first of the test part that ask; 0 for all."""
    validate: bool = False
    """Asks with the last tenth of the training part, for choosing options."""
    nets: Options = Options()
    """The networks."""
    num_seeds: int = 3
    """Of networks, rotations and hyperplanes."""
    seed: int = 0
    """The first one."""


def chosen(config: Config) -> tuple[str, ...]:
    """The rows of a configuration."""
    left_out = () if config.dataset == DOCUMENTS else OF_WORDS
    left_out = (*left_out, "cosine_whole") if config.validate or config.num_items else left_out
    known = [row for row in TITLES if row not in left_out]
    if config.rows:
        check_rows(config.rows, known)
    return config.rows or tuple(known)


def pieces(config: Config) -> Iterator[Piece]:
    """Row by row and seed by seed; what cannot be run is refused first."""
    check_count(**{"--num-seeds": config.num_seeds, "--bits": len(config.bits)})
    check_count(**{f"--bits {each}": each for each in config.bits})
    if (least := min(config.seed, config.num_items, config.num_queries)) < 0:
        raise InputError(f"--seed, --num-items or --num-queries is {least}; each has to be 0 or more.")
    retrieval_rows.check(config.nets)
    names = chosen(config)
    what = (config.dataset, config.validate, config.num_items, config.num_queries)
    found = retrieval_rows.asked(*what)
    if max(config.bits) > found.x.shape[1]:
        raise InputError(f"--bits has {max(config.bits)}, and {config.dataset} {found.x.shape[1]} dimensions.")
    if {*names} & {*NEAR} and config.nets.neighbours >= len(found.x):
        raise InputError(f"--nets.neighbours {config.nets.neighbours} of {len(found.x):,} examples; fewer are needed.")
    for seed in range(config.seed, config.seed + config.num_seeds):
        for row in names:
            if row in SEEDED or seed == config.seed:
                measure = partial(retrieval_rows.measure, row, what, seed, config.bits, config.nets)
                yield Piece(f"seed-{seed}", row, measure)


def metrics_of(config: Config, found: Found) -> dict[str, dict[str, list[float]]]:
    """By row: `cosine`, or by number of bits precision, that within 2 bits, and the share that finds nothing there."""
    metrics: dict[str, dict[str, list[float]]] = {}
    for seed in range(config.seed, config.seed + config.num_seeds):
        for row, each in found.get(f"seed-{seed}", {}).items():
            values = {"cosine": each["cosine"]} if "cosine" in each else {}
            for bits in config.bits if not values else ():
                of = each[str(bits)]
                radius = min(RADIUS, bits)
                values |= {f"precision_{bits}": of["precision"]}
                values |= {f"ball_{bits}": of["ball"][radius], f"empty_{bits}": of["empty"][radius]}
            for name, value in values.items():
                metrics.setdefault(row, {}).setdefault(name, []).append(value)
    return metrics


def table(summary: dict[str, Any]) -> str:
    """Mean and deviation over the seeds."""
    bits = summary["bits"]
    ball = 16 if 16 in bits else bits[0]
    heads = [f"{each} bits" for each in bits]
    body = []
    for row, title in TITLES.items():
        if (found := summary["metrics"].get(row)) is None:
            continue
        seeds = len(next(iter(found.values())))
        names = [*(f"precision_{each}" for each in bits), f"ball_{ball}", f"empty_{ball}"]
        cells = [study.spread(found[name]) if name in found else "" for name in ("cosine", *names)]
        body.append([title, *cells, str(seeds)])
    within = f"within {RADIUS} of {ball} bits"
    return study.table(("precision of the first 100", "real", *heads, within, "which are none for", "seeds"), body)


def draw(config: Config, found: Found) -> "dict[str, Figure]":
    """Precision by number of bits, and precision against recall over balls of every radius; means over the seeds."""
    from aejax import plots

    metrics = metrics_of(config, found)
    names = [row for row in TITLES if row in metrics]
    color = {row: i for i, row in enumerate(names)}
    by_bits, by_ball = {}, {}
    lengths = np.array(config.bits)
    shown = _DRAWN if _DRAWN in config.bits else config.bits[-1]
    for row in names:
        if "cosine" in metrics[row]:
            y = np.full(len(lengths), metrics[row]["cosine"][0])
            by_bits[TITLES[row]] = plots.Curve(lengths, y, color[row], True)
            continue
        y = np.array([metrics[row][f"precision_{bits}"] for bits in config.bits]).T
        by_bits[TITLES[row]] = plots.Curve(lengths, y, color[row])
        of = [each[row][str(shown)] for each in found.values() if row in each]
        recall, precision = (np.mean([each[name] for each in of], axis=0) for name in ("recall", "ball"))
        by_ball[TITLES[row]] = plots.Curve(recall, precision, color[row])
    panels = {"by length": plots.Lines("bits", "precision of the first 100", by_bits)}
    if by_ball:
        panels[f"balls, {shown} bits"] = plots.Lines("recall", "precision within the ball, empty ones 0", by_ball)
    return {"precision": plots.line_panels(panels, title=f"{config.dataset}: what bits retrieve")}


STUDY = PiecedStudy("retrieval", Config, pieces, metrics_of, table, draw)


if __name__ == "__main__":
    main(STUDY, __doc__)
