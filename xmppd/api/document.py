"""The OpenAPI 3.1 document of all commands, from their descriptions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from xmppd import __version__
from xmppd.admin.commands import Command, Description, Kind, Parameter
from xmppd.api.calls import path_of

TYPES: Final[Mapping[Kind, Mapping[str, str]]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "Jid": {"type": "string", "format": "jid"},
}

REFUSALS: Final = {
    "400": "A parameter is missing, unknown or wrong.",
    "401": "A bearer token is needed.",
    "403": "The token does not allow this.",
    "404": "There is no such account.",
    "409": "The state of things does not allow this.",
    "422": "The Idempotency-Key was for something else.",
    "429": "There are too many requests.",
    "503": "The store cannot be used now, or this took too long.",
}

IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "With the same key it is done once, and answered again for a day.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}

IF_NONE_MATCH: Final = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "The ETag of an answer: 304 as long as there is no other.",
    "schema": {"type": "string"},
}

LAST_EVENT_ID: Final = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The id of the last event that came before the connection broke: the next ones follow.",
    "schema": {"type": "string"},
}

EVENTS: Final = (
    "Server-Sent Events without end: each has an id, and as its data a JSON object that says `what` it is. "
    "One whose type is `end` is the last. A comment comes at least every five seconds."
)

PROBLEM: Final = {
    "type": "object",
    "description": "Why a request was refused (RFC 9457).",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "One sentence for people."},
        "rule": {"type": "string", "description": "The rule that refused."},
        "field": {"type": "string", "description": "The parameter that is wrong."},
    },
}

PAGE: Final = {
    "type": "object",
    "description": "A part of the work was done; call again with `after` until it is null.",
    "required": ["rows", "counts", "total", "after", "exit_code"],
    "properties": {
        "rows": {"type": "array", "items": {"type": "object"}},
        "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
        "total": {"type": ["integer", "null"]},
        "after": {"type": ["string", "null"]},
        "exit_code": {"type": "integer"},
    },
}


def document(commands: Iterable[Description]) -> dict[str, Any]:
    """The whole document: plain data."""
    known = list(commands)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "xmppd",
            "version": __version__,
            "summary": "Every command of the server.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": noun} for noun in dict.fromkeys(about.noun for about in known)],
        "security": [{"token": []}],
        "paths": {path_of(about): {_method(about): operation(about)} for about in known},
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": PROBLEM, "Page": PAGE},
            "responses": {
                f"Refused{status}": {
                    "description": text,
                    "content": {"application/problem+json": {"schema": _schema("Problem")}},
                }
                for status, text in REFUSALS.items()
            },
        },
    }


def operation(about: Description) -> dict[str, Any]:
    """One command."""
    scope, *wider = about.scopes
    result = _schema("Page") if about.paged else {}
    content = {"application/json": {"schema": result}}
    if about.downloads:
        content = {about.downloads: {}}
    if about.follows:
        content = {"text/event-stream": {"schema": {"type": "string", "description": EVENTS}}}
    found: dict[str, Any] = {
        "operationId": about.name.replace(" ", "-"),
        "summary": about.help,
        "description": f"Needs the scope `{scope}`, or one of {', '.join(f'`{other}`' for other in wider)}.",
        "tags": [about.noun],
        "responses": {
            "200": {"description": "Done.", "content": content},
            **{status: {"$ref": f"#/components/responses/Refused{status}"} for status in REFUSALS},
        },
    }
    if about.reads:
        found["parameters"] = [_field(parameter) for parameter in about.parameters]
        if about.follows:
            found["parameters"].append(LAST_EVENT_ID)
        if isinstance(about, Command) and about.versioner is not None:
            found["parameters"].append(IF_NONE_MATCH)
            found["responses"]["304"] = {"description": "It is as it was."}
    else:
        found["parameters"] = [IDEMPOTENCY_KEY]
        found["requestBody"] = {
            "required": any(parameter.required for parameter in about.parameters),
            "content": {"application/json": {"schema": _body(about.parameters)}},
        }
    return found


def _method(about: Description) -> str:
    return "get" if about.reads else "post"


def _schema(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _field(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "required": parameter.required,
        "description": parameter.help,
        "schema": _type(parameter),
    }


def _body(parameters: Iterable[Parameter]) -> dict[str, Any]:
    known = list(parameters)
    schema: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            parameter.name: {**_nullable(parameter), "description": parameter.help} for parameter in known
        },
    }
    if required := [parameter.name for parameter in known if parameter.required]:
        schema["required"] = required
    return schema


def _nullable(parameter: Parameter) -> dict[str, Any]:
    """In a body null stands for what is not given."""
    found = _type(parameter)
    return found if parameter.required else {**found, "type": [found["type"], "null"]}


def _type(parameter: Parameter) -> dict[str, Any]:
    found: dict[str, Any] = dict(TYPES[parameter.kind])
    if parameter.secret:
        found["format"] = "password"
        found["writeOnly"] = True
    if parameter.many:
        found = {"type": "array", "items": found}
    if not parameter.required and parameter.default is not None:
        found["default"] = parameter.default
    return found
