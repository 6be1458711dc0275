"""The queue of moderators: reports of players, texts that were flagged, appeals; who looks at what, and what
was decided.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Protocol

from xmppd import hooks, ns
from xmppd.plugin import (
    SELF,
    AbuseReport,
    Caller,
    CommandError,
    Counter,
    Emitter,
    EventField,
    Jid,
    JidError,
    Person,
    Request,
    StanzaError,
    StoreError,
    Table,
    Uses,
    cluster_signal,
    command,
    happened,
    iq_set,
    nobody,
)

from .evidence import Line, is_genuine, joined, line_of, lines_from, seal, text_of
from .hearing import Hearing
from .sanctions import DAY, MOST_TEXT, NS, id_at, is_sayable
from .silence import bare_of
from .texts import iso

REPORT: Final = f"{{{NS}}}report"
APPEAL: Final = f"{{{NS}}}appeal"
TEXT: Final = f"{{{NS}}}text"
STANZA_ID: Final = f"{{{ns.STANZA_ID}}}stanza-id"
OPEN, CLAIMED, DECIDED = "open", "claimed", "decided"
VERDICTS: Final = ("upheld", "dismissed")
KINDS: Final = ("report", "flag", "appeal")
MOST_IDS: Final = 20
MOST_REASON: Final = 200
PAGE: Final = 100
LOOKED_AT: Final = 10_000
"""Cases that are looked at for one list."""


class Archive(Protocol):
    """What the plugin of archives offers."""

    def __bool__(self) -> bool: ...

    async def last_with(self, account: str, peer: str, count: int) -> Sequence[tuple[float, str, bytes]]:
        """The last messages of an account with a peer."""


class Cases(Hearing):
    """The part of the plugin that moderators work with."""

    archive: Uses[Archive] = Uses("archive")
    cases = Table(
        partition=("day",),
        cluster=("id",),
        columns={
            "kind": "text",
            "account": "text",
            "reported": "text",
            "reason": "text",
            "text": "text",
            "state": "text",
            "claimed_by": "text",
            "claimed_until": "timestamp",
            "verdict": "text",
            "comment": "text",
            "sanction": "text",
            "decided_by": "text",
            "decided": "timestamp",
        },
        ttl=90 * DAY,
        person=Person(
            mentions={
                "account": "masked",
                "reported": "masked",
                "text": "masked",
                "claimed_by": "kept",
                "decided_by": "kept",
            }
        ),
    )
    evidence = Table(
        partition=("case",),
        cluster=("source",),
        columns={"lines": "text", "sealed": "text"},
        ttl=90 * DAY,
        person=Person(mentions={"lines": "masked"}),
    )
    keys = Table(partition=("name",), columns={"key": "text"}, person=nobody("what evidence is sealed with"))
    queued = Emitter(
        "report.queued",
        "Moderators have one more case to look at.",
        fields={
            "case": EventField("text", "which one"),
            "kind": EventField("text", "`report`, `flag` or `appeal`"),
            "reported": EventField("text", "whom it is about"),
            "reason": EventField("text", "why"),
        },
        example={
            "case": "0006433a4b1c2d",
            "kind": "report",
            "reported": "troll@example.org",
            "reason": "spam",
        },
        key=("case",),
    )
    claimed = Emitter(
        "report.claimed",
        "A moderator looks at a case; its account is whom it is about.",
        fields={"case": EventField("text", "which one"), "by": EventField("text", "who")},
        example={"case": "0006433a4b1c2d", "by": "mia"},
        key=("case",),
    )
    decided = Emitter(
        "report.decided",
        "A case was decided; its account is whom it is about.",
        fields={
            "case": EventField("text", "which one"),
            "verdict": EventField("text", "`upheld` or `dismissed`"),
            "sanction": EventField("text", 'the sanction that came of it, or ""'),
            "by": EventField("text", "who decided"),
        },
        example={"case": "0006433a4b1c2d", "verdict": "upheld", "sanction": "", "by": "mia"},
        key=("case",),
    )
    filed = Counter("Cases for moderators.")

    async def start(self) -> None:
        """The key of evidence is one for all nodes, and for ever."""
        await super().start()
        self._key = self.config.evidence_key.value.encode()
        if not self._key:
            await self.keys.put_if({"name": "evidence", "key": secrets.token_hex(32)}, None)
            row = await self.keys.get("evidence")
            assert row is not None
            self._key = row["key"].encode()

    # what comes in

    @hooks.reported
    async def take_report(self, report: AbuseReport) -> None:
        """One that came with a block (XEP-0377)."""
        if self._take(report.account, "report", ""):
            return
        text = " / ".join(text for _, text in report.texts)
        ids = [id for _, id in report.stanza_ids]
        await self._file("report", report.account, bare_of(report.reported), report.reason, text, ids)

    @iq_set(REPORT, SELF)
    async def receive_report(self, request: Request) -> None:
        """The same without a block."""
        session, payload = request.session, request.payload
        if session.is_anonymous:
            raise StanzaError("not-allowed")
        try:
            reported = Jid.parse(payload.get("jid", "")).bare
        except JidError as error:
            raise StanzaError("jid-malformed", str(error)) from None
        reason, text = payload.get("reason", ""), (payload.findtext(TEXT) or "").strip()
        if not reason or len(reason) > MOST_REASON or len(text) > MOST_TEXT:
            raise StanzaError("bad-request", "A report has a reason, and no long text.")
        if reported == session.account:
            raise StanzaError("bad-request", "Nobody reports himself.")
        self._pace(session, "report")
        ids = [child.get("id", "") for child in payload.iterfind(STANZA_ID)][:MOST_IDS]
        await self._file("report", session.account, reported, reason, text, ids)

    @iq_set(APPEAL, SELF)
    async def receive_appeal(self, request: Request) -> None:
        """A player says why a sanction of his is wrong."""
        session, payload = request.session, request.payload
        text = (payload.text or "").strip()
        if not text or len(text) > MOST_TEXT:
            raise StanzaError("bad-request", f"An appeal has a text of at most {MOST_TEXT} characters.")
        row = (
            None if session.is_anonymous else await self.sanctions.get(session.account, payload.get("id", ""))
        )
        if row is None:
            raise StanzaError("item-not-found", "There is no such sanction.")
        self._pace(session, "report")
        await self._file("appeal", session.account, session.account, payload.get("id", ""), text, ())

    async def file_flag(self, account: str, where: str, why: str, text: str) -> None:
        """See `Hearing`."""
        await self._file("flag", "", account, f"{where}: {why}", text[:MOST_TEXT], ())

    async def _file(
        self, kind: str, account: str, reported: str, reason: str, text: str, ids: Sequence[str]
    ) -> str:
        """Write a case down, with what was said before as this server saw it, and have other nodes add what
        they saw; its id. StoreError.
        """
        at = self.now()
        case = id_at(at) + secrets.token_hex(4)
        row = {
            "day": day_of(at),
            "id": case,
            "kind": kind,
            "account": account,
            "reported": reported,
            "reason": reason,
            "text": text,
            "state": OPEN,
        }
        lines: list[Line] = []
        if kind == "report":
            lines = await self._archived(account, reported, ids)
        elif kind == "flag":
            lines = [Line(at, account or reported, "", text, "", "filter")]
        told = {"case": case, "kind": kind, "reported": reported, "reason": reason}
        async with self.queued.around(reported, **told):
            await self._add(row, "server", lines)
            await self.cases.put(row, ttl=self._ttl)
            if kind == "report":
                self.collect.tell(row["day"], case, kind, account, reported)
            self.filed.inc()
            await self.queued.emit(reported, **told)
        return case

    @property
    def _ttl(self) -> float:
        return self.config.report_days * DAY

    async def _archived(self, account: str, reported: str, ids: Sequence[str]) -> list[Line]:
        """The last messages between two, of the archive of who reports, and those that he names."""
        most = self.config.evidence_lines
        lines: list[Line] = []
        try:
            if self.archive:
                found = await self.archive.last_with(account, reported, most)
                lines = [line_of(at, id, raw) for at, id, raw in found]
            if ids:
                named = await self.server.recall(account, ids)
                lines += [line_of(self.now(), id, raw) for id, raw in named.items()]
        except (StanzaError, StoreError) as error:
            self.log.warning("no-evidence", extra={"error": str(error)})
        return joined([line for line in lines if bare_of(line.sender) in (account, reported)], 2 * most)

    @cluster_signal
    async def collect(self, day: str, case: str, kind: str, account: str, reported: str) -> None:
        """Add to a case what this node remembers of it."""
        since = self.now() - self.scope.clock()
        lines = self.memory.between(account, reported, since)[-self.config.evidence_lines :]
        if lines:
            about = {"day": day, "id": case, "kind": kind, "account": account, "reported": reported}
            await self._add(about, f"memory {self.server.node}".strip(), lines)

    async def _add(self, case: Mapping[str, Any], source: str, lines: Sequence[Line]) -> None:
        if lines:
            text = text_of(lines)
            row = {"case": case["id"], "source": source, "lines": text, "sealed": seal(self._key, case, text)}
            await self.evidence.put(row, ttl=self._ttl)

    # what moderators do

    @command("Report a player for somebody", name="moderation report")
    async def report(
        self,
        reported: Annotated[Jid, "whom"],
        account: Annotated[Jid, "who reports"],
        *,
        reason: Annotated[str, "a word, or a URN"] = "abuse",
        text: Annotated[str, "what is said of it"] = "",
    ) -> dict[str, str]:
        """The `case`; what the two said to each other is added by the server."""
        if not reason or len(reason) > MOST_REASON or len(text) > MOST_TEXT or not is_sayable(reason + text):
            raise CommandError("a report has a reason, and no long text", field="reason")
        case = await self._file("report", account.bare, reported.bare, reason, text, ())
        return {"case": case}

    @command("List the cases for moderators", name="moderation cases", reads=True)
    async def cases_of(
        self,
        *,
        state: Annotated[str, "open (with what nobody works on any more), claimed, decided or all"] = "open",
        days: Annotated[int, "of the last so many days"] = 14,
        reported: Annotated[Jid | None, "only about this account"] = None,
        limit: Annotated[int, "so many at most"] = 50,
    ) -> list[dict[str, Any]]:
        """One row for each, the oldest first: that is the next to claim."""
        if state not in (OPEN, CLAIMED, DECIDED, "all"):
            raise CommandError("state must be open, claimed, decided or all", field="state")
        if not 1 <= days <= 90 or not 1 <= limit <= 1000:
            raise CommandError("days must be from 1 to 90, and limit from 1 to 1000")
        found: list[dict[str, Any]] = []
        async for row in self._rows(days):
            shown = self._shown(row)
            if state in (shown["state"], "all") and reported in (None, Jid.parse(row["reported"])):
                found.append(shown)
            if len(found) == limit:
                break
        return found

    async def _rows(self, days: int) -> AsyncIterator[Mapping[str, Any]]:
        looked = 0
        for age in reversed(range(days)):
            page = await self.cases.scan(day_of(self.now() - age * DAY), limit=PAGE)
            while True:
                for row in page.rows:
                    if row["state"]:
                        yield row
                looked += len(page.rows)
                if page.next is None or looked > LOOKED_AT:
                    break
                page = await self.cases.scan(day_of(self.now() - age * DAY), limit=PAGE, page=page.next)

    @command("Show a case, with what was said", name="moderation case", reads=True, guarded=True)
    async def case_of(self, id: Annotated[str, "as `moderation cases` shows it"]) -> dict[str, Any]:
        """`genuine`: all evidence is as the server wrote it."""
        row = await self._row(id)
        found = (await self.evidence.scan(id)).rows
        lines = [line for one in found for line in lines_from(one["lines"])]
        genuine = all(is_genuine(self._key, row, one["lines"], one["sealed"]) for one in found)
        said = joined(lines if genuine else [], 10 * self.config.evidence_lines)
        return {
            **self._shown(row),
            "genuine": genuine,
            "evidence": [f"{iso(line.at)} {line.sender}: {line.text}" for line in said],
        }

    @command("Take a case, so that nobody else works on it for a time", name="moderation claim")
    async def claim(
        self,
        id: Annotated[str, "as `moderation cases` shows it"],
        by: Caller,
        *,
        moderator: Annotated[str, "who does it, where that is not who calls"] = "",
    ) -> dict[str, Any]:
        """The case as it is now. Who has it already has it for longer."""
        row, name = await self._row(id), moderator or by.name
        self._only(row, name)
        changed = {
            "day": row["day"],
            "id": id,
            "state": CLAIMED,
            "claimed_by": name,
            "claimed_until": self.now() + self.config.claim_minutes * 60,
        }
        async with self.claimed.around(row["reported"], {"state": CLAIMED, "by": name}, case=id, by=name):
            await self._change(row, changed)
            await self.claimed.emit(row["reported"], case=id, by=name)
        return self._shown({**row, **changed})

    @command("Give a case back, for others to take", name="moderation release")
    async def release(
        self,
        id: Annotated[str, "as `moderation cases` shows it"],
        by: Caller,
        *,
        moderator: Annotated[str, "who does it, where that is not who calls"] = "",
    ) -> dict[str, Any]:
        """The case as it is now."""
        row = await self._row(id)
        self._only(row, moderator or by.name)
        changed = {"day": row["day"], "id": id, "state": OPEN, "claimed_by": "", "claimed_until": None}
        await self._change(row, changed)
        return self._shown({**row, **changed})

    @command("Decide a case, and sanction whom it is about if need be", name="moderation decide")
    async def decide(
        self,
        id: Annotated[str, "as `moderation cases` shows it"],
        verdict: Annotated[str, "upheld or dismissed"],
        by: Caller,
        *,
        sanction: Annotated[str, "mute, chat-limit or ban"] = "",
        minutes: Annotated[float | None, "for so long; without: for ever"] = None,
        scope: Annotated[str, "all, direct (messages to one) or groups"] = "all",
        reason: Annotated[str, "what the player is told"] = "",
        comment: Annotated[str, "for other moderators"] = "",
        moderator: Annotated[str, "who does it, where that is not who calls"] = "",
    ) -> dict[str, Any]:
        """The case as it is now. A repeat does nothing further, and makes up for what was not done."""
        if verdict not in VERDICTS:
            raise CommandError(f"verdict must be one of {', '.join(VERDICTS)}", field="verdict")
        if sanction and verdict == "dismissed":
            raise CommandError("nothing comes of what is dismissed", field="sanction")
        if len(comment) > MOST_TEXT or not is_sayable(comment):
            raise CommandError(f"comment must have {MOST_TEXT} characters at most", field="comment")
        row, name = await self._row(id), moderator or by.name
        made = (
            self.made(sanction, minutes, scope, reason, "", name, id)._replace(id=f"{id}-c")
            if sanction
            else None
        )
        changed = {
            "day": row["day"],
            "id": id,
            "state": DECIDED,
            "verdict": verdict,
            "comment": comment,
            "sanction": "" if made is None else made.id,
            "decided_by": name,
            "decided": self.now(),
        }
        is_repeat = row["state"] == DECIDED and all(row[key] == changed[key] for key in SAME)
        if not is_repeat:
            self._only(row, name)
            told = {"case": id, "verdict": verdict, "sanction": changed["sanction"], "by": name}
            async with self.decided.around(row["reported"], {"state": DECIDED, "by": name}, **told):
                await self._change(row, changed)
                row = {**row, **changed}
                if made is not None:
                    await self.impose(row["reported"], made)
                await self.decided.emit(row["reported"], **told)
        elif made is not None:
            await self.impose(row["reported"], made)
        return self._shown(row)

    @happened("report.queued", "report.claimed", "report.decided")
    async def was_so(self, account: str, data: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
        """Whether a case is there, and is or was a moderator's, as it was to be when this was killed."""
        try:
            row = await self._row(data["case"])
        except CommandError:
            return False
        by = {CLAIMED: row["claimed_by"], DECIDED: row["decided_by"]}
        return "state" not in about or by[about["state"]] == about["by"]

    def _only(self, row: Mapping[str, Any], name: str) -> None:
        """CommandError unless this moderator may work on a case."""
        if row["state"] == DECIDED:
            raise CommandError(f"this case was decided by {row['decided_by']}", field="id")
        if self._is_held(row) and row["claimed_by"] != name:
            raise CommandError(
                f"{row['claimed_by']} works on this case until {iso(row['claimed_until'])}", field="id"
            )

    def _is_held(self, row: Mapping[str, Any]) -> bool:
        return row["state"] == CLAIMED and (row["claimed_until"] or 0.0) > self.now()

    async def _change(self, row: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
        """CommandError when somebody else was faster."""
        expect = {key: row[key] for key in ("state", "claimed_by", "claimed_until")}
        if not await self.cases.put_if(changed, expect, ttl=self._ttl):
            raise CommandError("somebody else has just changed this case", field="id")

    async def _row(self, id: str) -> Mapping[str, Any]:
        try:
            at = int(id[:15], 16) / 1_000_000
            row = await self.cases.get(day_of(at), id)
        except (ValueError, OverflowError, OSError):
            row = None
        if row is None or not row["state"]:
            raise CommandError(f"there is no case {id!r}", field="id")
        return row

    def _shown(self, row: Mapping[str, Any]) -> dict[str, Any]:
        is_held = self._is_held(row)
        return {
            "id": row["id"],
            "time": iso(int(row["id"][:15], 16) / 1_000_000),
            "kind": row["kind"],
            "state": OPEN if row["state"] == CLAIMED and not is_held else row["state"],
            "account": row["account"],
            "reported": row["reported"],
            "reason": row["reason"],
            "text": row["text"],
            "claimed_by": row["claimed_by"] or "" if is_held else "",
            "verdict": row.get("verdict") or "",
            "comment": row.get("comment") or "",
            "sanction": row.get("sanction") or "",
            "decided_by": row.get("decided_by") or "",
        }


SAME: Final = ("verdict", "sanction", "decided_by")
"""What makes a decision the same."""


def day_of(at: float) -> str:
    """The day of a moment, in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"
