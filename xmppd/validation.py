"""Plain data against a section: the section, or every mistake with its place and what to do about it."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from xmppd.document import Document, KeyPath
from xmppd.errors import ConfigError, Problem
from xmppd.section import Below, Beside, Parsed, SecretText, Section, fields_of

Made = TypeVar("Made", bound=Section)

WRONG: Final = object()
"""In place of a value that was refused."""

COLLECTIONS: Final[Mapping[Any, type]] = {tuple: tuple, list: list, frozenset: frozenset, set: set}
"""What a list in a file becomes."""

AS_TEXT = "must be text (put it in quotes)"
AS_SECTION = "must be a section (keys and values below it)"


def validated(section: type[Made], data: Any, document: Document, base: KeyPath) -> Made:
    """`data`, which stands at `base` in `document`, as a section; ConfigError with every mistake of both.

    For a field NAME of the kind SecretText a key `NAME_file` will do: that file's text without its last line
    end.
    """
    reading = _Reading(document)
    result = reading.section(section, data, base)
    if reading.problems or not isinstance(result, section):
        raise ConfigError(sorted(reading.problems, key=lambda problem: (problem.line, problem.column)))
    return result


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to put behind a message about an unknown word; empty when nothing known is like it."""
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), folded, n=1)
    return f" (did you mean {folded[close[0]]}?)" if close else ""


