"""What one account sends and is sent, which plugins had a part in it and how long they took, and where its
messages went, as it happens.

While nobody follows an account nothing of this is there: objects of the server are given other classes when
somebody begins to, and get their own back when the last one leaves.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from xmppd.core.delivery import kind_of
from xmppd.core.fates import Fate, ids_of
from xmppd.core.logins import Logins
from xmppd.core.messages import Messages
from xmppd.core.origin import Origin
from xmppd.core.output import Connection
from xmppd.core.sessions import Session, Sessions
from xmppd.errors import CommandError, SaslError
from xmppd.feed import Feed
from xmppd.hooks import Drop, Outcome
from xmppd.jid import Jid
from xmppd.masking import shown
from xmppd.moments import utc_stamp
from xmppd.stream.sasl import Attempt, Login
from xmppd.xml.stanza import Stanza

if TYPE_CHECKING:
    from xmppd.app import App

log = logging.getLogger(__name__)

MOST: Final = 16
"""Accounts that are followed on one node at once."""


class Trace(Feed):
    """What one caller follows; `bodies`: he may see what people wrote."""

    bodies = False


class Tracing:
    """Accounts of one node that somebody follows."""

    def __init__(self, app: App) -> None:
        self.accounts: dict[str, list[Trace]] = {}
        self._app = app
        self._is_inside = False
        traced = (*_traced_sessions(self), *_traced_routing(self))
        self._classes = {one.__mro__[1]: one for one in traced}

    def open(self, arguments: Mapping[str, Any]) -> Feed:
        """Follow an account (a bare JID); CommandError."""
        account = arguments["account"]
        if account not in self.accounts and len(self.accounts) >= MOST:
            raise CommandError(f"{MOST} accounts are traced already", rule="too-many-follow")
        trace = Trace(lambda: self._left(account, trace))
        trace.bodies = arguments["bodies"]
        if not self.accounts:
            self._change(is_on=True)
        self.accounts.setdefault(account, []).append(trace)
        for session in self._app.sessions.of(account):
            self.met(session)
        return trace

    def _left(self, account: str, trace: Trace) -> None:
        traces = self.accounts[account]
        traces.remove(trace)
        if traces:
            return
        del self.accounts[account]
        for session in self._app.sessions.of(account):
            session.__class__ = Session
        if not self.accounts:
            self._change(is_on=False)

    def _change(self, *, is_on: bool) -> None:
        app = self._app
        app.router.trace(self if is_on else None)
        app.messages.fates.heard = self.heard if is_on else None
        for one, own in ((app.messages, Messages), (app.sessions, Sessions), (app.logins, Logins)):
            one.__class__ = self._classes[own] if is_on else own

    # what happens

    def tell(self, account: str, what: str, raw: bytes = b"", /, **about: Any) -> None:
        """Something happened to an account. Whoever it happens to does not suffer from a mistake here."""
        for trace in self.accounts.get(account, ()):
            record = {"at": utc_stamp(self._app.now(), to="milliseconds"), "what": what, **about}
            try:
                if raw:
                    record["xml"] = shown(raw, with_text=trace.bodies)
            except Exception:
                log.exception("trace-failed", extra={"jid": account})
                record["xml"] = ""
            trace.put(record, 400 + len(record.get("xml", "")))

    def met(self, session: Session) -> None:
        """A session of an account that is followed."""
        if session.account in self.accounts:
            session.__class__ = self._classes[Session]
            secure = session.connection.secure
            self.tell(
                session.account, "session", session=session.full, address=session.login.peer, secure=secure
            )

    def taken(self, session: Session, stanza: Stanza) -> Taken | None:
        """See `xmppd.core.router.Tracer`."""
        if session.account not in self.accounts:
            return None
        self.tell(session.account, "in", stanza.raw, session=session.full, bytes=len(stanza.raw))
        return Taken(self, session, stanza)

    def spent(self) -> dict[str, float]:
        """Seconds that each plugin has taken of all that was timed."""
        return {name: spread.sum for name, spread in self._app.hooks.spent.of.items()}

    def heard(self, fate: Fate) -> None:
        """A message was not simply delivered."""
        accounts = {address.partition("/")[0] for address in (fate.sender, fate.to)}
        for account in accounts & self.accounts.keys():
            self.tell(
                account,
                "decision",
                id=next(iter(fate.ids), ""),
                sender=fate.sender,
                to=fate.to,
                decision=fate.fate,
                rule=fate.rule,
                reason=fate.reason,
            )

    def went(self, stanza: Stanza, to: str, decision: str) -> None:
        """A message goes on."""
        sender = stanza.attrs.get("from", "")
        receiver = to.partition("/")[0]
        for account in {sender.partition("/")[0], receiver} & self.accounts.keys():
            here, nodes = self._where(to, receiver)
            self.tell(
                account,
                "decision",
                id=next(iter(ids_of(stanza)), ""),
                sender=sender,
                to=to,
                decision=decision,
                rule=f"{kind_of(stanza)} to {'a session' if '/' in to else 'an account'}",
                sessions=here,
                nodes=nodes,
            )

    def _where(self, to: str, account: str) -> tuple[list[str], list[str]]:
        """The sessions of this node that take such a message, and other nodes that have any."""
        live = self._app.sessions.accounts.get(account)
        if "/" in to:
            here = [to] if to in self._app.sessions.by_full else []
        else:
            here = [session.full for session in live.takers] if live is not None else []
        cluster = self._app.cluster
        if cluster is None:
            return here, []
        return here, sorted({cluster.mesh.member(it.node).name for it in cluster.mesh.places(account)})

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What is told meanwhile is a part of something that is told."""
        before, self._is_inside = self._is_inside, True
        try:
            yield
        finally:
            self._is_inside = before

    @property
    def is_inside(self) -> bool:
        """Whether that is so now."""
        return self._is_inside


