"""Logins by tokens of a game's own service (`urn:xmppd:game-login:0`)."""

import asyncio
import base64
import hmac
import json
from typing import Any

import pytest
import sasl2
from gametokens import NS, bearer, by_bearer, encoded, game, issuer, logged_in, minted, refused, sealed
from keyserver import ED, LOOPBACK, P256, RSA, KeyServer, jwk, public
from managing import ask_to_resume, enable

from xmppd import ns
from xmppd.errors import CommandError
from xmppd.plugin import Channel
from xmppd.testing import START, Client, World, refusal

pytestmark = pytest.mark.asyncio

GRACE = {"auth": {"expiry_grace": 30, "plain_without_tls": True}, "sessions": {"ping_after": 0}}
SECRET = "0123456789abcdef0123456789abcdef"


async def refresh(client: Client, token: str) -> Any:
    return await client.ask("set", f"<refresh xmlns='{NS}'>{token}</refresh>")


async def call(world: World, name: str, node: int = 0, **arguments: Any) -> Any:
    found = await world.apps[node].commands.call(f"game-login {name}", arguments)
    await world.settle()
    return found


def is_there(client: Client) -> bool:
    """Whether its session is not over."""
    return client.jid in client.app.sessions.by_full


def reason(stanzas: list[Any]) -> str:
    """The stream error at the end of what a client received."""
    errors = [one for one in stanzas if one.tag == f"{{{ns.STREAM}}}error"]
    return errors[0][0].tag.rpartition("}")[2] if errors else ""


# coming in


@pytest.mark.parametrize("way", ["PLAIN", "OAUTHBEARER"])
async def test_a_token_lets_in_and_makes_the_account(way: str) -> None:
    async with game() as world:
        token = minted("zoe", name="Zoe", tag="EUW", roles=["admin", 7, "x y"], entitlements="skin:1 skin:2")
        zoe = await logged_in(world, "zoe", token, way=way)
        assert zoe.bare == "zoe@localhost"
        facts = zoe.session.facts
        assert (facts["name"], facts["roles"]) == ("Zoe#EUW", ["admin", "x y"])
        assert facts["entitlements"] == ["skin:1", "skin:2"]
        assert zoe.session.expires == START + 3600
        assert await world.app.server.account_exists("zoe@localhost")


async def test_what_a_claim_must_not_hold_is_left_out() -> None:
    async with game() as world:
        alice = await logged_in(
            world, token=minted(name="\ud800", tag=7, roles={"a": 1}, entitlements=["\x00"])
        )
        assert alice.session.facts["name"] == ""
        assert alice.session.facts["roles"] == alice.session.facts["entitlements"] == []


async def test_passwords_are_good_as_before() -> None:
    async with game() as world:
        alice = await world.bind("alice")
        assert alice.session.facts == {}
        answer = await refresh(alice, minted())
        assert refusal(answer) == "cancel not-allowed"


async def test_every_algorithm_that_is_named() -> None:
    for algorithm, key, text in (
        ("EdDSA", ED, public(ED)),
        ("ES256", P256[1], public(P256[1])),
        ("RS256", RSA, public(RSA)),
        ("HS256", SECRET, SECRET),
    ):
        async with game(issuers=[issuer(algorithms=[algorithm], keys=[text])], nodes=1) as world:
            await logged_in(world, token=minted(key=key, algorithm=algorithm))


async def test_keys_of_a_url_and_none_while_it_cannot_be_asked() -> None:
    async with KeyServer(jwk(P256[0], name="one")) as keys:
        about = issuer(jwks_url=keys.url)
        async with game(issuers=[about], jwks_allowed=LOOPBACK, nodes=1) as world:
            await logged_in(world, token=minted(kid="one"))
    async with game(issuers=[about], jwks_allowed=LOOPBACK, nodes=1) as world:
        assert await refused(world, minted(kid="one")) == "temporary-auth-failure"


