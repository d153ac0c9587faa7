"""The unit and the meaning of every name that is reported: the console shows them, docs/units.md is made of them.

`python -m experiments.units` writes it.
"""

from pathlib import Path
from typing import NamedTuple

from aejax.methods import METHODS
from experiments.inputs import EVALUATION_BATCH

PAGE = Path(__file__).parents[1] / "docs" / "units.md"


class Unit(NamedTuple):
    """What is known of a name."""

    unit: str
    meaning: str
    short: str = ""  # in the table that closes a run, where the unit alone says too little
    coupled: bool = False  # whether it is no mean over examples, and so depends on the batch

    @property
    def shown(self) -> str:
        """What stands in the table that closes a run."""
        return self.short or (self.meaning if self.unit == "none" else self.unit)


# Names that are explained together stand in one line, with commas between them. First the terms of the losses:
TERMS: dict[str, Unit] = {
    "loss": Unit("nats per example; the discriminator's per pair of a code and a draw", "what the player minimises"),
    "recon_nats": Unit("nats per example", "negative log-likelihood of the reconstruction"),
    "kl_nats": Unit("nats per example", "KL divergence from the posterior to the prior"),
    "bound_nats": Unit(
        "nats per example",
        "`recon_nats + kl_nats`, the negative evidence lower bound, whatever beta is",
    ),
    "sse": Unit("squared data units per example", "squared error of the reconstruction, summed over pixels"),
    "jacobian_sq": Unit("(code units / data units)^2", "squared Frobenius norm of the encoder's Jacobian"),
    "shift_sq": Unit(
        "(code units / data units)^2",
        "SCAE: squared shift of the code under Gaussian noise, over the variance of the noise; tends to `jacobian_sq`",
    ),
    "jacobian_change_sq": Unit(
        "(code units / data units)^2",
        "CAE+H: squared Frobenius norm of the change of the encoder's Jacobian under Gaussian noise",
    ),
    "reconstruction_jacobian_sq": Unit("none", "squared Frobenius norm of the Jacobian of the whole reconstruction"),
    "weights_sq": Unit(
        "of one layer (code units / data units)^2; of encoder and decoder none, a sum of that and its reciprocal",
        "weight decay: squared weights, summed over all kernels of encoder and decoder, tied ones twice; of the "
        "contractive study those of its one layer, once",
    ),
    "sparsity": Unit(
        "nats; code units per example",
        "sparse AE: what is penalised, without its weight: the divergence of the rates from their target, summed "
        "over units (`kl`), or absolute values of the code, summed over units (`l1`)",
        coupled=True,
    ),
    "mean_rate": Unit("code units", "sparse AE: mean activation over batch and units"),
    "noise_nats": Unit(
        "nats per example",
        "marginalised DAE: what the noise adds to `recon_nats`, by its second moments",
    ),
    "error": Unit("between 0 and 1", "share of labels that the classifier gets wrong, training batch"),
    "accuracy": Unit("between 0 and 1", "share of codes and prior draws that the discriminator tells apart"),
}

# Methods bring their own:
TERMS |= {
    name: Unit(term.unit, term.meaning, coupled=term.coupled)
    for method in METHODS.values()
    for name, term in method.terms.items()
}

