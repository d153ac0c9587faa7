"""The heart: a method is a few pure functions, and most methods are a game described as data.

A *player* is a loss, the parameter groups that it moves, and the optimiser that moves them. A *rule* moves groups that
no gradient moves: running means, codebooks, controllers. *Phases* are the order of play. A plain autoencoder is the
one-player game; the adversarial autoencoder has three players in three phases, and two of their optimisers move the
same encoder.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aejax.checks import InputError
from aejax.game import (
    Algorithm,
    Loss,
    Metrics,
    Params,
    Phase,
    Player,
    Refresh,
    Rule,
    TrainState,
    accept,
    check_game,
    keep_params,
)
from aejax.nets import has_convolution

# What a key is folded with: phases use 0, 1, 2, ...; these are counted up, but for the transforms, counted down.
_UPDATE, _REFRESH, _TRANSFORM = 2**30, 2**30 + 2**29, 2**31 - 1
_BLOCK = 4096  # examples at once that a check takes through a transform


def play(
    players: Mapping[str, Player | Rule],
    phases: Sequence[Sequence[str] | Phase],
    *,
    axis_name: str | None = None,
    start: Callable[[Params, Any, jax.Array], Params] = keep_params,
    refreshes: Sequence[Refresh] = (),
    check: Callable[[Any], None] = accept,
) -> Algorithm:
    """Builds the algorithm that plays a game.

    Phases run in order and each sees the parameters that the last one left. The players of one phase see the same
    parameters and the same noise. The key is that of the *run*: the step folds in `state.step` and then the phase, so a
    resumed run draws what the uninterrupted run drew. `step` is not jitted: `jit`, `vmap`, `scan` and donation are the
    caller's.

    A knob that is a schedule has the value of `state.step` in `step`, and its `stop` in `evaluate`: while the
    weight of a term rises, the lowest loss would be the first one. Schedules of learning rates count steps of the game,
    also in a phase that is played several times (not those of `optax.inject_hyperparams` and `optax.MultiSteps`).

    Args:
      players: players and rules by name; the name is the prefix of their metrics.
      phases: the order of play, e.g. `[["recon"], ["disc"], ["gen"]]`. `Phase(("critic",), times=5)` moves the critic
        on five parts of the batch, where the phases played once see the last part. Metrics are those of the last move.
      axis_name: the mapped axis when the step runs under `jax.pmap` or `jax.shard_map`: gradients and metrics are
        averaged over it, the sums of rules added, and each shard draws noise of its own.
      start: `(params, data, key) -> params`, for whoever calls `init`: what parameters take from the data.
      refreshes: what the loop computes from all data now and then.
      check: `(data) -> None`, raises `InputError` for data that cannot be trained on; `train` calls it.

    Returns:
      `init(params) -> TrainState`; `step(state, batch, key) -> (TrainState, metrics)`; and `evaluate(state, batch,
      key) -> metrics`, every player's loss and the metrics of every rule at fixed parameters. Metrics are scalars named
      `player/term`, and `player/loss` is always among them.

    Raises:
      InputError: no players or phases, a phase names an unknown player, or moves one group twice; from `init`,
        a group that `params` lack; from `step`, a loss that does not return (scalar, metrics), or a batch that `times`
        does not divide.

    Example:
      >>> def loss(params, x, key):
      ...     return jnp.mean((params["w"] * x - 1.0) ** 2), {}
      >>> algo = play({"fit": Player(loss, ("w",), optax.sgd(0.5))}, [["fit"]])
      >>> state, metrics = algo.step(algo.init({"w": jnp.zeros(())}), jnp.ones(2), jax.random.key(0))
      >>> float(metrics["fit/loss"]), float(state.params["w"])
      (1.0, 1.0)
    """
    order = check_game(players, phases, refreshes)
    parts = max(phase.times for phase in order)

    def init(params: Params) -> TrainState:
        if set(params) == {"params"}:
            raise InputError('The parameters came inside {"params": ...}; give what is inside, by group.')
        missing = sorted({g for p in (*players.values(), *refreshes) for g in p.groups} - set(params))
        if missing:
            raise InputError(f"The players move {missing}, which params lack; params have {sorted(params)}.")
        opt_states = {n: p.tx.init(_own(params, p)) for n, p in players.items() if isinstance(p, Player)}
        return TrainState(jnp.zeros((), jnp.int32), dict(params), opt_states)

    def moved(phase: Phase, i: int, state: TrainState, batch: Any, noise: jax.Array, key: jax.Array):
        """The state after all players of a phase have moved once, with the step as it was, and their metrics."""
        opt_states = dict(state.opt_states)
        own: Params = {}
        metrics: Metrics = {}
        for name in phase.players:
            player, draws = players[name], jax.random.clone(noise)
            if isinstance(player, Rule):
                shared = _draw_key(jax.random.clone(key), state.step, _UPDATE + i, None)
                groups, terms = _apply_rule(player, state, batch, draws, shared, axis_name)
            else:
                loss = _loss(name, player, state.step)
                groups, opt_states[name], terms = _move(player, loss, name, state, batch, draws, axis_name, phase.times)
            own |= groups
            metrics |= {f"{name}/{term}": value for term, value in terms.items()}
        return TrainState(state.step, {**state.params, **own}, opt_states), metrics

    def step(state: TrainState, batch: Any, key: jax.Array) -> tuple[TrainState, Metrics]:
        metrics: Metrics = {}
        split = _split(batch, parts) if parts > 1 else batch
        last = jax.tree.map(lambda v: v[-1], split) if parts > 1 else batch
        for i, phase in enumerate(order):
            noise = _draw_key(key, state.step, i, axis_name)
            if phase.times == 1:
                state, terms = moved(phase, i, state, last, noise, key)
            else:

                def one(state, part, phase=phase, i=i):
                    j, rows = part
                    return moved(phase, i, state, rows, jax.random.fold_in(noise, j), jax.random.fold_in(key, j))  # noqa: B023

                state, terms = _repeat(one, state, (jnp.arange(parts), split))
            metrics |= terms
        return state._replace(step=state.step + 1), metrics

    def evaluate(state: TrainState, batch: Any, key: jax.Array) -> Metrics:
        metrics: Metrics = {}
        for name, player in players.items():
            i = next((i for i, phase in enumerate(order) if name in phase.players), len(order))
            noise = _draw_key(key, state.step, i, axis_name)
            if isinstance(player, Rule):
                terms = player.measure(state.params, batch, noise, **_knobs(player, None))[1]
            else:
                loss, terms = _loss(name, player, None)(state.params, batch, noise)
                terms = {**terms, "loss": loss}
            metrics |= {f"{name}/{term}": value for term, value in terms.items()}
        return metrics if axis_name is None else jax.lax.pmean(metrics, axis_name)

    coupled = any(player.coupled for player in players.values())
    return Algorithm(init, step, evaluate, axis_name, start, tuple(refreshes), check, coupled)


def transform_batch(algo: Algorithm, transform: Callable[[jax.Array, Any], Any]) -> Algorithm:
    """The algorithm that sees `transform(key, batch)` in place of each batch, drawn anew at every step.

    Stochastic binarisation is `transform_batch(vae(...), binarize)`. All phases of a step see the same draw, starts and
    refreshes one draw of the whole data. Transforms may be nested: the outer one runs first, and each draws noise of
    its own.

    Args:
      algo: any algorithm whose state has `.step`.
      transform: `(key, batch) -> batch`, pure; the key is consumed. It may bring `transform.check(data)`, which refuses
        what it cannot transform.
    """
    use = _TRANSFORM - algo.layers

    def drawn(state: Any, batch: Any, key: jax.Array) -> Any:
        return transform(_draw_key(key, state.step, use, algo.axis_name), batch)

    def start(params: Params, data: Any, key: jax.Array) -> Params:
        return algo.start(params, transform(jax.random.fold_in(key, use), data), key)

    def refreshed(refresh: Refresh) -> Refresh:
        def update(params: Params, data: Any, key: jax.Array) -> Params:
            return refresh.update(params, transform(jax.random.fold_in(key, use), data), key)

        return refresh._replace(update=update)

    def check(data: Any) -> None:
        getattr(transform, "check", accept)(data)
        longest = max(len(leaf) for leaf in jax.tree.leaves(data))
        parts = -(-longest // _BLOCK)
        for part in range(parts):  # all of what the method will see, in one draw; rows from everywhere in each part
            rows = np.arange(part, longest, parts)
            algo.check(transform(jax.random.key(0), jax.tree.map(lambda v: jnp.asarray(v)[rows % len(v)], data)))  # noqa: B023

    return algo._replace(
        step=lambda state, batch, key: algo.step(state, drawn(state, batch, key), key),
        evaluate=lambda state, batch, key: algo.evaluate(state, drawn(state, batch, key), key),
        start=algo.start if algo.start is keep_params else start,
        refreshes=tuple(map(refreshed, algo.refreshes)),
        check=algo.check if algo.check is accept else check,
        layers=algo.layers + 1,
    )


def begin(algo: Algorithm, init: Callable[[jax.Array], Params], data: Any, key: jax.Array) -> Any:
    """The state before the first step.

    Args:
      algo: any.
      init: key -> params, such as `partial(init_params, model, data=x)`.
      data: of the training, whole, from which the algorithm may take a start.
      key: consumed, by `init`, and folded with 1 by the start.
    """
    return algo.init(algo.start(init(key), data, jax.random.fold_in(jax.random.clone(key), 1)))


def refresh(algo: Algorithm, index: int, state: Any, data: Any, key: jax.Array) -> Any:
    """The state after one of the algorithm's refreshes, at its present step; the key is that of the steps."""
    one = algo.refreshes[index]
    new = one.update(state.params, data, _draw_key(key, state.step, _REFRESH + index, None))
    return state._replace(params={**state.params, **_checked("A refresh", new, one.groups)})


