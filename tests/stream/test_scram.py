"""SCRAM seen from the client, with a client by the letter of RFC 5802 and one of another project."""

import asyncio
import base64
import hashlib
import random
from collections.abc import Awaitable
from typing import Any

import pytest
import scramp
from saslclient import HASHES, PASSWORD, ScramClient, b64, finish, plain, refusal

from xmppd.core.accounts import ACCOUNT, Accounts, derive
from xmppd.errors import SaslError
from xmppd.stream.plain import Plain
from xmppd.stream.sasl import Authenticator, Challenge, Channel, Identity, Success
from xmppd.stream.scram import Credentials, make_nonce, protection, scram_mechanisms

DOMAIN = "example.org"
BINDING = b"the hash of a certificate"
SCRAMS = [*HASHES, *(f"{name}-PLUS" for name in HASHES)]


# -------------------------------------------------------------------------------- logins


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("mechanism", "client_nonce", "server_nonce", "salt", "final", "signature"),
    [
        (
            "SCRAM-SHA-1",
            "fyko+d2lbbFgONRv9qkxdawL",
            "3rfcNHYJY1ZVvWVs7j",
            "QSXCR+Q6sek8bf92",
            "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        ),
        (
            "SCRAM-SHA-256",
            "rOprNGfwEbeRWgbNEkqO",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            "W22ZaJ0SNY7soEsUEjb6gQ==",
            "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
    ],
    ids=["RFC 5802 5", "RFC 7677 3"],
)
async def test_published_exchanges(
    server: Any,
    mechanism: str,
    client_nonce: str,
    server_nonce: str,
    salt: str,
    final: str,
    signature: str,
) -> None:
    columns = derive(PASSWORD, base64.b64decode(salt), 4096)
    await server.store.put(ACCOUNT, {"account": f"user@{DOMAIN}", **columns})
    mechanisms = scram_mechanisms(server.accounts, nonce=lambda: server_nonce)
    exchange = next(one for one in mechanisms if one.name == mechanism).start(Channel(DOMAIN))
    challenge = await finish(exchange.step(f"n,,n=user,r={client_nonce}".encode()))
    assert challenge == Challenge(f"r={client_nonce}{server_nonce},s={salt},i=4096".encode())
    success = await finish(exchange.step(f"c=biws,r={client_nonce}{server_nonce},p={final}".encode()))
    assert success == Success(Identity("user"), f"v={signature}".encode())
    assert success.payload == b64(f"v={signature}")


@pytest.mark.parametrize(
    ("mechanisms", "types", "text"),
    [
        (
            ("SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"),
            ("tls-server-end-point", "tls-exporter"),
            "SCRAM-SHA-1\x1eSCRAM-SHA-1-PLUS\x1ftls-exporter\x1etls-server-end-point",
        ),
        (("SCRAM-SHA-256", "PLAIN"), (), "PLAIN\x1eSCRAM-SHA-256"),
    ],
    ids=["with types", "without"],
)
@pytest.mark.parametrize("name", ["sha1", "sha256"])
def test_what_was_advertised_is_in_the_challenge(
    name: str, mechanisms: tuple[str, ...], types: tuple[str, ...], text: str
) -> None:
    """XEP-0474 5.1."""
    assert protection(name, mechanisms, types) == f",h={b64(hashlib.new(name, text.encode()).digest())}"


def test_the_published_protection() -> None:
    """XEP-0474 5.3."""
    mechanisms, types = ("SCRAM-SHA-1", "SCRAM-SHA-1-PLUS"), ("tls-server-end-point", "tls-exporter")
    assert protection("sha1", mechanisms, types) == ",h=G6k/rBLDqgOhRRaCuuatSDFkJ08="


@pytest.mark.asyncio
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256-PLUS"])
async def test_a_client_can_compare_what_was_advertised(server: Any, mechanism: str) -> None:
    client, auth = ScramClient(), server.tls()
    if mechanism.endswith("-PLUS"):
        client = ScramClient(gs2="p=tls-server-end-point,,", bound=BINDING)
    await client.login(auth, mechanism)
    seen = "\x1e".join(sorted(auth.channel.offered)) + "\x1ftls-server-end-point"
    algorithm = HASHES[mechanism.removesuffix("-PLUS")]
    assert client.challenge["h"] == b64(hashlib.new(algorithm, seen.encode()).digest())


@pytest.mark.asyncio
@pytest.mark.parametrize("mechanism", SCRAMS)
async def test_login(server: Any, mechanism: str) -> None:
    client = ScramClient()
    if mechanism.endswith("-PLUS"):
        client = ScramClient(gs2="p=tls-server-end-point,,", bound=BINDING)
    success = await client.login(server.tls(), mechanism)
    assert success.identity == Identity("alice", anonymous=False)


@pytest.mark.asyncio
@pytest.mark.parametrize("mechanism", SCRAMS)
async def test_login_of_another_implementation(server: Any, mechanism: str) -> None:
    columns = derive("p\u00e4ssword", b"0123456789abcdef", 4096, tuple(HASHES.values()))
    await server.store.put(ACCOUNT, {"account": f"carol@{DOMAIN}", **columns})
    binding = ("tls-server-end-point", BINDING) if mechanism.endswith("-PLUS") else None
    # Without a binding this client says that it knows none, so it is no downgrade.
    client = scramp.ScramClient([mechanism], "carol", "p\u00e4ssword", channel_binding=binding)
    auth = server.tls()
    challenge = await finish(auth.start(mechanism, b64(client.get_client_first())))
    client.set_server_first(challenge.data.decode())
    success = await finish(auth.respond(b64(client.get_client_final())))
    client.set_server_final(success.data.decode())
    assert success.identity == Identity("carol")


@pytest.mark.asyncio
async def test_a_second_login_finds_everything_cached(server: Any) -> None:
    await ScramClient().login(server.tls(), "SCRAM-SHA-256")
    assert isinstance(server.tls().start("SCRAM-SHA-256", b64("n,,n=alice,r=abc")), Challenge)


@pytest.mark.asyncio
async def test_nonces_are_fresh_and_continue_the_clients(server: Any) -> None:
    nonces = set()
    for _ in range(20):
        client = ScramClient()
        await client.login(server.tls(), "SCRAM-SHA-1")
        assert client.challenge["r"].startswith(client.nonce)
        nonces.add(client.challenge["r"].removeprefix(client.nonce))
    assert len(nonces) == 20
    assert all(len(nonce) >= 24 for nonce in nonces)


def test_many_nonces_that_were_drawn_at_once_are_as_good_as_single_ones() -> None:
    nonces = [make_nonce() for _ in range(1000)]
    assert len({*nonces}) == 1000
    drawn = b"".join(base64.b64decode(nonce, validate=True) for nonce in nonces)
    assert len(drawn) == 18 * 1000
    assert len({drawn[at : at + 9] for at in range(0, len(drawn), 9)}) == 2000


@pytest.mark.asyncio
async def test_names_are_unescaped_and_prepared(server: Any) -> None:
    await server.accounts.create(f"a,b=c@{DOMAIN}", PASSWORD)
    assert (await ScramClient("a,b=c").login(server.tls(), "SCRAM-SHA-1")).identity.local == "a,b=c"
    assert (await ScramClient("Alice").login(server.tls(), "SCRAM-SHA-1")).identity.local == "alice"
    assert (await ScramClient("\uff21lice").login(server.tls(), "SCRAM-SHA-1")).identity.local == "alice"


@pytest.mark.asyncio
async def test_passwords_are_prepared(server: Any) -> None:
    await server.accounts.create(f"dan@{DOMAIN}", "e\u0301\u00a0x")
    assert await ScramClient("dan", "\u00e9 x").login(server.tls(), "SCRAM-SHA-256")
    for typed in ("e\u0301\u00a0x", "\u00e9 x"):
        assert await finish(server.tls().start("PLAIN", plain("dan", typed))) == Success(Identity("dan"))


@pytest.mark.asyncio
@pytest.mark.parametrize("authzid", ["alice@example.org", "Alice@EXAMPLE.org"])
async def test_the_own_authzid(server: Any, authzid: str) -> None:
    assert await ScramClient(gs2=f"n,a={authzid},").login(server.tls(), "SCRAM-SHA-256")
    payload = plain("alice", PASSWORD, authzid)
    assert await finish(server.tls().start("PLAIN", payload)) == Success(Identity("alice"))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "authzid", ["bob@example.org", "alice@example.com", "alice", "alice@example.org/r", "@", "example.org"]
)
async def test_any_other_authzid(server: Any, authzid: str) -> None:
    await server.accounts.create(f"bob@{DOMAIN}", PASSWORD)
    payload = b64(f"n,a={authzid},n=alice,r=abc")
    assert await refusal(lambda: server.tls().start("SCRAM-SHA-256", payload)) == ("invalid-authzid", "")
    payload = plain("alice", PASSWORD, authzid)
    assert await refusal(lambda: server.tls().start("PLAIN", payload)) == ("invalid-authzid", "")


