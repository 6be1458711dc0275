"""Pages with one address (XEP-0313 4.1.1): a bare one or a full one, in both directions, over days."""

from __future__ import annotations

from typing import Any

import pytest
from archives import DAY, field, find, form, page, put, world

from plugins.archive.ids import Pool, day_of, month_of
from plugins.archive.reading import DAYS_AT_ONCE, PIECE, Archived, next_size
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

PEER = "alice@localhost"
PAGE = 4
MANY = 20
"""Messages that no page holds."""


async def filled(w: World, *said: tuple[float, str, str]) -> Client:
    """Bob, who has these messages in his archive: each of so many days ago, from a resource of alice, with
    its text.
    """
    plugin = w.plugin("archive")
    bob = await w.login("bob")
    uid = await plugin.uid_of("bob@localhost")
    for days, resource, text in said:
        id = Pool().new_id(int((plugin.now() - days * DAY) * 1e6))
        stanza = f"<message from='{PEER}/{resource}'><body>{text}</body></message>".encode()
        row = {"owner": uid, "month": month_of(id), "id": id, "peer": PEER, "stanza": stanza}
        await plugin.messages.put(row)
        await plugin.days.put({"owner": uid, "peer": PEER, "day": day_of(id)})
        await plugin.months.put({"owner": uid, "month": month_of(id)})
    return bob


