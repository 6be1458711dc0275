"""In-band registration (XEP-0077)."""

from typing import Any

import pytest

from xmppd import ns
from xmppd.config import Config
from xmppd.core.accounts import AccountUnknown
from xmppd.errors import StoreUnavailable
from xmppd.testing import Client, World, refusal

REGISTER = f"{{{ns.REGISTER_FEATURE}}}register"
EMPTY = f"<query xmlns='{ns.REGISTER}'/>"
FORM = (
    f"<query xmlns='{ns.REGISTER}'><instructions>Choose a name and a password.</instructions>"
    "<username/><password/></query>"
)


def query(username: str | None, password: str | None) -> str:
    name = "" if username is None else f"<username>{username}</username>"
    word = "" if password is None else f"<password>{password}</password>"
    return f"<query xmlns='{ns.REGISTER}'>{name}{word}</query>"


async def stranger(world: World, peer: str = "127.0.0.1") -> Client:
    client = world.connect(peer)
    await client.open()
    return client


OPEN = {"registration": True}


def opened(plugins: tuple[str, ...] = ("register",), **settings: Any) -> World:
    """A world in which anybody may make an account."""
    return World(plugins=plugins, plugin_config={"register": OPEN}, settings=settings)


async def can_log_in(world: World, user: str, password: str) -> bool:
    client = await stranger(world, "198.51.100.200")
    answer = await client.authenticate(user, password)
    return answer.tag == f"{{{ns.SASL}}}success"


# before login


@pytest.mark.asyncio
async def test_accounts_are_not_made_unless_configured() -> None:
    async with World(plugins=("register",)) as world:
        assert "register" in Config().plugins.enabled
        client = world.connect()
        assert (await client.open()).find(REGISTER) is None
        for kind, payload in (("get", EMPTY), ("set", query("bill", "x"))):
            assert refusal(await client.ask(kind, payload)) == "cancel service-unavailable"
        assert not await can_log_in(world, "bill", "x")
        assert (await client.authenticate("alice")).tag == f"{{{ns.SASL}}}success"


@pytest.mark.asyncio
@pytest.mark.parametrize("is_open", [False, True])
async def test_nobody_is_removed_before_login(is_open: bool) -> None:
    config = {"register": {"registration": is_open}}
    async with World(plugins=("register",), plugin_config=config) as world:
        client = await stranger(world)
        for more in ("", "<username>alice</username><password>secret</password>"):
            payload = f"<query xmlns='{ns.REGISTER}'><remove/>{more}</query>"
            assert refusal(await client.ask("set", payload)) == "auth registration-required"
        assert await can_log_in(world, "alice", "secret")


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["A.EXAMPLE", "a.example", "A.example."])
async def test_a_domain_may_be_written_in_any_letter_case(to: str) -> None:
    async with opened(server={"domains": ("a.example",)}) as world:
        client = world.connect()
        await client.open("A.example")
        assert (await client.ask("get", EMPTY, to=to)).get("type") == "result"
        assert (await client.ask("set", query("bill", "x"), to=to)).get("type") == "result"
        assert await world.app.server.account_exists("bill@a.example")
        for other in ("b.example", "bill@a.example", "a.example/x", "a..example"):
            assert refusal(await client.ask("get", EMPTY, to=other)) == "cancel not-allowed"


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["", " to='localhost'"])
async def test_a_stranger_makes_an_account_and_logs_in_on_the_same_stream(to: str) -> None:
    async with opened() as world:
        client = world.connect()
        assert (await client.open()).find(REGISTER) is not None
        sender = to.replace("to=", "from=")
        await client.send(f"<iq type='get' id='reg1'{to}>{EMPTY}</iq>")
        await client.expect(f"<iq type='result' id='reg1'{sender}>{FORM}</iq>")
        await client.send(f"<iq type='set' id='reg2'{to}>{query('Bill', 'Calliope')}</iq>")
        await client.expect(f"<iq type='result' id='reg2'{sender}/>")
        assert (await client.authenticate("bill", "Calliope")).tag == f"{{{ns.SASL}}}success"
        assert world.plugin("register").made.value == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["alice", "ALICE"])
async def test_a_name_that_is_taken(name: str) -> None:
    async with opened() as world:
        client = await stranger(world)
        await client.send(f"<iq type='set' id='reg2'>{query(name, 'other')}</iq>")
        await client.expect(
            "<iq type='error' id='reg2'><error type='cancel'>"
            f"<conflict xmlns='{ns.STANZA_ERRORS}'/>"
            f"<text xmlns='{ns.STANZA_ERRORS}' xml:lang='en'>This name is taken.</text></error></iq>"
        )
        assert await can_log_in(world, "alice", "secret")
        assert not await can_log_in(world, "alice", "other")


