"""From a loss to a factory, `vae(model, hparams, tx) -> Algorithm`, and to an entry of the registry.

A method of one player is its module, its loss, its knobs and a call of `one_player`. Methods of several write their
table of players themselves, under `factory`.
"""

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache, partial, wraps
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, get_type_hints, overload

import jax
import numpy as np
import optax

from aejax import data as datasets
from aejax import likelihoods, priors
from aejax.algorithm import Algorithm, Loss, Player, play
from aejax.checks import (
    InputError,
    check_non_negative,
    check_positive,
    check_probability,
    ends_of,
    is_schedule,
    nearest,
)
from aejax.data import Batch
from aejax.nets import Autoencoder, inputs

Tx = Callable[..., optax.GradientTransformation] | Mapping[str, Callable[..., optax.GradientTransformation]]

# Types of the fields of HParams: each is a float, and says its range.
Positive = Annotated[float, check_positive]
NonNegative = Annotated[float, check_non_negative]
Probability = Annotated[float, check_probability]
LATER = "later"  # Annotated[NonNegative, LATER]: a knob that kept runs lack, where it had the value that is its default


def _plain(x: Any, y: Any) -> Any:
    return Batch(x)


def _same(size: int) -> Any:
    return size


class Term(NamedTuple):
    """What a reported name means, for the console and the page of units."""

    unit: str
    meaning: str
    coupled: bool = False  # whether it is no mean over examples, and so depends on the batch


class Method(NamedTuple):
    """An entry of the registry: the last line of a method's file."""

    model: type[Autoencoder]
    hparams: type[Any]  # a NamedTuple of real numbers
    build: Callable[..., Algorithm]  # (model, hparams, tx) -> Algorithm
    title: str  # a few words, for tables
    paper: str  # authors and year; the registry is in the order of the first year
    noise_free: bool = False  # whether no loss uses its key
    inert: tuple[str, ...] = ()  # knobs without effect at the defaults
    fields: Mapping[str, Any] = MappingProxyType({})  # of a model with few units, where the defaults are for more
    knobs: Mapping[str, float] = MappingProxyType({})  # of a short run on few examples, likewise
    batch: Callable[[Any, Any], Any] = _plain  # (x, y) -> what it is trained on
    batch_size: Callable[[int], Any] = _same  # B -> the batch size of that; a tree for streams
    terms: Mapping[str, Term] = MappingProxyType({})  # what it and its experiment report beside the names of others
    first: Callable[[Any], Algorithm] | None = None  # of a model: trains the parameters that the method begins with

    @property
    def year(self) -> int:
        found = re.search(r"\d{4}", self.paper)
        assert found, self.paper
        return int(found[0])


