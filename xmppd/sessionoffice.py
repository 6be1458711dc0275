"""Sessions of this node and of all others, as commands of operators want them."""

from __future__ import annotations

import operator
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

from xmppd import ns
from xmppd.admin.commands import USAGE
from xmppd.admin.sessions import Message, Sought
from xmppd.core.managed import Managed
from xmppd.core.quiet import Quiet
from xmppd.core.sessions import Session
from xmppd.core.tokens import kept_in
from xmppd.errors import CommandError, StanzaError, StoreError, StreamError, XmppdError
from xmppd.moments import utc_stamp
from xmppd.net.c2s.stream import Stream
from xmppd.net.pace import Slice, breathe
from xmppd.software import MOST_CHARACTERS, caps_of, is_by, names_of
from xmppd.xml import build
from xmppd.xml.stanza import parse

if TYPE_CHECKING:
    from xmppd.app import App

Row = Mapping[str, Any]

_SHOW: Final = f"{{{ns.CLIENT}}}show"

PAGE_SECONDS: Final = 10.0
"""After which no further node is asked for a page."""


class SessionOffice:
    """See `xmppd.admin.sessions`. `end` ends one session."""

    def __init__(self, app: App, end: Callable[[Session, StreamError | None], None]) -> None:
        self._app = app
        self._end = end
        self._sessions = app.sessions
        self._everywhere = app.everywhere
        for name, work in (
            ("session page", self._page_here),
            ("session show", self._show_here),
            ("session kick", self._kick_here),
        ):
            app.everywhere.serve(name, work)

    async def page(self, sought: Sought, most: int, after: bytes | None) -> tuple[list[Row], bytes | None]:
        """A row for each of these sessions, at most so many: node by node, each in the order of addresses.
        And the token to go on with; CommandError.
        """
        begin, start = _place_of(after)
        names = [sought.node] if sought.node else self._everywhere.nodes(sought.account)
        rows: list[Row] = []
        until = self._app.clock() + PAGE_SECONDS
        for node in [name for name in names if name >= begin]:
            if len(rows) >= most or self._app.clock() >= until:
                return rows, _token_of(node, start if node == begin else "")
            where = {"after": start if node == begin else "", "most": most - len(rows)}
            of_node = {"node": node} if node else {}
            try:
                found = await self._everywhere.ask(node, "session page", {**asdict(sought), **where})
            except XmppdError as error:
                if sought.node:
                    raise
                rows.append({**of_node, "problem": str(error) or type(error).__name__})
                continue
            rows += [{**of_node, **row} for row in found if "session" in row]
            for row in found:
                if "more" in row:
                    return rows, _token_of(node, row["more"])
        return rows, None

    async def show(self, account: str, resource: str) -> list[Row]:
        """One row with all that is known of a session; none where there is no such."""
        arguments = {"account": account, "resource": resource}
        return await self._everywhere.rows("session show", arguments, account)

    async def kick(self, account: str, resource: str) -> list[Row]:
        """End a session, or with resource "" all of the account; a row for each that was ended."""
        arguments = {"account": account, "resource": resource}
        return await self._everywhere.rows("session kick", arguments, account)

    async def message(self, account: str, resource: str, message: Message) -> list[Row]:
        """Send to a session, or to those of the account that take such a message; a row for each."""
        for field, text in (("text", message.text), ("subject", message.subject)):
            if not build.is_legal(text) or (field == "text" and not text.strip()):
                what = "must not be empty, and holds no control characters"
                raise CommandError(f"{field} {what}", USAGE, field=field, rule="parameter")
        domain = account.rpartition("@")[2]  # whose word no account bars
        receivers = [*self._receivers(account, resource, message.type)]
        if not receivers:
            return []
        to, id = f"{account}/{resource}" if resource else account, secrets.token_hex(8)
        name = f"{{{ns.CLIENT}}}"
        attrs = {"type": message.type, "to": to, "from": domain, "id": id}
        subject = build.element(f"{name}subject", None, message.subject) if message.subject else None
        body = build.element(f"{name}body", None, message.text)
        try:
            await self._app.server.send(build.element(f"{name}message", attrs, subject, body))
        except StanzaError as error:
            raise CommandError(f"{to} was not sent it: {error.text or error.condition}") from None
        return [{**row, "id": id} for row in receivers]

    def _receivers(self, account: str, resource: str, type: str) -> Iterator[Row]:
        """Who takes a message by the rules for all (RFC 6121 8.5.2.1.1, 8.5.3.1), on this node and others."""
        mesh = None if self._everywhere.cluster is None else self._everywhere.cluster.mesh
        found: list[tuple[str, str, int | None]] = [
            ("" if mesh is None else mesh.name, one.resource, None if one.presence is None else one.priority)
            for one in self._sessions.of(account)
        ]
        if mesh is not None:
            places = mesh.places(account)
            found += [(mesh.member(place.node).name, place.resource, place.priority) for place in places]
        top = max((priority for _, _, priority in found if priority is not None), default=-1)
        least = max(top, 0) if type == "chat" else 0
        for node, name, priority in found:
            if name == resource if resource else priority is not None and priority >= least:
                yield {**({"node": node} if node else {}), "sent": f"{account}/{name}"}

    # on this node

    async def _page_here(self, arguments: Mapping[str, Any]) -> Sequence[Row]:
        """The first sessions behind an address; the last row says behind which there are `more`."""
        account, after, most = arguments["account"], arguments["after"], arguments["most"]
        is_sought = _Condition(self._app, arguments)
        found: list[Session] = []
        last = ""  # behind it is none of the first ones
        slice = Slice()
        for session in self._sessions.of(account) if account else [*self._sessions.by_full.values()]:
            is_next = session.full > after and (not last or session.full < last)
            if is_next and not session.is_over and is_sought(session):
                found.append(session)
                if len(found) > 2 * most:
                    found = sorted(found, key=_address)[: most + 1]
                    last = found[-1].full
            if slice.spent():
                await breathe()
                slice.begin()
        found.sort(key=_address)
        rows: list[Row] = []
        for session in found[:most]:
            if not session.is_over:
                rows.append(self._row(session))
            if slice.spent():
                await breathe()
                slice.begin()
        if len(found) > most:
            rows.append({"more": found[most - 1].full})
        return rows

    def _row(self, session: Session) -> Row:
        return {
            "session": session.full,
            "state": state_of(session),
            "priority": None if session.presence is None else session.priority,
            "address": peer_of(session),
            "client": next(iter(names_of(session)), ""),
            "since": utc_stamp(session.since),
            "idle": int(idle_seconds(self._app, session)),
        }

    async def _kick_here(self, arguments: Mapping[str, Any]) -> Sequence[Row]:
        account, resource = arguments["account"], arguments["resource"]
        found = [one for one in self._sessions.of(account) if resource in ("", one.resource)]
        for session in found:
            self._end(session, StreamError("policy-violation", "An operator ended this session."))
        return [{"ended": session.full} for session in found]

    async def _show_here(self, arguments: Mapping[str, Any]) -> Sequence[Row]:
        session = self._sessions.by_full.get(f"{arguments['account']}/{arguments['resource']}")
        if session is None:
            return []
        expires = await self._token_end(session)
        if session.is_over:
            return []
        login, agent = session.login, session.login.agent
        quiet = session.connection if isinstance(session.connection, Quiet) else None
        return [
            {
                **self._row(session),
                **_presence_of(session),
                "software": agent.software[:MOST_CHARACTERS] if agent is not None else "",
                "device": agent.device[:MOST_CHARACTERS] if agent is not None else "",
                "client_id": agent.id if agent is not None else "",
                "mechanism": login.mechanism,
                "login_expires": None if login.expires is None else utc_stamp(login.expires),
                "token_expires": expires,
                **_stream_of(session),
                "lang": session.lang,
                "roster_requested": session.has_roster,
                "carbons": bool(session.copies_since),
                "inactive": quiet is not None,
                "held_while_inactive": 0 if quiet is None else len(quiet),
                **_managed_of(session),
            }
        ]

    async def _token_end(self, session: Session) -> str | None:
        """When the last token of its client ends; None where it has none."""
        agent = session.login.agent
        if agent is None or not agent.id:
            return None
        try:
            rows = await self._app.tokens.of(session.account)
        except StoreError:
            return "unknown"
        mine = [row for row in rows if row["client"] == agent.id]
        kept = [kept_in(row[column]) for row in mine for column in ("fresh", "current")]
        ends = [one.expires for one in kept if one is not None]
        return utc_stamp(max(ends)) if ends else None


