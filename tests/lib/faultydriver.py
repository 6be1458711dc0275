"""The driver of Cassandra with answers that get lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cassandra import OperationTimedOut

from xmppd.store.cassandra.store import CassandraStore

LOST = OperationTimedOut({"node": "no answer"}, "node")

Fault = tuple[str, Exception] | None
"""What becomes of a request: ("lost", error), ("refused", error), or nothing unusual."""


class Answer:
    """A response of the driver that is an error, after what it asked for was done or at once."""

    def __init__(
        self, error: Exception, response: Any, meanwhile: Callable[[], object] | None = None
    ) -> None:
        self._error = error
        self._response = response
        self._meanwhile = meanwhile
        self._paging_state = None

    def add_callbacks(self, callback: Any, errback: Any, callback_args: Any, errback_args: Any) -> None:
        def fail(_: object) -> None:
            if self._meanwhile is not None:
                self._meanwhile()
            errback(self._error, *errback_args)

        if self._response is None:
            fail(None)
        else:
            self._response.add_callbacks(fail, fail)


class Silent:
    """A response that comes when it is let go, or never."""

    def __init__(self) -> None:
        self._paging_state = None
        self.answer: Any = None

    def add_callbacks(self, callback: Any, errback: Any, callback_args: Any, errback_args: Any) -> None:
        self.answer = lambda: errback(LOST, *errback_args)


class Driver:
    """The driver's session, whose next answers may be lost (the statement is done) or refused (it is not), by
    `script` or as `fault` says of each statement.
    """

    def __init__(self, store: CassandraStore) -> None:
        self._live = store._link._connected()
        self._session = self._live.session
        self._live.session = self
        self.script: list[Fault] = []
        self.fault: Callable[[Any], Fault] | None = None
        self.asked = 0
        self.meanwhile: Any = None
        self.silent: list[Silent] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def execute_async(self, statement: Any, **how: Any) -> Any:
        self.asked += 1
        if self.silent is not None:
            self.silent.append(Silent())
            return self.silent[-1]
        step = self.script.pop(0) if self.script else None
        if self.fault is not None:
            step = self.fault(statement)
        if step is None:
            return self._session.execute_async(statement, **how)
        fault, error = step
        if fault == "refused":
            return Answer(error, None)
        response = self._session.execute_async(statement, **how)
        return Answer(error, response, self.meanwhile)

    def repair(self) -> None:
        self._live.session = self._session
