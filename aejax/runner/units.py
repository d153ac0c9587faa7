"""The unit and the meaning of the names that runs report: the console shows them, docs/units.md is made of them.

Here are those of the library; an experiment brings its own with it, and so does a method.

No number is computed here.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from aejax.methods import METHODS


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
        "the negative bound itself, whatever its weights: `recon_nats + kl_nats`, the negative ELBO; IWAE: `-L_k`",
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
        "weight decay: squared weights, summed over all kernels of encoder and decoder, tied ones twice; of Deep SVDD "
        "those of the encoder, of the contractive study those of its one layer, once",
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
    "accuracy": Unit(
        "between 0 and 1",
        "share of codes and prior draws (FactorVAE: permuted codes) that the discriminator tells apart",
    ),
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
    "test_bound_nats": Unit(
        "nats per image",
        "the negative bound that was trained, with as many draws of the code: one, unless said",
        "nats per image",
    ),
    "test_nll_nats": Unit(
        "nats per image",
        "negative log-likelihood by importance sampling; of PixelCNN exact",
        "nats per image",
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
    "knn5_accuracy, test_knn5_accuracy": Unit(
        "share of test images",
        "vote of the 5 nearest training codes",
        "5 nearest neighbours on the codes",
    ),
    "cluster_accuracy": Unit(
        "share of images",
        "clusters that stand for the right label, clusters and labels being paired one to one (the Hungarian "
        "algorithm), test split; of the clustering study all images",
        "clusters with the right label, paired one to one",
    ),
    "nmi": Unit(
        "between 0 and 1",
        "the same clusters and labels: mutual information over the mean of their entropies",
        "mutual information of clusters and labels, normalised",
    ),
    "ari": Unit(
        "1 at most, 0 at random", "the same: adjusted Rand index", "adjusted Rand index of clusters and labels"
    ),
    "mean_rate": Unit(
        "code units",
        "mean activation over test images and units",
        "mean activation, test images and units",
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
    "seconds": Unit(
        "seconds",
        "wall clock of a run: compiling, training, measuring, fine-tuning; of methods that are not trained by "
        "steps fitting, mapping and scoring",
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


def find(name: str, own: Mapping[str, Unit] = MappingProxyType({})) -> Unit | None:
    """What is known of a metric of a finished run, or of a term, `player/term`; None for nothing.

    Args:
      name: of the metric or the term.
      own: what the experiment brings, which goes before.
    """
    return by_name(own).get(name) or _BY_NAME[1].get(name) or _BY_NAME[0].get(name.rpartition("/")[2])


def by_name(table: Mapping[str, Unit]) -> dict[str, Unit]:
    """A table in which each name has an entry of its own."""
    return {name: unit for names, unit in table.items() for name in names.split(", ")}


_BY_NAME = by_name(TERMS), by_name(METRICS)
