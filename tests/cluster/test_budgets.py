"""What a roster may have in a day is one for all nodes."""

from __future__ import annotations

import pytest
from several import several

from xmppd import ns
from xmppd.core.roster.budget import DAY
from xmppd.testing import Client, World

ALICE = "alice@localhost"

pytestmark = pytest.mark.asyncio


async def set_item(client: Client, name: str, more: str = "") -> bool:
    """Whether its roster takes the change."""
    item = f"<item jid='{name}@localhost'{more}/>"
    await client.send(f"<iq type='set' id='q'><query xmlns='{ns.ROSTER}'>{item}</query></iq>")
    answers = [one for one in await client.receive_all() if one.get("id") == "q"]
    return [one.get("type") for one in answers] == ["result"]


async def test_new_items_are_counted_over_all_nodes(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmppd.core.roster.rosters.OWN_A_DAY", 4)
    settings = {**several(redis_url), "limits": {"roster_items": 3, "loop_share": 1.0}}
    async with World(settings=settings, nodes=2) as world:
        one, other = [await world.login("alice", node=node) for node in range(2)]
        stranger = await world.login("bob", node=1)
        for number in range(4):
            client = (one, other)[number % 2]
            assert await set_item(client, f"u{number}")
            assert await set_item(client, f"u{number}", " subscription='remove'")
        assert [await set_item(client, "u4") for client in (one, other, stranger)] == [False, False, True]
        assert all(app.rosters.additions.has_room(ALICE, ALICE, app.now() + DAY) for app in world.apps)


async def test_entries_of_the_log_are_counted_over_all_nodes(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice = await world.login("alice", node=0)
        assert await set_item(alice, "u1")
        budgets = [app.rosters.log_budget for app in world.apps]
        spent = [budget._spent_today((ALICE, True), world.clock.now())[1] for budget in budgets]
        assert spent == [1, 1]


async def test_who_joins_later_counts_what_was_counted_before(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=3) as world:
        world.cut(0, 2)
        world.cut(1, 2)
        await world.advance(6)  # it is given up
        for app, account in ((world.apps[0], "alice@localhost"), (world.apps[1], "bob@localhost")):
            for _ in range(100):
                app.rosters.additions.spend(account, account, world.clock.now())
                app.rosters.log_budget.spend(account, "carol@localhost", world.clock.now())
        await world.settle()
        for node in range(2):
            world.connect_nodes(node, 2, trunk=2)
        await world.settle()

        def known(number: int) -> list[dict[tuple[str, bool], int]]:
            rosters = world.apps[number].rosters
            budgets = rosters.additions, rosters.log_budget
            return [{(name, own): spent for name, own, _, spent in budget.known()} for budget in budgets]

        for number in range(3):
            assert known(number) == [
                {("alice@localhost", True): 100, ("bob@localhost", True): 100},
                {("alice@localhost", False): 100, ("bob@localhost", False): 100},
            ]
