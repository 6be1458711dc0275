"""What waits for a receiver: each account in order, whatever fails, and nothing is forgotten."""

import json
import random
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.webhooks.window import FREE, Bound, Item, Window

EVER = FREE


def event(number: int, account: str) -> str:
    return json.dumps({"id": f"{number:08d}", "account": account, "time": float(number)})


def filled(*accounts: str) -> Window:
    window = Window()
    window.add("w", 0, [event(number, account) for number, account in enumerate(accounts)])
    return window


def ids(batch: object) -> list[int]:
    return [int(item.id) for item in batch]  # type: ignore[attr-defined]


def test_who_is_under_way_is_not_taken_again() -> None:
    window = filled("a", "b", "a")
    first = window.take(0.0, 2, 10_000, EVER)
    assert ids(first) == [0, 2]
    second = window.take(0.0, 10, 10_000, EVER)
    assert ids(second) == [1]
    assert not window.take(0.0, 10, 10_000, EVER)
    window.put_back(first)
    assert ids(window.take(0.0, 10, 10_000, EVER)) == [0, 2]


def test_a_row_is_done_when_all_before_it_are() -> None:
    window = Window()
    window.add("w", 0, [event(0, "a")])
    window.add("w", 1, [event(1, "b")])
    one = window.take(0.0, 1, 10_000, EVER)
    other = window.take(0.0, 1, 10_000, EVER)
    window.delivered(other)
    assert window.done_up_to == {}
    window.delivered(one)
    assert window.done_up_to == {"w": 1}
    assert (window.count, window.bytes, window.oldest) == (0, 0, None)


def test_what_another_writer_told_earlier_goes_before_what_was_not_tried() -> None:
    window = Window()
    window.add("w", 0, [event(3, "a"), event(5, "a")])
    tried = window.take(0.0, 1, 10_000, EVER)
    window.add("v", 0, [event(1, "a"), event(4, "a")])
    window.put_back(tried)
    assert [int(item.id) for item in window._lanes["a"].items] == [3, 1, 4, 5]


def test_events_that_are_too_new_wait_with_all_behind_them() -> None:
    window = filled("a", "b", "a")
    assert ids(window.take(0.0, 10, 10_000, Bound(before=1.0))) == [0]


def test_what_was_only_just_read_or_is_behind_what_is_not_waits() -> None:
    window = filled("a", "b")
    window.add("v", 0, [event(2, "a"), event(3, "c")], seen=2)
    assert ids(window.take(0.0, 10, 10_000, Bound(upto=f"{0:08d}"))) == [0]
    assert ids(window.take(0.0, 10, 10_000, Bound(passes=2))) == [1]
    assert ids(window.take(0.0, 10, 10_000, Bound(upto=f"{3:08d}", passes=3))) == [3]


@settings(max_examples=200, deadline=None)
@given(
    accounts=st.lists(st.sampled_from("abcde"), min_size=1, max_size=40),
    poison=st.sets(st.integers(0, 39), max_size=3),
    seed=st.integers(0, 1 << 30),
    most=st.integers(1, 12),
)
def test_accounts_keep_their_order_and_only_poison_is_left(
    accounts: list[str], poison: set[int], seed: int, most: int
) -> None:
    chance = random.Random(seed)
    window, taken, dead = Window(), list[int](), list[int]()
    rows, numbers = count(), count()
    left = [*accounts]
    under_way: list[list[Item]] = []
    now = 0.0
    for _ in range(5000):
        if left and chance.random() < 0.5:
            some, left = left[:5], left[5:]
            window.add("w", next(rows), [event(next(numbers), account) for account in some])
        now += 1.0
        if batch := window.take(now, most, 100_000, EVER):
            under_way.append([*batch])
        if under_way and chance.random() < 0.7:
            batch = under_way.pop(chance.randrange(len(under_way)))
            if chance.random() < 0.3:
                window.put_back(batch)
            elif poison & set(ids(batch)) or chance.random() < 0.2:
                item = window.split(batch, now + 2.0)
                if item is not None and int(item.id) in poison:
                    item.attempts += 1
                    if item.attempts > 3:
                        dead.append(int(item.id))
                        window.drop([item])
            else:
                taken += ids(batch)
                window.delivered(batch)
        if not left and not window.count:
            break
    assert sorted(taken + dead) == [*range(len(accounts))]
    assert set(dead) <= poison
    for account in set(accounts):
        mine = [number for number in taken if accounts[number] == account]
        assert mine == sorted(mine)
    assert window.done_up_to == {"w": next(rows) - 1}
