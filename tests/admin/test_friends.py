"""`roster befriend`, `part` and the same for many; `presence show` and `presence why`."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from xmppd.admin import friends
from xmppd.errors import CommandError
from xmppd.testing import World

ALICE, BOB, CAROL = "alice@localhost", "bob@localhost", "carol@localhost"
FORBID = """
from xmppd import hooks
from xmppd.plugin import Plugin, StanzaError

class Forbid(Plugin):
    @hooks.sees
    def hides(self, viewer: str, owner: str) -> bool:
        return not (viewer.startswith("carol@") and owner.startswith("alice@"))

    @hooks.subscription
    def check(self, account: str, contact: str, kind: str) -> None:
        if contact.startswith("dave@"):
            raise StanzaError("not-allowed", "Dave wants no friends.")
"""


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "forbid.py").write_text(FORBID)
    accounts = ("alice", "bob", "carol", "dave")
    async with World(accounts=accounts, plugins=("forbid", "blocking"), plugin_folders=(tmp_path,)) as it:
        yield it


async def call(world: World, name: str, **arguments: Any) -> Any:
    return await world.app.commands.call(name, arguments)


async def why(world: World, viewer: str, owner: str) -> list[str]:
    """What is in the way."""
    rows = await call(world, "presence why", owner=owner, viewer=viewer)
    return [row["rule"] for row in rows if not row["is_so"]]


async def contacts(world: World, account: str) -> dict[str, str]:
    rows = await call(world, "roster show", account=account)
    return {row["contact"]: row["subscription"] for row in rows}


@pytest.mark.asyncio
async def test_friends_see_each_other_at_once_and_no_more_when_parted(world: World) -> None:
    alice, bob = await world.login("alice"), await world.login("bob")
    await alice.receive_all(), await bob.receive_all()
    for _ in range(2):
        done = await call(world, "roster befriend", one=ALICE, other=BOB)
        assert done == {"account": ALICE, "befriended": BOB}
    await world.settle()
    for client, other in ((alice, bob), (bob, alice)):
        shown = [it for it in await client.receive_all() if it.tag.endswith("presence")]
        assert [it.get("from") for it in shown] == [other.jid]
    [line] = await call(world, "roster log", account=ALICE)
    assert "admin" in line.values()
    assert await call(world, "roster part", one=ALICE, other=BOB) == {"account": ALICE, "parted": BOB}
    assert [it.get("type") for it in await bob.receive_all() if it.tag.endswith("presence")] != []
    assert await contacts(world, ALICE) == {}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (ALICE, ALICE, "nobody is a contact of their own"),
        (ALICE, "zoe@localhost", "zoe@localhost"),
        (ALICE, "localhost", "is not the address of an account"),
        (ALICE, "dave@localhost", "Dave wants no friends"),
    ],
)
async def test_who_cannot_be_befriended(world: World, one: str, other: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        await call(world, "roster befriend", one=one, other=other)
    assert await contacts(world, ALICE) == {}


@pytest.mark.asyncio
async def test_many_are_befriended_in_parts_with_a_report(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(friends, "SLICE", 2)
    monkeypatch.setattr(friends, "AT_ONCE", 2)
    pairs = [
        f"{ALICE} {BOB}",
        f"{BOB}  {CAROL}",
        f"{ALICE} dave@localhost",
        f"{CAROL} {ALICE}",
        f"{ALICE} {BOB}",
    ]
    pages = [await call(world, "roster befriend-many", pair=pairs)]
    while pages[-1]["after"] is not None:
        pages.append(await call(world, "roster befriend-many", pair=pairs, after=pages[-1]["after"]))
    assert [(page["counts"], page["total"]) for page in pages] == [
        ({"done": 2, "refused": 0}, 5),
        ({"done": 1, "refused": 1}, None),
        ({"done": 1, "refused": 0}, None),
    ]
    [row] = [row for page in pages for row in page["rows"]]
    assert (row["one"], row["other"]) == (ALICE, "dave@localhost") and "Dave" in row["refused"]
    assert [page["exit_code"] for page in pages] == [0, 1, 0]
    assert await contacts(world, ALICE) == {BOB: "both", CAROL: "both"}
    page = await call(world, "roster part-many", pair=[f"{ALICE} {BOB}"])
    assert page["counts"] == {"done": 1, "refused": 0} and await contacts(world, ALICE) == {CAROL: "both"}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([f"{ALICE} {BOB}", ALICE], "pair 2: .* is not two addresses"),
        ([f"{ALICE} @"], "pair 1: "),
        ([f"{ALICE} {ALICE}"], "pair 1: nobody"),
        ([f"{ALICE} {BOB}"] * 10_001, "at most 10000 pairs"),
        ([], "no pair is named"),
    ],
)
async def test_with_a_wrong_pair_nothing_is_done(world: World, pairs: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message) as refused:
        await call(world, "roster befriend-many", pair=pairs)
    assert refused.value.field == "pair"
    assert await contacts(world, ALICE) == {}


@pytest.mark.asyncio
async def test_pairs_may_be_in_a_file(world: World) -> None:
    lines = f"{ALICE} {BOB}\n{BOB} {CAROL}\n"
    page = await call(world, "roster befriend-many", pair=[f"{ALICE} {CAROL}"], pairs=lines)
    assert page["counts"] == {"done": 3, "refused": 0}
    assert await contacts(world, BOB) == {ALICE: "both", CAROL: "both"}
    page = await call(world, "roster part-many", pairs=lines)
    assert page["counts"] == {"done": 2, "refused": 0}
    assert await contacts(world, ALICE) == {CAROL: "both"}
    with pytest.raises(CommandError, match=r"pair 2: .* is not two addresses"):
        await call(world, "roster befriend-many", pairs=f"{ALICE} {BOB}\n{ALICE}\n")


@pytest.mark.asyncio
async def test_why_somebody_is_not_seen(world: World) -> None:
    assert await why(world, BOB, ALICE) == ["online", "watching", "granted", "subscribed"]
    alice, _ = await world.login("alice"), await world.login("bob")
    assert await why(world, BOB, ALICE) == ["granted", "subscribed"]
    await call(world, "roster befriend", one=ALICE, other=BOB)
    assert await why(world, BOB, ALICE) == []
    await call(world, "block add", account=ALICE, address=BOB)
    assert await why(world, BOB, ALICE) == ["not-blocked-by-owner"]
    assert await why(world, ALICE, BOB) == ["not-blocked-by-viewer"]
    await call(world, "block remove", account=ALICE, address=BOB)
    await call(world, "roster befriend", one=ALICE, other=CAROL)
    assert await why(world, CAROL, ALICE) == ["watching", "allowed"]
    await alice.send("<presence type='unavailable'/>")
    assert await why(world, BOB, ALICE) == ["online"]
    with pytest.raises(CommandError, match="zoe"):
        await why(world, "zoe@localhost", ALICE)


@pytest.mark.asyncio
async def test_who_sees_an_account_and_whom_it_sees(world: World) -> None:
    await world.login("bob")
    for other in (BOB, CAROL):
        await call(world, "roster befriend", one=ALICE, other=other)
    assert await call(world, "presence show", account=ALICE) == [
        {"contact": BOB, "sees_account": True, "is_seen": True, "online": True},
        {"contact": CAROL, "sees_account": False, "is_seen": True, "online": False},
    ]