@pytest.mark.asyncio
async def test_two_strangers_want_one_name_at_once() -> None:
    async with opened() as world:
        clients = [await stranger(world) for _ in range(2)]
        for number, client in enumerate(clients):
            client.write(f"<iq type='set' id='r'>{query('bill', f'word{number}')}</iq>")
        answers = [await client.receive() for client in clients]
        assert sorted(str(answer.get("type")) for answer in answers) == ["error", "result"]
        winner = [answer.get("type") for answer in answers].index("result")
        assert refusal(answers[1 - winner]) == "cancel conflict"
        assert await can_log_in(world, "bill", f"word{winner}")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("username", "password"),
    [("bill", ""), ("bill", None), ("", "x"), (None, "x"), ("a@b", "x"), ("a b", "x"), ("x" * 1100, "x")],
)
async def test_what_is_missing_or_malformed_is_not_acceptable(
    username: str | None, password: str | None
) -> None:
    async with opened() as world:
        client = await stranger(world)
        answer = await client.ask("set", query(username, password))
        assert refusal(answer) == "modify not-acceptable"
        accounts = [info.account async for info in world.app.accounts.list()]
        assert sorted(accounts) == ["alice@localhost", "bob@localhost", "carol@localhost"]


@pytest.mark.asyncio
async def test_a_password_that_the_profile_refuses_is_not_acceptable() -> None:
    async with opened() as world:
        client = await stranger(world)
        assert refusal(await client.ask("set", query("bill", "tab&#x9;"))) == "modify not-acceptable"


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["get", "set"])
async def test_other_addresses_than_the_stream_s_domain(kind: str) -> None:
    async with opened(server={"domains": ("localhost", "two")}) as world:
        client = await stranger(world)
        assert refusal(await client.ask(kind, query("bill", "x"), to="two")) == "cancel not-allowed"
        await client.ask("set", query("bill", "x"))
        assert [info.account async for info in world.app.accounts.list() if "bill" in info.account] == [
            "bill@localhost"
        ]


@pytest.mark.asyncio
async def test_not_before_tls_where_tls_is_required() -> None:
    async with opened(tls={"required": True}) as world:
        client = world.connect()
        assert (await client.open()).find(REGISTER) is None
        await client.send(f"<iq type='set' id='r'>{query('bill', 'x')}</iq>")
        await client.expect_closed("not-authorized")


# how often


@pytest.mark.asyncio
async def test_an_address_makes_so_many_accounts_in_so_much_time() -> None:
    config = {"register": {**OPEN, "accounts": 2, "seconds": 100}}
    async with World(plugins=("register",), plugin_config=config) as world:
        client = await stranger(world)
        for name in ("d1", "d2"):
            assert (await client.ask("set", query(name, "x"))).get("type") == "result"
            await world.advance(10)
        assert refusal(await client.ask("set", query("d3", "x"))) == "wait resource-constraint"
        other = await stranger(world, "127.0.0.2")
        assert (await other.ask("set", query("d3", "x"))).get("type") == "result"
        await world.advance(80)
        again = await stranger(world)
        assert (await again.ask("set", query("d4", "x"))).get("type") == "result"
        assert refusal(await again.ask("set", query("d5", "x"))) == "wait resource-constraint"


@pytest.mark.asyncio
async def test_an_address_tries_so_many_times() -> None:
    async with World(plugins=("register",), plugin_config={"register": {**OPEN, "attempts": 3}}) as world:
        client = await stranger(world)
        answers = [refusal(await client.ask("set", query("alice", "x"))) for _ in range(4)]
        assert answers == ["cancel conflict"] * 3 + ["wait resource-constraint"]


@pytest.mark.asyncio
async def test_forms_that_are_not_filled_in_do_not_count_and_a_conflict_is_no_account() -> None:
    config = {"register": {**OPEN, "attempts": 2, "accounts": 1}}
    async with World(plugins=("register",), plugin_config=config) as world:
        client = await stranger(world)
        for username, password in (("bill", ""), ("", "x")) * 2:
            assert refusal(await client.ask("set", query(username, password))) == "modify not-acceptable"
        assert refusal(await client.ask("set", query("alice", "x"))) == "cancel conflict"
        assert (await client.ask("set", query("bill", "x"))).get("type") == "result"


@pytest.mark.asyncio
async def test_so_many_addresses_are_remembered() -> None:
    config = {"register": {**OPEN, "accounts": 1, "addresses": 2}}
    async with World(plugins=("register",), plugin_config=config) as world:
        kinds = []
        for number, peer in enumerate(("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3", "192.0.2.2")):
            client = await stranger(world, peer)
            kinds.append((await client.ask("set", query(f"d{number}", "x"))).get("type"))
        assert kinds == ["result", "result", "error", "result", "result"]


@pytest.mark.asyncio
async def test_a_network_of_ipv6_is_one_address() -> None:
    async with World(plugins=("register",), plugin_config={"register": {**OPEN, "accounts": 1}}) as world:
        peers = ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1")
        answers = []
        for number, peer in enumerate(peers):
            client = await stranger(world, peer)
            answers.append((await client.ask("set", query(f"d{number}", "x"))).get("type"))
        assert answers == ["result", "error", "result"]


