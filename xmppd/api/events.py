"""Records as Server-Sent Events (the EventSource of HTML): an id, a line of JSON, and comments in between."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any, Final

from xmppd.admin.registry import Followed
from xmppd.errors import StoreError
from xmppd.parts.http import HttpError, HttpRequest

CONTENT_TYPE: Final = "text/event-stream"
CHECK_SECONDS: Final = 5.0
"""How often it is looked whether the caller may still."""
BEAT: Final = b":\n\n"
"""Says that this goes on."""
RETRY: Final = b"retry: 3000\n\n"
"""When a client whose connection broke comes again, in milliseconds."""


class Events(AsyncIterator[bytes]):
    """The body of a response: ids go on behind `last`, the Last-Event-ID of who comes again. What there was
    in between is lost, and that is said.
    """

    def __init__(self, followed: Followed, request: HttpRequest) -> None:
        self._followed = followed
        self._request = request
        last = request.headers.get("last-event-id", "").strip()
        self._id = int(last) if last.isascii() and last.isdigit() and len(last) < 16 else 0

        self._pieces = self._all()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    def __anext__(self) -> Awaitable[bytes]:
        return self._pieces.__anext__()

    async def _all(self) -> AsyncIterator[bytes]:
        yield RETRY
        if self._id:
            yield self._event({"what": "note", "note": f"what came since event {self._id} is lost"})
        checked = time.monotonic()
        while True:
            try:
                record = await self._followed.next()
            except StopAsyncIteration:
                yield self._event({"what": "end", "note": "there is nothing more"}, "end")
                return
            yield BEAT if record is None else self._event(record)
            if time.monotonic() - checked >= CHECK_SECONDS:
                checked = time.monotonic()
                if not await self._may_go_on():
                    yield self._event(
                        {"what": "end", "note": "the token does not allow this any more"}, "end"
                    )
                    return

    async def aclose(self) -> None:
        """He has left."""
        await self._followed.close()

    async def _may_go_on(self) -> bool:
        try:
            return await self._request.is_still_allowed()
        except (StoreError, HttpError):
            return False

    def _event(self, record: Mapping[str, Any], kind: str = "") -> bytes:
        self._id += 1
        data = json.dumps(record, ensure_ascii=False)
        name = f"event: {kind}\n" if kind else ""
        return f"id: {self._id}\n{name}data: {data}\n\n".encode()