# What a finished run reports:
METRICS: dict[str, Unit] = {
    "test_sse": Unit(
        "summed over pixels, mean over images",
        "squared error of the reconstruction without noise, test split",
        "squared error per image, summed over pixels",
    ),
    "train_sse": Unit("likewise", "the same of the training split"),
    "num_params": Unit("count", "numbers that are trained, tied weights once"),
    "pca_test_sse": Unit(
        "likewise",
        "`test_sse` of PCA with as many directions, in closed form",
        "the same of PCA, in closed form",
    ),
    "principal_angle": Unit(
        "degrees",
        "largest angle between the decoder's subspace and the principal one",
        "degrees, largest, to the PCA subspace",
    ),
    "direction_angle": Unit(
        "degrees",
        "squared weights in the loss: largest angle between a learned direction and its own of PCA",
    ),
    "variance_error": Unit(
        "none",
        "the same: largest deviation of a variance read off the weights from the eigenvalue, over the eigenvalue",
    ),
    "transpose_error": Unit(
        "none",
        "the same: Frobenius norm of the encoder's weights less the transposed ones of the decoder, over that of "
        "the decoder's",
    ),
    "corrupted_sse": Unit(
        "summed over pixels, mean over images",
        "squared error of the corrupted test images, for one draw of the noise",
        "squared error of the corrupted test images",
    ),
    "denoised_sse": Unit(
        "likewise",
        "the same after the DAE; of linear denoisers the expectation over the noise, exact",
        "the same after the autoencoder has denoised them",
    ),
    "best_denoised_sse": Unit(
        "likewise",
        "the same expectation for the linear denoiser of least error, in closed form from the training images",
    ),
    "denoising_excess": Unit(
        "none",
        "expected error of a linear denoiser on the training images, over the least one, less 1",
    ),
    "map_error": Unit(
        "none",
        "deviation of its outputs from those of the best one on corrupted training images, over the deviation of "
        "the latter; root mean squares without the mean",
    ),
    "test_bound_nats": Unit("nats per image", "negative evidence lower bound, one sample an image", "nats per image"),
    "test_nll_nats": Unit(
        "nats per image",
        "negative log-likelihood by importance sampling",
        "nats per image, importance sampled",
    ),
    "nll_samples": Unit("samples", "its samples for each image", "importance samples per image"),
    "nll_ess": Unit(
        "samples",
        "effective number of those samples, mean over images",
        "effective importance samples per image",
    ),
    "probe_accuracy": Unit(
        "share of test images",
        "logistic regression on standardised codes",
        "logistic regression on the codes",
    ),
    "probe_error": Unit(
        "share of test images",
        "1 less `probe_accuracy`; of sparse codes, a softmax on codes of mean square 1, its epoch chosen on the "
        "validation split",
    ),
    "alpha": Unit(
        "none",
        "k-sparse: that softmax sees the `alpha k` largest units, `alpha` chosen by its validation error",
    ),
    "knn5_accuracy, test_knn5_accuracy": Unit(
        "share of test images",
        "vote of the 5 nearest training codes",
        "5 nearest neighbours on the codes",
    ),
    "train_knn5_accuracy": Unit(
        "share of training images",
        "vote of the 5 nearest other training codes, leaving one out",
    ),
    "train_trustworthiness, test_trustworthiness": Unit(
        "at most 1, about 1/2 at random",
        "whether neighbours in the code are neighbours in the data (Venna & Kaski, 2001)",
    ),
    "train_continuity, test_continuity": Unit("likewise", "whether neighbours in the data are neighbours in the code"),
    "train_neighborhood_hit, test_neighborhood_hit": Unit(
        "between 0 and 1",
        "share of the nearest codes that have the same label, mean over codes",
    ),
    "graph_neighbors": Unit(
        "count",
        "neighbours of each image in the graph of Isomap and LLE, the least from `graph_k` on that connects it",
    ),
    "mean_rate": Unit(
        "code units",
        "mean activation over test images and units",
        "mean activation, test images and units",
    ),
    "rate_gap": Unit(
        "none",
        "its deviation from the target over the target, absolute; units above and below it cancel",
    ),
    "rates_within_tenth": Unit(
        "share of units",
        "units whose own mean activation over test images is within a tenth of the target",
    ),
    "dead_units": Unit(
        "share of units",
        "units whose code is at most 0.01 on every test image, absolute; of k-sparse codes, for this row and the "
        "next, with the k largest units of each image kept, as in training, whatever `alpha` the softmax sees",
        "share of units that answer no test image",
    ),
    "lifetime_sparsity": Unit(
        "0 for a constant, 1 for a single one",
        "how few test images a unit answers, mean over units (Vinje & Gallant, 2000)",
        "how few images a unit answers: 0 for all alike, 1 for one",
    ),
    "population_sparsity": Unit(
        "likewise",
        "how few units an image, mean over images",
        "how few units answer an image, likewise",
    ),
    "filter_sharpness": Unit(
        "0 for an even filter, 1 for one pixel",
        "how few pixels a filter of the first layer looks at, mean over units (Hoyer, 2004)",
        "how few pixels a filter looks at: 0 for all alike, 1 for one",
    ),
    "jacobian_norm": Unit(
        "code units / data units",
        "Frobenius norm of the encoder's Jacobian, mean over the first 1,000 test images",
        "mean Frobenius norm of the encoder's Jacobian",
    ),
    "effective_rank": Unit(
        "count",
        "`(sum s^2)^2 / sum s^4` of the singular values s of the encoder's Jacobian, mean over the first 200 test"
        " images",
    ),
    "contraction_near, contraction_far": Unit(
        "code units / data units",
        "distance of codes over distance r of inputs, from each of these images to 10 random points at distance "
        "r: a hundredth of, and the mean distance between two of them",
    ),
    "contraction_pairs": Unit("code units / data units", "the same ratio for pairs of these images"),
    "straight_length": Unit(
        "data units",
        "length in data space of the decoded path between two test codes, straight in code space; mean over pairs",
        "data units, decoded straight path, mean over pairs",
    ),
    "shortest_length": Unit(
        "data units",
        "the same of the shortest path",
        "data units, decoded shortest path, mean over pairs",
    ),
    "length_ratio": Unit("none", "shortest over straight, mean over pairs", "shortest over straight, mean over pairs"),
    "length_ratio_min": Unit("none", "the lowest of them", "the lowest"),
    "length_ratio_max": Unit("none", "the highest of them", "the highest"),
    "path_unevenness": Unit(
        "none",
        "energy over squared length of the shortest path, less 1, of the worst pair; 0 where it has settled",
        "of speed along the shortest path, worst pair",
    ),
    "saturation": Unit(
        "share of units and test images",
        "entries of the sigmoid codes below 0.05 or above 0.95, before fine-tuning",
        "share of sigmoid units below 0.05 or above 0.95",
    ),
    "finetuned_error": Unit(
        "share of test images",
        "labels that are wrong after fine-tuning, at the epoch that is best on the validation split",
        "share of test labels wrong after fine-tuning",
    ),
    "finetuned_lr": Unit("per step", "the rate of fine-tuning that is best on the validation split, of those tried"),
    "finetuned_validation_error": Unit(
        "share of validation images",
        "the same on the validation split, which chooses that epoch",
        "the same on the validation split",
    ),
    "finetuned_epoch": Unit("count", "the epoch", "the epoch that is best on it"),
    "seconds": Unit(
        "seconds",
        "wall clock of a run: compiling, training, measuring, fine-tuning; of methods that are not trained by "
        "steps fitting, mapping and scoring",
    ),
    "score_error": Unit(
        "none",
        "what a DAE takes the score to be, against the true one: root mean square of the difference over draws, "
        "over that of the true score",
    ),
    "smoothing_error": Unit(
        "none",
        "the same for the score of the density with the noise on it, which the best DAE has",
    ),
    "fit_error": Unit("none", "the same for the DAE against that one, still over the true score"),
    "deviation": Unit("data units", "standard deviation that makes a squared error fewest nats, `sqrt(sse / D)`"),
    "unit_nats, best_nats": Unit(
        "nats per image",
        "a squared error as Gaussian likelihood, with variance 1 and with `deviation` squared",
    ),
    "active_units": Unit(
        "count",
        "code units whose posterior mean has a variance above 0.01",
        "code units whose mean varies by more than 0.01",
    ),
    "code_mmd": Unit(
        "none",
        "unbiased squared MMD of the test codes (of a VAE drawn from the posterior) to the prior (RBF kernel, "
        "median bandwidth)",
        "unbiased MMD^2 of test codes to the prior",
    ),
    "code_mmd_p": Unit("none", "the p-value of its permutation test", "p-value of its permutation test"),
    "code_mean_max": Unit(
        "code units",
        "largest absolute mean over code units",
        "largest |mean| of a code unit, test images",
    ),
    "code_var_dev": Unit(
        "none",
        "largest deviation of a variance from 1 over code units",
        "largest |variance - 1| of a code unit, test images",
    ),
    "disc_loss": Unit(
        "nats",
        "discriminator's loss over the last 10 % of steps, from the rows of metrics.jsonl; 2 log 2 = 1.386 where "
        "it cannot tell",
        "nats, mean of the last 10 % of steps",
    ),
}