# logged in


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["", "localhost", "alice@localhost"])
async def test_the_registration_on_file(to: str) -> None:
    async with World(plugins=("register",)) as world:
        alice = await world.login("alice")
        answer = await alice.ask("get", EMPTY, to=to)
        shown = [(child.tag.rpartition("}")[2], child.text) for child in answer[0]]
        assert shown == [
            ("registered", None),
            ("instructions", "Choose a name and a password."),
            ("username", "alice"),
            ("password", None),
        ]


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["", "localhost", "alice@localhost"])
async def test_a_new_password(to: str) -> None:
    async with World(plugins=("register",)) as world:
        alice = await world.login("alice")
        assert (await alice.ask("set", query("Alice", "newpass"), to=to)).get("type") == "result"
        assert await can_log_in(world, "alice", "newpass")
        assert not await can_log_in(world, "alice", "secret")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("username", "password"), [("bob", "x"), (None, "x"), ("alice", ""), ("alice", None), ("a@b", "x")]
)
async def test_a_password_is_changed_by_its_owner_and_never_to_nothing(
    username: str | None, password: str | None
) -> None:
    async with World(plugins=("register",)) as world:
        alice = await world.login("alice")
        assert refusal(await alice.ask("set", query(username, password))) == "modify bad-request"
        assert await can_log_in(world, "alice", "secret")
        assert await can_log_in(world, "bob", "secret")


@pytest.mark.asyncio
async def test_another_account_is_out_of_reach() -> None:
    async with World(plugins=("register",)) as world:
        alice = await world.login("alice")
        answer = await alice.ask("set", query("bob", "x"), to="bob@localhost")
        assert refusal(answer) == "cancel service-unavailable"


@pytest.mark.asyncio
async def test_a_removal_ends_all_sessions_of_the_account_after_its_result() -> None:
    async with World(plugins=("register",)) as world:
        alice, second, bob = await world.login("alice"), await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        await alice.send(f"<iq type='set' id='unreg1'><query xmlns='{ns.REGISTER}'><remove/></query></iq>")
        await alice.expect(f"<iq type='result' id='unreg1' to='{alice.jid}'/>")
        await alice.expect_closed("not-authorized")
        await second.expect_closed("not-authorized")
        assert not await can_log_in(world, "alice", "secret")
        kinds = {stanza.get("type") for stanza in await bob.receive_all()}
        assert {"unsubscribe", "unsubscribed", "unavailable"} <= kinds


@pytest.mark.asyncio
async def test_a_removal_goes_on_when_the_store_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(plugins=("register",)) as world:
        alice = await world.login("alice")
        delete_if = world.app.store.delete_if

        async def fail(*args: Any) -> bool:
            monkeypatch.setattr(world.app.store, "delete_if", delete_if)
            raise StoreUnavailable("away")

        monkeypatch.setattr(world.app.store, "delete_if", fail)
        await alice.send(f"<iq type='set' id='unreg1'><query xmlns='{ns.REGISTER}'><remove/></query></iq>")
        await alice.expect(f"<iq type='result' id='unreg1' to='{alice.jid}'/>")
        await world.app.jobs.drain(10)
        assert world.app.store.delete_if == delete_if, "it failed once"
        with pytest.raises(AccountUnknown):
            await world.app.accounts.info("alice@localhost")
        assert not await can_log_in(world, "alice", "secret")


@pytest.mark.asyncio
async def test_a_removal_is_asked_for_alone() -> None:
    async with World(plugins=("register",)) as world:
        alice = await world.login("alice")
        payload = f"<query xmlns='{ns.REGISTER}'><remove/><username>alice</username></query>"
        assert refusal(await alice.ask("set", payload)) == "modify bad-request"
        assert await can_log_in(world, "alice", "secret")


@pytest.mark.asyncio
async def test_operators_may_forbid_either() -> None:
    config = {"register": {"allow_password_change": False, "allow_removal": False}}
    async with World(plugins=("register",), plugin_config=config) as world:
        alice = await world.login("alice")
        assert refusal(await alice.ask("set", query("alice", "new"))) == "cancel not-allowed"
        removal = f"<query xmlns='{ns.REGISTER}'><remove/></query>"
        assert refusal(await alice.ask("set", removal)) == "cancel not-allowed"
        assert await can_log_in(world, "alice", "secret")


@pytest.mark.asyncio
async def test_an_anonymous_session_has_no_registration() -> None:
    async with World(plugins=("register",), settings={"auth": {"anonymous": True}}) as world:
        guest = await world.guest()
        assert refusal(await guest.ask("get", EMPTY)) == "cancel not-allowed"
        assert refusal(await guest.ask("set", query("bill", "x"))) == "auth registration-required"
        removal = f"<query xmlns='{ns.REGISTER}'><remove/></query>"
        assert refusal(await guest.ask("set", removal)) == "auth registration-required"


@pytest.mark.asyncio
async def test_it_is_advertised() -> None:
    async with World(plugins=("disco", "register")) as world:
        alice = await world.login("alice")
        answer = await alice.ask("get", f"<query xmlns='{ns.DISCO_INFO}'/>", to="localhost")
        assert ns.REGISTER in {feature.get("var") for feature in answer.iter(f"{{{ns.DISCO_INFO}}}feature")}
