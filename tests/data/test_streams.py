"""Streams: how often each example is seen, in which order, on how many devices, and what is refused."""

from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax import training
from aejax.algorithm import Player, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.data.streams import Order, epoch_order, num_examples, streams
from aejax.sweep import sweep

KEY = jax.random.key(0)
DATA_KEY, STEP_KEY = jax.random.split(KEY)
DEVICES = min(8, jax.device_count())


class Two(NamedTuple):
    few: Any
    many: Any


def test_a_hundred_labels_beside_sixty_thousand_are_seen_equally_often():
    found = streams(Two(np.empty(100), np.empty(60_000)), Two(16, 128))
    assert found.steps_per_epoch == 468
    order, few, many = Order(DATA_KEY, found), np.zeros(100, int), np.zeros(60_000, int)
    for step in range(2 * 468):
        rows = order.rows(step)
        assert (rows.few.shape, rows.many.shape, rows.few.dtype) == ((16,), (128,), np.int32)
        np.add.at(few, rows.few, 1)
        np.add.at(many, rows.many, 1)
        assert few.max() - few.min() <= 1
        if step == 467:
            assert (many.min(), many.max(), many.sum()) == (0, 1, 468 * 128)
    assert few.sum() == 2 * 468 * 16


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("sizes", "batches"), [((3, 40), (8, 4)), ((5, 7), (2, 3)), ((9, 9), (4, 4)), ((1, 6), (2, 2))]
)
def test_passes_are_permutations_whose_ends_batches_cross(sizes, batches):
    """The side stream, laid end to end over three epochs, is one permutation after another, each drawn anew."""
    found = streams(Two(*map(np.empty, sizes)), Two(*batches))
    side = 1 - found.main
    seen = np.concatenate([np.asarray(epoch_order(DATA_KEY, epoch, found)[side]).ravel() for epoch in range(3)])
    assert len(seen) == 3 * found.steps_per_epoch * batches[side]
    passes = [seen[i : i + sizes[side]] for i in range(0, len(seen), sizes[side])]
    for each in passes:
        assert len(set(each)) == len(each)
    if sizes[side] > 4:
        assert any(not np.array_equal(a, b) for a, b in pairwise(passes) if len(a) == len(b))


def test_the_main_stream_is_permuted_as_it_would_be_alone():
    alone = epoch_order(DATA_KEY, 1, streams(np.empty(40), 4))
    beside = epoch_order(DATA_KEY, 1, streams(Two(np.empty(7), np.empty(40)), Two(2, 4)))
    np.testing.assert_array_equal(alone, beside.many)


def game():
    """w goes after the difference of the two means, with noise."""

    def loss(params, batch, key):
        noise = jax.random.normal(key)
        gap = batch.few.x.mean() - batch.many.mean() + 0.1 * noise
        return 0.5 * (params["w"] - gap) ** 2, {"few": batch.few.x.mean(), "many": batch.many.mean()}

    algo = play({"p": Player(loss, ("w",), optax.sgd(0.1))}, [["p"]])
    return algo, algo.init({"w": jnp.zeros(())})


DATA = Two(Batch(np.arange(8.0, dtype=np.float32) ** 2), np.arange(64.0, dtype=np.float32))
SIZES = Two(8, 16)


def chunks_of(algo, state, **options):
    options = {"batch_size": SIZES, "num_epochs": 3} | options
    return list(training.train(algo, state, DATA, KEY, **options))


def joined(chunks):
    return jax.tree.map(lambda *parts: np.concatenate(parts), *(chunk.metrics for chunk in chunks))


@pytest.mark.slow
def test_a_run_over_streams_is_the_same_on_several_devices_resumed_fitted_and_swept():
    algo, state = game()
    one = chunks_of(algo, state)
    assert one[-1].step == 12
    for devices in (4, 8):
        if devices <= jax.device_count():
            several = chunks_of(algo, state, devices=devices)
            np.testing.assert_allclose(several[-1].state.params["w"], one[-1].state.params["w"], rtol=1e-5)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), joined(several), joined(one))

    half = jax.tree.map(np.asarray, next(c.state for c in chunks_of(algo, state, boundary=5) if c.step == 5))
    np.testing.assert_array_equal(chunks_of(algo, half)[-1].state.params["w"], one[-1].state.params["w"])

    data = jax.tree.map(jnp.asarray, DATA)
    fitted, metrics = jax.jit(lambda s: training.fit(algo, s, data, KEY, batch_size=SIZES, num_epochs=3))(state)
    np.testing.assert_array_equal(metrics["p/few"].ravel(), joined(one)["p/few"])
    np.testing.assert_allclose(fitted.params["w"], one[-1].state.params["w"], rtol=1e-6)

    class Nothing(NamedTuple):
        lr: float = 0.1

    swept = sweep(
        lambda h: algo, lambda key: {"w": jnp.zeros(())}, DATA,
        hparams=Nothing(), seeds=[0], batch_size=SIZES, num_epochs=3, strategy="vmap",
    )  # fmt: skip
    train_key = jax.random.split(jax.random.key(0), 3)[1]
    alone = list(training.train(algo, state, DATA, train_key, batch_size=SIZES, num_epochs=3))
    np.testing.assert_allclose(swept.state(0, 0).params["w"], alone[-1].state.params["w"], rtol=1e-6)


