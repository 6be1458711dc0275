"""What is under way of one sender: in order, bounded, and by a task only where one has to be awaited."""

import asyncio
import functools

import pytest

from xmppd.core.later import BYTES, MANY, Later, Line, Pending, Told

pytestmark = pytest.mark.asyncio


class Sender:
    """Puts things on a line; `done` are the ends in their order."""

    def __init__(self):
        self.line = Line(self.spawn, self.settle)
        self.ends = []
        self.done = []
        self.tasks = []

    def send(self, size=0):
        end = asyncio.get_running_loop().create_future()
        self.ends.append(end)
        return self.line.add(Later(end, size))

    def tell(self, size=0):
        """One whose end is told."""
        told = Told(size)
        self.ends.append(told)
        return self.line.add(told)

    def spawn(self, work):
        self.tasks.append(asyncio.create_task(work))

    async def settle(self, later):
        self.done.append(await later)

    async def end(self, number):
        self.ends[number].set_result(number)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_they_end_in_order_by_one_task_and_a_new_one_begins_when_all_have_ended():
    sender = Sender()
    assert [sender.send() for _ in range(3)] == [None] * 3
    await sender.end(2)
    await sender.end(1)
    assert sender.done == [] and len(sender.tasks) == 1
    await sender.end(0)
    assert sender.done == [0, 1, 2] and sender.tasks[0].done()
    sender.send()
    await sender.end(3)
    assert sender.done == [0, 1, 2, 3] and len(sender.tasks) == 2


async def test_one_too_many_has_to_wait_for_the_first():
    sender = Sender()
    for _ in range(MANY - 1):
        assert sender.send() is None
    room = sender.send()
    assert room is not None and not room.done()
    await sender.end(5)
    assert not room.done()
    await sender.end(0)
    assert room.done()


async def test_bytes_are_bounded_too():
    sender = Sender()
    assert sender.send(BYTES) is None
    room = sender.send(1)
    assert room is not None
    await sender.end(0)
    assert room.done()


async def test_one_may_wait_for_all():
    sender = Sender()
    assert sender.line.until(0) is None
    sender.send()
    sender.send()
    rest = sender.line.until(0)
    await sender.end(0)
    assert not rest.done()
    await sender.end(1)
    assert rest.done() and sender.line.until(0) is None


async def test_those_that_are_told_of_end_in_order_without_a_task():
    sender = Sender()
    assert [sender.tell() for _ in range(3)] == [None] * 3
    rest = sender.line.until(0)
    for told in reversed(sender.ends):
        assert not rest.done()
        told.ended(None)
    assert rest.done() and sender.line.until(0) is None
    assert sender.tasks == []


async def test_told_ones_make_room_too():
    sender = Sender()
    for _ in range(MANY - 1):
        assert sender.tell() is None
    room = sender.tell()
    sender.ends[1].ended(None)
    assert not room.done()
    sender.ends[0].ended(None)
    assert room.done()
    assert sender.line.until(MANY - 2) is None
    assert sender.line.until(MANY - 3) is not None


