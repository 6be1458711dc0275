"""Coroutines run without a task as far as they come."""

import asyncio
from collections.abc import Awaitable

import pytest

from xmppd.core.begun import begun, work_of
from xmppd.jobs import stack_of


async def returning():
    return 7


async def failing():
    raise KeyError("x")


def test_what_waits_for_nothing_answers_at_once():
    assert begun(returning()) == 7


def test_what_it_raises_is_raised_at_once():
    with pytest.raises(KeyError):
        begun(failing())


@pytest.mark.asyncio
async def test_the_rest_is_awaited():
    loop = asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()
    steps = []

    async def work():
        steps.append(await first)
        await asyncio.sleep(0)
        try:
            await second
        except ValueError:
            return "done"

    waiting = begun(work())
    assert isinstance(waiting, Awaitable)
    first.set_result(1)
    assert not steps
    loop.call_later(0.01, second.set_exception, ValueError())
    assert await waiting == "done"
    assert steps == [1]


@pytest.mark.asyncio
async def test_a_cancellation_reaches_what_was_begun():
    ended = []

    async def work():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)

    async def wait(waiting):
        await waiting

    task = asyncio.create_task(wait(begun(work())))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]


@pytest.mark.asyncio
async def test_a_failure_after_waiting_is_the_awaiters():
    async def work():
        await asyncio.sleep(0)
        raise KeyError("late")

    waiting = begun(work())
    with pytest.raises(KeyError):
        await waiting


@pytest.mark.asyncio
async def test_the_stack_of_a_task_goes_on_behind_what_was_begun_outside_of_it():
    gate = asyncio.Event()

    async def innermost():
        await gate.wait()

    async def inner():
        await innermost()

    async def outer():
        await begun(inner())

    task = asyncio.create_task(outer())
    await asyncio.sleep(0)
    names = [line.rpartition(".")[2] for line in stack_of(task, work_of)]
    assert [name for name in names if name in ("outer", "inner", "innermost", "wait")] == [
        "outer",
        "inner",
        "innermost",
        "wait",
    ]
    gate.set()
    await task
