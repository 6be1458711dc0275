"""Logins by tokens that a game's own service issues (JWT): as the password of PLAIN, by OAUTHBEARER, and by
mechanisms of other plugins (`urn:xmppd:game-login:0`).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Sequence
from typing import ClassVar, Final, Protocol

from xmppd import hooks, ns
from xmppd.plugin import (
    SELF,
    SERVER,
    AccountExists,
    Channel,
    Counter,
    Element,
    Emitter,
    EventField,
    Identity,
    Jid,
    Kept,
    Login,
    Lru,
    Mechanism,
    Person,
    Plugin,
    Request,
    SaslError,
    Session,
    SessionSlot,
    StanzaError,
    Table,
    Uses,
    element,
    iq_set,
    nobody,
    offered,
    serialize,
)

from .bearer import OAuthBearer
from .checking import MOST_BYTES, Checker
from .claims import BY, Names, player_of
from .config import GameLoginConfig
from .revoking import REMEMBERED, Revocations, shown

NS: Final = "urn:xmppd:game-login:0"
REFRESH, REFRESHED, EXPIRED = (f"{{{NS}}}{name}" for name in ("refresh", "refreshed", "expired"))
DAY: Final = 86_400.0
MISTAKES: Final = 5
"""Tokens that do not hold, of one session."""
FAST: Final = "HT-"
"""What mechanisms begin with that take tokens of the server's own (XEP-0484)."""


class Players(Protocol):
    """What is asked of the plugin `players`."""

    def __bool__(self) -> bool: ...

    async def name_of(self, account: str) -> str | None: ...

    async def give_name(self, account: str, text: str, by: str) -> str: ...


