"""Stanzas whose effects are ordered and whose end is still awaited: their sender is read on meanwhile."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

MANY = 32
"""How many stanzas of one sender may be under way until he has to wait."""

BYTES = 65_536
"""How many bytes of them."""

Act = Callable[["Pending"], Awaitable[Any] | None]
"""Has the effects of one whose turn it is, and returns what of it has to be awaited."""

Begin = Callable[[], Awaitable[Any] | None]
"""Begins one, and returns a `Pending`; None if it is not to be begun yet, or what has to be awaited first."""


class Later:
    """What a handler or filter returns when the order of its effects is settled, and only their end has to be
    awaited: a write that was accepted and is not on disk yet. The sender's next stanza is processed at once;
    what counts as handled, and an error, wait. Whoever knows nothing of that awaits it like anything else,
    and is given what `rest` gives.

    `rest` was begun (`begun`), or needs nobody to begin it; `size` is that of the stanza.
    """

    __slots__ = ("rest", "size")

    def __init__(self, rest: Awaitable[Any], size: int = 0) -> None:
        self.rest = rest
        self.size = size

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.rest.__await__()


class Told(Later):
    """One whose end somebody tells: it has no `rest`, and no future unless it is awaited. `error` is why it
    failed; what `refuse` is set to takes that in the place of who awaits this; `on_end` is called first, with
    whether it did not fail.
    """

    __slots__ = ("_future", "_line", "error", "is_over", "on_end", "outcome", "refuse")

    def __init__(self, size: int = 0) -> None:
        self.size = size
        self.is_over = False
        self.outcome: Any = None
        self.error: Exception | None = None
        self.refuse: Callable[[Exception], None] | None = None
        self.on_end: Callable[[bool], None] | None = None
        self._line: Line | None = None
        self._future: asyncio.Future[None] | None = None

    def ended(self, outcome: Any) -> None:
        """This became of it."""
        self.outcome = outcome
        self.is_over = True
        if self._line is not None or self._future is not None or self.on_end is not None:
            self._tell()

    def failed(self, error: Exception) -> None:
        """It is refused."""
        self.error = error
        self.is_over = True
        self._tell()

    def watched(self, line: Line) -> None:
        """It is the first of this line, which goes on when it is over."""
        self._line = line

    def _tell(self) -> None:
        future, line, on_end = self._future, self._line, self.on_end
        self._future = self._line = self.on_end = None
        if on_end is not None:
            on_end(self.error is None)
        if future is not None and not future.done():
            future.set_result(None)
        if line is not None:
            line.go_on()

    def __await__(self) -> Generator[Any, Any, Any]:
        if not self.is_over:
            self._future = asyncio.get_running_loop().create_future()
            yield from self._future.__await__()
        if self.error is None:
            return self.outcome
        if self.refuse is None:
            raise self.error
        self.refuse(self.error)
        return None


class Pending(Later):
    """One whose effects are still to come: `act`, which is given it, has them once it `is_ready`, after those
    of all that its sender sent before. It returns what else has to be awaited; another Pending comes in its
    place, and so does the same that is not ready any more. Whoever knows nothing of that awaits it like
    anything else.
    """

    __slots__ = ("act", "inner", "is_ready", "session", "stanza", "told")

    inner: Act
    session: Any
    stanza: Any
    """What the router has act in its place, and whom it refuses which stanza if that fails."""

    def __init__(self, act: Act, size: int = 0, *, is_ready: bool = True) -> None:
        self.act = act
        self.size = size
        self.is_ready = is_ready
        self.told: Callable[[], None] | None = None
        """Who is told when it is ready (`when_ready`)."""

    def when_ready(self, tell: Callable[[], None]) -> None:
        """Have somebody told when it is; what is so already is told to nobody."""
        told = self.told
        self.told = tell if told is None else partial(_both, told, tell)

    def go_on(self) -> None:
        """It is ready."""
        self.is_ready = True
        told, self.told = self.told, None
        if told is not None:
            told()

    def __await__(self) -> Generator[Any, Any, Any]:
        if not self.is_ready:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.when_ready(partial(_end, turn))
            try:
                yield from turn.__await__()
            except BaseException:  # who waits is gone; what was begun is not
                _let_be(self)
                raise
        waiting = self.act(self)
        return None if waiting is None else (yield from waiting.__await__())

    def then(self, follow: Callable[[Awaitable[Any] | None], Awaitable[Any] | None]) -> None:
        """Hand what its `act` returns to `follow`, and give what that returns."""
        act = self.act
        self.act = lambda pending: follow(act(pending))


class Unmade:
    """One of which nothing is begun: `made` is what was begun of it, `act` has it all done in its turn."""

    __slots__ = ("act", "begin", "made")

    def __init__(self, act: Callable[[], Awaitable[Any] | None], begin: Begin | None) -> None:
        self.act = act
        self.begin = begin
        self.made: Pending | None = None

    def waits(self, waiting: Awaitable[Any] | None) -> None:
        """It cannot be begun now, or something has to be awaited first."""
        if waiting is not None:
            self.begin = None
            self.act = lambda: waiting


class Line:
    """What is under way of one sender, in the order in which it came: each is finished after those before
    it, and those whose effects are still to come have them one after the other. `spawn` begins a task where
    one has to be awaited; `settle` awaits the end of one and raises nothing. While it `is_ahead` there are
    effects still to come, and those of others have to wait. Of those that are `unmade` nothing is begun
    before all is that was sent before them, nor of any behind them: what had a place in an order by then
    would wait for what comes after it.
    """

    __slots__ = (
        "_ahead",
        "_is_acting",
        "_settle",
        "_size",
        "_spawn",
        "_under_way",
        "_unmade",
        "_waiter",
        "is_ahead",
    )

    def __init__(
        self,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        settle: Callable[[Awaitable[None]], Awaitable[None]],
    ) -> None:
        self._spawn = spawn
        self._settle = settle
        self._under_way: deque[Later] = deque()
        self._ahead: deque[Pending] = deque()
        self._is_acting = False
        self._unmade: deque[Unmade] = deque()
        self.is_ahead = False
        self._size = 0
        self._waiter: tuple[int, asyncio.Future[None]] | None = None

    def add(self, later: Later) -> asyncio.Future[None] | None:
        """Take one more; what to wait for before the next stanza is read, if it is one too many."""
        self._size += later.size
        ahead, under_way = self._ahead, self._under_way
        if isinstance(later, Pending):
            ahead.append(later)
            self.is_ahead = True
            if len(ahead) == 1 and not self._is_acting:
                self._lead()
        else:
            under_way.append(later)
            if len(under_way) == 1:
                self.go_on()
        is_much = len(under_way) + len(ahead) >= MANY or self._size > BYTES
        return self.until(MANY - 1) if is_much else None

    def until(self, left: int) -> asyncio.Future[None] | None:
        """What is done when no more than so many are under way, and not too large; None if it is so now."""
        if self._is_below(left):
            return None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiter = left, future
        return future

    def _is_below(self, left: int) -> bool:
        count = len(self._under_way) + len(self._ahead) + self._is_acting
        return count <= left and self._size <= BYTES

    # those whose effects are still to come

    def behind(self, begin: Begin, act: Callable[[], Awaitable[Any] | None], size: int) -> Pending:
        """One that is begun now if it can be and all before it are, or else as soon as that is so."""
        made = None if self._unmade else begin()
        if isinstance(made, Pending):
            return made
        return self.in_turn(act, size, begin) if made is None else self.in_turn(lambda: made, size)

    def in_turn(
        self, act: Callable[[], Awaitable[Any] | None], size: int, begin: Begin | None = None
    ) -> Pending:
        """One that is `unmade`: all that it is, it is in its turn; or `begin` begins it once all before it is
        begun, and returns None if it cannot, or what has to be awaited first in its turn.
        """
        one = Unmade(act, begin)
        self._unmade.append(one)
        return Pending(lambda _: self._make(one), size)

    def _make(self, one: Unmade) -> Awaitable[Any] | None:
        if one.made is not None:
            return one.made
        try:
            waiting = one.act()
        except BaseException:
            self._unmade.remove(one)
            raise
        if waiting is None or isinstance(waiting, Later):
            self._unmade.remove(one)
            self._begin_more()
            return waiting
        return self._made(one, waiting)

    async def _made(self, one: Unmade, waiting: Awaitable[Any]) -> None:
        try:
            await waiting
        finally:
            self._unmade.remove(one)

    def _begin_more(self) -> None:
        """Begin those that can be, up to the first that cannot: else who once had to wait for something would
        have one under way at a time for as long as he goes on faster than one of them takes.
        """
        unmade = self._unmade
        while unmade and (begin := unmade[0].begin) is not None:
            one = unmade[0]
            made = begin()
            if not isinstance(made, Pending):
                one.waits(made)
                break
            one.made = made
            unmade.popleft()

    def _lead(self) -> None:
        """Let those act that are ready, up to the first that is not."""
        ahead = self._ahead
        while ahead and not self._is_acting:
            first = ahead[0]
            if not first.is_ready:
                first.when_ready(self._lead)
                break
            ahead.popleft()
            self._is_acting = True  # it may have others go on, who must not overtake what is left of it
            try:
                waiting = first.act(first)
            except Exception as error:  # noqa: BLE001 - whoever settles it takes it
                waiting = _raising(error)
            finally:
                self._is_acting = False
            if waiting is None:
                self._size -= first.size
            else:
                self._acted(first, waiting)
        self.is_ahead = bool(ahead) or self._is_acting
        if self._waiter is not None:
            self._look(*self._waiter)

    def _acted(self, pending: Pending, waiting: Awaitable[Any]) -> None:
        """Something of it is left to be awaited."""
        if isinstance(waiting, Pending):
            waiting.size = pending.size
            self._ahead.appendleft(waiting)
        elif isinstance(waiting, Later):
            waiting.size = pending.size
            self._under_way.append(waiting)
            if len(self._under_way) == 1:
                self.go_on()
        else:
            self._is_acting = True
            self._spawn(self._act_on(pending, waiting))

    async def _act_on(self, pending: Pending, waiting: Awaitable[Any]) -> None:
        """What has effects until this is over comes before those of others."""
        await self._settle(waiting)
        self._is_acting = False
        self._size -= pending.size
        self._lead()

    # those whose effects are in order

    def go_on(self) -> None:
        """Finish the first ones, as far as they are over: for who is told of that."""
        if self._finish():
            self._spawn(self._run())

    def _finish(self) -> bool:
        """Whether the first that is left has to be awaited."""
        under_way = self._under_way
        must_wait = False
        while under_way:
            first = under_way[0]
            if not isinstance(first, Told) or first.error is not None:
                must_wait = True
                break
            if not first.is_over:
                first.watched(self)
                break
            self._size -= first.size
            under_way.popleft()
        if self._waiter is not None:
            self._look(*self._waiter)
        return must_wait

    async def _run(self) -> None:
        must_wait = True
        while must_wait:
            await self._settle(self._under_way[0])
            self._size -= self._under_way.popleft().size
            must_wait = self._finish()

    def _look(self, left: int, future: asyncio.Future[None]) -> None:
        if self._is_below(left):
            self._waiter = None
            if not future.done():
                future.set_result(None)


def _both(first: Callable[[], None], then: Callable[[], None]) -> None:
    first()
    then()


def _end(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


async def _raising(error: Exception) -> None:
    raise error


def _let_be(waiting: Awaitable[Any] | None) -> None:
    """Nobody awaits it; what was begun is not given up."""
    if inspect.iscoroutine(waiting):
        waiting.close()
    elif isinstance(waiting, Pending):
        if waiting.is_ready:
            _let_be(waiting.act(waiting))
        else:
            waiting.when_ready(lambda: _let_be(waiting.act(waiting)))


def watched(waiting: Awaitable[Any], on_end: Callable[[bool], None]) -> Awaitable[Any]:
    """The same, with something that is called as soon as it is over, with whether it raises nothing."""
    if isinstance(waiting, Told):
        if waiting.is_over:
            on_end(waiting.error is None)
        else:
            waiting.on_end = on_end
        return waiting
    if isinstance(waiting, Later):
        if isinstance(waiting.rest, asyncio.Future):
            waiting.rest.add_done_callback(
                lambda rest: on_end(not rest.cancelled() and rest.exception() is None)
            )
            return waiting
        return Later(_watched(waiting.rest, on_end), waiting.size)
    return _watched(waiting, on_end)


async def _watched(waiting: Awaitable[Any], on_end: Callable[[bool], None]) -> Any:
    is_well = False
    try:
        result = await waiting
        is_well = True
    finally:
        on_end(is_well)
    return result


async def settled(waiting: Awaitable[Any]) -> Any:
    """What had to wait for something before its effects were in order is awaited as a whole."""
    later = await waiting
    return await later if isinstance(later, Later) else later


def raised(error: Exception, _: Pending) -> None:
    """What one does that failed before its turn."""
    raise error


async def giving(waiting: Awaitable[Any], result: T) -> T:
    """Await it, and give this."""
    await waiting
    return result


async def failing(waiting: Awaitable[Any], error: Exception) -> None:
    """Await it, and raise this."""
    await waiting
    raise error
