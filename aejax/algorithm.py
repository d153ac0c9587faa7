"""The heart: a method is three pure functions, and most methods are a game described as data.

A *player* is a loss, the parameter groups that it moves, and the optimiser that moves them. *Phases* are the order of
play. A plain autoencoder is the one-player game; the adversarial autoencoder has three players in three phases, and
two of their optimisers move the same encoder.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from aejax.checks import InputError

Params = dict[str, Any]
Metrics = dict[str, jax.Array]
Loss = Callable[[Params, Any, jax.Array], tuple[jax.Array, Metrics]]

_TRANSFORM = 2**31 - 1  # the fold that `transform_batch` draws from; phases use 0, 1, 2, ...


class TrainState(NamedTuple):
    """All that a run carries: arrays only, no functions, no keys, no configuration."""

    step: jax.Array  # () int32, steps done
    params: Params  # by group
    opt_states: dict[str, Any]  # by player


class Player(NamedTuple):
    """One objective of a game."""

    loss: Loss  # (params, batch, key) -> (scalar, metrics); sees all params, is differentiated in its groups
    groups: tuple[str, ...]  # the top-level entries of params that it moves: Linen submodules, or a lone parameter
    tx: optax.GradientTransformation


class Algorithm(NamedTuple):
    """A method, whole. Any state with `.step` and `.params` will do; `play` builds the usual one."""

    init: Callable[[Params], Any]  # params -> state
    step: Callable[[Any, Any, jax.Array], tuple[Any, Metrics]]  # (state, batch, key) -> (state, metrics)
    evaluate: Callable[[Any, Any, jax.Array], Metrics]  # (state, batch, key) -> metrics
    axis_name: str | None = None  # the mapped axis that it averages over, if any


def play(players: Mapping[str, Player], phases: Sequence[Sequence[str]], *, axis_name: str | None = None) -> Algorithm:
    """Builds the algorithm that plays a game.

    Phases run in order and each sees the parameters that the last one left. The players of one phase see the same
    parameters and the same noise. Every loss is a mean over the examples of the batch. The key is that of the *run*:
    the step folds in `state.step` and then the phase, so a resumed run draws what the uninterrupted run drew. `step`
    is not jitted: `jit`, `vmap`, `scan` and donation are the caller's.

    Args:
      players: by name; the name is the prefix of the player's metrics.
      phases: the order of play, e.g. `[["recon"], ["disc"], ["gen"]]`. To move a player five times, repeat its phase;
        its metrics are those of its last move.
      axis_name: the mapped axis when the step runs under `jax.pmap` or `jax.shard_map`: gradients and metrics are
        averaged over it, and each shard draws noise of its own.

    Returns:
      `init(params) -> TrainState`; `step(state, batch, key) -> (TrainState, metrics)`; and `evaluate(state, batch,
      key) -> metrics`, every player's loss at fixed parameters. Metrics are scalars named `player/term`, and
      `player/loss` is always among them.

    Raises:
      InputError: no players or phases, a phase names an unknown player, or moves one group twice; from `init`,
        a group that `params` lack.

    Example:
      >>> def loss(params, x, key):
      ...     return jnp.mean((params["w"] * x - 1.0) ** 2), {}
      >>> algo = play({"fit": Player(loss, ("w",), optax.sgd(0.5))}, [["fit"]])
      >>> state, metrics = algo.step(algo.init({"w": jnp.zeros(())}), jnp.ones(2), jax.random.key(0))
      >>> float(metrics["fit/loss"]), float(state.params["w"])
      (1.0, 1.0)
    """
    _check_game(players, phases)
    phases = tuple(tuple(phase) for phase in phases)

    def init(params: Params) -> TrainState:
        missing = sorted({g for p in players.values() for g in p.groups} - set(params))
        if missing:
            raise InputError(f"The players move {missing}, which params lack; params have {sorted(params)}.")
        opt_states = {name: p.tx.init(_own(params, p)) for name, p in players.items()}
        return TrainState(jnp.zeros((), jnp.int32), dict(params), opt_states)

    def step(state: TrainState, batch: Any, key: jax.Array) -> tuple[TrainState, Metrics]:
        params, opt_states = state.params, dict(state.opt_states)
        metrics: Metrics = {}
        for i, phase in enumerate(phases):
            noise = _draw_key(key, state.step, i, axis_name)
            moved: Params = {}
            for name in phase:
                own, opt_states[name], terms = _move(
                    players[name], opt_states[name], params, batch, jax.random.clone(noise), axis_name
                )
                moved |= own
                metrics |= {f"{name}/{term}": value for term, value in terms.items()}
            params = {**params, **moved}
        return TrainState(state.step + 1, params, opt_states), metrics

    def evaluate(state: TrainState, batch: Any, key: jax.Array) -> Metrics:
        metrics: Metrics = {}
        for name, player in players.items():
            i = next((i for i, phase in enumerate(phases) if name in phase), len(phases))
            loss, terms = player.loss(state.params, batch, _draw_key(key, state.step, i, axis_name))
            metrics |= {f"{name}/{term}": value for term, value in {**terms, "loss": loss}.items()}
        return metrics if axis_name is None else jax.lax.pmean(metrics, axis_name)

    return Algorithm(init, step, evaluate, axis_name)


def transform_batch(algo: Algorithm, transform: Callable[[jax.Array, Any], Any]) -> Algorithm:
    """The algorithm that sees `transform(key, batch)` in place of each batch, drawn anew at every step.

    Stochastic binarisation is `transform_batch(vae(...), binarize)`. All phases of a step see the same draw.

    Args:
      algo: any algorithm whose state has `.step`.
      transform: `(key, batch) -> batch`, pure; the key is consumed.
    """

    def drawn(state: Any, batch: Any, key: jax.Array) -> Any:
        return transform(_draw_key(key, state.step, _TRANSFORM, algo.axis_name), batch)

    return Algorithm(
        algo.init,
        lambda state, batch, key: algo.step(state, drawn(state, batch, key), key),
        lambda state, batch, key: algo.evaluate(state, drawn(state, batch, key), key),
        algo.axis_name,
    )


def _draw_key(key: jax.Array, step: jax.Array, use: int, axis_name: str | None) -> jax.Array:
    """The run's key for one use at one step; each shard of a mapped axis gets its own."""
    key = jax.random.fold_in(jax.random.fold_in(key, step), use)
    return key if axis_name is None else jax.random.fold_in(key, jax.lax.axis_index(axis_name))


