"""Iqs of clients that have not logged in, for plugins that take such (XEP-0077)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from xmppd.core.iqs import EarlyRequest, Handler, result_of
from xmppd.core.router import not_stored
from xmppd.errors import StanzaError, StoreError, StreamError
from xmppd.stream.rows import ANY_IQ, Negotiable, Phase, Waiting, negotiates
from xmppd.xml import build
from xmppd.xml.stanza import Stanza


class EarlyIqs:
    """Answers by the handler that `find` gives; an iq that has none is not authorized."""

    def __init__(self, find: Callable[[Stanza], Handler | None]) -> None:
        self._find = find

    @negotiates(Phase.LOGIN, ANY_IQ)
    def ask(self, stream: Negotiable, stanza: Stanza) -> Waiting:
        """One request; the client's next one is read when it was answered."""
        handler = self._find(stanza)
        if handler is None:
            raise StreamError("not-authorized")
        return self._answer(stream, stanza, handler)

    @staticmethod
    async def _answer(stream: Negotiable, stanza: Stanza, handler: Handler) -> None:
        peer = stream.link.peer
        try:
            answer = handler(EarlyRequest(stream.domain, peer, stanza))
            answer = await answer if isinstance(answer, Awaitable) else answer
        except StoreError as error:
            stream.write(build.error_reply(stanza, "", not_stored(error, peer=peer, kind=stanza.kind)))
        except StanzaError as error:
            stream.write(build.error_reply(stanza, "", error))
        else:
            stream.write_all(result_of(stanza, "", answer))