@pytest.mark.parametrize(
    "wrong",
    [
        {"aud": "other"},
        {"aud": None},
        {"aud": ["other"]},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "alice@elsewhere"},
        {"sub": "a b"},
        {"exp": START - 31},
        {"exp": START + 2 * 86400},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": "never"},
        {"nbf": START + 31},
        {"nbf": float("nan")},
        {"iat": START + 60},
        {"iat": float("nan")},
        {"iat": "now"},
        {"iat": True},
        {"jti": 7},
        {"jti": "x" * 201},
        {"jti": "\ud800"},
        {"jti": "\x00"},
        {"sub": "\ud800"},
        {"sub": ["alice"]},
        {"name": "\ud800", "sub": None},
        {"key": P256[1]},
        {"headers": {"crit": ["exp"]}},
        {"headers": {"kid": "../../../etc/passwd"}, "key": P256[1]},
        {"headers": {"jku": "https://evil.example/keys", "jwk": jwk(P256[1])}, "key": P256[1]},
        {"padding": "x" * 8000},
    ],
    ids=str,
)
async def test_what_does_not_hold(wrong: dict[str, Any]) -> None:
    async with game(
        settings={"limits": {"stanza_bytes_before_login": 100_000, "stanza_bytes": 100_000}}
    ) as world:
        kind = "not-authorized"
        assert await refused(world, minted(**wrong)) == kind


def forged(header: dict[str, Any] | str, claims: dict[str, Any] | str, signature: str = "") -> str:
    texts = (it if isinstance(it, str) else json.dumps(it) for it in (header, claims))
    return f"{'.'.join(encoded(text.encode()) for text in texts)}.{signature}"


SAID = {"iss": "https://id.example.org", "aud": "xmppd", "sub": "alice", "exp": START + 60, "iat": START}


async def test_what_nobody_signed() -> None:
    good = minted()
    head, said, signature = good.split(".")
    tokens = [
        forged({"alg": "none"}, SAID),
        forged({"alg": "None"}, SAID),
        forged({"alg": ["ES256"]}, SAID, signature),
        forged({"alg": None}, SAID, signature),
        forged({}, SAID, signature),
        forged("[]", SAID, signature),
        forged({"alg": "ES256"}, "[]", signature),
        forged({"alg": "ES256"}, SAID, signature),
        forged({"alg": "ES256", "kid": {"a": 1}}, SAID, signature),
        forged('{"alg": "ES256"', SAID, signature),
        forged('{"alg":"ES256","alg":"none"}', SAID, signature),
        f"{head}.{said}.",
        f"{head}.{said}.{signature[:-2]}",
        f"{head}.{said}.{signature}.",
        f"eyJ.{said}.{signature}",
        "eyJ..",
        forged("[" * 3000, SAID),
        "eyJ.a.b",
    ]
    async with game(settings={"auth": {"attempts": 100, "plain_without_tls": True}}) as world:
        for token in tokens:
            assert await refused(world, token) == "not-authorized", token
        await logged_in(world, token=good)


async def test_a_public_key_is_no_secret() -> None:
    secret = public(P256[0]).encode()
    part = forged({"alg": "HS256"}, SAID).rstrip(".")
    token = f"{part}.{encoded(hmac.digest(secret, part.encode(), 'sha256'))}"
    async with game() as world:
        assert await refused(world, token) == "not-authorized"
    with pytest.raises(CommandError, match="key 1 is none"):
        async with game(issuers=[issuer(algorithms=["HS256"])]):
            pass


async def test_a_claim_that_is_there_twice() -> None:
    def token(text: str) -> str:
        return sealed({"alg": "ES256"}, text)

    text = json.dumps(SAID)
    async with game() as world:
        for more in ('"sub":"bob"', '"exp":1', '"extra":{"a":1,"a":2}'):
            assert await refused(world, token(text[:-1] + f",{more}}}")) == "not-authorized"
        for said in (text.replace(str(START + 60), "NaN"), text.replace(str(START + 60), "-Infinity")):
            assert await refused(world, token(said)) == "not-authorized"
        await logged_in(world, token=token(text))