def _own(params: Params, player: Player) -> Params:
    return {group: params[group] for group in player.groups}


def _move(player: Player, opt_state: Any, params: Params, batch: Any, key: jax.Array, axis_name: str | None):
    """One optimiser step of one player: (its moved groups, its optimiser state, its metrics)."""
    own = _own(params, player)

    def loss(own: Params) -> tuple[jax.Array, Metrics]:
        return player.loss({**params, **own}, batch, key)

    if axis_name is None:
        (value, terms), grads = jax.value_and_grad(loss, has_aux=True)(own)
    else:
        # Differentiating replicated params under shard_map already sums over devices; varying params do not, so
        # this one form is right under shard_map (both settings of check_vma) and pmap.
        local = jax.tree.map(lambda v: jax.lax.pcast(v, axis_name, to="varying"), own)
        (value, terms), grads = jax.value_and_grad(loss, has_aux=True)(local)
        value, terms, grads = jax.lax.pmean((value, terms, grads), axis_name)
    updates, opt_state = player.tx.update(grads, opt_state, own)
    return optax.apply_updates(own, updates), opt_state, {**terms, "loss": value}


def _check_game(players: Mapping[str, Player], phases: Sequence[Sequence[str]]) -> None:
    if not players or not phases or not all(phases):
        raise InputError("A game needs at least one player, one phase, and a player in every phase.")
    for name, player in players.items():
        if isinstance(player.groups, str):
            raise InputError(f"Player {name!r} moves {player.groups!r}, a string; write ({player.groups!r},).")
    for phase in phases:
        if isinstance(phase, str):
            raise InputError(f"Phase {phase!r} is a string; write [{phase!r}].")
        unknown = sorted(set(phase) - set(players))
        if unknown:
            raise InputError(f"Phase {list(phase)} names unknown players {unknown}; known: {sorted(players)}.")
        moved = [group for name in phase for group in players[name].groups]
        twice = sorted({group for group in moved if moved.count(group) > 1})
        if twice:
            raise InputError(f"Phase {list(phase)} moves {twice} twice; put the players into phases of their own.")