class GameLogin(Revocations, Plugin):
    """What a token says goes with the session, and ends with the token."""

    Config = GameLoginConfig
    features: ClassVar = {SERVER: (NS,)}
    grants = Table(
        partition=("account",),
        cluster=("client",),
        columns={"facts": "text", "expires": "timestamp"},
        ttl=400 * DAY,
        person=Person("account"),
    )
    ended = Table(
        partition=("account",),
        columns={"before": "int"},
        order="before",
        ttl=DAY,
        person=Person("account"),
    )
    revoked = Table(
        partition=("key",),
        columns={"before": "int"},
        order="before",
        ttl=DAY,
        person=nobody("ids of tokens, and issuers"),
    )
    recent = Table(
        partition=("hour",),
        cluster=("id",),
        columns={"at": "timestamp", "kind": "text", "value": "text", "before": "timestamp"},
        ttl=DAY,
        person=Person(mentions={"value": "masked"}),
    )
    players: Uses[Players] = Uses("players")
    mistakes = SessionSlot(0)
    known: Kept[Lru[str, bool]] = Kept(lambda: Lru(REMEMBERED))
    let_in = Counter("Logins by a token.")
    refused = Counter("Tokens that did not hold.")
    refreshed = Counter("Sessions that were given another token.")
    ended_sessions = Counter("Sessions that ended because their token was revoked.")
    ended_told = Emitter(
        "game-login.revoked",
        "Tokens of a player, of an issuer, or one alone were revoked.",
        fields={"kind": EventField("text", "`account`, `issuer` or `token`")},
        example={"kind": "account"},
    )

    async def start(self) -> None:
        """Read the keys; a mistake in them is told here."""
        config = self.config
        self.heard = 0
        self.lasting = config.longest_hours * 3600.0 + 600.0
        self._names = Names(**{name: getattr(config.claims, name) for name in Names.__slots__})
        self._checker = Checker(self)
        self.issuers = frozenset(issuer.issuer for issuer in config.issuers)

    async def stop(self) -> None:
        """Ask for no keys any more."""
        await self._checker.close()

    # ways in

    def mechanisms(self) -> Sequence[Mechanism]:
        """OAUTHBEARER."""
        config = self.config
        about = {"scope": config.scope, "openid-configuration": config.discovery}
        told = {name: value for name, value in about.items() if value}
        return [OAuthBearer(self.prove, self._checker.serves, told, needs_tls=not config.without_tls)]

    @hooks.password_check
    def by_password(self, jid: Jid, password: str, channel: Channel) -> Awaitable[Identity] | None:
        """A token in place of a password. What has its form is nothing else."""
        return self.prove(password, channel, jid.bare) if is_token(password) else None

    @offered
    async def prove(self, token: str, channel: Channel, claimed: str = "") -> Identity:
        """Whose token this is, for a login on this channel by who says he is `claimed` ("": nobody yet); the
        account is made if it is not there. SaslError: it does not hold, or is somebody else's.
        """
        try:
            identity = await self._prove(token, channel.domain, claimed)
        except SaslError:
            self.refused.inc()
            raise
        self.let_in.inc()
        return identity

    async def _prove(self, token: str, domain: str, claimed: str) -> Identity:
        claims, issued, expires = await self._checker.claims(token, domain)
        player = player_of(claims, self._names, domain, issued, expires)
        account = f"{player.local}@{domain}"
        if claimed not in ("", account):
            raise SaslError("not-authorized", "It is for another account.")
        if await self.is_revoked(account, player.facts):
            raise SaslError("not-authorized", "It was revoked.")
        if not await self.server.account_exists(account):
            await self._provision(account)
        if "#" in player.name and self.config.names != "never" and self.players:
            self.spawn(self._name(account, player.name))
        return Identity(player.local, facts=player.facts, expires=player.expires)

    async def _provision(self, account: str) -> None:
        if not self.config.provision:
            raise SaslError("not-authorized", "There is no such account.")
        try:
            await self.server.accounts.provision(account)
        except AccountExists:
            if not await self.server.account_exists(account):  # its name is not free yet
                raise SaslError("temporary-auth-failure", "This name cannot be had now.") from None

    async def _name(self, account: str, name: str) -> None:
        """Have the player shown by the name of his token."""
        before = await self.players.name_of(account)
        if before == name or (before is not None and self.config.names == "first"):
            return
        try:
            await self.players.give_name(account, name, BY)
        except StanzaError as error:
            extra = {"jid": account, "name": name, "error": error.condition}
            self.log.info("login-name-not-given", extra=extra)

    # tokens of the server's own: no longer than the one that they were given for

    @hooks.authenticated
    def admit(self, login: Login, channel: Channel) -> Awaitable[None] | None:
        """A client with an id may have been given one (XEP-0484), or be given one now."""
        if login.agent is None or not login.agent.id:
            return None
        if login.facts.get("by") == BY:
            return self._grant(login)
        return self._regrant(login) if login.mechanism.startswith(FAST) else None

    async def _grant(self, login: Login) -> None:
        assert login.agent is not None
        key = {"account": login.account, "client": login.agent.id}
        await self.grants.put({**key, "facts": json.dumps(login.facts), "expires": login.expires})

    async def _regrant(self, login: Login) -> None:
        assert login.agent is not None
        row = await self.grants.get(login.account, login.agent.id)
        if row is None:
            return
        facts = json.loads(row["facts"])
        if row["expires"] <= self.now() or await self.is_revoked(login.account, facts):
            raise SaslError("credentials-expired")
        login.facts, login.expires = facts, row["expires"]

    # sessions

    @hooks.session_bound
    def look_at_bound(self, session: Session) -> Awaitable[None] | None:
        """What was revoked between its login and now found no session."""
        return self._look_at(session) if session.facts.get("by") == BY else None

    @hooks.session_resumed
    def look_at_resumed(self, session: Session) -> Awaitable[None] | None:
        """The same."""
        return self.look_at_bound(session)

    @hooks.session_returned
    def look_at_returned(self, session: Session) -> None:
        """It has another login now."""
        if session.facts.get("by") == BY:
            self.spawn(self._look_at(session))

    async def _look_at(self, session: Session) -> None:
        if await self.is_revoked(session.account, session.facts):
            self.end(session)

    def end(self, session: Session) -> None:
        """Its token was revoked."""
        if not session.is_over:
            self.ended_sessions.inc()
            self.server.end_session(session, "not-authorized", "The token was revoked.")

    @hooks.session_expired
    def tell(self, session: Session) -> None:
        """Its client may bring another token; then the session goes on."""
        if session.facts.get("by") == BY:
            session.send(expired_message(session))

    @iq_set(REFRESH, SELF, SERVER)
    async def refresh(self, request: Request) -> Element:
        """Another token of the same account, in place of the one that it logged in by."""
        if not isinstance(request.origin, Session):
            raise StanzaError("not-allowed", "This session did not log in by a token.")
        expires = await self.renew(request.origin, (request.payload.text or "").strip())
        return element(REFRESHED, {"expires": shown(expires)})

    @offered
    async def renew(self, session: Session, token: str) -> float | None:
        """Give a session another token in place of that which it logged in by; when it ends. StanzaError."""
        if session.facts.get("by") != BY:
            raise StanzaError("not-allowed", "This session did not log in by a token.")
        domain = session.account.rpartition("@")[2]
        try:
            identity = await self._prove(token, domain, session.account)
        except SaslError as error:
            self.refused.inc()
            raise self._mistaken(session, error) from None
        if session.is_over:
            raise StanzaError("recipient-unavailable")
        session.login.facts = identity.facts
        self.server.set_expiry(session, identity.expires)
        if session.login.agent is not None and session.login.agent.id:
            await self._grant(session.login)
        await self._look_at(session)  # what was revoked meanwhile was looked for in the token before
        self.refreshed.inc()
        return identity.expires

    def _mistaken(self, session: Session, error: SaslError) -> StanzaError:
        if error.condition != "not-authorized":
            return StanzaError("resource-constraint", error.text)
        self.mistakes[session] += 1
        if self.mistakes[session] >= MISTAKES:
            self.server.end_session(session, "policy-violation", "Too many tokens that do not hold.")
        return StanzaError("not-authorized", error.text)

    @hooks.account_removed
    async def forget(self, account: str) -> None:
        """Whoever has its name next has no tokens of the one before."""
        await self.grants.delete(account)


def is_token(password: str) -> bool:
    """Whether a password has the form of a token: nobody's real one begins with base64 of `{"`."""
    return password.startswith("eyJ") and password.count(".") == 2 and len(password) <= MOST_BYTES


def expired_message(session: Session) -> bytes:
    """What tells a client that its time is over."""
    attrs = {"type": "headline", "from": session.account.rpartition("@")[2], "to": session.full}
    return serialize(element(f"{{{ns.CLIENT}}}message", attrs, element(EXPIRED)))
