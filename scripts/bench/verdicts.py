"""What clients with stream management were told and given while servers were killed, and which promises that
breaks; for `archived.py`.

Each message is judged by itself, by what its sender and its receiver saw. Three things are excused, and told:

- It came twice since its sender sent it again in a session that named none, which began on a node that had
  not noticed yet that the one of his last session was killed: neither of them could know.
- It was overtaken by messages for the full JID of its receiver alone, which came before he was available:
  they do not wait for what is stored for the account.
- It came again with the id that it had, and without a stamp, since the server that it had come from was
  killed within a second: it had not told the sender's that it has it. All other copies are stamped.
"""

import asyncio
import contextlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from phones import Got, Phone, Sent

NEAR_SECONDS = 10.0
"""What was so long before or behind is told of a message that something is wrong with."""
TAKEN_SECONDS = 1.0
"""In which a node says that it has taken a message, on a busy machine."""
TEXT = re.compile(r"(\w+) to (\w+) (\d+)")
ITS_OWN = "sent again by who could not know"
EARLY = "overtaken by what came to a resource that was not available yet"
UNTAKEN = "again unstamped since its node was killed before it said that it has it"


class Kill(NamedTuple):
    """The server at a port was killed; `noticed`: when by those at other ports that knew it."""

    at: float
    port: int
    noticed: Mapping[int, float] = {}


@dataclass(slots=True)
class Verdict:
    """Broken promises, and what was excused, each with the message that it is about, or ""."""

    wrong: list[tuple[str, str]] = field(default_factory=list)
    excused: list[tuple[str, str]] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        """How often what was excused."""
        return Counter(why for _, why in self.excused)


def missing(phones: Sequence[Phone]) -> list[str]:
    """What was acknowledged and has not come."""
    got = {text for phone in phones for text, _ in phone.got}
    return [text for phone in phones for text in phone.acked if text not in got]


def judge(phones: Sequence[Phone], kills: Sequence[Kill]) -> Verdict:
    """What is wrong: lost, twice, at a wrong one, or overtaken."""
    verdict = Verdict([("", problem) for phone in phones for problem in phone.wrong])
    verdict.wrong += [(text, "lost") for text in missing(phones)]
    said = {text: sent for phone in phones for text, sent in phone.said.items()}
    for phone in phones:
        for text, came in phone.came.items():
            for number, got in enumerate(came):
                if got.is_new or got.how != "live" or text.startswith(f"{phone.name} to "):
                    continue
                if was_not_taken(came[:number], got, kills):
                    verdict.excused.append((text, UNTAKEN))
                else:
                    verdict.wrong.append((text, "again without a stamp"))
        before: dict[str, list[tuple[int, bool]]] = defaultdict(list)
        copies: Counter[str] = Counter()
        for text, got in phone.got:
            found = TEXT.fullmatch(text)
            if found is None or found[2] != phone.name or text not in said:
                verdict.wrong.append((text, f"{phone.name} was given it"))
                continue
            copies[text] += 1
            if copies[text] > 1:
                if could_not_know(said[text], copies[text] - 1, kills):
                    verdict.excused.append((text, ITS_OWN))
                    continue  # it says nothing of the order
                verdict.wrong.append((text, "twice"))
            number = int(found[3])
            above = [(other, is_early) for other, is_early in before[found[1]] if other > number]
            if late := [other for other, is_early in above if not is_early]:
                verdict.wrong.append((text, f"overtaken by {min(late)} to {max(late)}"))
            elif above:
                verdict.excused.append((text, EARLY))
            before[found[1]].append((number, goes_at_once(said[text], got)))
    return verdict


def goes_at_once(sent: Sequence[Sent], got: Got) -> bool:
    """Whether a message came to a resource that was not available yet, being for it."""
    return got.is_early and got.how == "live" and "/" in sent[0].to


def was_not_taken(former: Sequence[Got], again: Got, kills: Sequence[Kill]) -> bool:
    """Whether the server that one of the former copies came from was killed before it can have said so."""
    return any(
        kill.port == one.life.port and one.at <= kill.at < min(again.at, one.at + TAKEN_SECONDS)
        for one in former
        if one.id == again.id and one.life is not again.life
        for kill in kills
    )


def could_not_know(sent: Sequence[Sent], copies: int, kills: Sequence[Kill]) -> bool:
    """Whether so many copies of a message are those of senders who sent it again by a session that named
    none, on a node that had not noticed the loss of the one before.
    """
    its_own = 0
    for former, again in pairwise(sent):
        life = again.life
        if life is former.life or life.how != "bound" or life.sought:
            continue
        its_own += any(
            kill.port == former.life.port
            and former.at <= kill.at <= life.began < kill.noticed.get(life.port, float("-inf"))
            for kill in kills
        )
    return copies <= its_own


async def looked_up(phones: Sequence[Phone], texts: Sequence[str]) -> dict[str, list[Got]]:
    """How these come to one more session of those whom they are for, which asks for the whole archive and is
    given what is stored.
    """
    found: dict[str, list[Got]] = {}
    for phone in phones:
        if not any(text.split()[2] == phone.name for text in texts):
            continue
        look = Phone(phone.name, phone.places, phone.chance, asks=True)
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            await look.look(3)
        found |= look.came
    return {text: found.get(text, []) for text in texts}


async def settled(phones: Sequence[Phone], seconds: float) -> None:
    """Wait until all that was acknowledged has come, and nothing is under way."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (  # noqa: ASYNC110
                not all(phone.is_ready for phone in phones)
                or any(phone.sent for phone in phones)
                or missing(phones)
            ):
                await asyncio.sleep(0.2)
    await asyncio.sleep(1)


def about(text: str, phones: Sequence[Phone], kills: Sequence[Kill], began: float) -> list[str]:
    """When and by which session it was sent, acknowledged and given, where its sender and its receiver were
    then, and what was killed.
    """
    by_name = {phone.name: phone for phone in phones}
    found = TEXT.fullmatch(text)
    if found is None or found[1] not in by_name or found[2] not in by_name:
        return [text]
    sender, receiver = by_name[found[1]], by_name[found[2]]
    sent, came = sender.said.get(text, []), receiver.came.get(text, [])
    acked = sender.acked.get(text)
    times = [one.at for one in sent] + [one.at for one in came] + ([] if acked is None else [acked])
    times = times or [began]
    first, last = min(times) - NEAR_SECONDS, max(times) + NEAR_SECONDS
    lines = [f"{text}: acknowledged " + ("never" if acked is None else f"at {acked - began:.2f}")]
    lines += [f"  sent to {one.to} at {one.at - began:.2f} to {one.life.port}" for one in sent]
    lines += [
        f"  came at {one.at - began:.2f} from {one.life.port}, {one.how}, {one.id}"
        + (", new" if one.is_new else "")
        + (", before it was available" if one.is_early else "")
        for one in came
    ]
    for phone in (sender, receiver):
        lines += [
            f"  {phone.name} on {life.port} from {life.began - began:.2f} to {life.ended - began:.2f}, "
            f"{life.how} {life.session}, came with {life.sought or 'no id'}"
            for life in phone.lives
            if life.began <= last and life.ended >= first
        ]
    return lines + [
        f"  {kill.port} killed at {kill.at - began:.2f}, noticed "
        + (", ".join(f"by {port} at {at - began:.2f}" for port, at in kill.noticed.items()) or "nowhere")
        for kill in kills
        if first <= kill.at <= last
    ]
