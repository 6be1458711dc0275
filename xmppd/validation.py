"""Plain data against a pydantic model: the model, or every mistake with its place and what to do about it."""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from xmppd.document import Document, KeyPath
from xmppd.errors import ConfigError, Problem
from xmppd.settings import BELOW

Model = TypeVar("Model", bound=BaseModel)

_SENTENCES = {
    "missing": "is missing",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text (put it in quotes)",
    "path_type": "must be text (put it in quotes)",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a section (keys and values below it)",
    "mapping_type": "must be a section (keys and values below it)",
    "model_type": "must be a section (keys and values below it)",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "too_short": "must have {min_length} or more entries",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "does not have the right form ({pattern})",
    "value_error": "{error}",
}


def validated(model: type[Model], data: dict[str, Any], document: Document, base: KeyPath) -> Model:
    """`data`, which stands at `base` in `document`, as a `model`; ConfigError with every mistake of both.

    For a field NAME of type SecretStr a key `NAME_file` will do: that file's text without its last line end.
    """
    problems = list(document.problems)
    result = None
    try:
        given = _with_secrets(model, data, document, base, problems)
        # By way of JSON: strict mode then takes lists for tuples and text for paths, but no "5" for 5.
        result = model.model_validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        # Where reading failed something else stands in; that this is wrong too is no second mistake.
        refused = {problem.path for problem in problems}
        found = [_problem(model, details, document, base) for details in error.errors(include_url=False)]
        problems += [problem for problem in found if problem.path not in refused]
    if problems or result is None:
        raise ConfigError(sorted(problems, key=lambda problem: (problem.line, problem.column)))
    return result


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to put behind a message about an unknown word; empty when nothing known is like it."""
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), folded, n=1)
    return f" (did you mean {folded[close[0]]}?)" if close else ""


def _problem(model: type[BaseModel], details: ErrorDetails, document: Document, base: KeyPath) -> Problem:
    kind, location, context = details["type"], details["loc"], details.get("ctx", {})
    is_key = bool(location) and location[-1] == "[key]"
    path = (*base, *(location[:-1] if is_key else location))
    if kind == "extra_forbidden":
        hint = did_you_mean(str(location[-1]), _known_keys(model, location[:-1]))
        return document.problem(path, f"unknown key{hint}", at_key=True)
    if kind == BELOW:
        return _blamed(document, path, context["other"])
    if kind == "literal_error":
        options = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        message = f"must be one of {', '.join(options)}{did_you_mean(str(details['input']), options)}"
    else:
        bounds = {name: f"{value:.10g}" for name, value in context.items() if isinstance(value, int | float)}
        message = _SENTENCES.get(kind, "{message}").format(**{"message": details["msg"], **context, **bounds})
    return document.problem(path, message, at_key=is_key)


def _blamed(document: Document, path: KeyPath, other: str) -> Problem:
    """A value below that of the key `other` beside it. If only that is from the environment, it is wrong."""
    rival = (*path[:-1], other)
    own, its = document.values.get(path), document.values.get(rival)
    if its is not None and not its.line and (own is None or own.line):
        return document.problem(rival, f"must not be larger than {path[-1]}")
    return document.problem(path, f"must not be smaller than {other}")


def _known_keys(model: type[BaseModel], location: KeyPath) -> list[str]:
    annotation: Any = model
    for step in location:
        annotation = _below(annotation, step)
    names = list(_fields(annotation))
    return names + [f"{name}_file" for name in _secrets(annotation)]


def _with_secrets(kind: Any, value: Any, document: Document, path: KeyPath, problems: list[Problem]) -> Any:
    """A copy of `value`, annotated `kind`, in which every `NAME_file` of a secret became NAME."""
    if isinstance(value, list):
        return [
            _with_secrets(_below(kind, index), item, document, (*path, index), problems)
            for index, item in enumerate(value)
        ]
    if not isinstance(value, dict):
        return value
    given = {
        key: _with_secrets(_below(kind, key), item, document, (*path, key), problems)
        for key, item in value.items()
    }
    for name in _secrets(kind):
        key = f"{name}_file"
        if key in given:
            source = given.pop(key)
            try:
                given[name] = _secret(source, beside=name in given)
            except ValueError as error:
                given.setdefault(name, "")  # so that it is not reported as missing too
                problems.append(document.problem((*path, key), str(error)))
    return given


def _secret(source: object, *, beside: bool) -> str:
    if beside:
        raise ValueError("is given beside the secret itself: keep one of the two")
    if not isinstance(source, str):
        raise ValueError("must be the name of a file")
    try:
        return Path(source).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise ValueError(f"{source} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{source} is not UTF-8") from None


def _bare(annotation: Any) -> Any:
    """The annotation without `Annotated` and `| None`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _bare(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _bare(next(option for option in get_args(annotation) if option is not types.NoneType))
    return annotation


def _below(annotation: Any, step: str | int) -> Any:
    """The annotation of what is at `step` in something annotated so; None when that is not known."""
    bare = _bare(annotation)
    if fields := _fields(bare):
        return fields.get(str(step))
    arguments = get_args(bare)
    return (arguments[0] if isinstance(step, int) else arguments[-1]) if arguments else None


def _fields(annotation: Any) -> dict[str, Any]:
    """Names and annotations of the fields of a model; nothing for anything else."""
    bare = _bare(annotation)
    if not (isinstance(bare, type) and issubclass(bare, BaseModel)):
        return {}
    return {info.alias or name: info.annotation for name, info in bare.model_fields.items()}


def _secrets(annotation: Any) -> list[str]:
    return [name for name, kind in _fields(annotation).items() if _bare(kind) is SecretStr]