@overload
def factory(build: Callable[..., Algorithm]) -> Callable[..., Algorithm]: ...
@overload
def factory(*, learns_prior: bool = False, takes_labels: bool = False) -> Callable[..., Any]: ...
def factory(build: Any = None, *, learns_prior: bool = False, takes_labels: bool = False) -> Callable[..., Any]:
    """Gives a function `(model, hparams=HParams(), tx=optax.adam, *, ..., axis_name=None)` what all factories have.

    Each knob may be given by its own name, and then goes before that of `hparams`. Knobs out of their range and unknown
    keywords are refused. Calls with an equal model and equal options, knobs that are Python numbers, and the same `tx`
    function return the same object, so that nothing is compiled twice; `tx` is therefore taken to be a pure function.

    Args:
      build: its `hparams` has a default, a NamedTuple whose fields have the types `Positive`, `NonNegative` or
        `Probability`, or float for any other range, which `build` checks.
      learns_prior: whether some loss has a gradient in a learned prior; models with one are refused elsewhere.
      takes_labels: whether the losses give conditioned models their labels, likewise.

    Example:
      >>> class HParams(NamedTuple):
      ...     lr: Positive = 1e-3
      >>> @factory
      ... def build(model, hparams=HParams(), tx=optax.adam, *, axis_name=None):
      ...     loss = lambda params, batch, key: (params["w"] ** 2, {})
      ...     return play({"fit": Player(loss, ("w",), tx(hparams.lr))}, [["fit"]], axis_name=axis_name)
      >>> build(None, lr=0.1) is build(None, HParams(0.1))
      True
      >>> build(None, rl=0.1)
      Traceback (most recent call last):
        ...
      aejax.checks.InputError: build has no keyword 'rl'. Did you mean 'lr'?
    """
    if build is None:
        return partial(factory, learns_prior=learns_prior, takes_labels=takes_labels)
    own = inspect.signature(build).parameters
    default, kind = own["hparams"].default, own["model"].annotation
    takes_model = kind is not inspect.Parameter.empty  # of any kind: it may be a string
    knobs = {
        name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=float)
        for name, value in default._asdict().items()
    }
    *others, last = own.values()
    signature = inspect.Signature([*others, *knobs.values(), last], return_annotation=Algorithm)

    @wraps(build)
    def made(*args: Any, **kwargs: Any) -> Algorithm:
        for name in kwargs:
            if name not in signature.parameters:
                known = nearest(name, list(signature.parameters)[2:], what="keywords")
                raise InputError(f"{build.__name__} has no keyword {name!r}. {known}")
        given = {name: kwargs.pop(name) for name in knobs if name in kwargs}
        bound = inspect.signature(build).bind(*args, **kwargs)
        bound.apply_defaults()
        model, hparams, tx, *_ = bound.args
        if takes_model:
            _check_model(build.__name__, model, kind, learns_prior, takes_labels)
            if bound.kwargs["axis_name"] is not None and likelihoods.get(model.likelihood).coupled:
                raise InputError(
                    f"{likelihoods.get(model.likelihood)} goes by the whole batch, of which a device under pmap or"
                    " shard_map sees a part: leave axis_name out, and train under jit, parallel='jit'."
                )
        hparams = _checked(build.__name__, default, hparams)._replace(**given)
        check_knobs(hparams, type(default))
        _check_tx(tx)
        return _build(build, model, hparams, tx, bound.kwargs)

    made.__signature__ = signature  # type: ignore[attr-defined]
    made.__doc__ = _with_arguments(build.__doc__)
    return made


def one_player(
    name: str,
    loss: Loss,
    model: type[Autoencoder],
    hparams: type[Any],
    *,
    player: str = "recon",
    coupled: bool = False,
    learns_prior: bool = False,
    check: Callable[..., None] | None = None,
    notes: str = "",
) -> Callable[..., Algorithm]:
    """The factory of a method with one loss, which moves all groups of its model that learn to reconstruct.

    Args:
      name: of the factory.
      loss: `(params, batch, key, *, model, ...) -> (scalar, metrics)`. The other keywords are the fields of `hparams`
        but for `lr`; what is static, which the factory takes by the same name and default; and `axis_name`, if it
        wants to know that.
      model: class of the module.
      hparams: a NamedTuple with `lr` and the real-valued knobs of the loss, as `factory` wants it.
      player: its name, the prefix of the metrics.
      coupled: whether the loss is no mean over the examples of a batch; it then takes `axis_name`. Where the likelihood
        makes it so, it is known.
      learns_prior: whether the loss has a gradient in a learned prior, which is refused elsewhere.
      check: `(model, hparams, **static) -> None` refuses what cannot be, beside the ranges of the knobs.
      notes: a paragraph for the docstring.

    Returns:
      `(model, hparams=HParams(), tx=optax.adam, *, static and knobs by name, axis_name=None) -> Algorithm`.
    """
    accepted = inspect.signature(loss).parameters
    keywords = [p for p in accepted.values() if p.kind is p.KEYWORD_ONLY and p.name != "model"]
    knobs = [field for field in hparams._fields if field != "lr"]
    static = [p for p in keywords if p.name not in (*knobs, "axis_name")]

    def build(model: Any, hparams: Any, tx: Any, *, axis_name: str | None, **options: Any) -> Algorithm:
        if check is not None:
            check(model, hparams, **options)
        mapped = {"axis_name": axis_name} if "axis_name" in accepted else {}
        one = Player(
            partial(loss, model=model, **options, **mapped),
            model.groups,
            optimisers(tx, {player: hparams.lr})[player],
            coupled or likelihoods.get(model.likelihood).coupled,
            {knob: getattr(hparams, knob) for knob in knobs},
        )
        return play({player: one}, [[player]], axis_name=axis_name, check=partial(check_data, model))

    if coupled and "axis_name" not in accepted:
        raise InputError(
            f"{name} says that its loss couples examples, and {loss.__name__} has no axis_name: without it each device"
            " would see its own part of the batch. Take axis_name=None and give it to parallel.gather or jax.lax.pmean."
        )
    positional, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("model", positional, annotation=model),
        inspect.Parameter("hparams", positional, default=hparams(), annotation=hparams),
        inspect.Parameter("tx", positional, default=optax.adam, annotation=Callable[..., Any] | Mapping[str, Any]),
        *static,
        inspect.Parameter("axis_name", keyword, default=None, annotation=str | None),
    ]
    build.__signature__ = inspect.Signature(parameters, return_annotation=Algorithm)  # type: ignore[attr-defined]
    build.__name__ = build.__qualname__ = name
    build.__module__ = sys._getframe(1).f_globals["__name__"]  # of the method's file, as NamedTuple does
    build.__doc__ = _document(loss, model, hparams, player, [p.name for p in static], notes)
    return factory(learns_prior=learns_prior, takes_labels=True)(build)


