"""What was run with the library: an experiment for each method, studies of several, benchmarks.

No machinery: that is `aejax.runner`. No study has the name of a method.
"""

# Where experiments are that run folders know by another name, from before folders named the module:
FORMERLY = {
    "sparse": "experiments.sparse_ae",
    "linear_ae": "experiments.ae_l2",
    "stacked": "experiments.studies.pretraining",
    "geometry": "experiments.studies.geometry",
}
