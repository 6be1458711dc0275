"""Who a player is on other platforms, and which of them a session is on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final, cast

from xmppd import hooks
from xmppd.plugin import (
    CommandError,
    Emitter,
    EventField,
    Person,
    Session,
    SessionSlot,
    Stanza,
    Table,
    element,
    happened,
    insert_child,
    offered,
    read_stanza,
    serialize,
    stanza_of,
)

from .claims import new_mark

if TYPE_CHECKING:
    from . import Players

NS: Final = "urn:xmppd:players:0"
NS_BYTES: Final = NS.encode()
PLATFORM: Final = f"{{{NS}}}platform"


class Platforms:
    """The tables of platforms, and what is shown of them."""

    links = Table(
        partition=("account",), cluster=("platform",), columns={"id": "text"}, person=Person("account")
    )
    """A player's id on each platform that he is linked to."""
    owners = Table(
        partition=("platform", "id"),
        columns={"account": "text", "mark": "int"},
        person=Person(mentions={"account": "deleted"}),
    )
    """The account that an id of a platform is linked to: one at most."""
    platform = SessionSlot("")
    linked = Emitter(
        "player.linked",
        "A player was linked to an account of another platform, or no longer is.",
        fields={
            "platform": EventField("text", "which one"),
            "id": EventField("text", "his id there"),
            "linked": EventField("flag", "whether he is linked now"),
        },
        example={"platform": "steam", "id": "76561198000000000", "linked": True},
    )

    @property
    def _player(self) -> Players:
        return cast("Players", self)

    async def links_of(self, account: str) -> dict[str, str]:
        """The ids of a player, by platform."""
        return {row["platform"]: row["id"] for row in (await self.links.scan(account)).rows}

    @offered
    async def accounts_on(self, platform: str, ids: Sequence[str]) -> dict[str, str]:
        """The accounts that ids of a platform are linked to, by id; those that nobody has are left out."""
        found = {}
        for id in ids:
            row = await self.owners.get(platform, id)
            if row is not None:
                found[id] = row["account"]
        return found

    async def link(self, account: str, platform: str, id: str) -> None:
        """Link a player to an id; a repeat is harmless. CommandError where somebody else has it, or the
        player another one there.
        """
        player = self._player
        async with player.server.writing(account) as exists:
            if not exists:
                raise CommandError(f"there is no account {account}", rule="account-unknown")
            links = await self.links_of(account)
            if links.get(platform, id) != id:
                raise CommandError(f"{account} is linked to another account there: unlink that first")
            if platform not in links and len(links) >= player.config.links:
                raise CommandError(f"a player is linked to {player.config.links} platforms at most")
            if links.get(platform) == id:
                return
            async with self.linked.around(account, platform=platform, id=id, linked=True):
                await self._take(account, platform, id)
                await self.linked.emit(account, platform=platform, id=id, linked=True)

    async def _take(self, account: str, platform: str, id: str) -> None:
        """CommandError where somebody else has it."""
        row = await self.owners.get(platform, id)
        owner: dict[str, Any] = {
            "platform": platform,
            "id": id,
            "account": account,
            "mark": new_mark(),
        }
        if row is None:
            if not await self.owners.put_if(owner, None):
                raise CommandError("somebody else is being linked to this id")
        elif row["account"] != account:
            raise CommandError(f"this id is linked to {row['account']}")
        await self.links.put({"account": account, "platform": platform, "id": id})

    @happened("player.linked")
    async def was_linked(self, account: str, data: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
        """Whether he is linked, or is no more, as he was to be when this was killed."""
        row = await self.links.get(account, data["platform"])
        return bool((row is not None and row["id"] == data["id"]) == data["linked"])

    async def unlink(self, account: str, platform: str) -> bool:
        """Link a player to a platform no more; whether he was."""
        row = await self.links.get(account, platform)
        if row is None:
            return False
        async with self.linked.around(account, platform=platform, id=row["id"], linked=False):
            await self._give_up(account, platform, row["id"])
            await self.links.delete(account, platform)
            await self.linked.emit(account, platform=platform, id=row["id"], linked=False)
        return True

    async def unlink_all(self, account: str) -> None:
        """The account is removed."""
        for platform, id in (await self.links_of(account)).items():
            await self._give_up(account, platform, id)
        await self.links.delete(account)

    async def _give_up(self, account: str, platform: str, id: str) -> None:
        """First, for a repeat finds it by the player's own row."""
        owner = await self.owners.get(platform, id)
        if owner is not None and owner["account"] == account:
            await self.owners.delete_if(platform, id, expect={"mark": owner["mark"]})

    async def follow_links(self, old: str, new: str) -> None:
        """The account has another address."""
        for platform, id in (await self.links_of(new)).items():
            owner = await self.owners.get(platform, id)
            if owner is not None and owner["account"] == old:
                moved = {**owner, "account": new, "mark": new_mark()}
                await self.owners.put_if(moved, {"mark": owner["mark"]})

    # what is shown

    @hooks.session_bound
    def recall_platform(self, session: Session) -> None:
        """A token may say which platform it was made for."""
        platform = session.facts.get("platform")
        if isinstance(platform, str):
            self.platform[session] = platform

    @hooks.presence_sent.at(hooks.FILTER, hooks.LATE)
    def show_platform(self, session: Session, presence: Stanza) -> Stanza:
        """Say in the presence of a session which platform it is on; nobody says so himself."""
        if presence.raw.find(NS_BYTES) >= 0:
            tree = deepcopy(presence.xml)
            for child in list(tree):
                if str(child.tag).startswith(f"{{{NS}}}"):
                    tree.remove(child)
            presence = stanza_of(tree)
        platform = self.platform[session]
        if not platform or presence.type is not None or presence.to:
            return presence
        shown = serialize(element(PLATFORM, {"name": platform}))
        return read_stanza(insert_child(presence.raw, "presence", shown))
