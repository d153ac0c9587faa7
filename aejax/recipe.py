"""What a model and an algorithm are made of, by name, and what they are fed with: all but the numbers of `learn`."""

import dataclasses
import inspect
import math
from typing import Any

import numpy as np

from aejax import data, likelihoods
from aejax.algorithm import Algorithm
from aejax.checks import InputError, check_count, nearest
from aejax.data import Batch, arrays
from aejax.methods import METHODS
from aejax.nets import Autoencoder

NETS = ("dense", "conv")
_NOT_OPTIONS = {"encoder", "decoder", "latent_dim", "likelihood", "parent", "name"}  # fields of modules


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A registered method with all that decides its model and its algorithm, but for the optimiser, which is Adam."""

    method: str  # a name of `aejax.METHODS`
    net: str  # `dense` or `conv`
    shape: tuple[int, ...]  # of one example, as it is given
    dtype: str  # likewise
    divided: bool  # whether uint8 stands for grey values, which are divided by 255
    latent_dim: int
    likelihood: Any
    options: dict[str, Any]  # fields of the model and keywords of the factory

    @property
    def net_shape(self) -> tuple[int, ...]:
        """Of one example as the networks take it: (D,) or (H, W, C)."""
        return (math.prod(self.shape),) if self.net == "dense" else (*self.shape, 1)[:3]

    def model(self) -> Autoencoder:
        """The module.

        Raises:
          InputError: fields that do not go with each other.
        """
        cls = METHODS[self.method].model
        fields = {name: value for name, value in self.options.items() if name in model_options(cls, self.net)}
        first = self.net_shape if self.net == "conv" else self.net_shape[0]
        try:
            return getattr(cls, self.net)(first, self.latent_dim, likelihood=self.likelihood, **fields)
        except TypeError as error:
            raise InputError(f"{cls.__name__}.{self.net} does not take {sorted(fields)}: {error}.") from None

    def algorithm(self, model: Autoencoder) -> Algorithm:
        """The algorithm for that module; of equal ones the same object, which compiles once."""
        keywords = {name: value for name, value in self.options.items() if name in _keywords(self.method)}
        return METHODS[self.method].build(model, **keywords)

    def taken(self, name: str, x: Any) -> np.ndarray:
        """x as the networks take it, `[N, ...]` float32; refused where it is not as that of the training was."""
        x, wanted = np.asarray(x), ", ".join(map(str, self.shape))
        if x.shape[1:] != self.shape:
            fits = x.size and x.size % math.prod(self.shape) == 0
            advice = f" Use x.reshape(-1, {wanted})." if fits else ""
            raise InputError(f"{name} has shape {x.shape}; [N, {wanted}] is needed, as it was learnt.{advice}")
        if x.dtype == np.uint8 and self.dtype != "uint8":
            raise InputError(f"{name} has dtype uint8, and what was learnt {self.dtype}; scale it as that was.")
        arrays.check_kind(x.shape, x.dtype, name)
        if not likelihoods.get(self.likelihood).support.missing:
            arrays.check_finite(x, name)
        values = arrays.as_float32(x, not self.divided).reshape(-1, *self.net_shape)
        data.check(values, self.likelihood, name=name)
        return values

    def batch(self, name: str, x: Any, y: Any, call: str, *, to_learn: bool = False) -> Batch:
        """x and, where they are asked for, labels, as the networks take them; `call` says where y is to be given."""
        x, model = self.taken(name, x), METHODS[self.method].model
        asked = model.needs_labels() if to_learn else model.takes_labels
        return Batch(x, labels(self.method, y, len(x), call) if asked else None)


def of(
    method: str, x: np.ndarray, y: Any, net: str, latent_dim: int, likelihood: Any, options: dict[str, Any]
) -> Recipe:
    """The recipe for data; arguments as of `aejax.learn`. What is refused is what can be told without the model."""
    check(method, net, latent_dim, options)
    arrays.check_kind(x.shape, x.dtype, "x")
    own = METHODS[method].model.likelihood
    counts = likelihoods.get(own if likelihood is None else likelihood).support.step == 1
    divided = x.dtype == np.uint8 and bool(x.max() > 1) and not counts
    if net == "conv" and x.ndim == 2:
        raise InputError(f"x has shape {x.shape}; net='conv' takes images, [N, H, W] or [N, H, W, C]: x.reshape(...).")
    if likelihood is None and (counts or METHODS[method].model.takes_missing):
        likelihood = own
    elif likelihood is None:
        likelihood = "bernoulli" if divided or (x.min() >= 0 and x.max() <= 1) else "gaussian"
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    given |= {
        name: (given[name],) for name in ("features", "hidden_dims", "strides") if isinstance(given.get(name), int)
    }
    known = shared_defaults(method)
    cls = METHODS[method].model
    if cls.needs_labels() and "num_classes" in model_options(cls, net):
        y = labels(method, y, len(x), f"learn({method!r}, x, y)")
        if y.dtype.kind in "iu" and y.max(initial=-1) < 0:
            METHODS[method].batch(x, y)  # refuses what has no known label, if -1 stands for unknown there
        known["num_classes"] = _count_classes(y)
    return Recipe(method, net, x.shape[1:], str(x.dtype), divided, latent_dim, likelihood, known | given)


def _count_classes(y: np.ndarray) -> int:
    """Of labels from 0 up; of what will be refused with the data, as many as the advice there makes of it."""
    if y.ndim == 2:
        return y.shape[1]
    return max(1, int(y.max()) + 1) if y.dtype.kind in "iu" else len(np.unique(y))


def check(method: str, net: str, latent_dim: int, options: dict[str, Any]) -> None:
    """Refuses what cannot be looked up: a method, a kind of network, options by name; and a code without size."""
    if method not in METHODS:
        raise InputError(f"Unknown method {method!r}. {nearest(method, METHODS, what='methods')}")
    if net not in NETS:
        raise InputError(f"Unknown net={net!r}. {nearest(net, NETS, what='networks')}")
    check_count(latent_dim=latent_dim)
    known = model_options(METHODS[method].model, net) | set(_keywords(method))
    for name in options:
        if name not in known:
            others = known | {"batch_size", "latent_dim", "likelihood", "num_epochs", "patience", "seed", "validation"}
            others |= {"pretrain_epochs", "verbose"}
            raise InputError(f"{method}, {net}, has no option {name!r}. {nearest(name, others, what='options')}")


def shared_defaults(method: str) -> dict[str, Any]:
    """Defaults of the factory that a field of the model has to follow: the prior of the adversarial autoencoder."""
    fields = {field.name for field in dataclasses.fields(METHODS[method].model)}
    return {name: default for name, default in _keywords(method).items() if name in fields}


def model_options(cls: type[Autoencoder], net: str) -> set[str]:
    """What `cls.dense` or `cls.conv` takes by name, through those of the classes that it is made of."""
    makers = [vars(base)[net].__func__ for base in cls.__mro__ if net in vars(base)]
    parameters = [each for maker in makers for each in inspect.signature(maker).parameters.values()]
    own = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
    return own | {field.name for field in dataclasses.fields(cls)} - _NOT_OPTIONS


def _keywords(method: str) -> dict[str, Any]:
    """What the factory takes by name, with the defaults; `axis_name` is for mapped loops."""
    parameters = inspect.signature(METHODS[method].build).parameters.values()
    own = {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
    return {name: default for name, default in own.items() if name != "axis_name"}


def labels(method: str, y: Any, count: int, call: str) -> np.ndarray:
    """y as an array of so many rows, int32 where it holds integers; which ones is checked elsewhere."""
    if y is None:
        raise InputError(f"{method} goes by labels, and none came: give {call}, with an integer for each row.")
    y = np.asarray(y)
    if y.shape[:1] != (count,):
        raise InputError(f"y has shape {y.shape}; it needs {count} rows: {call}, with an integer for each.")
    return y.astype(np.int32) if y.dtype.kind in "iu" else y