async def pages(client: Client, address: str, size: int, *, back: bool) -> list[list[Any]]:
    """The texts of all pages, as a client goes on from one to the next."""
    found, step = list[list[Any]](), "<before/>" if back else ""
    for _ in range(200):
        asked = form(field("with", address)) + page(f"<max>{size}</max>{step}")
        one = await find(client, asked)
        found.append(one.texts)
        if one.is_complete:
            return found
        assert one.first and one.last
        step = f"<before>{one.first}</before>" if back else f"<after>{one.last}</after>"
    raise AssertionError("there is no end")


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("size", [0, 1, PAGE])
async def test_one_of_a_resource_is_found_among_many_of_another_on_its_day(size: int, back: bool) -> None:
    others = [(5 + place / 1e5, "a", f"no {place}") for place in range(MANY)]
    said = [*others[: MANY // 2], (5.00005, "b", "b"), *others[MANY // 2 :], (5.1, "b&apos;s", "c")]
    async with world() as w:
        bob = await filled(w, *said)
        wanted = [text for text in ("c", "b") if size > 0]
        for resource, text in (("b", "b"), ("b's", "c")):
            asked = page(f"<max>{size}</max>{'<before/>' if back else ''}")
            found = await find(bob, form(field("with", f"{PEER}/{resource}")) + asked)
            assert found.texts == [each for each in wanted if each == text]
            assert found.is_complete == (size > 0)
        assert (await find(bob, form(field("with", f"{PEER}/nobody")))).is_complete


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("address", [PEER, f"{PEER}/b", f"{PEER}/a"])
async def test_pages_are_in_order_and_nothing_is_missing(address: str, back: bool) -> None:
    said = [
        (30 - day - place / 1e5, "ab"[(day + place) % 3 == 0], f"{day} {place}")
        for day in range(DAYS_AT_ONCE + 5)
        for place in range(day * 7 % 11)
    ]
    wanted = [text for days, at, text in sorted(said, reverse=True) if f"{PEER}/{at}".startswith(address)]
    async with world() as w:
        bob = await filled(w, *said)
        found = await pages(bob, address, PAGE, back=back)
        assert all(len(each) == PAGE for each in found[:-1])
        assert [text for each in (found[::-1] if back else found) for text in each] == wanted
        asked = form(field("with", address)) + page(f"<max>{PAGE}</max>{'<before/>' if back else ''}")
        assert (await find(bob, f"{asked}<flip-page/>")).texts == found[0][::-1]


async def test_days_that_are_read_side_by_side_share_two_pages() -> None:
    async with world() as w:
        bob = await filled(w, *((60 - day, "a", f"{day}") for day in range(30)))
        log, limits = w.plugin("archive").messages, list[int]()
        scan = log.scan_columns

        def noted(*place: Any, limit: int, **about: Any) -> Any:
            limits.append(limit)
            return scan(*place, limit=limit, **about)

        log.scan_columns = noted
        found = await find(bob, form(field("with", PEER)) + page("<max>99</max>"))
        assert found.texts == [f"{day}" for day in range(30)]
        assert limits == [100] * 2 + [50] * 4 + [25] * 8 + [13] * 16


@pytest.mark.parametrize("back", [False, True])
async def test_a_page_looks_at_so_many_and_the_next_goes_on_there(
    back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [(5 - place / 1e5 - place // 9, "a", f"no {place}") for place in range(30)]
    said = sorted([*others, (5.5, "b", "first"), (2.9999, "b", "middle"), (0.5, "b", "last")], reverse=True)
    async with world() as w:
        bob = await filled(w, *said)
        reader = w.plugin("archive")._reader(await w.plugin("archive")._owner("bob@localhost"))
        monkeypatch.setitem(type(reader).page.__globals__, "LOOKED_AT", 10)
        looked: list[bytes] = []
        is_with = type(reader).page.__globals__["is_with"]

        def noted(message: Archived, address: str) -> bool:
            looked.append(message.id)
            return bool(is_with(message, address))

        monkeypatch.setitem(type(reader).page.__globals__, "is_with", noted)
        found = await pages(bob, f"{PEER}/b", PAGE, back=back)
        texts = [text for each in (found[::-1] if back else found) for text in each]
        assert texts == ["first", "middle", "last"] and len(found) > 3
        assert sorted(looked) == sorted({*looked}) and len(looked) == 33
        assert [each for each in await pages(bob, f"{PEER}/nobody", PAGE, back=back) if each] == []
        looked.clear()
        nobody = await find(bob, form(field("with", f"{PEER}/nobody")))
        assert nobody.texts == [] and not nobody.is_complete and nobody.last and len(looked) == 10


async def test_of_large_messages_fewer_are_read_at_once() -> None:
    small, large = [Archived(b"", "", b"x" * size) for size in (100, PIECE // 4)]
    assert next_size(50, 200, [small] * 50) == 100
    assert next_size(150, 200, [small] * 150) == next_size(150, 200, []) == 200
    assert next_size(50, 200, [large] * 50) == 4
    assert next_size(4, 200, [large._replace(stanza=b"x" * (2 * PIECE))]) == 1


@pytest.mark.parametrize("back", [False, True])
async def test_a_page_with_one_among_many_ends_early_and_is_never_empty(
    back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [(5 - place / 1e5, "a", f"{place}") for place in range(12)]
    wanted = [text for _, _, text in said]
    async with world() as w:
        bob = await filled(w, *said)
        plugin = w.plugin("archive")
        uid = await plugin.uid_of("bob@localhost")
        for place in range(12):
            await put(w, uid, *(5 - (place + part / 9) / 1e5 for part in range(1, 9)), peer="carol@localhost")
        about = type(plugin._reader(await plugin._owner("bob@localhost"))).page.__globals__
        monkeypatch.setitem(about, "EXAMINED", 5)
        monkeypatch.setitem(about, "LOOKED_THROUGH", 20)
        looked = list[int]()
        scan = plugin.messages.scan_columns

        def noted(*place: Any, **more: Any) -> Any:
            looked.append(more["examine"])
            return scan(*place, **more)

        plugin.messages.scan_columns = noted
        found = await pages(bob, PEER, 10, back=back)
        assert [text for each in (found[::-1] if back else found) for text in each] == wanted
        assert all(found[:-1]), "clients take an empty one for the end"
        if type(w.app.store).__name__ == "SqliteStore":
            assert len(found) > 3 and len(looked) < len(found) * 8
