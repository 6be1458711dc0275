"""Ad-hoc commands (XEP-0050) and service administration (XEP-0133)."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

import pytest
import pytest_asyncio

from plugins.adhoc.forms import rows_of, shown
from xmppd import ns
from xmppd.testing import Client, World
from xmppd.testing import refusal as refused

FIELD, VALUE = f"{{{ns.DATA_FORM}}}field", f"{{{ns.DATA_FORM}}}value"
FORM, NOTE = f"{{{ns.DATA_FORM}}}x", f"{{{ns.COMMANDS}}}note"
ADMIN = f"{ns.ADMIN}#"
GAME = """
from xmppd.plugin import CommandError, Plugin, command, result_page

class Game(Plugin):
    @command("Forget a player", confirm="Forget {player} for ever?")
    def forget(self, player: str, *, quietly: bool = False) -> str:
        return f"{player} is forgotten{' quietly' if quietly else ''}"

    @command("Ask whether all are well", confirm="Sure?")
    def well(self) -> str:
        return "all are well"

    @command("Count", paged=True, reads=True)
    def count(self, *, after: str = "") -> dict:
        first = int(after or 0)
        rows = [{"number": number} for number in range(first, first + 2)]
        return result_page(rows, {"counted": 2}, after=str(first + 2) if first < 4 else None)

    @command("List much", reads=True)
    def much(self, rows: int = 450) -> list[dict]:
        return [{"row": row} for row in range(rows)]

    @command("Refuse")
    def refuse(self) -> None:
        raise CommandError("not today")

    @command("Say what no XML can hold")
    def bell(self) -> str:
        return "ding\\x07"
