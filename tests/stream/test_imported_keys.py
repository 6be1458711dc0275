"""Accounts that came with keys of another server: who logs in with what, and what strangers can tell."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

import pytest
from saslclient import HASHES, PASSWORD, ScramClient, b64, finish, plain, refusal

from xmppd.core import completion
from xmppd.core.accounts import ACCOUNT
from xmppd.core.credentials import NO_KEYS, columns_of, keys_in
from xmppd.errors import SaslError, StoreTimeout
from xmppd.stream.plain import Plain
from xmppd.stream.sasl import Success
from xmppd.stream.scram import ScramKeys, derive_keys

DOMAIN = "example.org"
ALICE = f"alice@{DOMAIN}"
SALT = b"6f4c0d67-2a90-4928-867e-83cce6c0a006"
"""As Prosody has them."""

pytestmark = pytest.mark.asyncio


def keys(password: str = PASSWORD, *hashes: str) -> dict[str, ScramKeys]:
    return {name: derive_keys(name, password, SALT, 30) for name in hashes}


async def arrive(server: Any, imported: Mapping[str, ScramKeys], **more: Any) -> None:
    """Alice, with these keys instead of ours."""
    row = await server.store.get(ACCOUNT, (ALICE,))
    columns = {**NO_KEYS, **columns_of(imported), "imported": True, **more}
    assert await server.store.put_if(ACCOUNT, {"account": ALICE, **columns}, {"changed": row["changed"]})
    server.accounts.forget(ALICE)


async def stored(server: Any) -> Any:
    await server.jobs.drain(5.0)
    return await server.store.get(ACCOUNT, (ALICE,))


async def by_plain(server: Any, password: str = PASSWORD) -> bool:
    """Whether PLAIN lets her in."""
    try:
        step = await finish(server.tls().start("PLAIN", plain("alice", password)))
    except SaslError as error:
        if error.condition == "not-authorized":
            return False
        raise
    return isinstance(step, Success)


# -------------------------------------------------------------------------------- keys of any hash


@pytest.mark.parametrize("name", ["sha1", "sha224", "sha256", "sha384", "sha512", "sha3_512"])
async def test_keys_of_each_hash_let_in_by_plain(server: Any, name: str) -> None:
    await arrive(server, keys(PASSWORD, name))
    assert not await by_plain(server, "pencil2")
    assert await by_plain(server)
    assert keys_in(await stored(server))[name] == keys(PASSWORD, name)[name]


@pytest.mark.parametrize("mechanism", HASHES)
async def test_keys_let_in_by_their_own_mechanism(server: Any, mechanism: str) -> None:
    await arrive(server, keys(PASSWORD, HASHES[mechanism]))
    client = ScramClient()
    assert await client.login(server.tls(), mechanism)
    assert client.challenge["i"] == "30"


async def test_an_account_without_any_keys_looks_unknown(server: Any) -> None:
    await arrive(server, {})
    assert not await by_plain(server)
    for mechanism in HASHES:
        hers, unknown = ScramClient(), ScramClient("nobody")
        for client in (hers, unknown):
            assert await refusal(lambda c=client, m=mechanism: c.login(server.tls(), m)) == (
                "not-authorized",
                "",
            )
        assert {name: len(text) for name, text in hers.challenge.items()} == {
            name: len(text) for name, text in unknown.challenge.items()
        }
        assert hers.challenge["i"] == unknown.challenge["i"]
    info = await server.accounts.info(ALICE)
    assert (info.mechanisms, info.imported) == ((), True)


async def test_another_mechanism_works_on_the_same_stream(server: Any) -> None:
    await arrive(server, keys(PASSWORD, "sha1"))
    auth = server.tls()
    for mechanism in ("SCRAM-SHA-512", "SCRAM-SHA-256"):
        assert await refusal(lambda m=mechanism: ScramClient().login(auth, m)) == ("not-authorized", "")
    assert await ScramClient().login(auth, "SCRAM-SHA-1")
    assert auth.login.account == ALICE


# -------------------------------------------------------------------------------- what is missing


async def test_missing_keys_are_made_at_a_login_by_plain(server: Any) -> None:
    await arrive(server, keys(PASSWORD, "sha512"))
    before = await stored(server)
    assert await by_plain(server)
    row = await stored(server)
    assert set(keys_in(row)) == {"sha1", "sha256", "sha512"}
    assert keys_in(row)["sha512"] == keys(PASSWORD, "sha512")["sha512"]
    assert keys_in(row)["sha1"].iterations == 20
    assert (row["epoch"], row["created"], row["imported"]) == (before["epoch"], before["created"], True)
    assert row["changed"] != before["changed"]
    for mechanism in HASHES:
        assert await ScramClient().login(server.tls(), mechanism)
    assert await by_plain(server)
    assert await stored(server) == row, "once is enough"


@pytest.mark.parametrize("name", ["sha224", "sha3_512"])
async def test_keys_without_a_mechanism_are_kept_beside_those_that_are_made(server: Any, name: str) -> None:
    await arrive(server, keys(PASSWORD, name, "sha384"))
    assert await by_plain(server)
    assert set(keys_in(await stored(server))) == {"sha1", "sha256", "sha512", "sha384", name}


async def test_new_keys_have_the_salt_that_strangers_saw_before(server: Any) -> None:
    await arrive(server, keys(PASSWORD, "sha1"))
    seen = {}
    for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
        client = ScramClient(password="wrong")
        await refusal(lambda c=client, m=mechanism: c.login(server.tls(), m))
        seen[mechanism] = (client.challenge["s"], client.challenge["i"])
    assert await by_plain(server)
    await stored(server)
    for mechanism, shown in seen.items():
        client = ScramClient()
        assert await client.login(server.tls(), mechanism)
        assert (client.challenge["s"], client.challenge["i"]) == shown


async def test_who_logs_in_meanwhile_is_let_in(server: Any) -> None:
    """What was proved by the keys that were there is not undone by those that come."""
    await arrive(server, keys(PASSWORD, "sha1"))
    auth = server.tls()
    client = ScramClient()
    respond = auth.respond

    async def late(payload: str) -> Any:
        assert await by_plain(server)
        await stored(server)
        assert "sha256" in (await finish(server.accounts.credentials(ALICE))).keys
        return await finish(respond(payload))

    class Late:
        start = auth.start
        respond = staticmethod(late)

    assert await client.login(Late(), "SCRAM-SHA-1")  # type: ignore[arg-type]
    assert auth.login is not None


async def test_a_new_password_is_not_undone(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await arrive(server, keys(PASSWORD, "sha1"))
    put_if, going = server.store.put_if, []

    async def slow(table: Any, row: Any, expect: Any, **how: Any) -> bool:
        if "epoch" not in row and not going:
            going.append(row)
            await server.accounts.set_password(ALICE, "crayon")
        written: bool = await put_if(table, row, expect, **how)
        return written

    monkeypatch.setattr(server.store, "put_if", slow)
    assert await by_plain(server)
    row = await stored(server)
    assert going
    assert set(keys_in(row)) == {"sha1", "sha256", "sha512"}
    assert row["imported"] is None
    assert not await by_plain(server)
    assert await by_plain(server, "crayon")
    for mechanism in HASHES:
        assert await ScramClient(password="crayon").login(server.tls(), mechanism)


async def test_a_removed_account_is_not_brought_back(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await arrive(server, keys(PASSWORD, "sha1"))
    put_if, going = server.store.put_if, []

    async def slow(table: Any, row: Any, expect: Any, **how: Any) -> bool:
        if "scram_sha_256" in row and not going:
            going.append(row)
            await server.accounts.remove(ALICE)
        written: bool = await put_if(table, row, expect, **how)
        return written

    monkeypatch.setattr(server.store, "put_if", slow)
    assert await by_plain(server)
    assert await stored(server) is None
    assert going


async def test_a_password_that_was_replaced_before_makes_no_keys(server: Any) -> None:
    await arrive(server, keys(PASSWORD, "sha1"))
    found = await finish(server.accounts.credentials(ALICE))
    await arrive(server, keys("crayon", "sha1"))
    server.accounts.complete(ALICE, PASSWORD, found)
    assert set(keys_in(await stored(server))) == {"sha1"}


async def test_a_store_that_fails_is_only_logged(
    server: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await arrive(server, keys(PASSWORD, "sha1"))
    put_if = server.store.put_if

    async def fail(*args: Any) -> bool:
        raise StoreTimeout("away")

    monkeypatch.setattr(server.store, "put_if", fail)
    assert await by_plain(server)
    assert set(keys_in(await stored(server))) == {"sha1"}
    assert [record.msg for record in caplog.records] == ["keys-not-completed"]
    assert PASSWORD not in repr(vars(caplog.records[0]))
    monkeypatch.setattr(server.store, "put_if", put_if)
    assert await by_plain(server), "remembered, and tried again"
    assert len(keys_in(await stored(server))) == 3


async def test_many_logins_make_keys_once_and_few_at_a_time(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await arrive(server, keys(PASSWORD, "sha1"))
    put_if, writes = server.store.put_if, []

    async def counted(table: Any, row: Any, expect: Any) -> bool:
        writes.append(row["account"])
        written: bool = await put_if(table, row, expect)
        return written

    monkeypatch.setattr(server.store, "put_if", counted)
    assert all(await asyncio.gather(*(by_plain(server) for _ in range(10))))
    await stored(server)
    assert writes == [ALICE]
    monkeypatch.setattr(completion, "MOST_COMPLETIONS", 0)
    await arrive(server, keys(PASSWORD, "sha1"))
    assert await by_plain(server)
    assert set(keys_in(await stored(server))) == {"sha1"}


async def test_a_disabled_account_gets_no_keys(server: Any) -> None:
    await arrive(server, keys(PASSWORD, "sha1"), disabled=True)
    assert (await refusal(lambda: server.tls().start("PLAIN", plain("alice", PASSWORD))))[0] == (
        "account-disabled"
    )
    assert set(keys_in(await stored(server))) == {"sha1"}


# -------------------------------------------------------------------------------- forms of passwords

FORMS = {
    "compatibility letters": ("\ufb01sh-\u2168-\u00aa", "fish-IX-a"),
    "a soft hyphen, which OpaqueString refuses": ("soft\u00adhyphen", "softhyphen"),
    "full width": ("\uff21\uff22", "AB"),
    "spaces": ("a\u00a0b\u3000c", "a b c"),
    "composed": ("cafe\u0301", "caf\u00e9"),
    "as typed, not normalised": ("cafe\u0301 \u2168", "cafe\u0301 \u2168"),
    "as typed, a control": ("bell\a", "bell\a"),
}


@pytest.mark.parametrize(("typed", "hashed"), FORMS.values(), ids=FORMS)
async def test_other_forms_of_a_password(server: Any, typed: str, hashed: str) -> None:
    await arrive(server, keys(hashed, "sha1"))
    assert not await by_plain(server, typed + "x")
    assert await by_plain(server, typed)
    row = await stored(server)
    assert keys_in(row)["sha256"] == derive_keys("sha256", hashed, keys_in(row)["sha256"].salt, 20)
    assert await ScramClient(password=hashed).login(server.tls(), "SCRAM-SHA-256")
    for _ in range(2):
        assert await by_plain(server, typed)


async def test_keys_made_here_fit_one_form_only(server: Any) -> None:
    await server.accounts.set_password(ALICE, "fish-IX-a")
    assert not await by_plain(server, "\ufb01sh-\u2168-\u00aa")
    assert await by_plain(server, "fish-IX-a")
    assert not await by_plain(server, "\ufb01sh-\u2168-\u00aa")


class Watched:
    """The accounts, noting what is derived."""

    def __init__(self, accounts: Any) -> None:
        self.credentials, self.decoy, self.complete = accounts.credentials, accounts.decoy, accounts.complete
        self.accounts = accounts
        self.derived: list[str] = []

    def salted_password(
        self, algorithm: str, password: str, salt: bytes, iterations: int
    ) -> Awaitable[bytes]:
        self.derived.append(password)
        result: Awaitable[bytes] = self.accounts.salted_password(algorithm, password, salt, iterations)
        return result


@pytest.mark.parametrize(
    ("typed", "derived"),
    [
        ("wrong", ["wrong"]),
        ("caf\u00e9", ["caf\u00e9"]),
        ("\u2168", ["\u2168", "IX"]),
        ("cafe\u0301 \u2168", ["caf\u00e9 \u2168", "caf\u00e9 IX", "cafe\u0301 \u2168"]),
        ("soft\u00adhyphen", ["softhyphen", "soft\u00adhyphen"]),
        ("bell\a", ["bell\a"]),
        ("", []),
        ("\u00e9" * 512, []),
    ],
)
async def test_a_wrong_password_costs_the_same_whoever_it_is_for(
    server: Any, typed: str, derived: list[str]
) -> None:
    await server.accounts.create(f"ours@{DOMAIN}", PASSWORD)
    await server.accounts.provision(f"empty@{DOMAIN}")
    await arrive(server, keys(PASSWORD, "sha1"))
    for name in ("alice", "ours", "empty", "nobody"):
        watched = Watched(server.accounts)
        auth = server.tls(Plain(watched))
        assert await refusal(lambda a=auth, n=name: a.start("PLAIN", plain(n, typed))) == (
            "not-authorized",
            "",
        )
        assert watched.derived == derived


async def test_the_right_password_is_derived_once_and_then_remembered(server: Any) -> None:
    watched = Watched(server.accounts)
    mechanism = Plain(watched)
    for _ in range(3):
        assert await finish(server.tls(mechanism).start("PLAIN", plain("alice", PASSWORD)))
    assert watched.derived == [PASSWORD]
    assert isinstance(server.tls(mechanism).start("PLAIN", plain("alice", PASSWORD)), Success)


async def test_the_form_that_was_right_is_remembered(server: Any) -> None:
    typed = "\ufb01sh"
    await arrive(server, keys("fish", "sha1", "sha256", "sha512"))
    watched = Watched(server.accounts)
    mechanism = Plain(watched)
    for _ in range(3):
        assert await finish(server.tls(mechanism).start("PLAIN", plain("alice", typed)))
    assert watched.derived == [typed, "fish"]
    await server.accounts.set_password(ALICE, "fish")
    payload = plain("alice", typed)
    assert (await refusal(lambda: server.tls(mechanism).start("PLAIN", payload)))[0] == "not-authorized"


# -------------------------------------------------------------------------------- the brake


async def test_what_could_not_be_right_is_forgiven_to_who_proves_the_password(server: Any) -> None:
    await arrive(server, keys(PASSWORD, "sha1"))
    brake, told = server.gate.brake, []
    brake.forgive = lambda peer, count: told.append((peer, count))
    await server.accounts.provision(f"empty@{DOMAIN}")
    auth = server.tls()
    await refusal(lambda: ScramClient("empty").login(auth, "SCRAM-SHA-256"))
    await refusal(lambda: ScramClient().login(auth, "SCRAM-SHA-512"))
    await refusal(lambda: ScramClient().login(auth, "SCRAM-SHA-256"))
    await refusal(lambda: ScramClient(password="wrong").login(auth, "SCRAM-SHA-1"))
    assert told == []
    assert await ScramClient().login(auth, "SCRAM-SHA-1")
    assert told == [("", 2)]


async def test_a_malformed_answer_is_nothing_to_forgive(server: Any) -> None:
    await arrive(server, keys(PASSWORD, "sha1"))
    told: list[Any] = []
    server.gate.brake.forgive = lambda *about: told.append(about)
    auth = server.tls()
    await finish(auth.start("SCRAM-SHA-256", b64("n,,n=alice,r=abc")))
    assert (await refusal(lambda: auth.respond(b64("nonsense"))))[0] == "malformed-request"
    assert await ScramClient().login(auth, "SCRAM-SHA-1")
    assert told == []
