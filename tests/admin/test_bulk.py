"""`user add-many`: accounts from JSON Lines, each refused by itself; none where a line cannot be read."""

import json

import pytest

from xmppd.admin.bulk import BulkCommands
from xmppd.admin.commands import descriptions_of
from xmppd.admin.parser import build_parser
from xmppd.errors import CommandError
from xmppd.testing import World


def lines(*accounts, password="secret"):
    return "\n".join(json.dumps({"account": account, "password": password}) for account in accounts)


async def made(world, text, **options):
    """All pages joined: the rows, and what the counts come to."""
    rows, counts, after = [], {"done": 0, "refused": 0}, ""
    while after is not None:
        arguments = {"accounts": text, "after": after, **options}
        page = await world.app.commands.call("user add-many", arguments)
        rows += page["rows"]
        counts = {name: counts[name] + page["counts"][name] for name in counts}
        after = page["after"]
    return rows, counts


@pytest.mark.asyncio
async def test_accounts_can_log_in_at_once() -> None:
    async with World(accounts=()) as world:
        rows, counts = await made(world, lines("kiva@localhost", "jax@localhost") + "\n\n")
        assert (rows, counts) == ([], {"done": 2, "refused": 0})
        await world.login("kiva")


@pytest.mark.asyncio
async def test_one_without_a_password_is_there_and_lets_nobody_in() -> None:
    async with World(accounts=()) as world:
        await made(world, '{"account": "kiva@localhost", "password": null}')
        [row] = await world.app.commands.call("user list", {})
        assert (row["account"], row["mechanisms"]) == ("kiva@localhost", [])


@pytest.mark.asyncio
async def test_those_that_are_there_are_refused_each_by_itself_or_passed_over() -> None:
    async with World(accounts=("kiva",)) as world:
        text = lines("jax@localhost", "kiva@localhost", "zoe@localhost")
        rows, counts = await made(world, text)
        assert rows == [
            {"line": 2, "account": "kiva@localhost", "refused": "the account kiva@localhost exists already"}
        ]
        assert counts == {"done": 2, "refused": 1}
        assert await made(world, text, skip_existing=True) == ([], {"done": 3, "refused": 0})
        await made(world, lines("kiva@localhost", password="another"), skip_existing=True)
        await world.login("kiva")  # with the password that it had


@pytest.mark.asyncio
async def test_a_bad_password_is_refused_and_not_repeated() -> None:
    async with World(accounts=()) as world:
        [row], _ = await made(world, lines("kiva@localhost", password="a\u0007b"))
        assert "\u0007" not in row["refused"] and row["line"] == 1


UNREADABLE = {
    "no JSON": ("{", "line 2: this is no JSON"),
    "no object": ("[]", "line 2: this is no object"),
    "no account": ('{"password": "x"}', "line 2: account is missing"),
    "no password": ('{"account": "a@localhost"}', "line 2: password is missing"),
    "an empty one": ('{"account": "a@localhost", "password": ""}', "line 2: password must be text, or null"),
    "another key": (
        '{"account": "a@localhost", "password": "x", "admin": true}',
        "line 2: there is no key 'admin'",
    ),
    "no address": ('{"account": "@", "password": "x"}', "line 2: "),
    "a resource": (
        '{"account": "a@localhost/b", "password": "x"}',
        "line 2: a@localhost/b is not the address",
    ),
    "another domain": (
        '{"account": "a@example.org", "password": "x"}',
        "line 2: example.org is not a domain",
    ),
    "one twice": (lines("Kiva@localhost"), "line 2: kiva@localhost is in line 1 already"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize(("line", "reason"), UNREADABLE.values(), ids=UNREADABLE)
async def test_nothing_is_done_where_a_line_cannot_be_read(line: str, reason: str) -> None:
    async with World(accounts=()) as world:
        with pytest.raises(CommandError) as refused:
            await made(world, f"{lines('kiva@localhost')}\n{line}")
        assert str(refused.value).startswith(reason)
        assert await world.app.commands.call("user list", {}) == []


@pytest.mark.asyncio
async def test_many_come_in_pages_and_there_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(accounts=()) as world:
        monkeypatch.setattr("xmppd.admin.bulk.SLICE", 3)
        monkeypatch.setattr("xmppd.admin.bulk.AT_ONCE", 2)
        names = [f"user{number}@localhost" for number in range(7)]
        rows, counts = await made(world, lines(*names))
        assert (rows, counts["done"]) == ([], 7)
        monkeypatch.setattr("xmppd.admin.bulk.MOST", 6)
        with pytest.raises(CommandError, match="at most 6 accounts"):
            await made(world, lines(*names))
        with pytest.raises(CommandError, match="not a token"):
            await made(world, lines("kiva@localhost"), after="x")


def test_the_command_line_names_a_file(tmp_path, monkeypatch):
    parser = build_parser(descriptions_of(BulkCommands))
    file = tmp_path / "accounts.jsonl"
    file.write_text("one\ntwo\n")
    given = parser.parse_args(["user", "add-many", "--accounts", str(file)])
    assert vars(given)["parameter accounts"] == "one\ntwo\n"
    file.write_bytes(b"\xff")
    for name, reason in ((str(file), "is not UTF-8"), (str(tmp_path / "none"), "No such file")):
        with pytest.raises(CommandError, match=reason):
            parser.parse_args(["user", "add-many", "--accounts", name])
