"""Players: a name with a tag (`name#tag`) for each account, which nobody else has and nobody can imitate; who
they are on other platforms, and which of these a session is on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Protocol

from xmppd import hooks, ns
from xmppd.plugin import (
    SELF,
    SERVER,
    Counter,
    Element,
    Emitter,
    EventField,
    Jid,
    JidError,
    Person,
    Plugin,
    PluginConfig,
    PositiveInt,
    Request,
    Session,
    StanzaError,
    Table,
    Uses,
    at_least,
    at_most,
    element,
    happened,
    iq_get,
    iq_set,
    network_of,
    nobody,
    offered,
    utc_stamp,
)

from .claims import Claims, Taken
from .commands import PlayerCommands
from .lookups import Budget, too_often
from .names import BadName, Bounds, Name, checked, keys_of, read
from .platforms import Platforms

NS: Final = "urn:xmppd:players:0"
PLAYER: Final = f"{{{NS}}}player"
PLATFORM: Final = f"{{{NS}}}platform"
MESSAGE: Final = f"{{{ns.CLIENT}}}message"
NS_BYTES: Final = NS.encode()
DAY: Final = 86_400.0


class Judges(Protocol):
    """What is asked of the plugin `moderation`."""

    def __bool__(self) -> bool: ...

    async def check_speaks(self, account: str, lang: str = "") -> None:
        """StanzaError for who is muted."""

    async def judge(self, account: str, where: str, text: str, lang: str = "") -> Any:
        """What to do about a text: `action`, and `why`."""


class Logouts(Protocol):
    """What is asked of the plugin `last`."""

    def __bool__(self) -> bool: ...

    async def logouts_of(self, accounts: Sequence[str]) -> Mapping[str, float]:
        """When those who are away logged out last, as far as that is known."""


class PlayersConfig(PluginConfig):
    """Names have `least` to `most` characters, tags `least_tag` to `most_tag`. A name may be changed every
    `rename_days`, and one that was given up is kept back for `kept_days`. `reserved` names nobody may take,
    with whatever tag. An account, and a network address, may look up `lookups` names within `lookup_seconds`.
    `platforms` are those that a client may say it is on without being linked to it; a player is linked to
    `links` at most.
    """

    least: Annotated[int, at_least(1), at_most(32)] = 3
    most: Annotated[int, at_least(1), at_most(64)] = 16
    least_tag: Annotated[int, at_least(1), at_most(8)] = 2
    most_tag: Annotated[int, at_least(1), at_most(8)] = 5
    rename_days: Annotated[float, at_least(0), at_most(3650)] = 30.0
    kept_days: Annotated[float, at_least(0), at_most(3650)] = 90.0
    reserved: frozenset[str] = frozenset(
        ("admin", "administrator", "moderator", "support", "system", "server")
    )
    lookups: PositiveInt = 30
    lookup_seconds: Annotated[float, at_least(1), at_most(86_400)] = 60.0
    platforms: frozenset[str] = frozenset(("pc", "console", "mobile", "web"))
    links: PositiveInt = 8


class Players(Claims, Platforms, PlayerCommands, Plugin):
    """Whom a player is known as."""

    Config = PlayersConfig
    features = (NS,)
    moderation: Uses[Judges] = Uses("moderation")
    last: Uses[Logouts] = Uses("last")
    spent = Table(
        partition=("account",),
        columns={"window": "int", "count": "int", "mark": "int"},
        ttl=7200.0,
        person=Person("account"),
    )
    """How many names an account has looked up lately."""
    spent_from = Table(
        partition=("network",),
        columns={"window": "int", "count": "int", "mark": "int"},
        ttl=7200.0,
        person=nobody("network addresses, for as long as a limit counts"),
    )
    """The same by network address."""
    renamed = Counter("Names that were given to players or changed.")
    refused = Counter("Names that were refused: taken, reserved, or against the rules.")
    limited = Counter("Questions for names that came too often.")
    named = Emitter(
        "player.named",
        "A player has another name, or his first one.",
        fields={
            "name": EventField("text", "with its tag"),
            "before": EventField("text", "the one that he had", optional=True),
            "by": EventField("text", "`player`, `operator`, or what else gave it to him"),
        },
        example={"name": "Zoe#EUW", "before": None, "by": "player"},
        key=("name",),
    )

    async def start(self) -> None:
        """What is looked at for every name."""
        config = self.config
        self._bounds = Bounds(config.least, config.most, config.least_tag, config.most_tag)
        self._reserved = frozenset(key for name in config.reserved for key in keys_of(name))
        self._of_account = Budget(self.spent, config.lookups, config.lookup_seconds)
        self._of_network = Budget(self.spent_from, 4 * config.lookups, config.lookup_seconds)

    # what others may ask

    @offered
    async def account_of(self, text: str) -> str | None:
        """The account that a JID or `name#tag` is of; None for none."""
        if (name := read(text)) is not None:
            return await self.owner_of(name)
        try:
            account = Jid.parse(text)
        except JidError:
            return None
        if not account.local or account.domain not in self.server.domains:
            return None
        return account.bare if await self.server.account_exists(account.bare) else None

    @offered
    async def name_of(self, account: str) -> str | None:
        """The name of an account, as `name#tag`; None while it has none."""
        return (await self.names_of([account])).get(account)

    @offered
    async def names_of(self, accounts: Sequence[str]) -> dict[str, str]:
        """The names of those of some accounts that have one."""
        rows = await self.profiles.get_many(accounts)
        return {
            account: row["name"]
            for account, row in zip(accounts, rows, strict=True)
            if row is not None and row["name"]
        }

    @offered
    async def look_up(self, session: Session, text: str) -> str | None:
        """`account_of` for what a client asks: StanzaError when it, or its address, has asked too often."""
        await self._spend(session)
        return await self.account_of(text)

    @offered
    async def give_name(self, account: str, text: str, by: str, forced: bool = True) -> str:
        """Give an account a name in the name of `by`, without a pause and whether or not it is reserved; as
        the player could himself if not `forced`. StanzaError conflict, not-acceptable, not-allowed,
        policy-violation.
        """
        wanted = self._read(text)
        if not forced:
            await self._check(account, wanted, "")
        return await self._give(account, wanted, by=by, forced=forced)

    # requests

    @iq_get(PLAYER, SELF)
    async def show_oneself(self, request: Request) -> Element:
        """One's own name, and when it may be changed."""
        account = request.session.account
        profile = await self.profiles.get(account)
        attrs = {"jid": account}
        if profile is not None and profile["name"]:
            attrs["name"] = profile["name"]
            attrs["next-rename"] = utc_stamp(profile["named"] + self.config.rename_days * DAY)
        links = await self.links_of(account)
        return element(
            PLAYER,
            attrs,
            *(element(PLATFORM, {"name": name, "id": id}) for name, id in sorted(links.items())),
        )

    @iq_get(PLAYER, SERVER)
    async def look(self, request: Request) -> Element:
        """Who has a name, or which name an account has; item-not-found."""
        session = self._session_of(request)
        asked = request.payload.get("name") or request.payload.get("jid") or ""
        if not asked:
            raise StanzaError("bad-request", "Ask for a name or a jid.")
        account = await self.look_up(session, asked)
        viewer = session.account
        if account is None or await self.server.blocks.bars(account, session.full):
            raise StanzaError("item-not-found", "There is no such player.")
        name = await self.name_of(account)
        if name is None:
            raise StanzaError("item-not-found", "There is no such player.")
        attrs = {"jid": account, "name": name}
        if await self.server.may_see(viewer, account):
            attrs |= await self.seen_last(account, viewer)
        return element(PLAYER, attrs)

    @iq_set(PLAYER, SELF)
    async def rename(self, request: Request) -> Element:
        """Take a name; conflict, not-acceptable, and policy-violation with the time to wait."""
        session, text = request.session, request.payload.get("name", "")
        if session.is_anonymous:
            raise StanzaError("not-allowed", "A guest has no name.")
        await self._spend(session)
        wanted = self._read(text)
        await self._check(session.account, wanted, session.lang or "")
        await self._give(session.account, wanted, by="player")
        return element(PLAYER, {"jid": session.account, "name": str(wanted)})

    @iq_set(PLATFORM, SELF)
    async def choose_platform(self, request: Request) -> None:
        """Which platform the session is on; contacts see it from the next presence on."""
        session, name = request.session, request.payload.get("name", "")
        if name and name not in self.config.platforms and name not in await self.links_of(session.account):
            raise StanzaError("item-not-found", "You are not linked to this platform.")
        self.platform[session] = name

    # names

    async def _check(self, account: str, wanted: Name, lang: str) -> None:
        """StanzaError for a name that nobody may have."""
        if not self._reserved.isdisjoint(keys_of(wanted.name)):
            self.refused.inc()
            raise Taken
        if self.moderation:
            await self.moderation.check_speaks(account, lang)
            verdict = await self.moderation.judge(account, "name", str(wanted), lang)
            if verdict.action not in ("pass", "flag"):
                self.refused.inc()
                raise StanzaError("not-acceptable", "This name is not allowed.")

    def _read(self, text: str) -> Name:
        try:
            return checked(text, self._bounds)
        except BadName as error:
            self.refused.inc()
            raise StanzaError("not-acceptable", str(error)) from None

    @happened("player.named")
    async def was_named(self, account: str, data: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
        """Whether he has, or has had, a name that he was to be given when this was killed."""
        profile = await self.profiles.get(account)
        return profile is not None and data["name"] in (profile["name"], profile["former"])

    async def _give(self, account: str, wanted: Name, *, by: str, forced: bool = False) -> str:
        pause = 0.0 if forced else self.config.rename_days * DAY
        had = await self.profiles.get(account) if self.named.is_wanted else None
        known = {"name": str(wanted), "before": (had and had["name"]) or None, "by": by}
        async with self.named.around(account, **known):
            try:
                before = await self.take(account, wanted, by=by, pause=pause, forced=forced)
            except Taken:
                self.refused.inc()
                raise
            if before == str(wanted):
                return before
            self.renamed.inc()
            self.log.info("player-named", extra={"jid": account, "by": by})
            await self.named.emit(account, **{**known, "before": before})
        await self._tell(account, str(wanted))
        return str(wanted)

    def check_pause(self, profile: Mapping[str, Any] | None, pause: float) -> None:
        """StanzaError where a name is too new to be changed."""
        if profile is None or not profile["name"]:
            return
        left = profile["named"] + pause - self.now()
        if pause and left > 0:
            raise too_often(left, "This name is too new to be changed.")

    async def _tell(self, account: str, name: str) -> None:
        """Let the player's own clients, and those who see him, know the name."""
        said = element(PLAYER, {"jid": account, "name": name})
        message = element(MESSAGE, {"type": "headline", "from": account}, said)
        followers = await self.server.rosters.followers(account)
        await self.server.send_many([account, *followers], message)

    async def _spend(self, session: Session) -> None:
        now = self.now()
        waits = await self._of_account.spend(session.account, now)
        if not waits and session.connection.peer:
            waits = await self._of_network.spend(network_of(session.connection.peer), now)
        if waits:
            self.limited.inc()
            raise too_often(waits, "You ask for names too often.")

    async def seen_last(self, account: str, viewer: str) -> dict[str, str]:
        """Whether a player is there, or since when he is not, for who may see that, as he looks to him."""
        since = await self.server.away_since(account, viewer)
        if since is None and self.server.locate(account):
            return {"online": "true"}
        if since is None and self.last:
            since = (await self.last.logouts_of([account])).get(account)
        return {"last-online": utc_stamp(since)} if since else {}

    def _session_of(self, request: Request) -> Session:
        """The session that asks; StanzaError for a service."""
        session = self.server.session(request.origin.full)
        if session is None:
            raise StanzaError("not-allowed", "Only players ask for players.")
        return session

    # accounts that go

    @hooks.account_removed
    async def forget(self, account: str) -> None:
        """Whoever takes the account next is nobody yet."""
        await self.leave(account)
        await self.unlink_all(account)
        self._of_account.forget(account)
        await self.spent.delete(account)

    @hooks.account_moved
    async def move(self, old: str, new: str) -> None:
        """Names and platforms follow."""
        await self.follow(old, new)
        await self.follow_links(old, new)
