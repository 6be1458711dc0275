"""Where a message goes: RFC 6121 section 8.5 as one table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum

from xmppd.core.accounts import Accounts
from xmppd.core.sessions import LiveAccount, Session, Sessions
from xmppd.errors import JidError, StanzaError
from xmppd.hooks import DROP, Hooks
from xmppd.jid import Jid
from xmppd.xml import build
from xmppd.xml.stanza import LANG, Stanza

FEW = 8
"""Sessions that get a message at once; where there are more, they come after those who are alone."""


class Action(Enum):
    """What is done with a message that no connected resource matches exactly."""

    TOP = "deliver to the available resources of the highest priority"
    ALL = "deliver to every available resource of a priority not negative"
    STORE = "keep for later (XEP-0160), or refuse when nobody keeps it"
    REFUSE = "answer service-unavailable"
    IGNORE = "drop silently"


class Target(Enum):
    """What the address stands for at this moment."""

    READY = "an account with an available resource of a priority not negative"
    ABSENT = "an account with none"
    RESOURCE = "a full JID that no session has"


TABLE: dict[tuple[Target, str], Action] = {
    (Target.READY, "normal"): Action.TOP,
    (Target.READY, "chat"): Action.TOP,
    (Target.READY, "groupchat"): Action.REFUSE,
    (Target.READY, "headline"): Action.ALL,
    (Target.READY, "error"): Action.IGNORE,
    (Target.ABSENT, "normal"): Action.STORE,
    (Target.ABSENT, "chat"): Action.STORE,
    (Target.ABSENT, "groupchat"): Action.REFUSE,
    (Target.ABSENT, "headline"): Action.IGNORE,
    (Target.ABSENT, "error"): Action.IGNORE,
    (Target.RESOURCE, "normal"): Action.REFUSE,
    (Target.RESOURCE, "groupchat"): Action.REFUSE,
    (Target.RESOURCE, "headline"): Action.IGNORE,
    (Target.RESOURCE, "error"): Action.IGNORE,
}
"""RFC 6121 8.5.4, table 1. A chat message to a resource that is gone is treated like one to the account
(8.5.3.2.1).
"""

MESSAGE_TYPES = frozenset(("normal", "chat", "groupchat", "headline", "error"))


class Messages:
    """Delivers messages between the sessions of this node."""

    def __init__(self, sessions: Sessions, accounts: Accounts, hooks: Hooks, domains: frozenset[str]) -> None:
        self._by_full = sessions.by_full
        self._live = sessions.accounts
        self._accounts = accounts
        self._hooks = hooks
        self._domains = domains

    def route(self, session: Session, stanza: Stanza) -> Awaitable[None] | None:
        """Deliver, keep or refuse (StanzaError) a message that a local session sent."""
        receiver = self._by_full.get(stanza.to)  # type: ignore[arg-type]
        if receiver is not None:
            receiver.send(session.stamp(stanza))
            return None
        if not stanza.to:
            lang = stanza.attrs.get(LANG, session.lang or None)
            data = build.restamp(stanza, from_=session.full, to=session.account, lang=lang)
            return self.deliver(session.account, stanza, lambda: data)
        live = self._live.get(stanza.to)
        if live is not None and live.targets and stanza.type in ("chat", None):
            self._copy(live.targets, session.stamp(stanza))
            return None
        if self._hooks.server_message_filter and stanza.to.partition("/")[0] in self._domains:
            return self._offer(session, stanza)
        return self.deliver(stanza.to, stanza, lambda: session.stamp(stanza))

    async def _offer(self, session: Session, stanza: Stanza) -> None:
        """Give plugins a message to the server itself; nobody else takes such (RFC 6120 10.5.2)."""
        for take in self._hooks.server_message_filter:
            result = take(session, stanza)
            if isinstance(result, Awaitable):
                result = await result
            if result is DROP:
                return
            stanza = result
        raise unavailable()

    def deliver(self, to: str, stanza: Stanza, stamped: Callable[[], bytes]) -> Awaitable[None] | None:
        """Do what the table says; `stamped` gives the bytes to deliver, their sender in `from`."""
        try:
            jid = Jid.parse(to)
        except JidError as error:
            raise StanzaError("jid-malformed", str(error)) from None
        if jid.domain not in self._domains:
            raise StanzaError("remote-server-not-found")
        if not jid.local:
            raise unavailable()
        receiver = self._by_full.get(jid.full) if jid.resource else None
        if receiver is not None:
            receiver.send(stamped())
            return None
        live = self._live.get(jid.bare)
        kind = stanza.type if stanza.type in MESSAGE_TYPES else "normal"
        match self._action(jid, live, kind):
            case Action.TOP if live is not None:
                self._copy(live.targets, stamped())
            case Action.ALL if live is not None:
                self._copy(tuple(s for s in live.available if s.priority >= 0), stamped())
            case Action.STORE:
                return self._keep(jid.bare, stanza, stamped())
            case Action.REFUSE:
                raise unavailable()
        return None

    @staticmethod
    def _action(jid: Jid, live: LiveAccount | None, kind: str) -> Action:
        if jid.resource and kind != "chat":
            return TABLE[Target.RESOURCE, kind]
        ready = live is not None and live.targets
        return TABLE[Target.READY if ready else Target.ABSENT, kind]

    @staticmethod
    def _copy(receivers: tuple[Session, ...], data: bytes) -> None:
        if len(receivers) > FEW:
            for receiver in receivers:
                receiver.send_copy(data)
        else:
            for receiver in receivers:
                receiver.send(data)

    async def _keep(self, account: str, stanza: Stanza, data: bytes) -> None:
        """Offer a message for nobody to the plugins that keep such; durable when this returns (XEP-0160)."""
        exists = self._accounts.exists(account)
        if not (exists if isinstance(exists, bool) else await exists):
            raise unavailable()
        kept = Stanza("message", stanza.attrs, data, len(data) - len(stanza.raw) + stanza.tail)
        for claim in self._hooks.message_unclaimed_filter:
            result = claim(account, kept)
            if isinstance(result, Awaitable):
                result = await result
            if result is DROP:
                return
            kept = result
        live = self._live.get(account)
        if live is not None and live.targets:  # somebody came while we asked
            self._copy(live.targets, kept.raw)
            return
        raise unavailable()


def unavailable() -> StanzaError:
    """What refuses a message; a new one each time, because a raised error keeps every traceback it was
    given.
    """
    return StanzaError("service-unavailable")
