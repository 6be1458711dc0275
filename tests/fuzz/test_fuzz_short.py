"""The fuzzer, for some seconds; what it found before; and that it finds what it is there for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzzing import corpus
from fuzzing.arena import Finding
from fuzzing.episode import explore, replay, shrink
from fuzzing.races import race
from fuzzing.sasl import exchanges

from xmppd.core.delivery import Action, action_of
from xmppd.core.intake import Intake
from xmppd.core.iqs import Iqs
from xmppd.core.presence import Presences
from xmppd.core.probes import Probes
from xmppd.core.router import Router
from xmppd.core.sessions import Session, Sessions
from xmppd.errors import StanzaError
from xmppd.jid import Jid
from xmppd.stream import plain, scram
from xmppd.stream.sasl import Authenticator, Channel
from xmppd.xml import build
from xmppd.xml.stanza import Stanza

SEED = 4_000


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(SEED, SEED + 3))
async def test_stanzas(seed: int) -> None:
    outcome = await explore(seed, 10_000)
    assert outcome.finding is None, f"seed {seed}: {outcome.finding}"
    assert outcome.counts["deliveries"] > 5_000


@pytest.mark.asyncio
async def test_races() -> None:
    counts, finding = await race(SEED, 5_000)
    assert finding is None, f"seed {SEED}: {finding}"
    assert counts["deliveries"] > 2_000


@pytest.mark.asyncio
async def test_sasl() -> None:
    counts, finding = await exchanges(SEED, 6_000)
    assert finding is None, f"seed {SEED}: {finding}"
    assert counts["success"] > 500


@pytest.mark.asyncio
@pytest.mark.parametrize("path", sorted(corpus.FOLDER.glob("*.txt")), ids=lambda path: path.stem)
async def test_kept_cases(path: Path) -> None:
    ops = corpus.read(path)
    assert ops
    assert await replay(ops) is None


@pytest.mark.asyncio
async def test_a_seed_gives_the_same_run_again() -> None:
    one, other = await explore(SEED, 500), await explore(SEED, 500)
    assert one.ops == other.ops
    assert one.counts == other.counts


# broken servers must be found out


def believe_the_sender(self: Intake, session: Session, stanza: Stanza) -> Stanza:
    return stanza if "from" in stanza.attrs else TAKE(self, session, stanza)


def broadcast_to_all(self: Presences, session: Session, presence: Any) -> None:
    for live in self._live.values():
        for receiver in live.available:
            receiver.send(presence.head + live.to_stamp + presence.tail)


def answer_no_pings(self: Iqs, session: Session, stanza: Stanza, target: str, where: Any) -> Any:
    return None if "ping" in stanza.payload else ANSWER(self, session, stanza, target, where)


def answer_twice(self: Router, session: Session, stanza: Stanza, error: Exception) -> None:
    REFUSE(self, session, stanza, error)
    REFUSE(self, session, stanza, error)


def answer_errors(self: Router, session: Session, stanza: Stanza, error: Exception) -> None:
    if isinstance(error, StanzaError):
        session.send(build.error_reply(stanza, session.full, error))
    else:
        REFUSE(self, session, stanza, error)


def deliver_backwards(session: Session, data: bytes) -> None:
    SEND(session, data)
    out = session._out
    if out and len(out) > 1 and out[0]:
        out[-1], out[-2] = out[-2], out[-1]


def keep_sessions(self: Sessions, session: Session) -> None:
    self.__class__.kept.append(session)  # type: ignore[attr-defined]
    REMOVE(self, session)


def stumble(stanza: Stanza) -> int:
    if "status" in stanza.raw.decode():
        raise KeyError("status")
    return 0


ANSWER, REFUSE, SEND, REMOVE = Iqs._answer, Router._refuse, Session.send, Sessions.remove
TAKE = Intake.take

BREAKAGES: dict[str, tuple[Any, str, Any, set[str]]] = {
    "claimed senders": (Intake, "take", believe_the_sender, {"delivery"}),
    "presence to everybody": (Presences, "_broadcast", broadcast_to_all, {"delivery"}),
    "requests to everybody": (Iqs, "forward", None, {"delivery"}),
    "probes answered to all": (Probes, "shown", None, {"delivery"}),
    "no end of directed presence": (
        Presences,
        "_withdraw_directed",
        lambda *_: None,
        {"missing", "delivery"},
    ),
    "subscriptions shown too late": (Presences, "show", lambda *_: None, {"missing", "delivery"}),
    "subscriptions that never end": (Presences, "_hide", lambda *_: None, {"missing", "delivery"}),
    "lost answers": (Iqs, "_answer", answer_no_pings, {"missing", "delivery"}),
    "errors twice": (Router, "_refuse", answer_twice, {"delivery"}),
    "errors for errors": (Router, "_refuse", answer_errors, {"delivery"}),
    "wrong order": (Session, "send", deliver_backwards, {"delivery"}),
    "forged ids": (Intake, "_honest", lambda self, session, stanza: stanza, {"delivery"}),
    "kept sessions": (Sessions, "remove", keep_sessions, {"left over"}),
    "a mistake in a handler": (
        "xmppd.core.presence",
        "priority_of",
        stumble,
        {"error", "delivery", "missing"},
    ),
    "text without escapes": (build, "escape_attribute", lambda value: value, {"output", "delivery", "login"}),
    "everybody a target": ("xmppd.core.messages", "action_of", None, {"delivery", "missing"}),
}


def forward_to_all(self: Iqs, session: Session, stanza: Stanza, to: Any) -> None:
    receiver = self._targets.get(to.full)
    if receiver is not None:
        receiver.send(stanza.raw)
    elif stanza.type in ("get", "set"):
        raise StanzaError("service-unavailable")


def probe_for_all(self: Probes, origin: Any, to: Any, roster: Any) -> list[bytes]:
    live = self._live.get(to.bare)
    return self._broadcasts(origin.account, to, live) if live is not None else []


def act_as_headline(to: Jid, kind: str, *, is_ready: bool) -> Action:
    return action_of(to, "headline" if kind == "groupchat" else kind, is_ready=is_ready)


REPLACED: dict[str, Callable[..., Any]] = {
    "requests to everybody": forward_to_all,
    "probes answered to all": probe_for_all,
    "everybody a target": act_as_headline,
}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", BREAKAGES)
async def test_a_broken_server_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, what, instead, kinds = BREAKAGES[name]
    instead = REPLACED.get(name, instead)
    monkeypatch.setattr(Sessions, "kept", [], raising=False)
    if isinstance(where, str):
        monkeypatch.setattr(f"{where}.{what}", instead)
    else:
        monkeypatch.setattr(where, what, instead)
    finding = (await explore(SEED, 3_000)).finding
    assert finding is not None
    assert finding.kind in kinds, finding


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "name", ["claimed senders", "presence to everybody", "lost answers", "wrong order", "kept sessions"]
)
async def test_a_broken_server_loses_races(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, what, instead, _ = BREAKAGES[name]
    monkeypatch.setattr(Sessions, "kept", [], raising=False)
    monkeypatch.setattr(where, what, instead)
    _, finding = await race(SEED, 4_000)
    assert finding is not None


@pytest.mark.asyncio
async def test_what_fails_is_made_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Intake, "take", believe_the_sender)
    outcome = await explore(SEED, 3_000)
    assert outcome.finding is not None
    short = await shrink(outcome.ops, outcome.finding.kind, tries=60)
    assert len(short) <= 6
    found = await replay(short)
    assert isinstance(found, Finding)
    assert found.kind == outcome.finding.kind


def accept_any_proof(algorithm: str, stored: bytes, message: bytes, proof: str) -> bool:
    return True


async def prove_anything(self: plain.Plain, *_: object) -> bool:
    return True


def ignore_authzid(name: str, authzid: str, channel: Channel) -> Any:
    return IDENTITY(name, "", channel)


def count_no_attempts(self: Authenticator) -> bool:
    return False


IDENTITY = plain.prepare_identity


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("target", "what", "instead"),
    [
        (scram, "_proof_matches", accept_any_proof),
        (scram, "_equal", lambda given, expected: True),
        (plain.Plain, "proves", prove_anything),
        (plain, "prepare_identity", ignore_authzid),
        (scram, "prepare_identity", ignore_authzid),
        (scram, "_check_extensions", lambda extensions: None),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)).rpartition(".")[2],
)
async def test_a_broken_login_is_found_out(
    target: Any, what: str, instead: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, what, instead)
    _, finding = await exchanges(SEED, 6_000)
    assert finding is not None
    assert finding.kind == "let in", finding
