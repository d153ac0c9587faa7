"""The parts of a game as data: players, rules, phases, refreshes; what `play` makes of them; and what is no game."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import optax

from aejax.checks import InputError, is_schedule

Params = dict[str, Any]
Metrics = dict[str, jax.Array]
Loss = Callable[..., tuple[jax.Array, Metrics]]


class TrainState(NamedTuple):
    """All that a run carries: arrays only, no functions, no keys, no configuration."""

    step: jax.Array  # () int32, steps done
    params: Params  # by group
    opt_states: dict[str, Any]  # by player


class Player(NamedTuple):
    """One objective of a game."""

    loss: Loss  # (params, batch, key, **knobs) -> (scalar, metrics); sees all params, is differentiated in its groups
    groups: tuple[str, ...]  # the top-level entries of params that it moves: Linen submodules, or a lone parameter
    tx: optax.GradientTransformation
    coupled: bool = False  # whether the loss is no mean over the examples of the batch: rates, covariances, MMD
    knobs: Mapping[str, Any] = MappingProxyType({})  # further arguments: numbers, or schedules of `aejax.schedules`


class Rule(NamedTuple):
    """What moves parameters without a gradient: EMA codebooks, target networks, controllers, counters.

    `measure` is what depends on the batch; its sums are added up over the devices. `update` then runs alike on each, so
    ratios and clips are right there. Within a phase a rule sees the parameters of before the phase, as players do.
    The leaves of its groups are float32.
    """

    measure: Callable[..., tuple[Any, Metrics]]  # (params, batch, key, **knobs) -> (sums, metrics)
    update: Callable[..., Params]  # (params, sums, key, **knobs) -> new values of its groups
    groups: tuple[str, ...]
    coupled: bool = True  # whether its metrics are no means over the examples of the batch
    knobs: Mapping[str, Any] = MappingProxyType({})  # further arguments of both, as those of a `Player`


class Phase(NamedTuple):
    """Players that move together, `times` times in a row, each time on its own part of the batch.

    Part j is rows j, j + times, ... of the batch. The learning rate is that of the step, whatever `times` is.
    """

    players: tuple[str, ...]
    times: int = 1


class Refresh(NamedTuple):
    """What is computed from the whole data now and then, such as the targets of a clustering.

    It runs before each step whose number, counted from 0, is a multiple of `every`.
    """

    update: Callable[[Params, Any, jax.Array], Params]  # (params, data, key) -> new values of its groups
    groups: tuple[str, ...]
    every: int  # steps


def keep_params(params: Params, data: Any, key: jax.Array) -> Params:
    """The start of most algorithms: nothing is taken from the data."""
    return params


def accept(data: Any) -> None:
    """The check of algorithms that have none."""


class Algorithm(NamedTuple):
    """A method, whole. Any state with `.step` and `.params` will do; `play` builds the usual one."""

    init: Callable[[Params], Any]  # params -> state
    step: Callable[[Any, Any, jax.Array], tuple[Any, Metrics]]  # (state, batch, key) -> (state, metrics)
    evaluate: Callable[[Any, Any, jax.Array], Metrics]  # (state, batch, key) -> metrics
    axis_name: str | None = None  # the mapped axis that it averages over, if any
    start: Callable[[Params, Any, jax.Array], Params] = keep_params  # (params, data, key) -> params, before `init`
    refreshes: tuple[Refresh, ...] = ()
    check: Callable[[Any], None] = accept  # refuses data, on the host, that it cannot be trained on
    coupled: bool = False  # whether some metric is no mean over the examples of the batch
    layers: int = 0  # of `transform_batch`


def check_game(players: Mapping[str, Any], phases: Sequence[Any], refreshes: Sequence[Refresh]) -> tuple[Phase, ...]:
    """The phases as such; refuses what is no game."""
    if not players or not phases or not all(phases):
        raise InputError("A game needs at least one player, one phase, and a player in every phase.")
    for name, player in players.items():
        if isinstance(player.groups, str):
            raise InputError(f"Player {name!r} moves {player.groups!r}, a string; write ({player.groups!r},).")
        if not player.groups:
            raise InputError(f"Player {name!r} moves no group of parameters; name one.")
        odd = [knob for knob, value in player.knobs.items() if callable(value) and not is_schedule(value)]
        if odd:
            raise InputError(
                f"The knobs {odd} of {name!r} are functions; use a number, or schedules.Ramp, Cycle or Decay."
            )
        if isinstance(player, Player) and not hasattr(player.tx, "update"):
            raise InputError(
                f"Player {name!r} has tx={getattr(player.tx, '__name__', player.tx)!r}; an optimiser is wanted, such"
                " as optax.adam(1e-3). (Factories like ae(model) take the function, tx=optax.adam.)"
            )
    for phase in phases:
        named = phase.players if isinstance(phase, Phase) else phase
        if isinstance(named, str) or not named:
            raise InputError(f"Phase {named!r} is a string; write [{named!r}]." if named else "A phase has no player.")
    order = tuple(phase if isinstance(phase, Phase) else Phase(tuple(phase)) for phase in phases)
    for phase in order:
        names = list(phase.players)
        unknown = sorted(set(names) - set(players))
        if unknown:
            raise InputError(f"Phase {names} names unknown players {unknown}; known: {sorted(players)}.")
        moved = [group for name in names for group in players[name].groups]
        twice = sorted({group for group in moved if moved.count(group) > 1})
        if twice:
            raise InputError(f"Phase {names} moves {twice} twice; put the players into phases of their own.")
    for refresh in refreshes:
        if isinstance(refresh.groups, str) or not (isinstance(refresh.every, int) and refresh.every >= 1):
            raise InputError(
                f"A refresh has groups={refresh.groups!r}, every={refresh.every}; a tuple, and at least 1."
            )
    often = {phase.times for phase in order}
    if not all(isinstance(times, int) for times in often) or min(often) < 1 or len(often - {1}) > 1:
        raise InputError(f"Phases are played {sorted(often)} times; one number above 1 divides the batch, beside 1.")
    return order