FORGERIES = {
    "wrong password": ScramClient(password="Pencil"),
    "nonce replaced": ScramClient(bend_nonce=lambda nonce: nonce[:5] + "X" * (len(nonce) - 5)),
    "nonce shortened": ScramClient(bend_nonce=lambda nonce: nonce[:-1]),
    "nonce of the client only": ScramClient(bend_nonce=lambda nonce: "fyko+d2lbbFgONRv9qkxdawL"),
    "proof truncated": ScramClient(bend_proof=lambda proof: proof[:4]),
    "proof empty": ScramClient(bend_proof=lambda proof: b""),
    "proof longer": ScramClient(bend_proof=lambda proof: proof + b"x"),
    "proof of zeros": ScramClient(bend_proof=lambda proof: bytes(len(proof))),
    "other gs2 header bound": ScramClient(bend_binding=lambda binding: b"y,,"),
    "mandatory extension in the end": ScramClient(final_after=",m=evil"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("mechanism", HASHES)
@pytest.mark.parametrize("client", FORGERIES.values(), ids=FORGERIES)
async def test_forgeries(server: Any, client: ScramClient, mechanism: str) -> None:
    assert (await refusal(lambda: client.login(server.tls(), mechanism)))[0] == "not-authorized"


@pytest.mark.asyncio
@pytest.mark.parametrize("mechanism", [name for name in SCRAMS if name.endswith("-PLUS")])
async def test_a_man_in_the_middle_has_another_certificate(server: Any, mechanism: str) -> None:
    client = ScramClient(gs2="p=tls-server-end-point,,", bound=b"the hash of his certificate")
    assert await refusal(lambda: client.login(server.tls(), mechanism)) == ("not-authorized", "")


@pytest.mark.asyncio
async def test_the_binding_is_that_of_the_type_asked_for(server: Any) -> None:
    bindings = {"tls-exporter": b"exported", "tls-server-end-point": BINDING}
    for name, data in bindings.items():
        auth = Authenticator(server.mechanisms, Channel(DOMAIN, secure=True, bindings=bindings), server.gate)
        assert auth.channel.advertised == ("tls-exporter", "tls-server-end-point")
        client = ScramClient(gs2=f"p={name},,", bound=data)
        assert await client.login(auth, "SCRAM-SHA-256-PLUS")


@pytest.mark.asyncio
async def test_the_y_flag_is_judged_by_what_was_offered(server: Any) -> None:
    client = ScramClient(gs2="y,,")
    assert (await refusal(lambda: client.login(server.tls(), "SCRAM-SHA-256")))[0] == "not-authorized"
    assert await client.login(server.plaintext(), "SCRAM-SHA-256")
    without_plus = scram_mechanisms(server.accounts)[3:]
    assert await client.login(server.tls(*without_plus), "SCRAM-SHA-256")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("mechanism", "gs2"),
    [
        ("SCRAM-SHA-1", "p=tls-unique,,"),
        ("SCRAM-SHA-1", "p=tls-server-end-point,,"),
        ("SCRAM-SHA-1-PLUS", "p=tls-unique,,"),
        ("SCRAM-SHA-1-PLUS", "p=,,"),
        ("SCRAM-SHA-1-PLUS", "n,,"),
        ("SCRAM-SHA-1-PLUS", "y,,"),
    ],
)
async def test_flags_that_do_not_fit_the_mechanism(server: Any, mechanism: str, gs2: str) -> None:
    payload = b64(f"{gs2}n=alice,r=abc")
    assert (await refusal(lambda: server.tls().start(mechanism, payload)))[0] == "not-authorized"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "first",
    [
        "z,,n=alice,r=aaaa",
        "n,,n=a=2Zb,r=aaaa",
        "n,,n=a=2cb,r=aaaa",
        "n,,n=a=,r=aaaa",
        "n,,r=aaaa",
        "n",
        "",
        ",,,,",
        "n,,n=alice,r=",
        "n,,n=alice,r=a b",
        "n,,n=alice,r=a\u00e4",
        "n,,n=alice,r=aaaa\n",
        "n,,n=alice,x=y,r=aaaa",
        "n,,r=aaaa,n=alice",
        "n,alice,n=alice,r=aaaa",
        "n,a==,n=alice,r=aaaa",
        "n,,n=alice,r=aaaa,",
        "n,,n=alice,r=aaaa,xy",
        "n,,n=alice,r=aaaa,1=y",
        b"n,,n=\xff,r=aaaa",
    ],
)
async def test_malformed_first_messages(server: Any, first: str | bytes) -> None:
    payload = b64(first) or "="
    assert (await refusal(lambda: server.tls().start("SCRAM-SHA-1", payload)))[0] == "malformed-request"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "final", ["", "c=biws", "c=biws,r=abc", "r=abc,c=biws,p=AAAA", ",p=AAAA", "c=biws,p=AAAA", b"\xff"]
)
async def test_malformed_final_messages(server: Any, final: str | bytes) -> None:
    auth = server.tls()
    await finish(auth.start("SCRAM-SHA-1", b64("n,,n=alice,r=abc")))
    assert (await refusal(lambda: auth.respond(b64(final) or "=")))[0] == "malformed-request"