def optimisers(tx: Any, rates: Mapping[str, Any]) -> dict[str, optax.GradientTransformation]:
    """The optimiser of each player.

    Args:
      tx: rate -> optimiser, for all players; or a dict of such functions by player.
      rates: of each player; numbers, or schedules.

    Raises:
      InputError: the dict lacks a player or has others, or a function returns no optimiser.

    Example:
      >>> sorted(optimisers({"disc": optax.sgd, "gen": optax.adam}, {"disc": 0.1, "gen": 1e-3}))
      ['disc', 'gen']
    """
    by_player = dict(tx) if isinstance(tx, Mapping) else dict.fromkeys(rates, tx)
    for name in by_player:
        if name not in rates:
            raise InputError(f"tx names the player {name!r}. {nearest(name, rates, what='players')}")
    missing = [name for name in rates if name not in by_player]
    if missing:
        raise InputError(f"tx has no optimiser for the players {missing}; give a function of the rate for each.")
    made = {name: by_player[name](rate) for name, rate in rates.items()}
    for name, optimiser in made.items():
        if not hasattr(optimiser, "update"):
            raise InputError(
                f"tx makes a {type(optimiser).__name__} for player {name!r}; an optimiser is wanted, such as"
                " tx=lambda lr: optax.adam(lr)."
            )
    return made


def check_knobs(hparams: Any, known: type | None = None) -> None:
    """Refuses knobs that are no numbers, or out of the range that the types of `known` (or their own) say."""
    ranges = get_type_hints(known or type(hparams), include_extras=True)
    for name, value in hparams._asdict().items():
        if is_schedule(value):
            value.check(name)
        ends = ends_of(value)
        if not all(isinstance(end, int | float | np.number | jax.Array) and np.ndim(end) == 0 for end in ends):
            raise InputError(
                f"{name} is {value!r}; a number is wanted, or one of aejax.schedules: Ramp, Cycle, Decay."
                + (" Many numbers at once are for aejax.sweep.sweep or jax.vmap." if np.ndim(value) else "")
            )
        for check in getattr(ranges[name], "__metadata__", ()):
            if check is not LATER:
                check(**{name: value})


def check_data(model: Autoencoder, data: Any) -> None:
    """Refuses data that a model cannot be trained on: `check` of `play`.

    Args:
      model: the module.
      data: `Batch(x, y)`, whole, on the host or a device.

    Raises:
      InputError: a bare array; x that is not of floats, not finite, or outside the range of the likelihood; NaN for
        what was not observed, where the model cannot do without; labels that a conditioned model needs and does not
        find, or does not know.
    """
    if not hasattr(data, "x"):
        raise InputError(f"The data are a {type(data).__name__}; a Batch is wanted: aejax.Batch(x), or Batch(x, y).")
    datasets.check_examples(data.x, model.likelihood)
    may_miss = likelihoods.get(model.likelihood).support.missing and not model.takes_missing
    if may_miss and not isinstance(data.x, jax.core.Tracer) and np.isnan(data.x).any():
        raise InputError(f"x holds NaN, and {type(model).__name__} has to see every number: use AutoRec.")
    inputs(model, data)


