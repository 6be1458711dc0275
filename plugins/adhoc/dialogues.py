"""The steps of one command (XEP-0050 2.4): a form, perhaps a question whether one is sure, and results, which
may come in parts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from xmppd.plugin import CommandError, Description, Element

from .forms import arguments, asked, form, rows_of, shown
from .standard import Standard

ROWS: Final = 200
"""Rows of a result in one answer."""
EMPTY: Final = "There is nothing to show."

Call = Callable[[str, Mapping[str, Any]], Awaitable[Any]]
Values = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Step:
    """What is answered: `status`, a form or a result, a note, and which actions may follow, the default one
    first.
    """

    status: str
    payload: Element | None = None
    note: str = ""
    note_type: str = "info"
    actions: tuple[str, ...] = ()


def failed(error: CommandError) -> Step:
    """A command that came to nothing (XEP-0050 3.6)."""
    return Step("completed", note=str(error), note_type="error")


@dataclass(slots=True)
class Dialogue:
    """One command of this server, step by step: `begin`, then what the actions of the last step allow. It
    `wants_form` if that step was one to be filled in.
    """

    about: Description
    call: Call
    given: dict[str, Any] = field(default_factory=dict)
    left: list[Mapping[str, Any]] = field(default_factory=list)
    after: str | None = None
    actions: tuple[str, ...] = ()
    wants_form: bool = False

    async def begin(self) -> Step:
        """Ask for the parameters; if there are none, whether to do it; or do it at once."""
        if not self._has_blanks:
            return self._sure() if self.about.confirm else await self._done()
        self.wants_form = True
        return self._told(Step("executing", asked(self.about, self.given), actions=("complete",)))

    async def take(self, action: str, values: Values) -> Step:
        """Go on: `next`, `prev` or `complete`; CommandError where a parameter is wrong."""
        if action == "prev":
            return await self.begin()
        if action == "next":
            return await self._more()
        if self.wants_form:
            self.given = arguments(self.about, values)
            if self.about.confirm:
                self.wants_form = False
                return self._sure()
        return await self._done()

    @property
    def _has_blanks(self) -> bool:
        return any(not self._is_token(parameter.name) for parameter in self.about.parameters)

    def _is_token(self, name: str) -> bool:
        return self.about.paged and name == "after"

    def _told(self, step: Step) -> Step:
        self.actions = step.actions
        return step

    def _sure(self) -> Step:
        defaults = {parameter.name: parameter.default for parameter in self.about.parameters}
        question = self.about.confirm.format_map(defaults | self.given)
        actions = ("complete", "prev") if self._has_blanks else ("complete",)
        return self._told(Step("executing", form(self.about.help, question, ()), actions=actions))

    async def _done(self) -> Step:
        result = await self.call(self.about.name, self.given)
        if self.about.paged:
            return self._page(result)
        if result is None or result == []:
            return Step("completed", note="Done." if result is None else EMPTY)
        rows = rows_of(result)
        if rows is None:
            return Step("completed", shown(self.about.help, result))
        self.left = list(rows)
        return self._rows("")

    async def _more(self) -> Step:
        if self.left:
            return self._rows("")
        return self._page(await self.call(self.about.name, {**self.given, "after": self.after}))

    def _page(self, result: Mapping[str, Any]) -> Step:
        self.left, self.after = list(result["rows"]), result["after"]
        return self._rows(", ".join(f"{name}: {count}" for name, count in result["counts"].items()))

    def _rows(self, note: str) -> Step:
        self.wants_form = False
        rows, self.left = self.left[:ROWS], self.left[ROWS:]
        payload = shown(self.about.help, rows) if rows else None
        if self.left or self.after is not None:
            return self._told(Step("executing", payload, note, actions=("next",)))
        return Step("completed", payload, note or ("" if rows else EMPTY))


@dataclass(slots=True)
class Administration:
    """A use case of XEP-0133: a form, and what comes of it."""

    about: Standard
    call: Call
    actions: tuple[str, ...] = ()
    wants_form: bool = False

    async def begin(self) -> Step:
        """Ask for what is needed; do it at once if nothing is."""
        if not self.about.blanks:
            return await self.take("complete", {})
        self.actions, self.wants_form = ("complete",), True
        return Step("executing", self.about.form(), actions=self.actions)

    async def take(self, action: str, values: Values) -> Step:
        """Do it."""
        self.about.check(values)
        fields = await self.about.do(self.call, values)
        payload = form(self.about.title, "", fields, kind="result") if fields else None
        return Step("completed", payload, note="" if fields else "Done.")