async def test_whose_it_is_is_not_for_the_client_to_say() -> None:
    async with game() as world:
        client = world.connect()
        await client.open()
        assert (await client.authenticate("alice", minted("bob"))).tag == f"{{{ns.SASL}}}failure"
        assert (await client.authenticate("bob", minted("BOB"))).tag == f"{{{ns.SASL}}}success"


async def test_an_issuer_speaks_for_its_domains_alone() -> None:
    settings = {"server": {"domains": ["localhost", "other.example"]}}
    async with game(issuers=[issuer(domains=["other.example"])], settings=settings, nodes=1) as world:
        client = world.connect()
        features = await client.open()
        assert "OAUTHBEARER" not in [it.text for it in features.iter(f"{{{ns.SASL}}}mechanism")]
        answer = await client.authenticate("alice", minted())
        assert answer.tag == f"{{{ns.SASL}}}failure"


async def test_no_account_is_made_where_none_shall_be() -> None:
    async with game(provision=False) as world:
        assert await refused(world, minted("zoe"), "zoe") == "not-authorized"
        await logged_in(world)


async def test_a_disabled_account_stays_out() -> None:
    async with game() as world:
        await world.app.accounts.disable("alice@localhost")
        client = world.connect()
        await client.open()
        answer = await client.authenticate("alice", minted())
        assert answer[0].tag.endswith("account-disabled")


async def test_names_go_to_who_keeps_them() -> None:
    async with game("players", others={"players": {}}) as world:
        await logged_in(world, token=minted(name="Kiva", tag="EUW"))
        await world.settle()
        assert await world.plugin("players").name_of("alice@localhost") == "Kiva#EUW"
        await logged_in(world, token=minted(name="Other", tag="EUW"))
        await world.settle()
        assert await world.plugin("players").name_of("alice@localhost") == "Kiva#EUW"


# OAUTHBEARER (RFC 7628)


async def test_why_a_token_does_not_hold_is_told_before_the_failure() -> None:
    discovery = "https://id.example.org/.well-known/openid-configuration"
    async with game(discovery=discovery, scope="chat") as world:
        client = world.connect()
        await client.open()
        answer = await by_bearer(client, bearer("eyJ.a.b"))
        assert answer.tag == f"{{{ns.SASL}}}challenge"
        said = json.loads(base64.b64decode(answer.text or ""))
        assert said == {"status": "invalid_token", "scope": "chat", "openid-configuration": discovery}
        failed = sum(count for (_, what), count in world.apps[0].logins.outcomes.items() if what != "success")
        assert failed == 1, "it is a failure whether or not the client responds"
        await client.send(f"<response xmlns='{ns.SASL}'>AQ==</response>")
        assert (await client.receive())[0].tag.endswith("not-authorized")
        assert sum(world.apps[0].logins.outcomes.values()) == 1
        assert (await by_bearer(client, bearer(minted()))).tag == f"{{{ns.SASL}}}success"


@pytest.mark.parametrize(
    ("data", "condition"),
    [
        (b"", "malformed-request"),
        (b"n,,\x01auth=Bearer x\x01", "malformed-request"),
        (b"n,,\x01auth=Basic x\x01\x01", "malformed-request"),
        (b"n,,\x01host=a\x01\x01", "malformed-request"),
        (b"p=tls-exporter,,\x01auth=Bearer x\x01\x01", "malformed-request"),
        (b"n,,,\x01auth=Bearer x\x01\x01", "malformed-request"),
        (b"n,b=c,\x01auth=Bearer x\x01\x01", "malformed-request"),
        (b"n,a=x=y,\x01auth=Bearer x\x01\x01", "malformed-request"),
        (b"n,,\x01auth=Bearer x\x01auth=Bearer y\x01\x01", "malformed-request"),
        (b"n,,\x01\xff=1\x01auth=Bearer x\x01\x01", "malformed-request"),
        (b"n,,\x01" + b"a=b\x01" * 20 + b"auth=Bearer x\x01\x01", "malformed-request"),
        (b"n,a=@,\x01auth=Bearer x\x01\x01", "invalid-authzid"),
        (b"n,a=localhost,\x01auth=Bearer x\x01\x01", "invalid-authzid"),
    ],
)
async def test_what_is_no_request(data: bytes, condition: str) -> None:
    async with game() as world:
        client = world.connect()
        await client.open()
        answer = await by_bearer(client, base64.b64encode(data).decode() or "=")
        assert answer[0].tag.rpartition("}")[2] == condition