def _check_model(name: str, model: Any, kind: Any, learns_prior: bool, takes_labels: bool) -> None:
    """Refuses what is no model, and a model with parts that no loss would train."""
    if not isinstance(model, Autoencoder):
        own = model if isinstance(model, type) and issubclass(model, Autoencoder) else kind
        example = f"{getattr(own, '__name__', own)}.dense(784, 20)"
        raise InputError(f"{name} takes a built model, such as {example}; got {model!r}.")
    needed = kind.networks if isinstance(kind, type) and issubclass(kind, Autoencoder) else ()
    if missing := [network for network in needed if network not in model.networks]:
        raise InputError(
            f"{name} takes a {kind.__name__}, which has a {', a '.join(missing)} beside; {type(model).__name__} has"
            f" the networks {', '.join(model.networks)}: build a {kind.__name__}, or a class of your own from it."
        )
    if isinstance(model.prior, priors.LearnedPrior) and not learns_prior:
        raise InputError(f"No loss here learns the prior {type(model.prior).__name__}; use a fixed one, or a VAE.")
    if model.takes_labels and not takes_labels:
        raise InputError(f"{type(model).__name__} is conditioned on labels, and no loss here gives them: use a CVAE.")


def _checked(name: str, default: Any, hparams: Any) -> Any:
    if getattr(hparams, "_fields", None) != default._fields:
        what = type(hparams)
        came = f"{what.__module__}.{what.__qualname__}" if hasattr(hparams, "_fields") else what.__name__
        wanted = f"{type(default).__module__}.HParams({', '.join(default._fields)})"
        raise InputError(f"hparams is a {came}; {name} takes {wanted}, or each knob by its name, such as lr=1e-3.")
    return hparams


def _check_tx(tx: Any) -> None:
    for each in tx.values() if isinstance(tx, Mapping) else (tx,):
        if hasattr(each, "update") or not callable(each):
            raise InputError(
                f"tx is {'an optimiser' if hasattr(each, 'update') else repr(each)}; a function from the learning rate"
                " to an optimiser is wanted: tx=optax.adam with lr=1e-3 beside it, or tx=lambda lr: optax.adam(1e-3)."
            )


def _build(build: Any, model: Any, hparams: Any, tx: Any, options: dict[str, Any]) -> Algorithm:
    """`build(...)`, the one of before where that is the same."""
    leaves, structure = jax.tree.flatten(hparams)
    kinds = [type(leaf) for leaf in leaves]
    by_player = tuple(sorted(tx.items())) if isinstance(tx, Mapping) else tx
    key = (build, model, structure, tuple(leaves), by_player, tuple(sorted(options.items())))
    if set(kinds) <= {int, float} and _is_hashable(key):
        return _build_once(*key, tuple(kinds))
    return build(model, hparams, tx, **options)


@lru_cache(maxsize=128)
def _build_once(
    build: Any, model: Any, structure: Any, leaves: Any, tx: Any, options: Any, kinds: Any
) -> Algorithm:  # kinds, since 1 == 1.0
    with jax.ensure_compile_time_eval():  # or constants made under a trace would outlive it
        return build(model, structure.unflatten(leaves), dict(tx) if isinstance(tx, tuple) else tx, **dict(options))


def _is_hashable(key: Any) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True


_ARGUMENTS = """\
    Args:
      model: the module.
      hparams: knobs; each may be traced, or a schedule of `aejax.schedules`; or each by its own name.
      tx: learning rate -> optimiser, for all players; or a dict of such by player.
      axis_name: as in `play`.

"""


def _with_arguments(text: str | None) -> str | None:
    """The docstring of a factory, told what all factories take unless it tells its own."""
    if text is None or "Args:" in text or "    Returns:" not in text:
        return text
    before, after = text.split("    Returns:", 1)
    return f"{before}{_ARGUMENTS}    Returns:{after}"


def _document(loss: Any, model: type, hparams: type, player: str, static: list[str], notes: str) -> str:
    lines = [
        f"The one-player game of `{loss.__name__}`.",
        *(["", notes] if notes else []),
        "",
        "Args:",
        f"  model: the module, such as a `{model.__name__}`.",
        f"  hparams: knobs, a `{hparams.__module__}.HParams`; each may be traced, or a schedule of `aejax.schedules`.",
        f"  tx: learning rate -> optimiser; or a dict of such, {{{player!r}: ...}}.",
        *([f"  {', '.join(static)}: as in `{loss.__name__}`."] if static else []),
        f"  {', '.join(hparams._fields)}: knobs by name, before those of `hparams`.",  # type: ignore[attr-defined]
        "  axis_name: as in `play`.",
        "",
        "Returns:",
        f"  Player `{player}` moves `model.groups`, the encoder, the decoder and what else learns to reconstruct; one"
        " phase.",
        "",
        "Raises:",
        "  InputError: an unknown keyword, a knob out of its range, an option that cannot be, an optimiser as `tx`.",
    ]
    return "\n".join(lines)