def _draw_key(key: jax.Array, step: jax.Array, use: int, axis_name: str | None) -> jax.Array:
    """The run's key for one use at one step; each shard of a mapped axis gets its own."""
    key = jax.random.fold_in(jax.random.fold_in(key, step), use)
    return key if axis_name is None else jax.random.fold_in(key, jax.lax.axis_index(axis_name))


def _own(params: Params, player: Player | Rule | Refresh) -> Params:
    return {group: params[group] for group in player.groups}


def _knobs(player: Player | Rule, step: jax.Array | None) -> dict[str, Any]:
    """The knobs as they are at a step, or in the end."""
    return {k: v if not callable(v) else v.stop if step is None else v(step) for k, v in player.knobs.items()}


def _loss(name: str, player: Player, step: jax.Array | None) -> Loss:
    """The loss with its knobs, its result checked for what it is."""
    knobs = _knobs(player, step)

    def loss(params: Params, batch: Any, key: jax.Array) -> tuple[jax.Array, Metrics]:
        result = player.loss(params, batch, key, **knobs)
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
            raise InputError(f"The loss of {name!r} returns a {type(result).__name__}; wanted is (scalar, metrics).")
        _check_scalars(name, {**result[1], "loss": result[0]})
        return result

    return loss


def _move(
    player: Player,
    loss: Loss,
    name: str,
    state: TrainState,
    batch: Any,
    key: jax.Array,
    axis_name: str | None,
    times: int,
) -> tuple[Params, Any, Metrics]:
    """One optimiser step of one player: (its moved groups, its optimiser state, its metrics)."""
    params, own = state.params, _own(state.params, player)

    def of(own: Params) -> tuple[jax.Array, Metrics]:
        return loss({**params, **own}, batch, key)

    def value_fn(own: Params) -> jax.Array:
        if axis_name is None:
            return of(own)[0]
        return jax.lax.pmean(of(jax.lax.pmean(own, axis_name))[0], axis_name)  # whose gradient pmap would not average

    if axis_name is None:
        (value, terms), grads = jax.value_and_grad(of, has_aux=True)(own)
    else:
        # Differentiating replicated params under shard_map already sums over devices; varying params do not, so
        # this one form is right under shard_map (both settings of check_vma) and pmap.
        (value, terms), grads = jax.value_and_grad(of, has_aux=True)(_varying(own, axis_name))
        value, terms, grads = jax.lax.pmean((value, terms, grads), axis_name)
    update = optax.with_extra_args_support(player.tx).update
    opt_state = state.opt_states[name] if times == 1 else _at_step(state.opt_states[name], state.step)
    updates, opt_state = update(grads, opt_state, own, value=value, grad=grads, value_fn=value_fn)
    return optax.apply_updates(own, updates), opt_state, {**terms, "loss": value}