async def test_whom_it_names_must_be_whose_it_is() -> None:
    async with game() as world:
        client = world.connect()
        await client.open()
        assert (await by_bearer(client, bearer(minted(), "alice@localhost", "y"))).tag.endswith("success")
        other = world.connect()
        await other.open()
        assert (await by_bearer(other, bearer(minted(), "bob@localhost"))).tag.endswith("challenge")


async def test_guesses_wait_ever_longer() -> None:
    async with game(settings={"auth": {"attempts": 100, "plain_without_tls": True}}, nodes=1) as world:
        waits: list[float] = []

        async def pause(seconds: float) -> None:
            waits.append(seconds)

        world.app.logins.pause = pause
        client = world.connect("192.0.2.1")
        await client.open()
        for _ in range(6):
            answer = await by_bearer(client, bearer("eyJ.a.b", "alice@localhost"))
            assert answer.tag.endswith("challenge")
        assert len(waits) >= 2
        assert waits == sorted(waits)


async def test_tokens_by_sasl2() -> None:
    async with game() as world:
        client = await sasl2.opened(world)
        answer = await sasl2.login(
            client, "", sasl2.tagged("game"), mechanism="OAUTHBEARER", initial=bearer(minted())
        )
        assert sasl2.identifier(answer).startswith("alice@localhost/")
        assert client.session.expires == START + 3600
        other = await sasl2.opened(world)
        answer = await sasl2.login(other, "", mechanism="OAUTHBEARER", initial=bearer("eyJ.a.b"))
        assert answer.tag == f"{sasl2.S}challenge"
        await other.send(f"<response xmlns='{ns.SASL2}'>AQ==</response>")
        assert sasl2.condition(await other.receive()) == "not-authorized"


# a session's time


async def test_a_session_is_told_and_closed_when_its_token_ends() -> None:
    async with game(settings=GRACE) as world:
        alice = await logged_in(world)
        await world.advance(3601)
        told = await alice.receive_all()
        assert [one[0].tag for one in told] == [f"{{{NS}}}expired"]
        await world.advance(31)
        assert reason(await alice.receive_all()) == "reset"


async def test_another_token_lets_a_session_go_on() -> None:
    async with game(settings=GRACE) as world:
        alice = await logged_in(world)
        await world.advance(3601)
        await alice.receive_all()
        again = minted(exp=START + 9000, iat=START + 3601, jti="t2", roles=["admin"])
        answer = await refresh(alice, again)
        assert answer.get("type") == "result"
        assert answer[0].get("expires") == "2023-11-15T00:43:20Z"
        await world.advance(100)
        assert await alice.receive_all() == []
        assert alice.session.facts["roles"] == ["admin"]
        await call(world, "revoke-token", id="t1")
        assert is_there(alice)
        await call(world, "revoke-token", id="t2")
        assert reason(await alice.receive_all()) == "not-authorized"


async def test_tokens_that_do_not_hold_end_a_session_at_last() -> None:
    async with game() as world:
        alice = await logged_in(world)
        assert refusal(await refresh(alice, minted("bob"))) == "auth not-authorized"
        for _ in range(3):
            assert refusal(await refresh(alice, "eyJ.a.b")) == "auth not-authorized"
        assert alice.session.expires == START + 3600
        await alice.send(f"<iq type='set' id='x'><refresh xmlns='{NS}'/></iq>")
        assert reason(await alice.receive_all()) == "policy-violation"


