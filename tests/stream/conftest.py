"""A server's SASL mechanisms over real accounts in a real store."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest_asyncio
from stores import new_store

from xmppd.core.accounts import TABLES, Accounts
from xmppd.core.blocks import BLOCKS, Blocks
from xmppd.core.brake import Brake, BrakeRules
from xmppd.core.logins import Logins
from xmppd.core.reports import Reports
from xmppd.core.sessions import Cork, Sessions
from xmppd.hooks import Hooks
from xmppd.jobs import Jobs
from xmppd.store.table import Store
from xmppd.stream.plain import Anonymous, Plain
from xmppd.stream.sasl import Authenticator, Channel
from xmppd.stream.scram import scram_mechanisms

DOMAIN = "example.org"
PASSWORD = "pencil"
BINDING = b"the hash of a certificate"


@dataclass
class Server:
    """The mechanisms of one server, and streams to it."""

    accounts: Accounts
    store: Store
    jobs: Jobs
    mechanisms: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        sessions = Sessions(Cork(asyncio.get_running_loop().call_soon), time.time)
        self.hooks = Hooks()
        brake, reports = Brake(BrakeRules(), time.monotonic), Reports(time.monotonic)
        self.blocks = blocks = Blocks(self.store, sessions, self.accounts)
        self.gate = Logins(
            self.accounts, sessions, blocks, self.hooks, lambda session, error: None, brake, reports
        )
        self.mechanisms = (*scram_mechanisms(self.accounts), Plain(self.accounts), Anonymous())

    def plaintext(self, *mechanisms: Any, **kwargs: Any) -> Authenticator:
        return Authenticator(mechanisms or self.mechanisms, Channel(DOMAIN), self.gate, **kwargs)

    def tls(self, *mechanisms: Any, **kwargs: Any) -> Authenticator:
        channel = Channel(DOMAIN, secure=True, bindings={"tls-server-end-point": BINDING})
        return Authenticator(mechanisms or self.mechanisms, channel, self.gate, **kwargs)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    store = new_store()
    await store.open((*TABLES, BLOCKS))
    jobs = Jobs()
    accounts = Accounts(
        store, iterations=20, threads=2, hashes=("sha256", "sha1", "sha512"), spawn=jobs.spawn
    )
    await accounts.open()
    await accounts.create(f"alice@{DOMAIN}", PASSWORD)
    yield Server(accounts, store, jobs)
    await jobs.drain(5.0)
    assert jobs.failed == 0
    accounts.close()
    await store.close()
