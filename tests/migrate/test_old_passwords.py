"""Accounts of real exports log in with the passwords that their users know, by whatever their keys allow."""

import inspect
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from saslclient import HASHES, ScramClient, plain
from truth import SAMPLES, truth, unpacked

from xmppd.core.accounts import ACCOUNT
from xmppd.core.credentials import columns_of, keys_in
from xmppd.errors import JidError, SaslError
from xmppd.jid import Jid
from xmppd.migrate.formats import mnesia, pie, prosody
from xmppd.migrate.record import Account
from xmppd.migrate.source import Format, Options
from xmppd.stream.sasl import Authenticator, Channel, Success
from xmppd.testing import World

PROSODY, EJABBERD = SAMPLES / "prosody-0.12.3", SAMPLES / "ejabberd-23.01"
SOURCES: dict[str, tuple[Format, Path, str]] = {
    "Prosody, SHA-1": (prosody.FORMAT, PROSODY / "internal-sha1" / "data", "sha1"),
    "Prosody, SHA-256": (pie.FORMAT, PROSODY / "xep0227-from-sqlite-sha256", "sha256"),
    "ejabberd, SHA-1": (mnesia.FORMAT, EJABBERD / "mnesia-sha1" / "dump" / "mnesia.dump", "sha1"),
    "ejabberd, SHA-512": (pie.FORMAT, EJABBERD / "postgresql-new-schema-sha512" / "piefxis", "sha512"),
}


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    mechanisms = [*HASHES, "PLAIN"]
    async with World(accounts=(), settings={"auth": {"mechanisms": mechanisms}}) as world:
        yield world


def stream(world: World, domain: str) -> Authenticator:
    return Authenticator(world.app.sasl.mechanisms, Channel(domain, secure=True), world.app.logins)


async def arrive(world: World, account: Account) -> Jid | None:
    """Its row, as an importer writes it; its address here, None where it can have none."""
    try:
        jid = Jid.of(account.local, account.domain)
    except JidError:
        return None
    row = {"account": jid.bare, "created": account.created or 1.0, "imported": True}
    assert await world.app.store.put_if(ACCOUNT, {**row, **columns_of(account.keys)}, None)
    assert keys_in(await world.app.store.get(ACCOUNT, (jid.bare,)) or {}) == account.keys
    return jid


async def by_plain(world: World, jid: Jid, password: str) -> bool:
    try:
        step = stream(world, jid.domain).start("PLAIN", plain(jid.local, password))
        return isinstance(await step if inspect.isawaitable(step) else step, Success)
    except SaslError:
        return False


async def by_scram(world: World, jid: Jid, password: str, mechanism: str) -> bool:
    try:
        await ScramClient(jid.local, password).login(stream(world, jid.domain), mechanism)
    except SaslError:
        return False
    return True


@pytest.mark.asyncio
@pytest.mark.parametrize(("format", "path", "algorithm"), SOURCES.values(), ids=SOURCES)
async def test_all_log_in_with_what_they_had(
    world: World, format: Format, path: Path, algorithm: str, tmp_path: Path
) -> None:
    known = truth()
    path = unpacked(path, tmp_path / "x") if (path / "documents.jsonl").exists() else path
    reader: Any = format.open(path, Options())
    own = next(mechanism for mechanism, name in HASHES.items() if name == algorithm)
    arrived = {}
    for account in reader:
        assert isinstance(account, Account)
        assert set(account.keys) == {algorithm}
        if (jid := await arrive(world, account)) is not None:
            arrived[account.name] = jid
    reader.close()
    assert len(arrived) > 50
    refused = []
    for name, jid in arrived.items():
        password = known[name]["password"]
        prepared = unicodedata.normalize("NFKC", password).replace("\u00ad", "")
        if not await by_scram(world, jid, prepared, own):
            refused.append((name, own))
        if not await by_plain(world, jid, password) or await by_plain(world, jid, f"{password}x"):
            refused.append((name, "PLAIN"))
        await world.settle()
        refused += [(name, each) for each in HASHES if not await by_scram(world, jid, prepared, each)]
    assert refused == []
