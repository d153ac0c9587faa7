"""Likelihoods: objects that say what a decoder's output means, each under a short name as well.

| name | object | the decoder returns, for each component of x | x |
| --- | --- | --- | --- |
| `bernoulli` | `Bernoulli()` | a logit | [0, 1] |
| `gaussian` | `Gaussian()`, variance 1 or any fixed number | the mean | real |
| `gaussian_learned` | `Gaussian("learned")`: one variance, a parameter of the module | the mean | real |
| `gaussian_per_pixel` | `Gaussian("per_pixel")` | mean, log-variance | real |
| `gaussian_optimal` | `Gaussian("optimal")`: the variance is that of the batch | the mean | real |
| `categorical` | `Categorical(levels=256)` | `levels` logits | levels in [0, 1] |
| `discretized_logistic` | `DiscretizedLogistic(mixtures=10, levels=256)` | `3 mixtures` numbers | levels in [0, 1] |
| `poisson` | `Poisson()` | log rate | counts |
| `negative_binomial` | `NegativeBinomial()` | log mean, dispersion before softplus | counts |
| `multinomial` | `Multinomial()`, their sum given | a logit of its share | counts |
|  | `Weighted()`, the same of weights | a logit of its share | 0 and more |
| `gaussian_observed` | `Observed(Gaussian())`, or of another | as that one | NaN where not observed |

Shapes follow one rule, here and in `divergences`: the first axis is the batch, everything behind it is one example
and is summed. Results are in nats per example. Weights such as beta are the caller's business.
"""

from aejax.checks import InputError, nearest
from aejax.likelihoods.base import Likelihood, Support
from aejax.likelihoods.continuous import Bernoulli, Gaussian, bernoulli_nll, gaussian_nll, sse
from aejax.likelihoods.counts import COUNTS, Multinomial, NegativeBinomial, Poisson, Weighted
from aejax.likelihoods.levels import Categorical, DiscretizedLogistic
from aejax.likelihoods.observed import Observed
from aejax.precision import sum_event

__all__ = [
    "COUNTS",
    "LIKELIHOODS",
    "Bernoulli",
    "Categorical",
    "DiscretizedLogistic",
    "Gaussian",
    "Likelihood",
    "Multinomial",
    "NegativeBinomial",
    "Observed",
    "Poisson",
    "Support",
    "Weighted",
    "bernoulli_nll",
    "gaussian_nll",
    "get",
    "sse",
    "sum_event",
]

LIKELIHOODS: dict[str, Likelihood] = {
    "bernoulli": Bernoulli(),
    "gaussian": Gaussian(),
    "gaussian_learned": Gaussian("learned"),
    "gaussian_per_pixel": Gaussian("per_pixel"),
    "gaussian_optimal": Gaussian("optimal"),
    "categorical": Categorical(),
    "discretized_logistic": DiscretizedLogistic(),
    "poisson": Poisson(),
    "negative_binomial": NegativeBinomial(),
    "multinomial": Multinomial(),
    "gaussian_observed": Observed(),
}


def get(likelihood: str | Likelihood) -> Likelihood:
    """The likelihood of that name, or the object itself.

    Raises:
      InputError: an unknown name, with those nearest to it, or something that is no likelihood.

    Example:
      >>> get("gaussian"), get(Gaussian(0.1))
      (Gaussian(variance=1.0), Gaussian(variance=0.1))
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    if not isinstance(likelihood, str):
        raise InputError(
            f"The likelihood is {likelihood!r}; wanted is a name such as 'gaussian', or an object such as"
            " Gaussian(variance=0.1)."
        )
    if likelihood not in LIKELIHOODS:
        raise InputError(f"Unknown likelihood {likelihood!r}. {nearest(likelihood, LIKELIHOODS, what='likelihoods')}")
    return LIKELIHOODS[likelihood]