class Taken:
    """A stanza of a client that is followed, on its way through the server."""

    def __init__(self, tracing: Tracing, session: Session, stanza: Stanza) -> None:
        self._tracing = tracing
        self._session = session
        self._about = {"session": session.full, "kind": stanza.kind, "id": stanza.id}
        self._before = tracing.spent()

    def routed(self, seconds: float) -> None:
        """It was sent on, or has to wait."""
        after = self._tracing.spent()
        spent = {name: took - self._before.get(name, 0.0) for name, took in after.items()}
        hooks = {name: _ms(took) for name, took in spent.items() if took > 0.0}
        self._tracing.tell(self._session.account, "routed", **self._about, ms=_ms(seconds), hooks=hooks)

    def done(self, seconds: float) -> None:
        """It had to wait, and is done."""
        self._tracing.tell(self._session.account, "done", **self._about, ms=_ms(seconds))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _traced_sessions(tracing: Tracing) -> tuple[type, ...]:
    """What sessions and their table are while accounts are followed: they have the same attributes."""

    class TracedSession(Session):
        __slots__ = ()

        def flush(self) -> None:
            """Tell what is written."""
            if self._out and not self._is_held:
                for data in self._out:
                    tracing.tell(self.account, "out", data, session=self.full, bytes=len(data))
            super().flush()

        def end(self) -> None:
            """Tell that it is over."""
            super().end()
            tracing.tell(self.account, "ended", session=self.full)

    class TracedSessions(Sessions):
        __slots__ = ()

        def add(
            self,
            login: Login,
            resource: str,
            connection: Connection,
            lang: str,
            blocks: frozenset[str] = frozenset(),
        ) -> Session:
            """Follow it, if its account is."""
            session = super().add(login, resource, connection, lang, blocks)
            tracing.met(session)
            return session

    return TracedSession, TracedSessions


def _traced_routing(tracing: Tracing) -> tuple[type, ...]:
    """What sees to messages and logins is then."""

    class TracedMessages(Messages):
        def _is_given(self, stanza: Stanza, to: str | None) -> bool:
            is_given = super()._is_given(stanza, to)
            if is_given and not tracing.is_inside:
                tracing.went(stanza, to or "", "delivered")
            return is_given

        def _hand_over(
            self, origin: Origin, stanza: Stanza, to: Jid, *, is_again: bool = False
        ) -> Outcome | Awaitable[Outcome | Drop]:
            with tracing.inside():
                outcome = super()._hand_over(origin, stanza, to, is_again=is_again)
            if outcome is Outcome.DELIVERED:
                tracing.went(stanza, to.full, "delivered")
            elif not isinstance(outcome, Outcome):
                tracing.went(stanza, to.full, "under-way")
            return outcome

    class TracedLogins(Logins):
        def failed(self, attempt: Attempt, error: SaslError) -> Awaitable[None] | None:
            """Tell why."""
            self._attempted(attempt, error.condition)
            return super().failed(attempt, error)

        def _succeeded(self, attempt: Attempt) -> None:
            self._attempted(attempt, "success")
            super()._succeeded(attempt)

        def _attempted(self, attempt: Attempt, outcome: str) -> None:
            channel = attempt.channel
            tracing.tell(
                attempt.account,
                "login",
                mechanism=attempt.mechanism,
                outcome=outcome,
                address=channel.peer,
                secure=channel.secure,
            )

    return TracedMessages, TracedLogins