@pytest.mark.asyncio
async def test_extensions(server: Any) -> None:
    payload = b64("n,,m=evil,n=alice,r=abc")
    assert (await refusal(lambda: server.tls().start("SCRAM-SHA-1", payload)))[0] == "not-authorized"
    payload = b64("n,,n=alice,r=abc,m=evil")
    assert (await refusal(lambda: server.tls().start("SCRAM-SHA-1", payload)))[0] == "not-authorized"
    client = ScramClient(after=",x=optional", final_after=",y=optional")
    assert await client.login(server.tls(), "SCRAM-SHA-1")


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["", " ", "bob@example.org", "a/b", "bob\n", "x" * 5000, "' OR '1'='1"])
async def test_names_that_no_account_can_have(server: Any, name: str) -> None:
    client = ScramClient(name)
    assert await refusal(lambda: client.login(server.tls(), "SCRAM-SHA-1")) == ("not-authorized", "")
    payload = plain(name, PASSWORD)
    assert await refusal(lambda: server.tls().start("PLAIN", payload)) == ("not-authorized", "")


# -------------------------------------------------------------------------------- unknown accounts


@pytest.mark.asyncio
@pytest.mark.parametrize("mechanism", HASHES)
async def test_unknown_user_and_wrong_password_look_alike(server: Any, mechanism: str) -> None:
    wrong, unknown, again = ScramClient("alice", "wrong"), ScramClient("nobody"), ScramClient("nobody")
    other = ScramClient("nobody2")
    answers = {
        await refusal(lambda client=client: client.login(server.tls(), mechanism))
        for client in (wrong, unknown, again, other)
    }
    assert answers == {("not-authorized", "")}
    assert {name: len(value) for name, value in wrong.challenge.items()} == {
        name: len(value) for name, value in unknown.challenge.items()
    }
    assert wrong.challenge["i"] == unknown.challenge["i"]
    assert unknown.challenge["s"] == again.challenge["s"] != other.challenge["s"]


