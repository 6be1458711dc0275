"""Where a message goes: RFC 6121 section 8.5 as one table."""

from __future__ import annotations

from collections.abc import Awaitable
from enum import Enum

from xmppd.core.accounts import Accounts
from xmppd.core.origin import Origin, Target
from xmppd.core.services import Services
from xmppd.core.sessions import LiveAccount, Sessions
from xmppd.errors import JidError, StanzaError
from xmppd.hooks import DROP, Hooks
from xmppd.jid import Jid
from xmppd.xml import build
from xmppd.xml.stanza import Stanza

FEW = 8
"""Sessions that get a message at once; where there are more, they come after those who are alone."""


class Action(Enum):
    """What is done with a message that no connected resource matches exactly."""

    TOP = "deliver to the available resources of the highest priority"
    ALL = "deliver to every available resource of a priority not negative"
    STORE = "keep for later (XEP-0160), or refuse when nobody keeps it"
    REFUSE = "answer service-unavailable"
    IGNORE = "drop silently"


class Place(Enum):
    """What the address stands for at this moment."""

    READY = "an account with an available resource of a priority not negative"
    ABSENT = "an account with none"
    RESOURCE = "a full JID that no session has"


TABLE: dict[tuple[Place, str], Action] = {
    (Place.READY, "normal"): Action.TOP,
    (Place.READY, "chat"): Action.TOP,
    (Place.READY, "groupchat"): Action.REFUSE,
    (Place.READY, "headline"): Action.ALL,
    (Place.READY, "error"): Action.IGNORE,
    (Place.ABSENT, "normal"): Action.STORE,
    (Place.ABSENT, "chat"): Action.STORE,
    (Place.ABSENT, "groupchat"): Action.REFUSE,
    (Place.ABSENT, "headline"): Action.IGNORE,
    (Place.ABSENT, "error"): Action.IGNORE,
    (Place.RESOURCE, "normal"): Action.REFUSE,
    (Place.RESOURCE, "groupchat"): Action.REFUSE,
    (Place.RESOURCE, "headline"): Action.IGNORE,
    (Place.RESOURCE, "error"): Action.IGNORE,
}
"""RFC 6121 8.5.4, table 1. A chat message to a resource that is gone is treated like one to the account
(8.5.3.2.1).
"""

MESSAGE_TYPES = frozenset(("normal", "chat", "groupchat", "headline", "error"))


class Messages:
    """Delivers messages to the targets of this server, and hands those for other hosts to whoever answers for
    them.
    """

    def __init__(
        self,
        sessions: Sessions,
        accounts: Accounts,
        services: Services,
        hooks: Hooks,
        domains: frozenset[str],
    ) -> None:
        self._sessions = sessions
        self._targets = sessions.targets
        self._live = sessions.accounts
        self._accounts = accounts
        self._services = services
        self._hooks = hooks
        self._domains = domains

    def route(self, origin: Origin, stanza: Stanza) -> Awaitable[None] | None:
        """Deliver, keep or refuse (StanzaError) a message whose `from` is its true sender."""
        to = stanza.to
        receiver = self._targets.get(to)  # type: ignore[arg-type]
        if receiver is not None:
            receiver.send(stanza.raw)
            return None
        if not to:  # RFC 6120 10.3.1
            raw = build.restamp(stanza, to=origin.account)
            own = Stanza("message", {**stanza.attrs, "to": origin.account}, raw)
            return self._deliver(origin, own, Jid.parse(origin.account))
        live = self._live.get(to)
        if live is not None and live.targets and stanza.type in ("chat", None):
            self._copy(live.targets, stanza.raw)
            return None
        try:
            jid = Jid.parse(to)
        except JidError as error:
            raise StanzaError("jid-malformed", str(error)) from None
        return self._deliver(origin, stanza, jid)

    def _deliver(self, origin: Origin, stanza: Stanza, to: Jid) -> Awaitable[None] | None:
        if to.domain not in self._domains:
            return self._services.take(origin, stanza, to)
        if not to.local:
            if not self._hooks.server_message_filter:
                raise unavailable()
            return self._offer(origin, stanza)
        if to.bare not in self._live and (locating := self._sessions.locate(to.bare)) is not None:
            return self._deliver_later(origin, stanza, to, locating)
        return self._act(stanza, to)

    async def _deliver_later(
        self, origin: Origin, stanza: Stanza, to: Jid, locating: Awaitable[None]
    ) -> None:
        await locating
        waiting = self._act(stanza, to)
        if waiting is not None:
            await waiting

    async def _offer(self, origin: Origin, stanza: Stanza) -> None:
        """Give plugins a message to the server itself; nobody else takes such (RFC 6120 10.5.2)."""
        for take in self._hooks.server_message_filter:
            result = take(origin, stanza)
            if isinstance(result, Awaitable):
                result = await result
            if result is DROP:
                return
            stanza = result
        raise unavailable()

    def _act(self, stanza: Stanza, to: Jid) -> Awaitable[None] | None:
        """Do what the table says."""
        receiver = self._targets.get(to.full) if to.resource else None
        if receiver is not None:
            receiver.send(stanza.raw)
            return None
        live = self._live.get(to.bare)
        kind = stanza.type if stanza.type in MESSAGE_TYPES else "normal"
        match self._action(to, live, kind):
            case Action.TOP if live is not None:
                self._copy(live.targets, stanza.raw)
            case Action.ALL if live is not None:
                self._copy(tuple(s for s in live.available if s.priority >= 0), stanza.raw)
            case Action.STORE:
                return self._keep(to.bare, stanza)
            case Action.REFUSE:
                raise unavailable()
        return None

    @staticmethod
    def _action(jid: Jid, live: LiveAccount | None, kind: str) -> Action:
        if jid.resource and kind != "chat":
            return TABLE[Place.RESOURCE, kind]
        ready = live is not None and live.targets
        return TABLE[Place.READY if ready else Place.ABSENT, kind]

    @staticmethod
    def _copy(receivers: tuple[Target, ...], data: bytes) -> None:
        if len(receivers) > FEW:
            for receiver in receivers:
                receiver.send_copy(data)
        else:
            for receiver in receivers:
                receiver.send(data)

    async def _keep(self, account: str, stanza: Stanza) -> None:
        """Offer a message for nobody to the plugins that keep such; durable when this returns (XEP-0160)."""
        exists = self._accounts.exists(account)
        if not (exists if isinstance(exists, bool) else await exists):
            raise unavailable()
        for claim in self._hooks.message_unclaimed_filter:
            result = claim(account, stanza)
            if isinstance(result, Awaitable):
                result = await result
            if result is DROP:
                return
            stanza = result
        live = self._live.get(account)
        if live is not None and live.targets:  # somebody came while we asked
            self._copy(live.targets, stanza.raw)
            return
        raise unavailable()


def unavailable() -> StanzaError:
    """What refuses a message; a new one each time, because a raised error keeps every traceback it was
    given.
    """
    return StanzaError("service-unavailable")