"""
ROLES = {
    "adhoc": {
        "roles": {
            "operators": {"accounts": ["alice@localhost"], "scopes": ["*"]},
            "support": {"accounts": ["bob@localhost"], "scopes": ["user:read", "session:kick"]},
        }
    }
}


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "game.py").write_text(GAME)
    plugins = ("disco", "adhoc", "game", "announce")
    async with World(plugins=plugins, plugin_folders=(tmp_path,), plugin_config=ROLES) as it:
        yield it


def refusal(answer: Element) -> str:
    return refused(answer).partition(" ")[2]


def filled(values: Mapping[str, str | Sequence[str]]) -> str:
    fields = ""
    for name, value in values.items():
        texts = [value] if isinstance(value, str) else value
        inner = "".join(f"<value>{escape(text)}</value>" for text in texts)
        fields += f"<field var='{name}'>{inner}</field>"
    return f"<x xmlns='{ns.DATA_FORM}' type='submit'>{fields}</x>"


async def do(
    client: Client, node: str, form: Mapping[str, str | Sequence[str]] | None = None, **attrs: str
) -> Element:
    """The answer to one step."""
    inner = "" if form is None else filled(form)
    given = "".join(f" {name}='{value}'" for name, value in attrs.items())
    payload = f"<command xmlns='{ns.COMMANDS}' node='{node}'{given}>{inner}</command>"
    return await client.ask("set", payload, to="localhost")


def fields(answer: Element) -> dict[str, list[str]]:
    return {
        field.get("var", ""): [value.text or "" for value in field.iterfind(VALUE)]
        for field in answer.iterfind(f"{{*}}command/{FORM}/{FIELD}")
    }


def rows(answer: Element) -> list[dict[str, str]]:
    items = answer.iterfind(f"{{*}}command/{FORM}/{{{ns.DATA_FORM}}}item")
    return [{f.get("var", ""): f.findtext(VALUE) or "" for f in item.iterfind(FIELD)} for item in items]


def state(answer: Element) -> tuple[str, str, list[str], str]:
    """Status, the default action, all actions, and the note."""
    command = answer[0]
    actions = command.find(f"{{{ns.COMMANDS}}}actions")
    names = [] if actions is None else [action.tag.partition("}")[2] for action in actions]
    default = "" if actions is None else actions.get("execute", "")
    return command.get("status", ""), default, names, command.findtext(NOTE) or ""


async def run(client: Client, node: str, form: Mapping[str, str | Sequence[str]]) -> Element:
    """The answer to a form that was asked for and filled in."""
    asked = await do(client, node)
    return await do(client, node, form, sessionid=asked[0].get("sessionid", ""))


@pytest.mark.asyncio
async def test_each_account_is_offered_what_it_may(world: World) -> None:
    found = {}
    for name in ("alice", "bob", "carol"):
        client = await world.bind(name)
        query = f"<query xmlns='{ns.DISCO_ITEMS}' node='{ns.COMMANDS}'/>"
        answer = await client.ask("get", query, to="localhost")
        found[name] = {item.get("node", "") for item in answer[0]}
    assert {"user add", "game forget", f"{ADMIN}add-user", f"{ADMIN}announce"} <= found["alice"]
    assert found["alice"] >= world.app.commands.names
    assert "user list" in found["bob"] and f"{ADMIN}end-user-session" in found["bob"]
    assert not found["bob"] & {"user add", f"{ADMIN}add-user", "session list"}
    assert found["carol"] == set()


@pytest.mark.asyncio
async def test_discovery_tells_what_a_command_is(world: World) -> None:
    alice, carol = await world.bind("alice"), await world.bind("carol")
    answer = await alice.ask("get", f"<query xmlns='{ns.DISCO_INFO}' node='user add'/>", to="localhost")
    await alice.expect_nothing()
    assert [it.attrib for it in answer[0].iterfind("{*}identity")] == [
        {"category": "automation", "type": "command-node", "name": "Add an account"}
    ]
    assert {it.get("var") for it in answer[0].iterfind("{*}feature")} == {ns.COMMANDS, ns.DATA_FORM}
    query = f"<query xmlns='{ns.DISCO_INFO}' node='user add'/>"
    assert refusal(await carol.ask("get", query, to="localhost")) == "forbidden"
    query = f"<query xmlns='{ns.DISCO_INFO}' node='user dance'/>"
    assert refusal(await alice.ask("get", query, to="localhost")) == "item-not-found"
    answer = await carol.ask("get", f"<query xmlns='{ns.DISCO_INFO}'/>", to="localhost")
    assert ns.COMMANDS in {it.get("var") for it in answer[0].iterfind("{*}feature")}


@pytest.mark.asyncio
async def test_a_command_asks_for_its_parameters_and_is_done(world: World) -> None:
    alice = await world.bind("alice")
    asked = await do(alice, "user add", action="execute")
    assert state(asked) == ("executing", "complete", ["complete"], "")
    form = asked[0].find(FORM)
    assert form is not None and form.get("type") == "form"
    types = {
        it.get("var"): (it.get("type"), it.find("{*}required") is not None) for it in form.iterfind(FIELD)
    }
    assert types == {"account": ("jid-single", True), "password": ("text-private", True)}
    sid = asked[0].get("sessionid", "")
    done = await do(alice, "user add", {"account": "dave@localhost", "password": "geheim"}, sessionid=sid)
    assert state(done)[0] == "completed" and fields(done) == {"added": ["dave@localhost"]}
    assert refusal(await do(alice, "user add", {}, sessionid=sid)) == "bad-request"
    assert await world.app.server.account_exists("dave@localhost")


@pytest.mark.asyncio
async def test_a_table_has_its_columns_and_rows(world: World) -> None:
    alice = await world.bind("alice")
    done = await run(alice, "user list", {})
    form = done[0].find(FORM)
    assert form is not None and form.get("type") == "result"
    columns = [it.get("var") for it in form.iterfind(f"{{*}}reported/{FIELD}")]
    assert columns[0] == "account"
    assert [row["account"] for row in rows(done)] == ["alice@localhost", "bob@localhost", "carol@localhost"]


@pytest.mark.asyncio
async def test_what_is_dangerous_is_asked_twice_and_may_be_taken_back(world: World) -> None:
    alice = await world.bind("alice")
    asked = await do(alice, "game forget")
    sid = asked[0].get("sessionid", "")
    sure = await do(alice, "game forget", {"player": "bob", "quietly": "1"}, sessionid=sid)
    assert state(sure)[:3] == ("executing", "complete", ["prev", "complete"])
    assert sure.findtext(f"{{*}}command/{FORM}/{{*}}instructions") == "Forget bob for ever?"
    back = await do(alice, "game forget", sessionid=sid, action="prev")
    assert fields(back) == {"player": ["bob"], "quietly": ["true"]}
    await do(alice, "game forget", {"player": "carol"}, sessionid=sid)
    done = await do(alice, "game forget", sessionid=sid, action="complete")
    assert fields(done) == {"result": ["carol is forgotten"]}
    sure = await do(alice, "game well")
    assert state(sure)[:3] == ("executing", "complete", ["complete"])
    done = await do(alice, "game well", sessionid=sure[0].get("sessionid", ""))
    assert fields(done) == {"result": ["all are well"]}


@pytest.mark.asyncio
async def test_what_is_done_in_parts_goes_on_by_next(world: World) -> None:
    alice = await world.bind("alice")
    answer = await do(alice, "game count")
    sid, numbers = answer[0].get("sessionid", ""), []
    while True:
        numbers += [row["number"] for row in rows(answer)]
        assert state(answer)[3] == "counted: 2"
        if state(answer)[0] == "completed":
            break
        assert state(answer)[1:3] == ("next", ["next"])
        answer = await do(alice, "game count", sessionid=sid, action="next")
    assert numbers == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.asyncio
async def test_a_long_table_comes_in_parts(world: World) -> None:
    alice = await world.bind("alice")
    answer = await run(alice, "game much", {})
    lengths = [len(rows(answer))]
    while state(answer)[0] == "executing":
        answer = await do(alice, "game much", sessionid=answer[0].get("sessionid", ""))
        lengths.append(len(rows(answer)))
    assert lengths == [200, 200, 50]
    answer = await run(alice, "game much", {"rows": "0"})
    assert state(answer)[0] == "completed"


@pytest.mark.asyncio
async def test_a_command_that_fails_is_completed_with_the_reason(world: World) -> None:
    alice = await world.bind("alice")
    done = await do(alice, "game refuse")
    assert state(done) == ("completed", "", [], "not today")
    note = done[0].find(NOTE)
    assert note is not None and note.get("type") == "error"
    done = await run(alice, "user add", {"account": "bob@localhost", "password": "x"})
    assert "exists already" in state(done)[3]
    assert fields(await do(alice, "game bell")) == {"result": ["ding\N{REPLACEMENT CHARACTER}"]}


@pytest.mark.asyncio
async def test_a_wrong_form_is_refused_and_can_be_filled_in_again(world: World) -> None:
    alice = await world.bind("alice")
    sid = (await do(alice, "user disable"))[0].get("sessionid", "")
    for wrong in ({}, {"account": "@"}, {"account": ["bob@localhost", "carol@localhost"]}):
        answer = await do(alice, "user disable", wrong, sessionid=sid)
        assert refusal(answer) == "bad-request"
        assert answer.find(f"{{*}}error/{{{ns.COMMANDS}}}bad-payload") is not None
    answer = await do(alice, "user disable", sessionid=sid)
    assert answer.find(f"{{*}}error/{{{ns.COMMANDS}}}bad-payload") is not None
    done = await do(alice, "user disable", {"account": "bob@localhost"}, sessionid=sid)
    assert fields(done) == {"disabled": ["bob@localhost"]}


@pytest.mark.asyncio
async def test_conditions_of_what_cannot_be(world: World) -> None:
    alice, carol = await world.bind("alice"), await world.bind("carol")

    def detail(answer: Element) -> tuple[str, str]:
        error = answer.find(f"{{{ns.CLIENT}}}error")
        assert error is not None
        names = [it.tag for it in error if it.tag.startswith(f"{{{ns.COMMANDS}}}")]
        return refusal(answer), names[0].partition("}")[2] if names else ""

    sid = (await do(alice, "user add"))[0].get("sessionid", "")
    assert detail(await do(alice, "user add", action="dance")) == ("bad-request", "malformed-action")
    assert detail(await do(alice, "user add", action="prev")) == ("bad-request", "bad-action")
    assert detail(await do(alice, "user add", sessionid=sid, action="next")) == (
        "bad-request",
        "bad-action",
    )
    assert detail(await do(alice, "user add", sessionid="x")) == ("bad-request", "bad-sessionid")
    assert detail(await do(alice, "user list", sessionid=sid)) == ("bad-request", "bad-sessionid")
    assert detail(await do(alice, "user dance")) == ("item-not-found", "")
    assert detail(await do(carol, "user add")) == ("forbidden", "")
    assert detail(await do(carol, "user add", sessionid=sid)) == ("forbidden", "")
    (adhoc,) = [it.plugin for it in world.app.loader.loaded if it.name == "adhoc"]
    adhoc.begun[alice.session][sid].until -= 601
    assert detail(await do(alice, "user add", sessionid=sid)) == ("not-allowed", "session-expired")


@pytest.mark.asyncio
async def test_cancelling_ends_it(world: World) -> None:
    alice = await world.bind("alice")
    sid = (await do(alice, "user add"))[0].get("sessionid", "")
    assert state(await do(alice, "user add", sessionid=sid, action="cancel"))[0] == "canceled"
    assert refusal(await do(alice, "user add", sessionid=sid)) == "bad-request"


@pytest.mark.asyncio
async def test_a_session_holds_a_few_commands_and_no_other_has_them(world: World) -> None:
    alice, second = await world.bind("alice"), await world.bind("alice")
    sids = [(await do(alice, "user add"))[0].get("sessionid", "") for _ in range(9)]
    assert refusal(await do(second, "user add", sessionid=sids[8])) == "bad-request"
    assert refusal(await do(alice, "user add", sessionid=sids[0], action="cancel")) == "bad-request"
    assert state(await do(alice, "user add", sessionid=sids[1], action="cancel"))[0] == "canceled"


# service administration


@pytest.mark.asyncio
async def test_accounts_by_the_names_of_service_administration(world: World) -> None:
    alice = await world.bind("alice")
    new = {"FORM_TYPE": ns.ADMIN, "accountjid": "dave@localhost", "password": "a", "password-verify": "b"}
    answer = await run(alice, f"{ADMIN}add-user", new)
    assert refusal(answer) == "bad-request"
    answer = await run(alice, f"{ADMIN}add-user", {**new, "password-verify": "a"})
    assert state(answer) == ("completed", "", [], "Done.")
    answer = await run(alice, f"{ADMIN}add-user", {**new, "password-verify": "a"})
    assert "exists already" in state(answer)[3]
    assert fields(await do(alice, f"{ADMIN}get-registered-users-num")) == {"registeredusersnum": ["4"]}
    answer = await run(alice, f"{ADMIN}get-registered-users-list", {"max_items": "2"})
    assert fields(answer) == {"registereduserjids": ["alice@localhost", "bob@localhost"]}
    both = {"accountjids": ["bob@localhost", "dave@localhost"]}
    await run(alice, f"{ADMIN}disable-user", both)
    answer = await run(alice, f"{ADMIN}get-disabled-users-list", {})
    assert fields(answer) == {"disableduserjids": both["accountjids"]}
    await run(alice, f"{ADMIN}reenable-user", both)
    assert fields(await do(alice, f"{ADMIN}get-disabled-users-num")) == {"disabledusersnum": ["0"]}
    answer = await run(
        alice, f"{ADMIN}change-user-password", {"accountjid": "dave@localhost", "password": "neu"}
    )
    assert state(answer)[3] == "Done."
    assert state(await run(alice, f"{ADMIN}delete-user", {"accountjids": "dave@localhost"}))[3] == "Done."
    assert not await world.app.server.account_exists("dave@localhost")
    assert refusal(await run(alice, f"{ADMIN}delete-user", {})) == "bad-request"


@pytest.mark.asyncio
async def test_sessions_and_announcements_by_the_names_of_service_administration(world: World) -> None:
    alice, bob = await world.bind("alice"), await world.login("bob")
    await bob.receive_all()
    assert fields(await do(alice, f"{ADMIN}get-online-users-num")) == {"onlineusersnum": ["2"]}
    answer = await run(alice, f"{ADMIN}get-online-users-list", {})
    assert fields(answer) == {"onlineuserjids": ["alice@localhost", "bob@localhost"]}
    answer = await run(alice, f"{ADMIN}user-stats", {"accountjid": "bob@localhost"})
    assert fields(answer)["onlineresources"] == [bob.session.resource]
    await run(alice, f"{ADMIN}announce", {"announcement": ["Tea", "now"]})
    assert (await bob.receive()).findtext("{*}body") == "Tea\nnow"
    answer = await run(alice, f"{ADMIN}get-user-roster", {"accountjids": "bob@localhost"})
    assert fields(answer) == {"accountjids": ["bob@localhost"], "roster": []}
    await run(alice, f"{ADMIN}end-user-session", {"accountjids": "bob@localhost"})
    await bob.expect_closed("policy-violation")


@pytest.mark.asyncio
async def test_who_loses_a_role_does_not_finish_what_he_began(world: World) -> None:
    bob = await world.bind("bob")
    asked = await do(bob, f"{ADMIN}end-user-session")
    (adhoc,) = [it.plugin for it in world.app.loader.loaded if it.name == "adhoc"]
    adhoc.config = type(adhoc.config)()
    form = {"accountjids": "alice@localhost"}
    answer = await do(bob, f"{ADMIN}end-user-session", form, sessionid=asked[0].get("sessionid", ""))
    assert refusal(answer) == "forbidden"


def test_results_of_all_shapes_are_shown() -> None:
    assert shown("", None) is None
    assert rows_of([]) is None and rows_of([1]) is None
    for result in ([], [1, "a"], {"a": [1, 2], "b": {"c": None}}, 3, True, "x", [{"a": None}, {"b": [1]}]):
        assert shown("", result) is not None
