"""What a server was told to keep and what it answered, held against what is there afterwards."""

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any


class Fact:
    """One value that the server keeps: the last one it answered for, and those that may be there instead."""

    def __init__(self, value: Any = None) -> None:
        self.value = value
        self.unsettled: list[Any] = []

    @contextlib.contextmanager
    def change(self, value: Any) -> Iterator[None]:
        """Inside, it is on its way. An exception leaves it so, until a later change is answered."""
        self.unsettled.append(value)
        yield
        self.value, self.unsettled = value, []

    @property
    def possible(self) -> list[Any]:
        """The newest first."""
        return [*reversed(self.unsettled), self.value]

    def settle(self, found: Any) -> bool:
        """Take the server's word; whether it may be so."""
        fits = found in self.possible
        self.value, self.unsettled = found, []
        return fits


class Oracle:
    """What went wrong, and what is worth counting."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.answered: Counter[str] = Counter()
        self.halves: Counter[str] = Counter()
        self.unanswered = 0

    def check(self, what: str, fact: Fact, found: Any) -> None:
        """Hold what was found against what may be there."""
        wanted = fact.possible
        self.unanswered += bool(fact.unsettled)
        if not fact.settle(found):
            self.wrong.append(f"{what}: {found!r} is there, and not {' or '.join(map(repr, wanted))}")


def items_of(answer: bytes) -> list[dict[str, str]]:
    """The items of a roster result; pushes may have come before it."""
    answer = answer[answer.rfind(b"<iq") :]
    return [
        dict(re.findall(r"(\w+)=['\"]([^'\"]*)", tag.decode()))
        for tag in re.findall(rb"<item [^>]*>", answer)
    ]
