"""What one node asks another, and what plugins tell all."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import Call, Reply, Signal
from xmppd.errors import CommandError, XmppdError

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 5.0
"""How long an answer is waited for."""

LONGEST: Final = 16 << 20
"""Bytes of what is asked, and of an answer: with all that is around it a frame has no room for more."""

Answerer = Callable[[Mapping[str, Any]], Awaitable[Any]]


class Calls:
    """Asks members by name of a thing and arguments as JSON, and answers them. `signal` does here what a
    plugin told.
    """

    def __init__(
        self,
        mesh: Mesh,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        call_later: Callable[[float, Callable[[], None]], Any],
        signal: Callable[[str, str, str], None],
    ) -> None:
        self._mesh = mesh
        self._spawn = spawn
        self._call_later = call_later
        self._signal = signal
        self._answerers: dict[str, Answerer] = {}
        self._open: dict[int, tuple[Member, asyncio.Future[Any]]] = {}
        self._last = 0

    def serve(self, name: str, answerer: Answerer) -> None:
        """Answer what is asked by this name."""
        self._answerers[name] = answerer

    async def ask(
        self, member: Member, name: str, arguments: Mapping[str, Any], seconds: float = ANSWER_SECONDS
    ) -> Any:
        """What a member answers; CommandError: it refuses, is silent, or is given up, or what is asked is too
        long.
        """
        text = text_of("a question", arguments)
        number = self._last = self._last + 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._open[number] = member, answer
        silent = CommandError(f"node {member.name} does not answer")
        timer = self._call_later(seconds, lambda: None if answer.done() else answer.set_exception(silent))
        self._mesh.send(member, Call(number, name, text), len(text) + 64)
        try:
            return await answer
        finally:
            timer.cancel()
            del self._open[number]

    def take_call(self, member: Member, record: Call) -> None:
        """Answer in the background."""
        self._spawn(self._answer(member, record))

    async def _answer(self, member: Member, record: Call) -> None:
        answerer = self._answerers.get(record.name)
        try:
            if answerer is None:
                raise CommandError(f"{record.name} is unknown here")
            result, error = text_of("an answer", await answerer(json.loads(record.arguments))), ""
        except XmppdError as refusal:
            result, error = "", str(refusal) or type(refusal).__name__
        except Exception as failure:  # whoever asked must not wait
            log.exception("call-failed", extra={"call": record.name, "node": member.name})
            result, error = "", f"it failed: {failure!r}"
        if not member.is_gone:
            self._mesh.send(member, Reply(record.id, result, error), len(result) + 64)

    def take_reply(self, member: Member, record: Reply) -> None:
        """Hand it to who waits."""
        asked, answer = self._open.get(record.id, (None, None))
        if answer is None or asked is not member or answer.done():
            return
        if record.error:
            answer.set_exception(CommandError(record.error))
        else:
            answer.set_result(json.loads(record.result))

    def lost(self, member: Member) -> None:
        """It will answer nothing more."""
        for asked, answer in [*self._open.values()]:
            if asked is member and not answer.done():
                answer.set_exception(CommandError(f"node {member.name} is gone"))

    # signals

    def tell(self, plugin: str, method: str, data: str) -> None:
        """Have a signal of a plugin's done on all other nodes."""
        self._mesh.send_all(Signal(plugin, method, data), len(data) + 64)

    def tell_one(self, node: str, plugin: str, method: str, data: str) -> None:
        """Have it done on the node of this name, if that is there."""
        member = self._mesh.members.get(node)
        if member is not None:
            self._mesh.send(member, Signal(plugin, method, data), len(data) + 64)

    def take_signal(self, member: Member, record: Signal) -> None:
        """Do it here."""
        self._signal(record.plugin, record.method, record.data)


def text_of(what: str, data: Any) -> str:
    """The JSON of data; CommandError when it is too long for a frame."""
    text = json.dumps(data)  # each character of it is one byte
    if len(text) > LONGEST:
        raise CommandError(f"{what} of {len(text)} bytes is too long (at most {LONGEST}): ask for less")
    return text