class _Reading:
    """One document being read. Each method gives the value for something plain, or WRONG, and then `problems`
    has at least one more; TypeError for a kind that is not supported.
    """

    def __init__(self, document: Document) -> None:
        self._document = document
        self.problems: list[Problem] = list(document.problems)
        # Where reading failed something else stands in; that this is wrong too is no second mistake.
        self._refused = {problem.path for problem in document.problems}

    def value(self, kind: Any, given: object, path: KeyPath) -> Any:
        """Something of any kind."""
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return self._ruled(arguments[0], arguments[1:], given, path)
        if origin in (Union, types.UnionType):
            return self._optional(kind, given, path)
        if origin is Literal:
            return self._word(arguments, given, path)
        if origin in COLLECTIONS:
            return self._collection(COLLECTIONS[origin], arguments[0], given, path)
        if origin is not None and issubclass(origin, Mapping):
            return self._mapping(arguments, given, path)
        return self._plain(kind, given, path)

    def section(self, section: type[Section], given: object, path: KeyPath) -> Any:
        """A section, with all its mistakes; what is unknown in it is one."""
        if not isinstance(given, dict):
            return self._refuse(path, AS_SECTION)
        kinds, secrets = fields_of(section), _secrets(section)
        right: dict[str, Any] = {}
        for name, kind in kinds.items():
            if name in secrets and f"{name}_file" in given:
                value = self._from_file(kind, given, name, path)
            elif name in given:
                value = self.value(kind, given[name], (*path, name))
            elif hasattr(section, name):
                value = getattr(section, name)
            else:
                value = self._refuse((*path, name), "is missing")
            if (value := self._beside(kind, value, right, (*path, name))) is not WRONG:
                right[name] = value
        known = [*kinds, *(f"{name}_file" for name in secrets)]
        unknown = [key for key in given if key not in known]
        for key in unknown:
            self._refuse((*path, key), f"unknown key{did_you_mean(str(key), known)}", at_key=True)
        return WRONG if unknown or len(right) < len(kinds) else section(**right)

    def _refuse(self, path: KeyPath, message: str, *, at_key: bool = False) -> Any:
        problem = self._document.problem(path, message, at_key=at_key)
        if problem.path not in self._refused:
            self.problems.append(problem)
        return WRONG

    def _ruled(self, kind: Any, rules: Sequence[Any], given: object, path: KeyPath) -> Any:
        parsed = [rule for rule in rules if isinstance(rule, Parsed)]
        value = self._made(parsed[0].parse, given, path) if parsed else self.value(kind, given, path)
        for rule in rules:
            if value is not WRONG and callable(rule):
                try:
                    value = rule(value)
                except ValueError as error:
                    return self._refuse(path, str(error))
        return value

    def _beside(self, kind: Any, value: Any, right: Mapping[str, Any], path: KeyPath) -> Any:
        """The rules about a value and the fields before it."""
        for rule in get_args(kind) if get_origin(kind) is Annotated else ():
            if value is not WRONG and isinstance(rule, Beside):
                try:
                    value = rule.check(value, right)
                except Below as error:
                    return self._below(path, error.other)
                except ValueError as error:
                    return self._refuse(path, str(error))
        return value

    def _below(self, path: KeyPath, other: str) -> Any:
        """A value below that of the key `other` beside it. If only that is from the environment, that is
        wrong.
        """
        rival = (*path[:-1], other)
        own, its = self._document.values.get(path), self._document.values.get(rival)
        if its is not None and not its.line and (own is None or own.line):
            return self._refuse(rival, f"must not be larger than {path[-1]}")
        return self._refuse(path, f"must not be smaller than {other}")

    def _optional(self, kind: Any, given: object, path: KeyPath) -> Any:
        others = [option for option in get_args(kind) if option is not types.NoneType]
        if len(others) != 1:
            raise TypeError(f"a configuration cannot hold {kind}: one of several kinds")
        return None if given is None else self.value(others[0], given, path)

    def _word(self, options: Sequence[Any], given: object, path: KeyPath) -> Any:
        # An unquoted 1.2 is a number to YAML.
        word = str(given) if isinstance(given, float) and given not in options else given
        for option in options:
            if option == word and type(option) is type(word):
                return option
        known = list(map(str, options))
        return self._refuse(path, f"must be one of {', '.join(known)}{did_you_mean(str(given), known)}")

    def _collection(self, collection: type, kind: Any, given: object, path: KeyPath) -> Any:
        if not isinstance(given, list | tuple):
            return self._refuse(path, "must be a list")
        values = [self.value(kind, item, (*path, index)) for index, item in enumerate(given)]
        return WRONG if any(value is WRONG for value in values) else collection(values)

    def _mapping(self, kinds: Sequence[Any], given: object, path: KeyPath) -> Any:
        if not isinstance(given, dict):
            return self._refuse(path, AS_SECTION)
        right: dict[Any, Any] = {}
        spelled: dict[Any, str] = {}
        is_wrong = False
        for name, item in given.items():
            key = self._key(kinds[0], name, (*path, name))
            value = self.value(kinds[1], item, (*path, name))
            first = spelled.setdefault(key, name)
            if key is not WRONG and first != name:
                # One of the two would be lost in silence.
                is_wrong = self._refuse(path, f"names the same twice: {first} and {name}") is WRONG
            is_wrong = is_wrong or key is WRONG or value is WRONG
            right[key] = value
        return WRONG if is_wrong else right

    def _key(self, kind: Any, name: str, path: KeyPath) -> Any:
        """A key of a mapping: its mistakes are at the key itself."""
        try:
            for rule in get_args(kind)[1:] if get_origin(kind) is Annotated else ():
                name = rule(name)
        except ValueError as error:
            return self._refuse(path, str(error), at_key=True)
        return name

    def _plain(self, kind: Any, given: object, path: KeyPath) -> Any:
        if kind in (Any, object):
            return given
        if kind is bool:
            return given if isinstance(given, bool) else self._refuse(path, "must be true or false")
        if kind is int:
            is_whole = isinstance(given, int) and not isinstance(given, bool)
            return given if is_whole else self._refuse(path, "must be a whole number")
        if kind is float:
            return self._number(given, path)
        if kind is str:
            return given if isinstance(given, str) else self._refuse(path, AS_TEXT)
        if not isinstance(kind, type):
            raise TypeError(f"a configuration cannot hold {kind}")
        return self.section(kind, given, path) if issubclass(kind, Section) else self._made(kind, given, path)

    def _number(self, given: object, path: KeyPath) -> Any:
        if not isinstance(given, int | float) or isinstance(given, bool):
            return self._refuse(path, "must be a number")
        try:
            number = float(given)
        except OverflowError:
            number = math.inf
        return number if math.isfinite(number) else self._refuse(path, "must be a finite number")

    def _made(self, make: Any, given: object, path: KeyPath) -> Any:
        """What is made of one text."""
        if not isinstance(given, str):
            return self._refuse(path, AS_TEXT)
        try:
            return make(given)
        except ValueError as error:
            return self._refuse(path, str(error))

    def _from_file(self, kind: Any, given: Mapping[str, Any], name: str, path: KeyPath) -> Any:
        """The secret `name` for which a file is named."""
        path = (*path, f"{name}_file")
        try:
            text = _secret(given[f"{name}_file"], beside=name in given)
        except ValueError as error:
            return self._refuse(path, str(error))
        return self.value(kind, text, path)


def _secrets(section: type[Section]) -> list[str]:
    """The names of fields that are secrets."""
    return [name for name, kind in fields_of(section).items() if _bare(kind) is SecretText]


def _bare(kind: Any) -> Any:
    """The kind without its rules and `| None`."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return _bare(next(option for option in get_args(kind) if option is not types.NoneType))
    return kind


def _secret(source: object, *, beside: bool) -> str:
    if beside:
        raise ValueError("is given beside the secret itself: keep one of the two")
    if not isinstance(source, str):
        raise ValueError("must be the name of a file")
    try:
        text = Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{source} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{source} is not UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")