def test_evaluation_sees_each_example_of_the_longest_once_and_the_others_over_and_over():
    algo, state = game()
    found = training.evaluate(algo, state, DATA, KEY, batch_size=Two(3, 30))  # 30, 30 and 4 of the long one
    assert found["p/many"] == pytest.approx(31.5)
    few = DATA.few.x
    parts = [few[[0, 1, 2]].mean(), few[[3, 4, 5]].mean(), few[[6, 7, 0]].mean()]
    assert found["p/few"] == pytest.approx(np.average(parts, weights=[30, 30, 4]))


@pytest.mark.parametrize(
    ("data", "batch_size", "message"),
    [
        (DATA, 4, "need one length in common.*give each a batch size"),
        (DATA, Two(0, 4), r"few=0.*at least 1"),
        (DATA, (4, 4), "is not made as the data are.*Give the same tuple"),
        (DATA, Two(9, 65), "exceeds the 8 and 64 examples"),
        (Two(np.empty(0), np.empty(3)), Two(1, 1), "hold no examples"),
        (DATA, Two(8, 12), "12 is not divided by 8 devices; 8 and 16 would be"),
    ],
)
def test_what_cannot_be_streamed_is_refused(data, batch_size, message):
    algo, state = game()
    with pytest.raises(InputError, match=message):
        training.train(algo, state, data, KEY, batch_size=batch_size, num_epochs=1, devices=DEVICES)


def test_batch_sizes_that_are_given_as_advised_are_taken():
    alike = Two(np.empty(8), np.empty(8))
    for data, refused, advised in (
        (DATA, (4, 4), Two(4, 4)),  # the same tuple with an integer for each stream
        (alike, (4, 4), Two(4, 4)),
        (alike, (4, 4), 4),  # one integer where all have one length
        (DATA, 4, Two(4, 4)),  # a batch size for each, in a tuple like that of the data
    ):
        with pytest.raises(InputError):
            streams(data, refused)
        assert set(streams(data, advised).batch_sizes) == {4}


class Three(NamedTuple):
    a: Any
    b: Any
    main: Any


def test_two_side_streams_of_one_length_have_orders_of_their_own():
    found = streams(Three(np.empty(9), np.empty(9), np.empty(60)), Three(3, 3, 4))
    order = epoch_order(DATA_KEY, 0, found)
    assert not np.array_equal(order.a, order.b)


def test_a_side_stream_shorter_than_its_batch_is_seen_once_in_each_part_of_an_evaluation():
    parts = streams(Two(np.empty(3), np.empty(20)), Two(8, 8)).parts()
    assert [len(rows.few) for _, rows in parts] == [3, 3, 3]
    assert [sorted(rows.few.tolist()) for _, rows in parts] == [[0, 1, 2]] * 3


def test_an_evaluation_visits_streams_that_are_as_long_once():
    for least in (1, 3):  # where the last two rows stand alone, and where they join the batch before
        parts = streams(Two(np.empty(20), np.empty(20)), Two(6, 6)).parts(least)
        for name in ("few", "many"):
            rows = [getattr(each, name) for _, each in parts]
            np.testing.assert_array_equal(np.concatenate(rows), np.arange(20))
            assert [len(each) for each in rows] == [count for count, _ in parts]


def test_a_batch_size_is_a_whole_number_of_any_kind_but_no_truth_value():
    assert streams(np.zeros(4), np.int64(2)).batch_sizes == (2,)
    for size in (True, 2.0, 0, "2"):
        with pytest.raises(InputError, match="at least 1 is needed, a whole number"):
            streams(np.zeros(4), size)


@pytest.mark.parametrize("data", [Batch(np.zeros(4), np.zeros(5)), Batch(np.zeros(4), np.float32(1.0)), Batch(None)])
def test_data_without_one_length_in_common_are_refused(data):
    with pytest.raises(InputError, match="one length in common"):
        num_examples(data)