_address: Final = operator.attrgetter("full")


def _token_of(node: str, after: str) -> bytes:
    return f"{node} {after}".encode()


def _place_of(token: bytes | None) -> tuple[str, str]:
    """The node, and the address behind which its sessions go on; CommandError."""
    try:
        node, space, after = (token or b" ").decode().partition(" ")
    except ValueError:
        space = ""
    if not space:
        raise CommandError("after: this is not a token", USAGE, field="after", rule="parameter")
    return node, after


class _Condition:
    """Whether a session is one of those that are sought."""

    def __init__(self, app: App, arguments: Mapping[str, Any]) -> None:
        self._app = app
        self._network: IPv4Network | IPv6Network | None = None
        if arguments.get("address"):
            self._network = ip_network(arguments["address"])
        self._client = arguments.get("client", "")
        self._state = arguments.get("state", "")
        self._before = app.now() - arguments.get("older", 0)
        self._idle = arguments.get("idle", 0)

    def __call__(self, session: Session) -> bool:
        return (
            session.since <= self._before
            and (not self._state or state_of(session) == self._state)
            and (not self._idle or idle_seconds(self._app, session) >= self._idle)
            and (self._network is None or _is_in(peer_of(session), self._network))
            and (not self._client or is_by(session, self._client))
        )


