"""Messages that no archive has and that somebody is given who acknowledges: each is a row until then, so that
it is not lost with the process that has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from xmppd import hooks, ns
from xmppd.plugin import Counter, Jid, Session, Stanza, StoreError, Unrecorded

from .rows import NO_STORE, names
from .unacknowledged import Held, Unacknowledged

Takers = Callable[[], Sequence[Session]]


class Several(Held):
    """In the place of sessions that are sent the same: the first that acknowledges does it for all."""

    __slots__ = ("is_had", "sessions")

    def __init__(self) -> None:
        self.sessions: set[Session] = set()
        self.is_had = False


class Live(Unrecorded):
    """A message that goes on when it is written; `hand_on` is called just before."""

    __slots__ = ("hand_on",)

    def __init__(self, message: Stanza) -> None:
        super().__init__(message)
        self.hand_on: Callable[[], None] | None = None

    def held_up(self) -> bool:
        """It is about to be given to those who take messages now."""
        if self.hand_on is not None:
            self.hand_on()
        return False


class Insured(Unacknowledged):
    """A row is written before the message goes on, and deleted when it was acknowledged. Nobody else is given
    it meanwhile, as with all that was given to somebody who acknowledges.
    """

    insured = Counter("Messages kept until they were acknowledged, since no archive has them.")

    async def keep_live(self, account: str, stanza: bytes) -> str:
        """Store a message that is about to be given to somebody; the id of its row, "" for no room."""
        raise NotImplementedError

    @hooks.message_unrecorded
    def insure(self, message: Stanza, to: Jid, takers: Takers) -> Unrecorded | None:
        """Keep one with a body, unless its sender does not want it stored (XEP-0334 4.3)."""
        if message.raw.find(b"<body") < 0 or takers()[0].is_anonymous:
            return None
        if names(message, ns.HINTS) and message.xml.find(NO_STORE) is not None:
            return None
        live = Live(message)
        self.server.spawn(self._insure(to.bare, live, takers))
        return live

    async def _insure(self, account: str, live: Live, takers: Takers) -> None:
        """Without room, or a store, it goes on as it is."""
        try:
            if row := await self.keep_live(account, live.message.raw):
                self.insured.inc()
                several = Several()
                self.held.setdefault(account, {})[row] = several
                live.hand_on = partial(self._hand_on, account, row, live.message.raw, several, takers)
        except StoreError as error:
            self.log.warning("store-failed", extra={"kind": "insured", "error": str(error)})
        finally:
            live.go_on()

    def _hand_on(self, account: str, row: str, raw: bytes, several: Several, takers: Takers) -> None:
        """It is about to be given to those who take messages now."""
        for session in takers():
            if self.server.when_had(session, raw, partial(self._told_of, session, row, several)):
                several.sessions.add(session)
        if not several.sessions:  # it will be stored, or nobody is left who acknowledges
            several.is_had = True
            self.was_had(account, row)
        elif self.server.has_other_nodes:
            self.holds.tell(self.server.node, account, [row])

    def _told_of(self, session: Session, row: str, several: Several, is_had: bool) -> None:
        several.sessions.discard(session)
        if several.is_had:
            return
        if is_had:
            several.is_had = True
            self.was_had(session.account, row)
        elif not several.sessions:
            self.forsaken(session, [row], several)
