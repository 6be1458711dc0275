"""A YAML file as plain data, together with the place of everything in it.

Only the plain part of YAML is read: text, numbers, true/false, null, lists and mappings. Words such as `no`,
`12:30` or `2026-01-01`, which YAML 1.1 turns into something else, stay text; tags are refused; aliases work
but cannot blow a small file up.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from xmppd.errors import Problem

KeyPath = tuple[str | int, ...]
"""The way to one value: keys of mappings and indexes of lists."""

MAX_CHARACTERS = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 32

_LITERALS: dict[str, bool | None] = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "~": None,
    "": None,
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)")
_DECIMAL = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?")


class _Loader(yaml.SafeLoader):
    """Composes nodes and resolves nothing, so that a tag other than these three was written by hand."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as declared in PyYAML


_TAGS = frozenset("tag:yaml.org,2002:" + kind for kind in ("str", "seq", "map"))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key or value stands: file (or `$VARIABLE`, then without line), line and column from 1."""

    file: str
    line: int = 0
    column: int = 0


@dataclass(slots=True)
class Document:
    """Plain data and the places of its keys and values; `problems`: what was wrong with the text itself."""

    file: str
    data: Any = None
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    values: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: KeyPath, message: str, *, at_key: bool = False) -> Problem:
        """A mistake at `path`, placed there or at the nearest thing around it that was written down."""
        place = self.keys.get(path) if at_key else None
        for length in range(len(path), -1, -1):
            if place is not None:
                break
            place = self.values.get(path[:length])
        place = place or Place(self.file)
        return Problem(place.file, place.line, place.column, dotted(path), message)

    def is_written(self, path: KeyPath) -> bool:
        """Whether there is a value at `path`, and not only a default."""
        return path in self.values

    def graft(self, path: KeyPath, other: Document) -> str | None:
        """Put `other` at `path`, making mappings on the way; a sentence when something else is in the way."""
        if not isinstance(self.data, dict):
            self.data = {}
        where = self.data
        for length, step in enumerate(path[:-1], 1):
            if where.get(step) is None:
                where[step] = {}
                # Made for this value: what is wrong with it as a whole is no matter of the file.
                self.keys[path[:length]] = self.values[path[:length]] = Place(other.file)
            where = where[step]
            if not isinstance(where, dict):
                return f"{dotted(path[:length])} is not a section"
        where[path[-1]] = other.data
        for places in (self.keys, self.values):
            for known in [known for known in places if known[: len(path)] == path]:
                del places[known]
        self.keys[path] = Place(other.file)
        self.values.update({path + below: place for below, place in other.values.items()})
        self.keys.update({path + below: place for below, place in other.keys.items()})
        return None


def dotted(path: KeyPath) -> str:
    """The path as people write it: `listen.c2s[1].port`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def read_document(text: str, file: str, *, lines: bool = True) -> Document:
    """Read one YAML text; mistakes are in `problems`, not raised. Without `lines` places name only `file`."""

    def place(mark: Any) -> Place:
        return Place(file, mark.line + 1, mark.column + 1) if lines and mark else Place(file)

    document = Document(file)
    if len(text) > MAX_CHARACTERS:
        document.problems.append(Problem(file, 0, 0, "", f"is longer than {MAX_CHARACTERS} characters"))
        return document
    try:
        root = yaml.compose(text, Loader=_Loader)
        if root is not None:
            document.data = _Reading(document, place).value((), root)
    except yaml.MarkedYAMLError as error:
        at = place(error.problem_mark or error.context_mark)
        message = ", ".join(filter(None, (error.problem, error.context)))
        document.problems.append(Problem(file, at.line, at.column, "", f"not valid YAML: {message}"))
    except yaml.reader.ReaderError as error:
        document.problems.append(_unreadable(text, file, error))
    except RecursionError:
        document.problems.append(Problem(file, 0, 0, "", "is nested too deeply"))
    return document


def _unreadable(text: str, file: str, error: yaml.reader.ReaderError) -> Problem:
    before = text[: error.position]
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    return Problem(
        file, line, column, "", f"not valid YAML: the character U+{error.character:04X} is not allowed"
    )


class _Reading:
    """One pass over composed nodes, collecting data, places and problems."""

    def __init__(self, document: Document, place: Callable[[Any], Place]) -> None:
        self.document = document
        self.place = place
        self.nodes = 0

    def value(self, path: KeyPath, node: yaml.Node) -> Any:
        """The plain data of `node`; a refused node is reported and reads as None."""
        self.document.values[path] = self.place(node.start_mark)
        self.nodes += 1
        if self.nodes > MAX_NODES or len(path) > MAX_DEPTH:
            # Only aliases of aliases (or of themselves) get here from a file of sane size.
            if self.nodes <= MAX_NODES + 1:
                self.refuse(path, "aliases or nesting make this too large")
            self.nodes = max(self.nodes, MAX_NODES + 1)
            return None
        if node.tag not in _TAGS:
            return self.refuse(path, f"tags are not supported ({node.tag})")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(path, node)
        if isinstance(node, yaml.SequenceNode):
            return [self.value((*path, index), item) for index, item in enumerate(node.value)]
        return plain(node.value) if getattr(node, "style", None) is None else node.value

    def mapping(self, path: KeyPath, node: yaml.MappingNode) -> dict[str, Any]:
        """Keys are always text, as written; a second use of a key is refused."""
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            here = (*path, name)
            at = self.place(key.start_mark)
            if not isinstance(key, yaml.ScalarNode) or key.tag not in _TAGS:
                self.document.problems.append(
                    Problem(at.file, at.line, at.column, dotted(path), "a key must be plain text")
                )
            elif name in found:
                first = self.document.keys[here]
                message = f"is given twice (first in line {first.line})" if first.line else "is given twice"
                self.document.problems.append(Problem(at.file, at.line, at.column, dotted(here), message))
            else:
                self.document.keys[here] = at
                found[name] = self.value(here, value)
        return found

    def refuse(self, path: KeyPath, message: str) -> None:
        self.document.problems.append(self.document.problem(path, message))


def plain(text: str) -> str | int | float | bool | None:
    """What an unquoted word means: true/false, null, a number, else the text itself."""
    if text in _LITERALS:
        return _LITERALS[text]
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) < 20 else text
    if _DECIMAL.fullmatch(text):
        return float(text)
    return text