@pytest.mark.asyncio
async def test_the_salt_of_an_unknown_user_outlives_a_restart(server: Any) -> None:
    before, after = ScramClient("nobody"), ScramClient("nobody")
    await refusal(lambda: before.login(server.tls(), "SCRAM-SHA-256"))
    accounts = Accounts(server.store, iterations=20)
    await accounts.open()
    await refusal(lambda: after.login(server.tls(*scram_mechanisms(accounts)), "SCRAM-SHA-256"))
    accounts.close()
    assert before.challenge["s"] == after.challenge["s"]


@pytest.mark.asyncio
async def test_plain_works_as_hard_for_an_unknown_user_as_for_a_wrong_password(server: Any) -> None:
    class Watched:
        """The accounts, noting what is derived."""

        def __init__(self, accounts: Accounts) -> None:
            self.accounts = accounts
            self.derived: list[tuple[object, ...]] = []

        def credentials(self, account: str) -> Credentials | Awaitable[Credentials | None] | None:
            return self.accounts.credentials(account)

        def decoy(self, account: str) -> Credentials:
            return self.accounts.decoy(account)

        def salted_password(
            self, algorithm: str, password: str, salt: bytes, iterations: int
        ) -> Awaitable[bytes]:
            self.derived.append((algorithm, password, len(salt), iterations))
            return self.accounts.salted_password(algorithm, password, salt, iterations)

    watched = Watched(server.accounts)
    for name in ("alice", "nobody"):
        auth, payload = server.tls(Plain(watched)), plain(name, "wrong")
        assert await refusal(lambda auth=auth, payload=payload: auth.start("PLAIN", payload)) == (
            "not-authorized",
            "",
        )
    assert watched.derived == [("sha256", "wrong", 16, 20)] * 2


