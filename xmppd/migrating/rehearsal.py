"""`migrate rehearse`: some accounts log in as people do, and see what the source says they have."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, TextIO
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.admin.commands import FAILED
from xmppd.admin.whereabouts import find_server
from xmppd.config import Config
from xmppd.configfile import OVERRIDE, read
from xmppd.core.roster.item import item_from
from xmppd.errors import CommandError
from xmppd.migrate.fragments import element_of
from xmppd.migrating.feed import Feed, Wanted
from xmppd.migrating.rehearsal_client import LoginFailed, NoAnswer, Place, RehearsalClient
from xmppd.migrating.verifying import SHOWN, Difference, shown
from xmppd.stream.scram import ALGORITHMS
from xmppd.xml.build import serialize

START_SECONDS: Final = 120.0
"""How long a server may take until it listens."""
COLUMNS: Final = tuple(name.lower().replace("-", "_") for name in ALGORITHMS)
CONTACT: Final = ("subscription", "ask", "approved", "name")


def read_passwords(file: Path) -> dict[str, str]:
    """A CSV file of accounts and passwords, without a headline or with `account,password`; CommandError."""
    found: dict[str, str] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.reader(lines, strict=True)
            for row in rows:
                if not row or row == ["account", "password"]:
                    continue
                if len(row) != 2 or not all(row):
                    raise CommandError(f"{file}:{rows.line_num}: is no account and password")
                found[row[0]] = row[1]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CommandError(f"{file}: {error}") from None
    if not found:
        raise CommandError(f"{file}: there is no account in it")
    return found


def sampled(names: Sequence[str], count: int | None, seed: int) -> list[str]:
    """So many of these, the same ones for the same seed."""
    if count is None or count >= len(names):
        return sorted(names)
    return sorted(random.Random(seed).sample(sorted(names), count))


@contextlib.contextmanager
def served(config: Config) -> Iterator[Place]:
    """A server on the configured store: the one that runs, else one that is started for as long as this
    lasts and listens on loopback alone. CommandError.
    """
    if find_server(read(config.source), is_named=True) is not None:
        yield place_of(config)
        return
    folder = Path(tempfile.mkdtemp(prefix="xmppd-"))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, (folder / "log").open("w+b") as log:
            manager.bind(str(folder / "notify"))
            process = subprocess.Popen(
                [sys.executable, "-m", "xmppd", "serve", "--no-guide", "--config", str(config.source)],
                env={**os.environ, **overrides(), "NOTIFY_SOCKET": str(folder / "notify")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                yield Place("127.0.0.1", port_told(manager, process, folder / "log"), "none")
            finally:
                process.terminate()
                process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def overrides() -> dict[str, str]:
    """Variables by which a server listens on loopback alone, where passwords are never on a wire."""
    settings = {
        "LISTEN__C2S": "[{address: 127.0.0.1, port: 0, tls: none}]",
        "LISTEN__HTTP": "null",
        "AUTH__PLAIN_WITHOUT_TLS": "true",
    }
    return {f"{OVERRIDE}{name}": value for name, value in settings.items()}


def port_told(manager: socket.socket, process: subprocess.Popen[bytes], log: Path) -> int:
    """The port at which a server that was started listens, as it tells who manages it."""
    manager.settimeout(0.2)
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(TimeoutError):
            said = manager.recv(4096).decode()
            if said.startswith("READY=1"):
                return int(said.rpartition(":")[2])
    lines = log.read_text(errors="replace").strip().splitlines()
    raise CommandError(f"the server for the rehearsal did not start: {' '.join(lines[-3:])}")


def place_of(config: Config) -> Place:
    """Where the running server is reached from this machine, by loopback and with TLS if that can be."""
    places = []
    for listener in config.listen.c2s:
        address = ip_address(listener.address)
        host = listener.address
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
        if listener.port:
            rank = (not (address.is_loopback or address.is_unspecified), listener.tls == "none")
            places.append((rank, Place(host, listener.port, listener.tls)))
    if not places:
        raise CommandError("the running server has no listener with a known port: stop it, and repeat this")
    return min(places, key=lambda place: place[0])[1]


class Rehearsal:
    """Logins and comparisons, one account after the other; `found` is told of each difference."""

    def __init__(
        self, place: Place, passwords: Mapping[str, str], found: Callable[[Difference], None]
    ) -> None:
        self._place = place
        self._passwords = passwords
        self._found = found
        self.counts: Counter[str] = Counter()

    def tell(self, account: str, difference: Difference) -> None:
        """One more."""
        self.counts["differences"] += 1
        self._found({"account": account, **difference})

    async def look(self, name: str, arrival: Mapping[str, Any]) -> None:
        """One account: what the source calls it, and what it is to be here."""
        before = self.counts["differences"]
        self.counts["accounts"] += 1
        account, password = arrival["account"], self._passwords[name]
        try:
            await self._look(account, password, arrival)
        except NoAnswer as error:
            self.tell(account, {"what": "connection", "here": str(error)})
        self.counts["differ" if self.counts["differences"] > before else "same"] += 1

    async def _look(self, account: str, password: str, arrival: Mapping[str, Any]) -> None:
        local, _, domain = account.rpartition("@")
        credentials = arrival["credentials"]
        has_scram = "password" in credentials or any(credentials.get(column) for column in COLUMNS)
        async with RehearsalClient(self._place, domain) as client:
            mechanism = ""
            try:
                mechanism = await client.log_in_by_best(local, password)
            except LoginFailed as error:
                if arrival["disabled"] or not has_scram:
                    self.counts["only PLAIN"] += not arrival["disabled"]
                else:
                    self.tell(account, {"what": "login by SCRAM", "here": str(error)})
            if mechanism and arrival["disabled"]:
                self.tell(account, {"what": "disabled", "source": True, "here": False})
                return
            if mechanism:
                self.counts[mechanism] += 1
        async with RehearsalClient(self._place, domain) as client:
            if "PLAIN" not in client.mechanisms and not arrival["disabled"]:
                self.counts["PLAIN is not offered"] += 1
                if not mechanism:
                    return
                await client.log_in(local, password, mechanism)
            elif not await self._plain(client, account, password, arrival):
                return
            await client.bind()
            for difference in await seen_by(client, account, arrival):
                self.tell(account, difference)

    async def _plain(
        self, client: RehearsalClient, account: str, password: str, arrival: Mapping[str, Any]
    ) -> bool:
        """Log in by PLAIN; whether that is done."""
        local = account.rpartition("@")[0]
        try:
            await client.log_in(local, password, "PLAIN")
        except LoginFailed as error:
            if arrival["disabled"]:
                self.counts["disabled"] += 1
            else:
                self.tell(account, {"what": "login by PLAIN", "here": str(error)})
            return False
        self.counts["PLAIN"] += 1
        if arrival["disabled"]:
            self.tell(account, {"what": "disabled", "source": True, "here": False})
        return not arrival["disabled"]


async def seen_by(client: RehearsalClient, account: str, arrival: Mapping[str, Any]) -> list[Difference]:
    """What a client that is logged in sees otherwise than the source has it."""
    found: list[Difference] = []
    parts = arrival["parts"]
    items = [item_from(contact, packed) for contact, packed in parts.get("roster", ())]
    wanted = {
        item.contact: contact_of(element_of(item.packed, ns.ROSTER)) for item in items if not item.hidden
    }
    roster = await client.ask("get", f"<query xmlns='{ns.ROSTER}'/>")
    here = {item.get("jid", ""): contact_of(item) for item in (roster if roster is not None else ())}
    for contact in sorted(wanted.keys() | here.keys()):
        if wanted.get(contact) != here.get(contact):
            there = {"source": wanted.get(contact), "here": here.get(contact)}
            found.append({"what": "contact", "of": contact, **there})
    await client.appear()
    asked = {item.contact for item in items if item.pending_in}
    both = sorted(asked ^ client.requests)
    found += [{"what": "request", "of": contact, "source": contact in asked} for contact in both]
    card = await client.ask("get", f"<vCard xmlns='{ns.VCARD}'/>")
    found += different(
        "vcard",
        text_of(parts.get("vcard")),
        plain(card) if card is not None and len(card) else None,
    )
    for name, text in sorted(parts.get("private", {}).items()):
        uri, _, local = name[1:].rpartition("}")
        query = serialize(Element(f"{{{uri}}}{local}"), ns.PRIVATE).decode()
        answer = await client.ask("get", f"<query xmlns='{ns.PRIVATE}'>{query}</query>")
        around = element_of(f"<query xmlns='{ns.PRIVATE}'>{text}</query>")
        found += different("private", plain(around), None if answer is None else plain(answer), of=name)
    return found


def contact_of(item: Element) -> dict[str, Any]:
    """An item of a roster as a client has it: groups are a set."""
    groups = sorted(group.text or "" for group in item)
    attributes = {name: value for name in CONTACT if (value := item.get(name))}
    return {**attributes, "groups": groups} if groups else attributes


def different(what: str, source: str | None, here: str | None, **more: str) -> list[Difference]:
    """The difference between two texts, if there is one."""
    if source == here:
        return []
    return [{"what": what, **more, "source": shown(source), "here": shown(here)}]


def text_of(text: str | None) -> str | None:
    """XML in the form in which it is compared."""
    return None if text is None else plain(element_of(text))


def plain(tree: Element) -> str:
    """An element as text, the same for the same element however it was written."""
    return serialize(tree, "").decode()


def run(
    wanted: Wanted,
    config: Config,
    passwords: Mapping[str, str],
    folder: Path,
    *,
    report: Path | None,
    out: TextIO,
) -> tuple[dict[str, Any], int]:
    """Rehearse with these accounts, by their names in the source; the summary and the exit code."""
    examples: list[Difference] = []
    with ExitStack() as stack:
        lines = stack.enter_context(report.open("w", encoding="utf-8")) if report is not None else None

        def found(difference: Difference) -> None:
            if len(examples) < SHOWN:
                examples.append(difference)
            if lines is not None:
                lines.write(json.dumps(difference, ensure_ascii=False) + "\n")

        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="rehearse-", dir=folder))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        feed = stack.enter_context(
            closing(Feed(replace(wanted, only=tuple(passwords), derives=False), scratch))
        )
        place = stack.enter_context(served(config))
        out.write(f"logging in at port {place.port} of {place.host}\n")
        rehearsal = Rehearsal(place, passwords, found)
        asyncio.run(rehearse(feed, rehearsal, set(passwords)))
    summary: dict[str, Any] = dict(sorted(rehearsal.counts.items()))
    if examples:
        summary["first differences"] = examples
    return summary, FAILED if examples else 0


async def rehearse(feed: Feed, rehearsal: Rehearsal, missing: set[str]) -> None:
    """All accounts of a feed; `missing` are the names that it should have."""
    for batch in feed:
        with batch.file.open("rb") as lines:
            arrivals = [json.loads(line) for line in lines]
        missing -= {row["name"] for row in batch.rows}
        coming = iter(arrivals)
        for row in batch.rows:
            if "done" in row:
                rehearsal.tell(row["name"], {"what": row["done"], "why": row.get("why", "")})
            else:
                await rehearsal.look(row["name"], next(coming))
    for name in sorted(missing):
        rehearsal.tell(name, {"what": "account", "source": None})
