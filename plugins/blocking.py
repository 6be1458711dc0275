"""The blocking command (XEP-0191), with reports (XEP-0377). What a block does is done by the core."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from xmppd import hooks, ns
from xmppd.plugin import (
    SELF,
    AbuseReport,
    BlockChange,
    CommandError,
    Counter,
    Element,
    Jid,
    JidError,
    NonNegativeInt,
    Person,
    Plugin,
    PluginConfig,
    PositiveInt,
    Request,
    Session,
    SessionSlot,
    StanzaError,
    Table,
    cluster_signal,
    command,
    element,
    iq_get,
    iq_set,
    serialize,
    utc_stamp,
)

BLOCKLIST: Final = f"{{{ns.BLOCKING}}}blocklist"
BLOCK: Final = f"{{{ns.BLOCKING}}}block"
UNBLOCK: Final = f"{{{ns.BLOCKING}}}unblock"
ITEM: Final = f"{{{ns.BLOCKING}}}item"
REPORT: Final = f"{{{ns.REPORTING}}}report"
TEXT: Final = f"{{{ns.REPORTING}}}text"
TO_ORIGIN: Final = f"{{{ns.REPORTING}}}report-origin"
TO_OTHERS: Final = f"{{{ns.REPORTING}}}third-party"
IQ: Final = f"{{{ns.CLIENT}}}iq"
STANZA_ID: Final = f"{{{ns.STANZA_ID}}}stanza-id"
LANG: Final = f"{{{ns.XML}}}lang"

PAGE: Final = 100
REASON_CHARACTERS: Final = 200
KEPT_SECONDS: Final = 90 * 86400.0
"""How long a report is kept."""


class BlockingConfig(PluginConfig):
    """Of one report so many characters of what was written are kept, and ids of so many stanzas. Of each
    account so many reports are taken in a day, and so many of all are kept, by all nodes together; what is
    more of all is told plugins and the log, but not kept.
    """

    report_characters: NonNegativeInt = 2_000
    report_stanzas: NonNegativeInt = 20
    reports_of_account: PositiveInt = 50
    reports_kept: NonNegativeInt = 10_000


class Blocking(Plugin):
    """Answers for block lists, and tells all clients of an account that asked for its list what changes."""

    Config = BlockingConfig
    features = (ns.BLOCKING, ns.REPORTING)
    reports = Table(
        partition=("day",),
        cluster=("id",),
        columns={
            "account": "text",
            "reported": "text",
            "reason": "text",
            "texts": "text",
            "stanzas": "text",
            "to_origin": "bool",
            "to_others": "bool",
        },
        ttl=KEPT_SECONDS,
        person=Person(
            mentions={
                "account": "masked",
                "reported": "masked",
                "texts": "masked",
                "stanzas": "masked",
            }
        ),
    )
    has_list = SessionSlot(False)
    reported = Counter("Reports of abuse that came with a block.")

    async def start(self) -> None:
        """Nobody was reported today."""
        self._day = ""
        self._counts: dict[str, int] = {}
        self._count = 0
        self._pushes = 0

    @iq_get(BLOCKLIST, SELF)
    async def show(self, request: Request) -> Element:
        """XEP-0191 3.2. From now on the session is told of changes."""
        session = request.session
        self.has_list[session] = True
        addresses = await self.server.blocks.of(session.account)
        return element(BLOCKLIST, None, *items_of(addresses))

    @iq_set(BLOCK, SELF)
    async def block(self, request: Request) -> None:
        """XEP-0191 3.3: one address or more. What is wrong with one of them is said before any is blocked."""
        session, found = request.session, addresses_in(request.payload)
        if not found:
            raise StanzaError("bad-request", "Name an address to block.")
        reports = [
            self._report_in(session.account, address, report)
            for address, item in found.items()
            if (report := item.find(REPORT)) is not None
        ]
        reports = self._admitted(session.account, reports)
        async with self.server.blocks.reporting(reports):
            async with self._keeping(session):
                await self.server.blocks.block(session.account, found)
            for report in reports:
                await self._take_report(report)

    @iq_set(UNBLOCK, SELF)
    async def unblock(self, request: Request) -> None:
        """XEP-0191 3.4 and 3.5: some addresses, or all."""
        session, found = request.session, addresses_in(request.payload)
        async with self._keeping(session):
            if found:
                await self.server.blocks.unblock(session.account, found)
            else:
                await self.server.blocks.unblock_all(session.account)

    @asynccontextmanager
    async def _keeping(self, session: Session) -> AsyncIterator[None]:
        """Around a change; StanzaError not-allowed where there is no account that could keep a list."""
        async with self.server.writing(session.account, session) as exists:
            if not exists:
                raise StanzaError("not-allowed", "An anonymous session keeps no list.")
            yield

    @hooks.blocks_changed
    def push(self, account: str, change: BlockChange) -> None:
        """Tell each session here that has asked for the list (XEP-0191 3.3 to 3.5)."""
        payloads = []
        if change.blocked:
            payloads.append(element(BLOCK, None, *items_of(change.blocked)))
        if change.is_all:
            payloads.append(element(UNBLOCK))
        elif change.unblocked:
            payloads.append(element(UNBLOCK, None, *items_of(change.unblocked)))
        for session in self.server.sessions(account):
            for payload in payloads if self.has_list[session] else ():
                self._pushes += 1
                attrs = {"type": "set", "id": f"blocks{self._pushes}", "to": session.full}
                session.send(serialize(element(IQ, attrs, payload)))

    # reports

    def _report_in(self, account: str, reported: str, tree: Element) -> AbuseReport:
        """What a report says; StanzaError bad-request without a reason (XEP-0377 4)."""
        reason = tree.get("reason", "")
        if not reason or len(reason) > REASON_CHARACTERS:
            raise StanzaError("bad-request", "A report has a reason.")
        left, texts = self.config.report_characters, []
        for child in tree.iterfind(TEXT):
            text = (child.text or "").strip()[:left]
            left -= len(text)
            if text:
                texts.append((child.get(LANG, "")[:35], text))
        ids = [(child.get("by", ""), child.get("id", "")) for child in tree.iterfind(STANZA_ID)]
        kept = [(by[:3071], id[:200]) for by, id in ids if id][: self.config.report_stanzas]
        return AbuseReport(
            account,
            reported,
            reason,
            tuple(texts),
            tuple(kept),
            to_origin=tree.find(TO_ORIGIN) is not None,
            to_others=tree.find(TO_OTHERS) is not None,
        )

    def _admitted(self, account: str, reports: Sequence[AbuseReport]) -> Sequence[AbuseReport]:
        """As many as the account may still make today."""
        self._begin_day()
        return reports[: max(0, self.config.reports_of_account - self._counts.get(account, 0))]

    async def _take_report(self, report: AbuseReport) -> None:
        """Tell plugins and the log, and keep it for operators."""
        self.taken.tell(report.account)
        count = self._count
        self.reported.inc()
        self.log.warning(
            "abuse-reported",
            extra={"jid": report.account, "reported": report.reported, "reason": report.reason},
        )
        await self.server.blocks.report(report)
        if count <= self.config.reports_kept:
            await self.reports.put(row_of(report, self.now()))

    @cluster_signal
    def taken(self, account: str) -> None:
        """One of the nodes took a report of an account."""
        self._begin_day()
        self._counts[account] = self._counts.get(account, 0) + 1
        self._count += 1

    def _begin_day(self) -> None:
        """Forget what was counted on another day, by the clock of this node."""
        day = day_of(self.now())
        if day != self._day:
            self._day, self._counts, self._count = day, {}, 0

    @command("Show who was reported by accounts that blocked them", name="block reports", reads=True)
    async def reports_of(
        self,
        *,
        days: Annotated[int, "of the last so many days"] = 7,
        reported: Annotated[Jid | None, "only of this address, or of any on this domain"] = None,
        limit: Annotated[int, "so many at most"] = 100,
    ) -> list[dict[str, Any]]:
        """One row for each, the newest first."""
        if not 1 <= days <= 90 or limit < 1:
            raise CommandError("days must be from 1 to 90, and limit at least 1")
        found: list[dict[str, Any]] = []
        for age in range(days):
            async for row in self._reports_on(day_of(self.now() - age * 86400.0)):
                if reported is None or is_at(row["reported"], reported):
                    found.append(shown(row))
                if len(found) == limit:
                    return found
        return found

    async def _reports_on(self, day: str) -> AsyncIterator[Mapping[str, Any]]:
        """The reports of one day, the newest first."""
        page = await self.reports.scan(day, limit=PAGE, reverse=True)
        while True:
            for row in page.rows:
                yield row
            if page.next is None:
                return
            page = await self.reports.scan(day, limit=PAGE, reverse=True, page=page.next)


def addresses_in(payload: Element) -> dict[str, Element]:
    """The addresses that items name, in normal form, each with its item; StanzaError."""
    found: dict[str, Element] = {}
    for item in payload.iterfind(ITEM):
        try:
            found[Jid.parse(item.get("jid", "")).full] = item
        except JidError as error:
            raise StanzaError("jid-malformed", str(error)) from None
    return found


def items_of(addresses: Iterable[str]) -> Sequence[Element]:
    """An <item/> for each address."""
    return [element(ITEM, {"jid": address}) for address in addresses]


def day_of(at: float) -> str:
    """The day of a moment, in UTC."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at)).strftime("%Y-%m-%d")


def row_of(report: AbuseReport, at: float) -> dict[str, Any]:
    """A report as it is kept."""
    return {
        "day": day_of(at),
        "id": f"{int(at * 1_000_000):016x}{secrets.token_hex(4)}",
        "account": report.account,
        "reported": report.reported,
        "reason": report.reason,
        "texts": json.dumps(report.texts),
        "stanzas": json.dumps(report.stanza_ids),
        "to_origin": report.to_origin,
        "to_others": report.to_others,
    }


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A report as operators see it."""
    at = int(row["id"][:16], 16) / 1_000_000
    return {
        "time": utc_stamp(at),
        "account": row["account"],
        "reported": row["reported"],
        "reason": row["reason"],
        "text": " / ".join(text for _, text in json.loads(row["texts"])),
        "stanzas": [id for _, id in json.loads(row["stanzas"])],
        "forward": [name for name in ("origin", "others") if row[f"to_{name}"]],
    }


def is_at(address: str, wanted: Jid) -> bool:
    """Whether an address is that one, or on it."""
    bare = address.partition("/")[0]
    return wanted.full in (address, bare, bare.rpartition("@")[2])