# revocations


@pytest.mark.parametrize("node", [0, 1])
async def test_a_player_is_out_on_all_nodes_at_once(node: int) -> None:
    async with game(nodes=2) as world:
        here, there = await logged_in(world, node=0), await logged_in(world, node=1)
        bob = await logged_in(world, "bob", minted("bob"), node=1)
        by_password = await world.bind("alice", "own", node=1)
        found = await call(world, "revoke", node, account="alice@localhost")
        assert found["kind"] == "account"
        for client in (here, there):
            assert reason(await client.receive_all()) == "not-authorized"
        assert is_there(bob) and is_there(by_password)
        for each in range(2):
            assert await refused(world, minted(), node=each) == "not-authorized"
        await world.advance(2)
        await logged_in(world, token=minted(iat=START + 1, jti="t2"))


async def test_one_token_alone() -> None:
    async with game() as world:
        one = await logged_in(world, token=minted(jti="t1"))
        other = await logged_in(world, token=minted(jti="t2"))
        await call(world, "revoke-token", id="t1")
        assert not is_there(one) and is_there(other)
        assert await refused(world, minted(jti="t1")) == "not-authorized"
        assert [(row["kind"], row["what"]) for row in await call(world, "revocations")] == [
            ("token", "https://id.example.org t1")
        ]


async def test_all_that_was_issued_until_a_moment() -> None:
    async with game() as world:
        old = await logged_in(world, token=minted(iat=START - 100))
        unknown = await logged_in(world, token=minted(iat=None))
        new = await logged_in(world, token=minted(iat=START - 10))
        await call(world, "revoke-before", moment="2023-11-14T22:12:30Z")
        assert not is_there(old) and not is_there(unknown) and is_there(new)
        await call(world, "revoke-before", moment="2023-11-14T20:00:00Z")
        assert await refused(world, minted(iat=START - 100)) == "not-authorized"
        await call(world, "revoke-before", moment="now")
        assert not is_there(new)


async def test_a_node_that_was_not_told_finds_out() -> None:
    async with game(nodes=2) as world:
        alice = await logged_in(world, node=1)
        for plugin in world.plugins("game_login"):
            plugin.over = Deaf()
        await call(world, "revoke", account="alice@localhost")
        assert is_there(alice)
        for plugin in world.plugins("game_login"):
            del plugin.over
        await world.advance(6)
        assert not is_there(alice)


class Deaf:
    """Tells nobody."""

    def tell(self, *arguments: Any) -> None:
        """What is told is lost."""


async def test_what_is_revoked_between_login_and_bind() -> None:
    async with game() as world:
        client = world.connect()
        await client.open()
        await client.authenticate("alice", minted())
        await call(world, "revoke", account="alice@localhost")
        await client.open()
        await client.send(f"<iq type='set' id='b'><bind xmlns='{ns.BIND}'/></iq>")
        assert reason(await client.receive_all()) == "not-authorized"


async def test_a_token_of_the_server_lasts_no_longer_than_that_of_the_game() -> None:
    async with game() as world:
        client = await sasl2.opened(world)
        more = sasl2.agent(sasl2.PHONE) + sasl2.wanted()
        answer = await sasl2.login(client, "", more, mechanism="OAUTHBEARER", initial=bearer(minted()))
        token = sasl2.token_in(answer)
        assert token
        again = await sasl2.opened(world)
        await sasl2.fast(again, "alice", token, more=sasl2.tagged("game"))
        assert again.session.expires == START + 3600
        assert again.session.facts["token_id"] == "t1"
        await call(world, "revoke-token", id="t1")
        assert not is_there(again)
        assert await sasl2.by_token(world, "alice", token) == "credentials-expired"


async def test_it_ends_with_it_too() -> None:
    async with game() as world:
        client = await sasl2.opened(world)
        more = sasl2.agent(sasl2.PHONE) + sasl2.wanted()
        answer = await sasl2.login(client, "", more, mechanism="OAUTHBEARER", initial=bearer(minted()))
        await world.advance(3600)
        assert await sasl2.by_token(world, "alice", sasl2.token_in(answer)) == "credentials-expired"


