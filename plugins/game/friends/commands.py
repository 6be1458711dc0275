"""What operators and back ends do with friends."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

from xmppd.plugin import AccountUnknown, CommandError, StanzaError, command, result_page, utc_stamp

from .pairs import FRIENDS, Pair, befriend, cancel, decline, half, part

if TYPE_CHECKING:
    from . import Friends

USAGE: Final = 2
MOST_PAIRS: Final = 10_000
SLICE: Final = 256
SLICE_SECONDS: Final = 1.0
"""How many pairs one call takes at most, and for how long about it begins with more."""
MOST_PLAYERS: Final = 100
MOST_WHAT: Final = 200

Player = Annotated[str, "the account, or the name with its tag"]
Pairs = Annotated[list[str], "two players with a space between them, given once for each pair"]
After = Annotated[str, "go on where a run was interrupted: the token that it named"]
Deed = Callable[[str, str], Awaitable[Pair]]


class FriendCommands:
    """The commands of the plugin."""

    @property
    def _do(self) -> Friends:
        return cast("Friends", self)

    async def player_named(self, player: str) -> str:
        """The account of who is named by it or by his name; CommandError."""
        friends = self._do
        account = await friends.players.account_of(player) if friends.players else None
        if account is None and "#" not in player and await friends.server.account_exists(player):
            account = player
        if account is None:
            raise CommandError(f"there is no player {player}", rule="account-unknown", field="player")
        return account

    async def _done(self, deed: Deed, one: str, other: str) -> dict[str, str]:
        """Do something between two; CommandError."""
        account, peer = await self.player_named(one), await self.player_named(other)
        if account == peer:
            raise CommandError("nobody is a friend of his own", USAGE)
        try:
            pair = await deed(account, peer)
        except (StanzaError, AccountUnknown) as error:
            raise CommandError(getattr(error, "text", "") or str(error)) from None
        return {"account": account, "friend": peer, "state": shown(pair, account)}

    # one pair

    @command("List the friends of a player, and requests", name="friend list", reads=True)
    async def list_of(self, player: Player) -> list[dict[str, Any]]:
        """A row for each, by account."""
        friends = self._do
        account = await self.player_named(player)
        found = []
        for pair, name, groups, note in await friends.entries_of(account):
            found.append(
                {
                    "friend": pair.of(account),
                    "name": name,
                    "state": shown(pair, account),
                    "since": utc_stamp(pair.since) if pair.since is not None else "",
                    "expires": utc_stamp(pair.expires) if pair.expires is not None else "",
                    "groups": list(groups),
                    "note": note,
                }
            )
        return found

    @command("Make two players friends at once", name="friend befriend")
    async def befriend_two(self, one: Player, other: Player) -> dict[str, str]:
        """Without a request; one who has blocked the other is not."""
        return await self._done(self.befriended_by_force, one, other)

    @command("End whatever is between two players", name="friend part")
    async def part_two(self, one: Player, other: Player) -> dict[str, str]:
        """Friendship, or a request of either."""
        return await self._done(lambda account, peer: self._do.do(account, peer, part), one, other)

    @command("Ask a player for friendship in the name of another", name="friend request")
    async def request_of(
        self,
        one: Annotated[str, "who asks: the account, or the name with its tag"],
        other: Annotated[str, "who is asked"],
        *,
        text: Annotated[str, "what he says"] = "",
    ) -> dict[str, str]:
        """By all rules for players."""
        return await self._done(lambda account, peer: self._do.ask(account, peer, text), one, other)

    @command("Accept a request in the name of a player", name="friend accept")
    async def accept_of(
        self,
        one: Annotated[str, "who was asked: the account, or the name with its tag"],
        other: Annotated[str, "who asked"],
    ) -> dict[str, str]:
        """By all rules for players."""
        return await self._done(self._do.grant, one, other)

    @command("Decline a request in the name of a player", name="friend decline")
    async def decline_of(
        self,
        one: Annotated[str, "who was asked: the account, or the name with its tag"],
        other: Annotated[str, "who asked"],
    ) -> dict[str, str]:
        """It is gone for both."""
        return await self._done(lambda account, peer: self._do.do(account, peer, decline), one, other)

    @command("Take a request back in the name of a player", name="friend cancel")
    async def cancel_of(
        self,
        one: Annotated[str, "who asked: the account, or the name with its tag"],
        other: Annotated[str, "who was asked"],
    ) -> dict[str, str]:
        """It is gone for both."""
        return await self._done(lambda account, peer: self._do.do(account, peer, cancel), one, other)

    async def befriended_by_force(self, account: str, peer: str) -> Pair:
        """Make friends of two whatever they wanted; StanzaError where one has blocked the other."""
        pair = await self._do.do(account, peer, befriend)
        if pair.state != FRIENDS:
            raise StanzaError("not-acceptable", "One of them has blocked the other.")
        return pair

    # many

    @command("Make many pairs of players friends", name="friend befriend-many", paged=True)
    async def befriend_many(self, *, pair: Pairs, after: After = "") -> dict[str, Any]:
        """A row for each pair that was refused; exit code 1 when there are any."""
        return await self._many(self.befriended_by_force, pair, after)

    @command("End what is between many pairs of players", name="friend part-many", paged=True)
    async def part_many(self, *, pair: Pairs, after: After = "") -> dict[str, Any]:
        """A row for each pair that was refused; exit code 1 when there are any."""
        return await self._many(lambda account, peer: self._do.do(account, peer, part), pair, after)

    async def _many(self, deed: Deed, texts: Sequence[str], after: str) -> dict[str, Any]:
        if len(texts) > MOST_PAIRS:
            raise CommandError(f"at most {MOST_PAIRS} pairs at once", USAGE, field="pair")
        pairs = [text.split() for text in texts]
        for number, words in enumerate(pairs, 1):
            if len(words) != 2:
                raise CommandError(f"pair {number}: this is not two players", USAGE, field="pair")
        if after and not after.isdecimal():
            raise CommandError("after: this is not a token", USAGE, field="after")
        first = number = int(after or 0)
        end, rows = time.monotonic() + SLICE_SECONDS, list[dict[str, Any]]()
        while number < min(len(pairs), first + SLICE) and time.monotonic() < end:
            one, other = pairs[number]
            number += 1
            try:
                await self._done(deed, one, other)
            except CommandError as error:
                rows.append({"one": one, "other": other, "refused": str(error)})
        return result_page(
            rows,
            {"done": number - first - len(rows), "refused": len(rows)},
            total=None if after else len(pairs),
            after=str(number) if number < len(pairs) else None,
            exit_code=1 if rows else 0,
        )

    @command("Make a player's friends these and no others", name="friend replace")
    async def replace_list(
        self,
        player: Player,
        *,
        friend: Annotated[list[str] | None, "a friend; may be given several times"] = None,
    ) -> dict[str, Any]:
        """Friends who are not among them are parted from; requests stay."""
        friends = self._do
        if len(friend or ()) > friends.config.friends:
            raise CommandError(
                f"a player has at most {friends.config.friends} friends", USAGE, field="friend"
            )
        account = await self.player_named(player)
        wanted = [await self.player_named(it) for it in friend or ()]
        if account in wanted:
            raise CommandError("nobody is a friend of his own", USAGE, field="friend")
        before = await friends.friends_of(account)
        refused = []
        for peer in before:
            if peer not in wanted:
                await self._done(lambda one, other: friends.do(one, other, part), account, peer)
        for peer in wanted:
            if peer in before:
                continue
            try:
                await self._done(self.befriended_by_force, account, peer)
            except CommandError as error:
                refused.append({"friend": peer, "refused": str(error)})
        gone = [peer for peer in before if peer not in wanted]
        added = len(set(wanted) - set(before)) - len(refused)
        return {"account": account, "added": added, "removed": len(gone), "refused": refused}

    @command("Take over a player's friends from another platform", name="friend import")
    async def import_from(
        self,
        player: Player,
        platform: Annotated[str, "which one"],
        *,
        id: Annotated[list[str], "a friend's id there; may be given several times"],
        ask: Annotated[bool, "only ask them for friendship"] = False,
    ) -> list[dict[str, str]]:
        """A row for each id: who it is linked to here (`player link`), and what became of it."""
        friends = self._do
        if not friends.players:
            raise CommandError("the plugin players is not at work")
        if len(id) > friends.config.friends:
            raise CommandError(f"at most {friends.config.friends} ids at once", USAGE, field="id")
        account = await self.player_named(player)
        known = await friends.players.accounts_on(platform, id)
        rows = []
        for one in id:
            peer, state = known.get(one, ""), "unknown"
            if peer and peer != account:
                deed = (lambda who, whom: friends.ask(who, whom, "")) if ask else self.befriended_by_force
                try:
                    state = (await self._done(deed, account, peer))["state"]
                except CommandError as error:
                    state = f"refused: {error}"
            rows.append({"id": one, "account": peer, "state": state})
        return rows

    @command("Say that players played together", name="friend played")
    async def played_together(
        self,
        *,
        player: Annotated[list[str], "the account, or the name with its tag; given for each"],
        what: Annotated[str, "in what: a mode, a match"] = "",
    ) -> dict[str, int]:
        """Each of them finds the others among those whom he met lately."""
        if not 2 <= len(player) <= MOST_PLAYERS or len(what) > MOST_WHAT:
            raise CommandError(f"2 to {MOST_PLAYERS} players, and at most {MOST_WHAT} characters", USAGE)
        accounts = [await self.player_named(it) for it in player]
        await self._do.played(list(dict.fromkeys(accounts)), what)
        return {"players": len(set(accounts))}

    # what may be wrong

    @command("Compare rosters with who is a friend of whom", name="friend check")
    async def check_of(
        self,
        player: Player,
        *,
        repair: Annotated[bool, "make rosters say what holds"] = False,
        adopt: Annotated[bool, "make friends of those who see each other in both rosters"] = False,
    ) -> list[dict[str, str]]:
        """A row for each pair that does not fit: what holds, and what both rosters say."""
        friends = self._do
        account = await self.player_named(player)
        found = []
        for peer, mine in await self._halves_of(account):
            theirs = await friends.server.rosters.item(peer, account)
            pair = await friends.between(account, peer)
            halves = half(mine), half(theirs)
            if halves == (pair.seen_by(account), pair.seen_by(peer)):
                continue
            found.append({"friend": peer, "state": pair.state, "mine": halves[0], "theirs": halves[1]})
            if adopt and halves == ("both", "both"):
                await friends.do(account, peer, befriend)
            elif repair or adopt:
                async with friends.server.writing_both(pair.one, pair.other) as two:
                    await friends.show(*sorted(two))
        return found

    async def _halves_of(self, account: str) -> list[tuple[str, Any]]:
        """Whom a player's roster, or what holds, names, with the item."""
        friends = self._do
        items = {item.contact: item for item in await friends.server.rosters.items(account)}
        named = {row["friend"] for row in await friends.cards_of(account)} | items.keys()
        here = [it for it in sorted(named) if "@" in it and it.rpartition("@")[2] in friends.server.domains]
        return [(it, items.get(it)) for it in here if await friends.server.account_exists(it)]


def shown(pair: Pair, account: str) -> str:
    """What a pair is for one of them, in a word."""
    return "friend" if pair.state == FRIENDS else pair.seen_by(account)
