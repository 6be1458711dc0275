"""What operators and back ends do with players."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, cast

from xmppd.plugin import CommandError, Jid, StanzaError, command, utc_stamp

from .claims import KEPT, RESERVED
from .names import ANY, read

if TYPE_CHECKING:
    from . import Players

MOST_NAMES: Final = 100
MOST_ID: Final = 200
USAGE: Final = 2
OPERATOR: Final = "operator"
"""Who gave a name by command; the audit log has more."""

Player = Annotated[str, "the account, or the name with its tag"]


class PlayerCommands:
    """The commands of the plugin."""

    @property
    def _players(self) -> Players:
        return cast("Players", self)

    async def account_named(self, player: str) -> str:
        """The account of who is named by it, or by his name; CommandError."""
        account = await self._players.account_of(player)
        if account is None:
            raise CommandError(f"there is no player {player}", rule="account-unknown", field="player")
        return account

    @command(
        "Show a player: account, name, platforms, and when he was here last", name="player show", reads=True
    )
    async def show_player(self, player: Player) -> dict[str, Any]:
        """By account or name."""
        players = self._players
        account = await self.account_named(player)
        profile = await players.profiles.get(account) or {}
        seen = await players.seen_last(account, account)
        return {
            "account": account,
            "name": profile.get("name") or "",
            "since": shown(profile.get("named")),
            "by": profile.get("by") or "",
            "online": bool(seen.get("online")),
            "last_online": seen.get("last-online", ""),
            "platforms": await players.links_of(account),
        }

    @command("Find the accounts of some names", name="player find", reads=True)
    async def find_players(
        self, *, name: Annotated[list[str], "a name with its tag; may be given several times"]
    ) -> list[dict[str, str]]:
        """A row for each, with an empty account where nobody has it."""
        if len(name) > MOST_NAMES:
            raise CommandError(f"at most {MOST_NAMES} names at once", USAGE, field="name")
        return [{"name": it, "account": await self._players.account_of(it) or ""} for it in name]

    @command("Give a player a name, or another one", name="player rename")
    async def rename_player(
        self,
        account: Annotated[Jid, "the account"],
        name: Annotated[str, "the name; without a tag it is given one"],
        *,
        by_the_rules: Annotated[bool, "only if the player could take it now himself"] = False,
    ) -> dict[str, str]:
        """Without a pause, and reserved or kept back names too, unless by the rules."""
        players = self._players
        try:
            given = await players.give_name(account.bare, name, OPERATOR, not by_the_rules)
        except StanzaError as error:
            raise CommandError(error.text or error.condition, rule=error.condition) from None
        return {"account": account.bare, "name": given}

    @command("Show the names that a player had before", name="player history", reads=True)
    async def history_of(self, player: Player) -> list[dict[str, str]]:
        """The newest first."""
        players = self._players
        account = await self.account_named(player)
        profile = await players.profiles.get(account) or {}
        rows = (await players.history.scan(account, limit=1000, reverse=True)).rows
        found = [
            {
                "name": row["name"],
                "since": shown(row["since"]),
                "until": shown(row["until"]),
                "by": row["by"] or "",
            }
            for row in rows
            if row["since"] != profile.get("named")
        ]
        if profile.get("name"):
            now = {
                "name": profile["name"],
                "since": shown(profile["named"]),
                "until": "",
                "by": profile["by"] or "",
            }
            found.insert(0, now)
        return found

    @command("Link a player to his account on another platform", name="player link")
    async def link_player(
        self,
        account: Annotated[Jid, "the account"],
        platform: Annotated[str, "which one"],
        id: Annotated[str, "his id there"],
    ) -> dict[str, str]:
        """One id of each platform, and each id with one player."""
        if not platform or not id or max(len(platform), len(id)) > MOST_ID:
            raise CommandError(f"platform and id have 1 to {MOST_ID} characters", USAGE)
        await self._players.link(account.bare, platform, id)
        return {"account": account.bare, "platform": platform, "id": id}

    @command("Link a player to a platform no more", name="player unlink")
    async def unlink_player(
        self, account: Annotated[Jid, "the account"], platform: Annotated[str, "which one"]
    ) -> dict[str, bool]:
        """Whether he was."""
        return {"unlinked": await self._players.unlink(account.bare, platform)}

    @command("Let nobody take a name, or one account alone", name="player reserve")
    async def reserve_name(
        self,
        name: Annotated[str, "the name; without a tag with whichever"],
        *,
        account: Annotated[Jid | None, "who may take it all the same"] = None,
        why: Annotated[str, "the reason, for operators"] = "",
    ) -> dict[str, str]:
        """Who has it keeps it: then this is refused."""
        text = text_of(name)
        if not await self._players.reserve(text, account.bare if account else "", why):
            raise CommandError("somebody has this name", rule="conflict")
        return {"reserved": text}

    @command("Let a name be taken again that is reserved or kept back", name="player release")
    async def release_name(self, name: Annotated[str, "the name"]) -> dict[str, bool]:
        """Whether it was one of these."""
        return {"released": await self._players.release(text_of(name))}

    @command("List the names that are reserved", name="player reserved", reads=True)
    async def reserved_names(self) -> list[dict[str, str]]:
        """And those kept back, with until when."""
        found = {
            row["name"]: {
                "name": row["name"],
                "state": row["state"],
                "account": row["account"] or "",
                "until": shown(row["until"]),
                "why": row["why"] or "",
            }
            async for row in self._players.names.everything()
            if row["state"] in (RESERVED, KEPT)
        }
        return [found[name] for name in sorted(found)]


def text_of(text: str) -> str:
    """A name as an operator writes it, in normal form, without a tag one with whichever; CommandError."""
    if "#" not in text and text.strip():
        return f"{' '.join(text.split())}#{ANY}"
    name = read(text)
    if name is None:
        raise CommandError("a name is written name#tag", USAGE, field="name")
    return str(name)


def shown(at: float | None) -> str:
    """A moment for people."""
    return "" if at is None else utc_stamp(at)
