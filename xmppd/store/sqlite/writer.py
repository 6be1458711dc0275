"""Group commit: jobs are done on the event loop, all that wait in one transaction; a thread commits it.

Jobs gather until the end of the loop's turn. If no commit is under way they are done at once, for their pages
are nearly always in memory; the thread then waits for the disk, and what comes meanwhile is the next group.
A lone write waits for no timer: it is committed at once, and the more writes there are, the larger the
groups get, up to `GROUP` statements. Behind a large one of several jobs what comes gathers for some
milliseconds, as long as more comes: who was told that his is written writes again, and else there were two
halves that never meet, one committed while the other one gathers. Each commit writes whole pages of the log,
and those of few rows are nearly as many. What cannot be done without waiting or going back (somebody else's
lock, a job that fails, a connection to be opened) is left to the thread as a whole.

The thread must not do the statements: each of them gives up Python's lock (the GIL) and takes it back, and
beside a busy loop that costs a change of threads each time, a quarter of all CPU for offline messages.

A loop that never rests starves even a thread that only commits: it gives the lock up for microseconds only,
and has it again before the thread wakes up. So the loop steps aside: when a group is late by `LATE` seconds,
it waits up to `ASIDE` seconds for the thread, which is then alone. A loop that has time to sleep hardly ever
does this.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from xmppd.errors import StoreError, StoreUnavailable
from xmppd.store._turns import Turnstile
from xmppd.store.sqlite.transaction import Job, Outcome, Transactions

GROUP = 128
"""After how many statements no more jobs are begun in one turn of the loop, which takes about 2 ms. Rows of
one kind that are written together are an eighth of one each (`statements.ALIKE`).
"""
MANY = 16
"""Behind a group of so many statements the next one gathers,"""
AGAIN = 0.9
"""until this part is there of what it had, and of what waited when it was written,"""
GATHER = 0.008
"""for so many seconds at most,"""
QUIET = 0.003
"""and no longer than nothing more comes in so many. The loop may take most of that to tell who waited."""
LOOK = 0.001
LATE = 0.002
ASIDE = 0.0005

Entry = tuple[Job, asyncio.Future[Any], int]
"""What to do, who waits for it, and how many statements it has."""
Work = Callable[[], list[Outcome]]


def deliver(entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
    """Tell those who wait; who was cancelled meanwhile is passed over."""
    for (_, future, _), outcome in zip(entries, outcomes, strict=True):
        if future.done():
            continue
        if isinstance(outcome, StoreError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


class GroupWriter:
    """Does jobs in the order in which they are accepted. Its methods are for one event loop."""

    def __init__(self, transactions: Transactions, *, bound: int, patience: float) -> None:
        self.groups = 0
        self.pending = 0
        self._size = 0  # of what is fresh, in statements
        self._transactions = transactions
        self._turnstile = Turnstile(bound, patience)
        self._fresh: deque[Entry] = deque()
        self._group: list[Entry] = []
        self._to_do: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[list[Outcome]] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._watch: asyncio.TimerHandle | None = None
        self._gathering: asyncio.TimerHandle | None = None
        self._wanted = 0
        self._handed_over = 0.0
        self._ended: asyncio.Event | None = None

    def write(self, job: Job, statements: int = 1) -> Awaitable[Any]:
        """What a job of so many statements returned, once committed; StoreError. Cancelling does not stop an
        accepted job.
        """
        if self._turnstile.take():
            return self._accept(job, statements)
        return self._write_later(job, statements)

    async def _write_later(self, job: Job, statements: int) -> Any:
        await self._turnstile.wait()
        return await self._accept(job, statements)

    def offer(self, job: Job, statements: int = 1) -> asyncio.Future[Any] | None:
        """Accept a job that does not wait for room: None when there is none, or others wait for it."""
        return self._accept(job, statements) if self._turnstile.take() else None

    async def room(self) -> None:
        """Wait until a job is accepted that is offered before anything else is done; StoreUnavailable."""
        await self._turnstile.room()

    async def close(self) -> None:
        """Turn away who waits for room, finish what was accepted, and end the thread."""
        self._turnstile.close()
        if self._loop is None:
            return
        if self._ended is None:
            self._ended = asyncio.Event()
            if self._gathering is not None:
                self._gathering.cancel()
                self._gathering = None
            self._next_group()
        await self._ended.wait()
        self._thread.join()
        if self._watch is not None:
            self._watch.cancel()

    def _accept(self, job: Job, statements: int) -> asyncio.Future[Any]:
        if self._ended is not None:
            raise StoreUnavailable("the store was closed")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread.start()
        if not self._fresh and not self._group and self._gathering is None:
            self._loop.call_soon(self._next_group)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._fresh.append((job, future, statements))
        self._size += statements
        self.pending += 1
        if self._gathering is not None and self._size >= self._wanted:
            self._gathering.cancel()
            self._gathering = None
            self._loop.call_soon(self._next_group)
        return future

    def _next_group(self) -> None:
        """Do the jobs that wait, and have them committed; the last thing to do is to end the thread."""
        if self._group:
            return
        if not self._fresh:
            if self._ended is not None:
                self._to_do.put(None)
            return
        self._group = self._some()
        jobs = [job for job, _, _ in self._group]
        outcomes = self._transactions.attempt(jobs)
        if outcomes is None:
            self._to_do.put(partial(self._transactions.run, jobs))
        else:
            self._to_do.put(partial(self._transactions.commit, outcomes))
        self._handed_over = time.monotonic()
        if self._watch is None:
            self._look_again(LATE)

    def _some(self) -> list[Entry]:
        """The jobs that come next, as many as may be done in one turn."""
        some: list[Entry] = []
        fresh, room = self._fresh, GROUP
        while fresh and room > 0:
            entry = fresh.popleft()
            some.append(entry)
            room -= entry[2]
        self._size -= GROUP - room
        return some

    def _look_again(self, delay: float) -> None:
        assert self._loop is not None
        self._watch = self._loop.call_later(delay, self._step_aside)

    def _step_aside(self) -> None:
        """Let the thread have the lock of Python for a moment, if it has been without for long."""
        self._watch = None
        if not self._group:
            return
        late = time.monotonic() - self._handed_over
        if late < LATE:
            self._look_again(LATE - late)
            return
        with contextlib.suppress(queue.Empty):
            self._settle(self._done.get(timeout=ASIDE))
        if self._group:
            # A thread that waits for the disk gains nothing from us: look ever more seldom.
            self._look_again(late if self._transactions.waits_for_disk else LATE)

    def _deliver(self) -> None:
        with contextlib.suppress(queue.Empty):  # `_step_aside` may have been here
            self._settle(self._done.get_nowait())

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        group, self._group = self._group, []
        self.groups += 1
        self.pending -= len(group)
        deliver(group, outcomes)
        self._turnstile.give_back(len(group))
        assert self._loop is not None
        size = sum([statements for _, _, statements in group])
        wanted = min(GROUP, int(AGAIN * (size + self._size)))
        if self._ended is None and size >= MANY and len(group) > 1 and self._size < wanted:
            now = self._loop.time()
            self._wanted = wanted
            self._gather(self._size, now + QUIET, now + GATHER)
        elif self._fresh or self._ended is not None:
            # After those who are told now, so that what they write next is in the same group.
            self._loop.call_soon(self._next_group)

    def _gather(self, seen: int, quiet: float, until: float) -> None:
        """Look soon whether more has come than was seen."""
        assert self._loop is not None
        self._gathering = self._loop.call_later(LOOK, self._look_around, seen, quiet, until)

    def _look_around(self, seen: int, quiet: float, until: float) -> None:
        """Do what has gathered, unless more is coming and there is time for it."""
        assert self._loop is not None
        self._gathering = None
        now = self._loop.time()
        if self._size > seen:
            seen, quiet = self._size, now + QUIET
        if now < min(quiet, until):
            self._gather(seen, quiet, until)
        else:
            self._next_group()

    # in the thread

    def _run(self) -> None:
        while (work := self._to_do.get()) is not None:
            self._done.put(work())
            self._wake(self._deliver)
            del work  # while it waits, the last group would keep what it was about
        self._transactions.close()
        self._wake(self._end)

    def _wake(self, what: Callable[[], None]) -> None:
        assert self._loop is not None
        with contextlib.suppress(
            RuntimeError
        ):  # the loop was closed before the store: nobody is left to tell
            self._loop.call_soon_threadsafe(what)

    def _end(self) -> None:
        assert self._ended is not None
        self._ended.set()


class InlineWriter:
    """The same for a database in memory, which waits for no disk: jobs are done when the loop's turn ends."""

    def __init__(self, transactions: Transactions) -> None:
        self.groups = 0
        self._transactions = transactions
        self._fresh: list[Entry] = []

    @property
    def pending(self) -> int:
        """How many jobs are accepted and not yet done."""
        return len(self._fresh)

    def write(self, job: Job, statements: int = 1) -> Awaitable[Any]:
        """What the job returned; StoreError."""
        return self.offer(job, statements)

    async def room(self) -> None:
        """There is always room."""

    def offer(self, job: Job, statements: int = 1) -> asyncio.Future[Any]:
        """Accept a job; the future tells its outcome."""
        loop = asyncio.get_running_loop()
        if not self._fresh:
            loop.call_soon(self._do)
        future: asyncio.Future[Any] = loop.create_future()
        self._fresh.append((job, future, statements))
        return future

    async def close(self) -> None:
        """Do what was accepted, and forget the database."""
        self._do()
        self._transactions.close()

    def _do(self) -> None:
        entries, self._fresh = self._fresh, []
        if entries:
            self.groups += 1
            deliver(entries, self._transactions.run([job for job, _, _ in entries]))
