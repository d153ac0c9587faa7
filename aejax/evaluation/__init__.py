"""What a trained model is worth: reconstruction error, probes, likelihood, and the codes against their prior."""

from aejax.evaluation.apply import embed, reconstruct, reconstruction_sse
from aejax.evaluation.codes import MMDTest, active_units, code_mmd, moment_gaps
from aejax.evaluation.likelihood import NLL, nll
from aejax.evaluation.probes import knn, linear_probe

__all__ = [
    "NLL",
    "MMDTest",
    "active_units",
    "code_mmd",
    "embed",
    "knn",
    "linear_probe",
    "moment_gaps",
    "nll",
    "reconstruct",
    "reconstruction_sse",
]