@pytest.mark.asyncio
async def test_an_account_without_keys_of_a_hash_looks_unknown_there(server: Any) -> None:
    columns = derive(PASSWORD, b"0123456789abcdef", 20)
    await server.store.put(ACCOUNT, {"account": f"old@{DOMAIN}", "scram_sha_1": columns["scram_sha_1"]})
    assert await ScramClient("old").login(server.tls(), "SCRAM-SHA-1")
    assert await refusal(lambda: ScramClient("old").login(server.tls(), "SCRAM-SHA-256")) == (
        "not-authorized",
        "",
    )
    assert await finish(server.tls().start("PLAIN", plain("old", PASSWORD))) == Success(Identity("old"))
    await server.store.put(ACCOUNT, {"account": f"none@{DOMAIN}", "disabled": False})
    payload = plain("none", PASSWORD)
    assert await refusal(lambda: server.tls().start("PLAIN", payload)) == ("not-authorized", "")


@pytest.mark.asyncio
async def test_only_the_owner_learns_that_an_account_is_disabled(server: Any) -> None:
    assert await finish(server.tls().start("PLAIN", plain("alice", PASSWORD)))
    await server.accounts.disable(f"alice@{DOMAIN}")
    for _ in range(2):
        assert (await refusal(lambda: server.tls().start("PLAIN", plain("alice", PASSWORD))))[0] == (
            "account-disabled"
        )
    assert (await refusal(lambda: ScramClient().login(server.tls(), "SCRAM-SHA-1")))[0] == "account-disabled"
    stranger = ScramClient(password="wrong")
    assert (await refusal(lambda: stranger.login(server.tls(), "SCRAM-SHA-1")))[0] == "not-authorized"
    assert (await refusal(lambda: server.tls().start("PLAIN", plain("alice", "x"))))[0] == "not-authorized"


# -------------------------------------------------------------------------------- anything else
@pytest.mark.asyncio
async def test_many_log_in_at_once(server: Any) -> None:
    async def attempt(number: int) -> str:
        try:
            if number % 3 == 0:
                await finish(server.tls().start("PLAIN", plain("alice", PASSWORD)))
            elif number % 3 == 1:
                await ScramClient(nonce=f"nonce{number}").login(server.tls(), "SCRAM-SHA-256")
            else:
                await finish(server.tls().start("PLAIN", plain("alice", f"wrong{number}")))
        except SaslError as error:
            return error.condition
        return "success"

    results = await asyncio.gather(*(attempt(number) for number in range(60)))
    assert results == ["success", "success", "not-authorized"] * 20


@pytest.mark.asyncio
async def test_mutated_exchanges_end_in_a_refusal_or_a_challenge(server: Any) -> None:
    seeds = [
        b"n,,n=alice,r=abcdef",
        b"y,a=alice@example.org,n=alice,r=abcdef,x=y",
        b"p=tls-server-end-point,,n=alice,r=abcdef",
        b"c=biws,r=abcdef,p=AAAA",
        b"\0alice\0pencil",
    ]
    rng = random.Random(5802)
    for _ in range(1500):
        auth = server.tls()
        try:
            step = await finish(
                auth.start(rng.choice(auth.channel.offered[:5]), b64(mutate(rng, rng.choice(seeds))))
            )
            assert isinstance(step, Challenge) or step == Success(Identity("alice"))
            await finish(auth.respond(b64(mutate(rng, seeds[3]))))
            raise AssertionError("a made-up proof was taken")
        except SaslError:
            pass


def mutate(rng: random.Random, data: bytes) -> bytes:
    mutant = bytearray(data)
    for _ in range(rng.randrange(4)):
        place = rng.randrange(len(mutant) + 1)
        match rng.randrange(3):
            case 0:
                mutant[place:place] = rng.choice([b",", b"=", b"\0", b"\xff", b"m=", b"=2C", b"\xc3\xa9"])
            case 1:
                del mutant[place : place + rng.randrange(1, 5)]
            case 2:
                mutant[place : place + 1] = bytes([rng.randrange(256)])
    return bytes(mutant)