async def test_those_that_are_told_of_and_those_that_are_awaited_end_in_their_order():
    sender = Sender()
    sender.tell()
    sender.send()
    sender.tell()
    sender.send()
    rest = sender.line.until(0)
    sender.ends[2].ended(None)
    await sender.end(3)
    await sender.end(1)
    assert sender.done == []
    sender.ends[0].ended(None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sender.done == [1, 3]
    assert rest.done() and len(sender.tasks) == 1


async def test_who_refuses_a_told_one_is_given_its_error_when_all_before_it_have_ended():
    sender = Sender()
    sender.tell()
    sender.tell()
    refused = []
    sender.ends[1].refuse = refused.append
    error = ValueError("no")
    sender.ends[1].failed(error)
    await asyncio.sleep(0)
    assert refused == []
    sender.ends[0].ended(None)
    await asyncio.sleep(0)
    assert refused == [error] and sender.line.until(0) is None


async def test_a_told_one_is_awaited_like_anything_else():
    first, second, third = Told(), Told(), Told()
    asyncio.get_running_loop().call_soon(first.ended, 7)
    assert await first == 7
    second.ended(8)
    assert await second == 8
    asyncio.get_running_loop().call_soon(third.failed, ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await third


async def test_who_does_not_know_it_awaits_it_like_anything_else():
    end = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(end.set_result, 7)
    assert await Later(end) == 7


async def test_what_comes_in_the_place_of_one_that_nobody_awaits_any_more_acts_too() -> None:
    acted: list[str] = []
    again = Pending(lambda _: acted.append("second"), is_ready=False)

    def first(_: Pending) -> Pending:
        acted.append("first")
        return again

    one = Pending(first, is_ready=False)

    async def wait() -> None:
        await one

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    one.go_on()
    assert acted == ["first"]
    again.go_on()
    assert acted == ["first", "second"]


async def test_one_that_is_ready_in_the_course_of_another_does_not_overtake_what_is_left_of_that():
    sender, acted = Sender(), []
    second = Pending(lambda _: acted.append("second"), is_ready=False)
    rest = Pending(lambda _: acted.append("rest of the first"), is_ready=False)

    def first(_):
        acted.append("first")
        second.go_on()
        return rest

    sender.line.add(one := Pending(first, is_ready=False))
    sender.line.add(second)
    one.go_on()
    assert acted == ["first"] and sender.line.is_ahead
    rest.go_on()
    assert acted == ["first", "rest of the first", "second"] and not sender.line.is_ahead


async def test_one_that_is_not_ready_any_more_acts_again_when_it_is():
    sender, acted = Sender(), []

    def held_up(pending):
        acted.append("held up")
        pending.is_ready = False
        pending.act = lambda _: acted.append("acted")
        return pending

    sender.line.add(one := Pending(held_up))
    sender.line.add(Pending(lambda _: acted.append("next")))
    assert acted == ["held up"]
    one.go_on()
    assert acted == ["held up", "acted", "next"] and sender.line.until(0) is None


async def test_those_behind_one_that_is_begun_are_begun_too_and_act_in_their_order():
    sender, begun, acted = Sender(), [], []

    def made(name):
        begun.append(name)
        pendings[name] = Pending(lambda _: acted.append(name), is_ready=False)
        return pendings[name]

    async def looked_up():
        await known
        acted.append("first")

    pendings, known = {}, asyncio.get_running_loop().create_future()
    sender.line.add(sender.line.in_turn(looked_up, 0))
    for name in ("second", "third", "fourth"):
        make = functools.partial(made, name)
        sender.line.add(sender.line.in_turn(make, 0, None if name == "fourth" else make))
    assert begun == []
    known.set_result(None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert acted == ["first"] and begun == ["second", "third"]
    pendings["third"].go_on()
    assert acted == ["first"]
    pendings["second"].go_on()
    assert acted == ["first", "second", "third"] and begun == ["second", "third", "fourth"]
    pendings["fourth"].go_on()
    assert sender.line.until(0) is None


async def test_what_has_to_be_awaited_first_is_awaited_in_its_turn_and_nothing_behind_it_is_begun():
    sender, begun, acted = Sender(), [], []

    async def looked_up():
        acted.append("second")

    def made(name):
        begun.append(name)
        pendings[name] = Pending(lambda _: acted.append(name), is_ready=False)
        return pendings[name]

    pendings: dict[str, Pending] = {}
    waits = functools.partial(made, "third")
    sender.line.add(held := Pending(lambda _: made("first"), is_ready=False))
    sender.line.add(sender.line.in_turn(lambda: made("one"), 0))
    sender.line.add(sender.line.in_turn(lambda: begun.append("wrong"), 0, looked_up))
    sender.line.add(sender.line.in_turn(waits, 0, waits))
    held.go_on()
    pendings["first"].go_on()
    assert begun == ["first", "one"]
    pendings["one"].go_on()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert acted == ["first", "one", "second"] and begun == ["first", "one", "third"]
    pendings["third"].go_on()
    assert acted[-1] == "third" and sender.line.until(0) is None
