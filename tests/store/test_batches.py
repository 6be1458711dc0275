"""What is restored into Cassandra goes in batches that are neither long nor of many partitions."""

from itertools import chain

import hypothesis.strategies as st
from hypothesis import given

from xmppd.store._cassandra_dump import PARTITIONS, TOGETHER, batches

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
