"""What is restored into Cassandra goes in batches that are neither long nor of many partitions."""

from itertools import chain

import hypothesis.strategies as st
from hypothesis import given

from xmppd.store.cassandra.dump import BATCH_BYTES, PARTITIONS, SHARED_BYTES, TOGETHER, batches

sizes = st.lists(st.sampled_from([1, 1, 1, 2, 30, 49, 50, 51, 100, 101]), max_size=60)


@given(sizes)
def test_every_statement_is_in_one_batch_that_is_small_enough(sizes):
    partitions = [
        [(f"INSERT {number}", (place,)) for place in range(size)] for number, size in enumerate(sizes)
    ]
    made = list(batches(partitions))
    assert sorted(chain(*made)) == sorted(chain(*partitions))
    assert all(0 < len(batch) <= TOGETHER for batch in made)
    assert all(len({text for text, _ in batch}) <= PARTITIONS for batch in made)


@given(st.integers(0, 100))
def test_rows_that_are_alone_go_together(count):
    made = list(batches([[(f"INSERT {number}", ())] for number in range(count)]))
    assert len(made) == -(-count // PARTITIONS)


lengths = st.sampled_from([0, 10, 400, 4000, 5000, 300_000, BATCH_BYTES, 2 * BATCH_BYTES])
partitions_of_lengths = st.lists(st.lists(lengths, min_size=1, max_size=8), max_size=20)


@given(partitions_of_lengths, st.sampled_from(["x", "é", "\U0001f40d"]))
def test_batches_are_short_in_bytes_most_of_all_those_of_several_partitions(all_lengths, letter):
    width = len(letter.encode())
    partitions = [
        [(f"INSERT {number}", (letter * (length // width),)) for length in row_lengths]
        for number, row_lengths in enumerate(all_lengths)
    ]
    made = list(batches(partitions))
    assert sorted(chain(*made)) == sorted(chain(*partitions))
    for batch in made:
        size = sum(len(text.encode()) for _, (text,) in batch)
        assert len({name for name, _ in batch}) == 1 or size <= SHARED_BYTES
        assert len(batch) == 1 or size <= BATCH_BYTES


def test_a_large_partition_goes_alone_and_the_small_ones_stay_together():
    small = [[(f"INSERT {number}", (b"x" * 400,))] for number in range(12)]
    large = [("INSERT large", (b"x" * 8192,))]
    made = list(batches([*small[:6], large, *small[6:]]))
    assert [len(batch) for batch in made] == [6, 1, 6]
