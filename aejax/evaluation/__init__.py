"""What a model is worth: reconstruction, probes, likelihood, contraction, and the codes against their prior.

Nothing here draws a picture or trains an autoencoder; classifiers on codes are trained here.
"""

from aejax.evaluation import bits_back, modes, ranking, recommenders, retrieval, samples
from aejax.evaluation.ais import AIS, ais
from aejax.evaluation.apply import call, embed, over_batches, reconstruct, reconstruction_sse
from aejax.evaluation.clustering import Clustering, KMeans, cluster_scores, k_means, matched, typical_labels
from aejax.evaluation.codes import MMDTest, active_units, code_mmd, moment_gaps, perplexity
from aejax.evaluation.collapse import Collapse, collapse
from aejax.evaluation.contraction import contraction_curve, effective_rank, pair_contraction, spectra
from aejax.evaluation.decomposition import Decomposition, decompose
from aejax.evaluation.disentanglement import beta_vae_score, disentanglement_scores, factor_vae_score
from aejax.evaluation.embedding import continuity, neighborhood_hit, trustworthiness
from aejax.evaluation.ex_post import with_flow
from aejax.evaluation.factor_tables import DCI, dci, importance_scores, mig, mutual_information, sap
from aejax.evaluation.finetune import FineTuned, check_splits, classifier_error, classifier_loss, fine_tune, saturation
from aejax.evaluation.likelihood import NLL, nll
from aejax.evaluation.probes import knn, linear_probe
from aejax.evaluation.sparsity import dead_units, filter_sharpness, lifetime_sparsity, population_sparsity

__all__ = [
    "AIS",
    "DCI",
    "NLL",
    "Clustering",
    "Collapse",
    "Decomposition",
    "FineTuned",
    "KMeans",
    "MMDTest",
    "active_units",
    "ais",
    "beta_vae_score",
    "bits_back",
    "call",
    "check_splits",
    "classifier_error",
    "classifier_loss",
    "cluster_scores",
    "code_mmd",
    "collapse",
    "continuity",
    "contraction_curve",
    "dci",
    "dead_units",
    "decompose",
    "disentanglement_scores",
    "effective_rank",
    "embed",
    "factor_vae_score",
    "filter_sharpness",
    "fine_tune",
    "importance_scores",
    "k_means",
    "knn",
    "lifetime_sparsity",
    "linear_probe",
    "matched",
    "mig",
    "modes",
    "moment_gaps",
    "mutual_information",
    "neighborhood_hit",
    "nll",
    "over_batches",
    "pair_contraction",
    "perplexity",
    "population_sparsity",
    "ranking",
    "recommenders",
    "reconstruct",
    "reconstruction_sse",
    "retrieval",
    "samples",
    "sap",
    "saturation",
    "spectra",
    "trustworthiness",
    "typical_labels",
    "with_flow",
]