def find(name: str) -> Unit | None:
    """What is known of a metric of a finished run, or of a term, `player/term`; None for nothing."""
    return _BY_NAME[1].get(name) or _BY_NAME[0].get(name.rpartition("/")[2])


def _by_name(table: dict[str, Unit]) -> dict[str, Unit]:
    return {name: unit for names, unit in table.items() for name in names.split(", ")}


_BY_NAME = _by_name(TERMS), _by_name(METRICS)


def page() -> str:
    """docs/units.md."""
    return f"""\
<!-- Written by python -m experiments.units -->
# What is reported, and in which unit

Likelihoods and divergences are in nats per example: sums over data and code dimensions, means over examples. `beta`
means beta. The Gaussian likelihood has unit variance and keeps its 1/2 and its constant, so it is
`sse / 2 + D / 2 log(2 pi)`.

During training, metrics are named `player/term`, and `val/player/term` on the validation split:

{_table("term", TERMS)}
A term that is marked *of the batch* is no mean over examples: in training it is that of the batch of the step, on the
validation and the test split the mean over batches of {EVALUATION_BATCH} in their order, the last one as short as it
comes. So is `loss` where such a term is part of it. Noise is drawn once for each batch.

A finished run reports:

{_table("name", METRICS)}
With real-valued pixels the Bernoulli "likelihood" is a cross-entropy whose floor is the entropy of the pixels: compare
only figures of one convention. `--binarize stochastic` draws new binary images at every presentation, as Burda et al.
(2016) do; everything that a finished run reports is then measured on one binary draw of the test split.
"""


def _table(head: str, table: dict[str, Unit]) -> str:
    lines = [f"| {head} | meaning | unit |", "| --- | --- | --- |"]
    for names, each in table.items():
        shown = ", ".join(f"`{name}`" for name in names.split(", "))
        lines.append(f"| {shown} | {each.meaning}{', *of the batch*' if each.coupled else ''} | {each.unit} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