def _is_in(peer: str, network: IPv4Network | IPv6Network) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False  # it came by a socket of this machine
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address in network


def stream_of(session: Session) -> Stream | None:
    """What its client is connected by; None while it is detached."""
    connection: Any = session.connection
    if isinstance(connection, Quiet):
        connection = connection.inner
    if isinstance(connection, Managed):
        connection = connection.stream
    return connection if isinstance(connection, Stream) else None


def state_of(session: Session) -> str:
    """One of `xmppd.admin.sessions.STATES`."""
    if session.managed is not None and session.managed.stream is None:
        return "detached"
    return "unavailable" if session.presence is None else "available"


def peer_of(session: Session) -> str:
    """The address of its client: where that is connected from, or was when it logged in."""
    return session.connection.peer or session.login.peer


def idle_seconds(app: App, session: Session) -> float:
    """How long nothing has come from its client: no stanza, no acknowledgement, no white space."""
    if (stream := stream_of(session)) is not None:
        return max(app.shared.clock() - stream.link.heard, 0.0)
    detached_at = session.managed.detached_at if session.managed is not None else 0.0
    return max(app.now() - detached_at, 0.0) if detached_at else 0.0


def _presence_of(session: Session) -> Row:
    """Nothing that a person wrote."""
    presence = session.presence
    show = None if presence is None else parse(presence.head + presence.tail).findtext(_SHOW)
    return {"show": show or "", "caps": caps_of(presence)}


def _stream_of(session: Session) -> Row:
    stream = stream_of(session)
    if stream is None:
        return {}
    link = stream.link
    version, cipher = link.encryption
    return {
        "transport": link.kind,
        "security": link.security,
        "tls": version,
        "cipher": cipher,
        "channel_bindings": [*link.channel_bindings()],
        "unsent_bytes": link.unsent,
        "is_clogged": link.clogged,
    }


def _managed_of(session: Session) -> Row:
    managed: Managed | None = session.managed
    if managed is None:
        return {"acknowledges": False}
    is_detached = managed.stream is None
    return {
        "acknowledges": True,
        "resumable": bool(managed.seconds and managed.is_kept),
        "resumable_seconds": int(managed.seconds),
        "detached_since": utc_stamp(managed.detached_at) if is_detached and managed.detached_at else None,
        "stanzas_received": managed.received,
        "stanzas_under_way": managed.received - managed.handled,
        "stanzas_sent": managed.sent,
        "unacked": managed.sent - managed.acked,
        "unacked_bytes": managed.size,
    }