async def test_who_logs_in_by_a_password_keeps_the_tokens_of_the_server() -> None:
    async with game() as world:
        token = await sasl2.token_for(world, "alice")
        await call(world, "revoke", account="alice@localhost")
        await world.advance(7200)
        assert await sasl2.by_token(world, "alice", token) == "success"


async def test_a_resumed_session_has_the_token_that_it_came_back_by() -> None:
    async with game() as world:
        alice = await logged_in(world)
        id = await enable(alice)
        await alice.drop()
        await world.advance(60)
        client = world.connect(node=0)
        await client.open()
        await client.authenticate("alice", minted(exp=START + 7200, jti="t2"))
        await client.open()
        assert (await ask_to_resume(client, id, 0)).tag.endswith("resumed")
        session = next(s for app in world.apps for s in app.sessions.of("alice@localhost") if not s.is_over)
        assert (session.facts["token_id"], session.expires) == ("t2", START + 7200)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("revoke", {"account": "localhost"}),
        ("revoke", {"account": "alice@localhost", "before": "yesterday"}),
        ("revoke-token", {"id": ""}),
        ("revoke-token", {"id": "\ud800"}),
        ("revoke-token", {"id": "t1", "issuer": "https://elsewhere"}),
        ("revoke-before", {"moment": "soon"}),
    ],
)
async def test_what_cannot_be_revoked(name: str, arguments: dict[str, Any]) -> None:
    async with game() as world:
        with pytest.raises(CommandError):
            await call(world, name, **arguments)


async def test_what_was_revoked_outlives_a_node() -> None:
    async with game(nodes=2) as world:
        await call(world, "revoke", 0, account="alice@localhost", before="2023-11-14T22:13:15Z")
        await call(world, "revoke", 1, account="alice@localhost", before="2023-11-14T20:00:00Z")
        assert await refused(world, minted(iat=START - 10), node=1) == "not-authorized"
        await world.advance(10)
        await logged_in(world, token=minted(iat=START - 4), node=1)


async def test_what_is_kept_follows_its_player_and_goes_with_him() -> None:
    async with game() as world:
        client = await sasl2.opened(world)
        more = sasl2.agent(sasl2.PHONE) + sasl2.tagged("game")
        await sasl2.login(client, "", more, mechanism="OAUTHBEARER", initial=bearer(minted()))
        await call(world, "revoke", account="alice@localhost")
        await world.app.commands.call("account rename", {"old": "alice@localhost", "new": "zoe@localhost"})
        await world.settle()
        plugin = world.plugin("game_login")
        assert await plugin.ended.get("alice@localhost") is None
        assert (await plugin.ended.get("zoe@localhost"))["before"] == START * 1_000_000
        assert (await plugin.grants.scan("zoe@localhost")).rows
        assert await refused(world, minted("zoe"), "zoe") == "not-authorized"
        await world.app.commands.call("account erase", {"account": "zoe@localhost"})
        await world.settle()
        assert await plugin.ended.get("zoe@localhost") is None
        assert not (await plugin.grants.scan("zoe@localhost")).rows
        assert "zoe" not in str([row async for row in plugin.recent.everything()])


async def test_what_another_plugin_asks() -> None:
    async with game() as world:
        plugin = world.plugin("game_login")
        identity = await plugin.server.offers.at_work["game_login"]["prove"](
            minted(), Channel("localhost"), "alice@localhost"
        )
        assert (identity.local, identity.expires) == ("alice", START + 3600)


async def test_an_account_that_is_made_by_two_nodes_at_once() -> None:
    async with game(nodes=2) as world:
        clients = await asyncio.gather(
            *(logged_in(world, "zoe", minted("zoe"), node=number % 2) for number in range(4))
        )
        assert {client.bare for client in clients} == {"zoe@localhost"}
