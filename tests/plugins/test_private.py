"""Private XML storage (XEP-0049)."""

import pytest

from xmppd import ns
from xmppd.testing import Client, World, refusal

PREFS = "<exodus xmlns='exodus:prefs'><defaultnick>Hamlet</defaultnick></exodus>"


def query(*content: str) -> str:
    return f"<query xmlns='{ns.PRIVATE}'>{''.join(content)}</query>"


async def expect_kept(client: Client, asked: str, *kept: str) -> None:
    await client.send(f"<iq type='get' id='1002'>{query(asked)}</iq>")
    await client.expect(f"<iq type='result' id='1002' to='{client.jid}'>{query(*kept)}</iq>")


@pytest.mark.asyncio
async def test_what_was_stored_is_given_back_to_any_session_of_the_account() -> None:
    async with World(plugins=("private",)) as world:
        alice, second = await world.login("alice"), await world.bind("alice")
        await alice.send(f"<iq type='set' id='1001'>{query(PREFS)}</iq>")
        await alice.expect(f"<iq type='result' id='1001' to='{alice.jid}'/>")
        await expect_kept(second, "<exodus xmlns='exodus:prefs'/>", PREFS)
        bob = await world.login("bob")
        await expect_kept(bob, "<exodus xmlns='exodus:prefs'/>", "<exodus xmlns='exodus:prefs'/>")


@pytest.mark.asyncio
async def test_names_and_namespaces_are_told_apart_and_replaced_one_by_one() -> None:
    async with World(plugins=("private",)) as world:
        alice = await world.login("alice")
        await alice.ask("set", query("<a xmlns='u:1'>one</a>", "<b xmlns='u:1'>two</b>"))
        await alice.ask("set", query("<a xmlns='u:2'>three</a>"))
        await alice.ask("set", query("<b xmlns='u:1'>four</b>"))
        await expect_kept(
            alice, "<a xmlns='u:1'/><b xmlns='u:1'/>", "<a xmlns='u:1'>one</a>", "<b xmlns='u:1'>four</b>"
        )
        await expect_kept(alice, "<a xmlns='u:2'/>", "<a xmlns='u:2'>three</a>")


@pytest.mark.asyncio
async def test_several_elements_of_one_name_are_kept_together() -> None:
    async with World(plugins=("private",)) as world:
        alice = await world.login("alice")
        both = "<a xmlns='u:1'>one</a><a xmlns='u:1'>two</a>"
        await alice.ask("set", query(both))
        await expect_kept(alice, "<a xmlns='u:1'/>", both)
        await expect_kept(alice, "<a xmlns='u:1'/><a xmlns='u:1'/>", both)


@pytest.mark.asyncio
async def test_elements_of_the_stream_s_own_namespace_keep_it() -> None:
    async with World(plugins=("private",)) as world:
        alice = await world.login("alice")
        await expect_kept(alice, f"<message xmlns='{ns.CLIENT}'/>", f"<message xmlns='{ns.CLIENT}'/>")
        element = f"<message xmlns='{ns.CLIENT}'><body/></message>"
        await alice.ask("set", query(element))
        await expect_kept(alice, f"<message xmlns='{ns.CLIENT}'/>", element)


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["get", "set"])
@pytest.mark.parametrize("to", ["bob@localhost", "nobody@localhost", "localhost"])
async def test_private_data_of_others_is_forbidden(kind: str, to: str) -> None:
    async with World(plugins=("private",)) as world:
        alice = await world.login("alice")
        assert refusal(await alice.ask(kind, query(PREFS), to=to)) == "auth forbidden"


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["get", "set"])
@pytest.mark.parametrize(
    "content",
    ["", "just text", "<a/>", "<a xmlns=''/>", "<a xmlns='u:1'/><a xmlns='u:2'/>"],
    ids=["nothing", "text", "query's namespace", "no namespace", "two namespaces"],
)
async def test_there_must_be_an_element_in_one_namespace_of_its_own(kind: str, content: str) -> None:
    async with World(plugins=("private",)) as world:
        alice = await world.login("alice")
        assert refusal(await alice.ask(kind, query(content))) == "modify not-acceptable"


@pytest.mark.asyncio
async def test_the_number_of_elements_is_bounded() -> None:
    async with World(plugins=("private",), plugin_config={"private": {"max_elements": 2}}) as world:
        alice = await world.login("alice")
        await alice.ask("set", query("<a xmlns='u:1'/>"))
        refused = await alice.ask("set", query("<b xmlns='u:1'/><c xmlns='u:1'/>"))
        assert refusal(refused) == "modify policy-violation"
        assert (await alice.ask("set", query("<b xmlns='u:1'/>"))).get("type") == "result"
        assert (await alice.ask("set", query("<a xmlns='u:1'>again</a>"))).get("type") == "result"


@pytest.mark.asyncio
async def test_their_size_is_bounded() -> None:
    async with World(plugins=("private",), plugin_config={"private": {"max_bytes": 100}}) as world:
        alice = await world.login("alice")
        await alice.ask("set", query(f"<a xmlns='u:1'>{'x' * 40}</a>"))
        refused = await alice.ask("set", query(f"<b xmlns='u:1'>{'x' * 40}</b>"))
        assert refusal(refused) == "modify policy-violation"
        await expect_kept(alice, "<b xmlns='u:1'/>", "<b xmlns='u:1'/>")
        assert (await alice.ask("set", query(f"<a xmlns='u:1'>{'x' * 60}</a>"))).get("type") == "result"


@pytest.mark.asyncio
async def test_it_goes_with_its_account() -> None:
    async with World(plugins=("private",)) as world:
        alice = await world.login("alice")
        await alice.ask("set", query(PREFS))
        await world.app.commands.call("user remove", {"account": "alice@localhost"})
        await world.app.accounts.create("alice@localhost", "secret")
        again = await world.login("alice")
        await expect_kept(again, "<exodus xmlns='exodus:prefs'/>", "<exodus xmlns='exodus:prefs'/>")


@pytest.mark.asyncio
async def test_anonymous_sessions_store_nothing() -> None:
    async with World(plugins=("private",), settings={"auth": {"anonymous": True}}) as world:
        guest = await world.guest()
        assert refusal(await guest.ask("set", query(PREFS))) == "cancel not-allowed"
