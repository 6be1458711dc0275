"""What clients say: held against lists, sanctions and rates before anybody else hears it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import chain
from typing import Annotated, Any, Final

from xmppd import hooks, ns
from xmppd.plugin import (
    CommandError,
    Counter,
    Emitter,
    EventField,
    HttpClient,
    Session,
    SessionSlot,
    Stanza,
    StanzaError,
    cluster_signal,
    command,
    element,
    offered,
    serialize,
    stanza_of,
)

from .chain import Chain, Judgement, worse
from .config import VCARD
from .evidence import CHARACTERS
from .folding import Folder
from .pacing import Pacing, Voice
from .patterns import patterns_of
from .said import (
    ONLY_BODY,
    body_of,
    changed,
    json_texts,
    spoken_in,
    status_in,
    texts_of,
)
from .sanctions import NS
from .silence import bare_of
from .standing import Sanction
from .texts import iso
from .verdict import Judge
from .words import BadList, words_in

MUTED: Final = f"{{{NS}}}muted"
FILTERED: Final = f"{{{NS}}}filtered"
MESSAGE: Final = f"{{{ns.CLIENT}}}message"
RECEIVED: Final = f"{{{ns.RECEIPTS}}}received"
RECEIPT: Final = b"<received"
REQUEST: Final = ns.RECEIPTS.encode()
SPOKEN: Final = (f"{{{ns.CLIENT}}}status", f"{{{ns.NICK}}}nick")
"""Children of presence that say something (XEP-0172)."""
PLACES: Final = ("message", "name", "note", "status", "invite")
"""Where a text may stand that is judged."""
FLAGGED: Final = 10_000
"""Of how many accounts a day it is remembered how many flags of theirs are in the queue."""
FILE_BYTES: Final = 16_777_216
"""Of one list."""


class Hearing(Pacing):
    """The part of the plugin that hears everything first."""

    acknowledges = SessionSlot(False)
    """Whether a session has ever told that it received something (XEP-0184)."""
    filtered = Counter("Texts that were masked, refused, flagged, or heard by nobody.")
    silenced = Counter("Stanzas that were refused, or lost their words, since their sender is muted.")
    unanswered = Counter("Texts that the service for verdicts did not judge in time.")
    flagged = Emitter(
        "message.flagged",
        "A text was found that moderators are to look at; it was not held back.",
        fields={
            "where": EventField("text", "`message`, `name`, `note`, `status` or `invite`"),
            "why": EventField("text", "by what it was found"),
            "text": EventField("text", "what was said"),
        },
        example={"where": "message", "why": "words en", "text": "..."},
        is_asked=True,
    )

    async def start(self) -> None:
        """Lists that mean nothing refuse the plugin."""
        await super().start()
        self._client: HttpClient | None = None
        self._judge: Judge | None = None
        self._flags: dict[str, int] = {}
        self._loading: asyncio.Lock = asyncio.Lock()
        self.chain = await self._read_lists()
        verdict = self.config.verdict
        if verdict.url:
            self._client = self.server.http_client(
                allowed=verdict.allowed, seconds=verdict.seconds, ca_file=verdict.ca_file
            )
            try:
                self._client.check(verdict.url)
            except ValueError as error:
                raise CommandError(f"moderation: verdict.url: {error}") from None
            self._judge = Judge(verdict, self._client, self.scope.clock, self._no_verdict)
        self._asks_of = verdict.where if self._judge is not None else frozenset[str]()
        self._asks_of_messages = "message" in self._asks_of
        self._follow_lists()

    async def stop(self) -> None:
        """Nobody else is asked any more."""
        await super().stop()
        if self._client is not None:
            await self._client.close()

    # lists

    async def _read_lists(self) -> Chain:
        """What the files say now, without a pause of the loop; CommandError says where they are wrong."""
        config, loop = self.config, asyncio.get_running_loop()
        try:
            lists, expressions = await loop.run_in_executor(None, self._files)
            folder = Folder(config.leet)
            words = await words_in(
                folder, lists, config.action, library("ahocorasick").Automaton if lists else list
            )
            patterns = ()
            if config.patterns is not None:
                found = patterns_of(
                    expressions.splitlines(), str(config.patterns), config.action, library("regex")
                )
                patterns = tuple(found)
        except (BadList, OSError, UnicodeDecodeError) as error:
            raise CommandError(f"moderation: {error}") from None
        return Chain(
            words, patterns, config.pattern_seconds, config.slow, config.characters, config.by_language
        )

    def _follow_lists(self) -> None:
        """Have at hand which words are fine (None: all are), and up to which length a text of such words
        alone is: no text (-1) where others are asked besides.
        """
        words = self.chain.words
        has_all = words.clean.issuperset if words.count else None
        self._has_all: Callable[[Iterable[str]], bool] | None = has_all
        self._are_fine: Callable[[Sequence[str], Iterator[str]], bool] = words.are_clean
        fine = -1 if self.chain.patterns else min(self.config.characters, CHARACTERS)
        self._fine_message = -1 if "message" in self._asks_of else fine
        self._fine_status = -1 if "status" in self._asks_of else fine

    def _files(self) -> tuple[list[tuple[str, str, str]], str]:
        lists = []
        folder, expressions = self.config.words, self.config.patterns
        files = [] if folder is None else sorted(folder.iterdir())
        for file in files:
            if file.suffix == ".txt":
                if file.stat().st_size > FILE_BYTES:
                    raise BadList(f"{file}: a list has at most {FILE_BYTES} bytes")
                lists.append((str(file), file.stem.lower(), file.read_text(encoding="utf-8")))
        return lists, "" if expressions is None else expressions.read_text(encoding="utf-8")

    @command("Read the lists of words and expressions again, on all nodes", name="moderation reload")
    async def reread(self) -> dict[str, int]:
        """How many there are on this node. What is wrong leaves the old ones in force everywhere."""
        async with self._loading:
            self.chain = await self._read_lists()
            self._follow_lists()
        self.reread_all.tell(self.server.node)
        return {"words": self.chain.words.count, "patterns": len(self.chain.patterns)}

    @cluster_signal
    async def reread_all(self, node: str) -> None:
        """Another node has read them again."""
        if node == self.server.node:
            return
        try:
            async with self._loading:
                self.chain = await self._read_lists()
                self._follow_lists()
        except CommandError as error:
            self.log.warning("lists-not-read", extra={"error": str(error)})

    @command("Say what becomes of a text, and why", name="moderation test", reads=True)
    async def test(
        self,
        text: Annotated[str, "what is said"],
        *,
        lang: Annotated[str, "its language"] = "",
    ) -> dict[str, str]:
        """By lists and expressions; nobody else is asked, and nobody flagged."""
        judged = self.chain.look(text, lang) or Judgement("pass", text, "")
        return {"action": judged.action, "text": judged.text, "why": judged.why}

    # texts

    @offered
    async def judge(self, account: str, where: str, text: str, lang: str = "") -> Judgement:
        """What becomes of a text of an account, which stands in one of `PLACES`: the `action`, the `text`
        that may be shown, and `why`. One that is muted says nothing anywhere.
        """
        if await self._mute_of(account) is not None:
            return Judgement("refuse", text, "muted")
        judged = await self._heard_by(account, where, text, lang)
        if judged.action != "pass":
            self.filtered.inc()
        if judged.action == "flag":
            await self._flag(account, where, judged, text)
        return judged

    @offered
    async def check_speaks(self, account: str, lang: str = "") -> None:
        """For who is muted, and so says nothing anywhere, the StanzaError that tells him so in his language;
        StoreError.
        """
        if (mute := await self._mute_of(account)) is not None:
            self.silenced.inc()
            raise self.muted(lang, mute)

    async def _mute_of(self, account: str) -> Sanction | None:
        """By which somebody says nothing anywhere; StoreError."""
        standing = self.standing.get(account)
        if standing is None and not self.server.sessions(account):
            standing = await self.read(account)
        return None if standing is None else standing.of("mute", self.now(), "all")

    async def _heard_by(self, account: str, where: str, text: str, lang: str) -> Judgement:
        """What lists, expressions and the service say."""
        local = self.chain.look(text, lang) or Judgement("pass", text, "")
        if self._judge is None or where not in self._asks_of or local.action in ("refuse", "shadow"):
            return local
        said = await self._judge.ask(account, where, text, lang)
        if said.action == "mask" and (again := self.chain.look(said.text, lang)) is not None:
            said = said._replace(text=again.text)
        return worse(said, local)

    def _no_verdict(self, why: str) -> None:
        self.unanswered.inc()
        self.log.warning("no-verdict", extra={"error": why})

    async def _flag(self, account: str, where: str, judged: Judgement, text: str) -> None:
        """Tell moderators; so many of one account in a day are in the queue."""
        day = f"{int(self.now() // 86400)} {account}"
        is_filed = self._flags.get(day, 0) < self.config.flags_of_account
        if is_filed:
            self.flag_filed.tell(day)
        await self.flagged.emit(account, where=where, why=judged.why, text=text)
        if is_filed:
            await self.file_flag(account, where, judged.why, text)

    @cluster_signal
    def flag_filed(self, day: str) -> None:
        """One more flag of an account, on whatever node, on this day."""
        if len(self._flags) > FLAGGED:
            self._flags.clear()
        self._flags[day] = self._flags.get(day, 0) + 1

    async def file_flag(self, account: str, where: str, why: str, text: str) -> None:
        """Have it in the queue."""
        raise NotImplementedError

    # messages

    @hooks.message_sent.at(hooks.FILTER, hooks.EARLY)
    def hear(self, session: Session, message: Stanza) -> Stanza | hooks.Drop | Awaitable[Stanza | hooks.Drop]:
        """Each message, before anybody has it. One as most are is seen to be fine here, where a call of a
        method would be dear: not too soon (as `Meter.take` says), of somebody without sanctions, to another
        one, with a text (as `body_of` finds it) of words that are known.
        """
        now = self._clock()
        voice = self._voices.get(session.full)
        if voice is None or now >= voice.until:
            voice = self._at_hand(session, now)
        own, network = voice.own, voice.network
        due, network_due = own.due, network.due
        if due < now:
            due = now
        if network_due < now:
            network_due = now
        if due - now > own.slack or network_due - now > network.slack:
            self.slowed.inc()
            raise self.too_often(session, voice.meter.wait(now))
        own.due = due + own.step
        network.due = network_due + network.step
        if voice.tells:
            voice.meter.tell()
        account, to, raw = session.account, message.to, message.raw
        if message.is_plain and to is not None and account not in to and account not in self.standing:
            found = ONLY_BODY(raw)
            if found is not None and len(raw) <= self._fine_message and self._is_clean(found[1]):
                voice.say((now, raw))
                return message
        return self._hear_closely(session, message, voice, now)

    def _is_clean(self, text: bytes) -> bool:
        """Whether a text, as it is written, has only words that are known to be fine."""
        has_all = self._has_all
        if has_all is None:
            return True
        words = text.decode().split()
        left = iter(words)  # of which it takes what is behind one that it has not
        return has_all(left) or self._are_fine(words, left)

    def _hear_closely(
        self, session: Session, message: Stanza, voice: Voice, now: float
    ) -> Stanza | hooks.Drop | Awaitable[Stanza | hooks.Drop]:
        account, to = session.account, message.to
        if to is None or (account in to and bare_of(to) == account):
            return message  # he talks to himself
        if account in self.standing:
            kept = self._held_back(session, message)
            if kept is not None:
                return kept
        text = body_of(message)
        if text is None:
            return self._hear_all(session, message, voice, now)
        voice.say((now, (session.full, to, text[:CHARACTERS])))
        if not message.is_plain and message.raw.find(RECEIPT) >= 0:
            self.acknowledges[session] = True
        if self._asks_of_messages:
            return self._hear_later(session, message, text)
        if self.chain.passes(text):
            return message
        judged = self.chain.look(text, session.lang or "")
        return message if judged is None else self._done(session, message, text, judged)

    def _hear_all(
        self, session: Session, message: Stanza, voice: Voice, now: float
    ) -> Stanza | hooks.Drop | Awaitable[Stanza | hooks.Drop]:
        """One whose texts are several, or hard to find."""
        found = texts_of(message)
        if RECEIPT in message.raw:
            self.acknowledges[session] = True
        if not found:
            return message
        text = "\n".join(found)
        voice.say((now, (session.full, message.to or "", text[:CHARACTERS])))
        if self._asks_of_messages:
            return self._hear_later(session, message, text)
        worst: Judgement | None = None
        for part in found:
            judged = self.chain.look(part, session.lang or "")
            if judged is not None:
                worst = judged if worst is None else worse(worst, judged)
        return message if worst is None else self._done(session, message, text, worst)

    async def _hear_later(self, session: Session, message: Stanza, text: str) -> Stanza | hooks.Drop:
        judged = await self._heard_by(session.account, "message", text, session.lang or "")
        return message if judged.action == "pass" else self._done(session, message, text, judged)

    def _done(self, session: Session, message: Stanza, text: str, judged: Judgement) -> Stanza | hooks.Drop:
        """What is done about a message; StanzaError."""
        self.filtered.inc()
        if judged.action == "flag":
            self.spawn(self._flag(session.account, "message", judged, text))
            return message
        if judged.action == "mask":
            return self._masked(session, message, text, judged)
        if judged.action == "shadow":
            if message.id and message.raw.find(REQUEST) >= 0:
                self.unheard.tell(bare_of(message.to or ""), session.full, message.id)
            return hooks.UNHEARD
        if message.type == "error":
            return hooks.DROP
        raise self.not_here(session)

    def _masked(self, session: Session, message: Stanza, text: str, judged: Judgement) -> Stanza:
        lang = session.lang or ""

        def mask(part: str) -> str:
            if part == text:
                return judged.text
            found = self.chain.look(part, lang)
            return part if found is None else found.text

        return changed(message, mask)

    def _held_back(self, session: Session, message: Stanza) -> Stanza | hooks.Drop | None:
        """What a sanction leaves of a message; None: it may go on. StanzaError."""
        scope = "groups" if message.type == "groupchat" else "direct"
        mute = self.sanction_of(session.account, "mute", scope)
        if mute is not None:
            self.silenced.inc()
            if message.type == "error" or not texts_of(message):
                return hooks.DROP  # receipts, typing: nobody is to be told that they were not sent
            raise self.muted(session.lang, mute)
        limit = self.sanction_of(session.account, "chat-limit", scope)
        if limit is None or not texts_of(message):
            return None
        if wait := self._meter(session.account, "limited", "").take(self._clock()):
            self.silenced.inc()
            raise self.too_often(session, wait)
        return None

    def muted(self, lang: str | None, sanction: Sanction) -> StanzaError:
        """What tells a client that it may not speak."""
        attrs = {"id": sanction.id}
        if sanction.until is not None:
            attrs["until"] = iso(sanction.until)
        return StanzaError("not-allowed", self.said(sanction, lang), detail=element(MUTED, attrs))

    # receipts for what nobody heard

    @cluster_signal
    async def unheard(self, account: str, sender: str, id: str) -> None:
        """A message to an account was heard by nobody; a client of it that acknowledges would have done so,
        if its sender may know that it is there.
        """
        for session in self.server.sessions(account):
            if session.presence is None or session.priority < 0 or not self.acknowledges[session]:
                continue
            blocked, viewer = await self.server.blocks.of(account), bare_of(sender)
            if viewer in blocked or not await self.server.may_see(viewer, account):
                return
            if self.server.appears_offline(account, viewer):
                return
            self.receipt.tell(sender, session.full, id)
            return

    @cluster_signal
    def receipt(self, to: str, sender: str, id: str) -> None:
        """A session is sent the receipt that it waits for."""
        if (session := self.server.session(to)) is not None:
            attrs = {"from": sender, "to": to, "type": "chat"}
            session.send(serialize(element(MESSAGE, attrs, element(RECEIVED, {"id": id}))))

    # presence and iqs

    @hooks.presence_sent.at(hooks.FILTER, hooks.LATE)
    def see(self, session: Session, presence: Stanza) -> Stanza | hooks.Drop | Awaitable[Stanza | hooks.Drop]:
        """Each presence: what it says is held against the lists; who is muted says nothing."""
        kind = presence.type
        if kind == "subscribe":
            self._pace(session, "request")
        elif kind != "unavailable":
            self._pace(session, "presence")
        if session.account in self.standing and (mute := self.sanction_of(session.account, "mute", "all")):
            return self._silent(session, presence, mute)
        raw = presence.raw
        if raw.find(b"<status") < 0 and raw.find(b"<nick") < 0:
            return presence
        only = status_in(raw)
        if only is not None and len(only) <= self._fine_status and self._is_clean(only):
            return presence
        texts = [part.text for part in presence.xml.iter() if part.tag in SPOKEN and part.text]
        if not texts:
            return presence
        if "status" in self._asks_of:
            return self._see_later(session, presence, texts)
        lang = session.lang or ""
        judged = {text: found for text in texts if (found := self.chain.look(text, lang)) is not None}
        return self._seen(session, presence, judged) if judged else presence

    async def _see_later(self, session: Session, presence: Stanza, texts: list[str]) -> Stanza:
        judged = {
            text: await self._heard_by(session.account, "status", text, session.lang or "") for text in texts
        }
        return self._seen(session, presence, judged)

    def _seen(self, session: Session, presence: Stanza, judged: Mapping[str, Judgement]) -> Stanza:
        """A presence whose texts are as they may be shown; what may not be shown is not there."""
        tree = deepcopy(presence.xml)
        for part in list(tree):
            found = judged.get(part.text or "") if part.tag in SPOKEN else None
            if found is None or found.action == "pass":
                continue
            self.filtered.inc()
            if found.action == "flag":
                self.spawn(self._flag(session.account, "status", found, part.text or ""))
            elif found.action == "mask":
                part.text = found.text
            else:
                tree.remove(part)
        return stanza_of(tree)

    def _silent(self, session: Session, presence: Stanza, mute: Sanction) -> Stanza | hooks.Drop:
        directed = session.directed
        left = directed.of(bare_of(presence.to)) if presence.to and directed is not None else ()
        silent = self.silence.presence(presence, self.config.muted_presence, left)
        if silent is not None:
            return silent
        self.silenced.inc()
        if presence.type == "error":
            return hooks.DROP
        raise self.muted(session.lang, mute)

    @hooks.iq_sent.at(hooks.FILTER, hooks.EARLY)
    def pass_on(self, session: Session, iq: Stanza) -> Stanza | hooks.Drop | Awaitable[Stanza | hooks.Drop]:
        """Each iq: who is muted asks nobody but the server, and answers nobody else."""
        is_request = iq.type in ("get", "set")
        if is_request:
            self._pace(session, "iq")
        account = session.account
        mute = self.sanction_of(account, "mute", "all") if account in self.standing else None
        if mute is not None and not self.silence.may_ask(account, iq, self.config.spoken):
            self.silenced.inc()
            if is_request:
                raise self.muted(session.lang, mute)
            return hooks.DROP
        if iq.type == "set" and iq.payload in self.config.spoken:
            where = "name" if iq.payload == VCARD else "status"
            spoken = spoken_in(iq)
            if where in self._asks_of or not all(map(self._may_pass, spoken)):
                return self._said_of_oneself(session, iq, where, spoken)
        return iq

    def _may_pass(self, text: str) -> bool:
        """Whether a text, which may be JSON, is soon known to be fine: all its words are, however they are
        put together. Those of JSON stand between quotation marks.
        """
        if "\\" in text:
            return False
        return self.chain.passes(text.replace('"', " ") if text[:1] in ("{", "[") else text)

    async def _said_of_oneself(
        self, session: Session, iq: Stanza, where: str, spoken: Iterable[str]
    ) -> Stanza:
        """What a player writes of himself for others to see, but for pictures; StanzaError."""
        for text in chain.from_iterable(map(json_texts, spoken)):
            judged = await self._heard_by(session.account, where, text, session.lang or "")
            if judged.action == "flag":
                await self._flag(session.account, where, judged, text)
            elif judged.action != "pass":
                self.filtered.inc()
                raise self.not_here(session)
        return iq

    def not_here(self, session: Session) -> StanzaError:
        """What tells a client that a text is refused."""
        text = self.texts.say("refused", session.lang)
        return StanzaError("policy-violation", text, detail=element(FILTERED))


def library(name: str) -> Any:
    """One of those that are only needed where there are lists; CommandError."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise CommandError(
            f"moderation: lists need the extra `game` (xmppd[game]): there is no {name}"
        ) from None