def _varying(tree: Any, axis_name: str) -> Any:
    return jax.tree.map(lambda v: jax.lax.pcast(v, axis_name, to="varying"), tree)


def _at_step(opt_state: Any, step: jax.Array) -> Any:
    """Schedules of learning rates count steps of the game, but those within a MultiSteps, which counts for itself."""
    is_known = lambda node: isinstance(node, optax.ScaleByScheduleState | optax.MultiStepsState)
    set_count = lambda node: node._replace(count=step) if isinstance(node, optax.ScaleByScheduleState) else node
    return jax.tree.map(set_count, opt_state, is_leaf=is_known)


def _apply_rule(
    rule: Rule, state: TrainState, batch: Any, key: jax.Array, shared: jax.Array, axis_name: str | None
) -> tuple[Params, Metrics]:
    """(New values of its groups, its metrics); `shared` is the same on every device."""
    knobs = _knobs(rule, state.step)
    measured = rule.measure(state.params, batch, key, **knobs)
    if not (isinstance(measured, tuple) and len(measured) == 2 and isinstance(measured[1], Mapping)):
        raise InputError(f"The measure of a rule returns a {type(measured).__name__}; wanted is (sums, metrics).")
    sums, terms = measured
    _check_scalars("a rule", terms)
    if axis_name is not None:
        sums, terms = jax.lax.psum(sums, axis_name), jax.lax.pmean(terms, axis_name)
    return _checked("A rule", rule.update(state.params, sums, shared, **knobs), rule.groups), terms


def _checked(what: str, new: Params, groups: tuple[str, ...]) -> Params:
    if not isinstance(new, Mapping):
        raise InputError(f"{what} returns a {type(new).__name__}; wanted is a dict of its groups, {sorted(groups)}.")
    if set(new) != set(groups):
        raise InputError(f"{what} returns {sorted(new)}; its groups are {sorted(groups)}.")
    return new


def _check_scalars(name: str, terms: Metrics) -> None:
    for term, value in terms.items():
        if jnp.shape(value):
            raise InputError(f"{name}/{term} has shape {jnp.shape(value)}; metrics are scalars: take its mean.")


def _split(batch: Any, parts: int) -> Any:
    """`[B, ...] -> [parts, B / parts, ...]`: rows j, j + parts, ... are part j, which so lies over all devices."""

    def split(v: jax.Array) -> jax.Array:
        if len(v) % parts:
            raise InputError(
                f"A batch of {len(v)} (on each device) is not divided by {parts}, as often as a phase is played;"
                f" {len(v) // parts * parts or parts} or {(len(v) // parts + 1) * parts} would be."
            )
        return jnp.swapaxes(v.reshape(-1, parts, *v.shape[1:]), 0, 1)

    return jax.tree.map(split, batch)


def _repeat(one: Callable[..., Any], state: TrainState, parts: Any) -> tuple[TrainState, Metrics]:
    """One move for each part in turn, and the metrics of the last."""
    first = jax.tree.map(lambda v: v[0], parts)
    # On CPU a lax convolution inside a compiled loop leaves the fast path, at ten times the cost and more.
    if jax.default_backend() == "cpu" and has_convolution(one, state, first):
        for j in range(len(parts[0])):
            state, terms = one(state, jax.tree.map(lambda v, j=j: v[j], parts))
        return state, terms
    state, log = jax.lax.scan(one, state, parts)
    return state, jax.tree.map(lambda v: v[-1], log)
