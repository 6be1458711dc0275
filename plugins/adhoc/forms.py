"""Data forms (XEP-0004): what a command asks for, what was filled in, and what came of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from xmppd import ns
from xmppd.plugin import Description, Element, Parameter, StanzaError, element

FORM: Final = f"{{{ns.DATA_FORM}}}x"
FIELD: Final = f"{{{ns.DATA_FORM}}}field"
VALUE: Final = f"{{{ns.DATA_FORM}}}value"
BAD_PAYLOAD: Final = f"{{{ns.COMMANDS}}}bad-payload"
NOT_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""What no text of a form may hold."""

TRUE, FALSE = ("1", "true"), ("0", "false")
TYPES: Final = {
    "str": "text-single",
    "int": "text-single",
    "float": "text-single",
    "bool": "boolean",
    "Jid": "jid-single",
}


def field(
    var: str,
    values: Iterable[str] = (),
    *,
    type: str = "",
    label: str = "",
    desc: str = "",
    required: bool = False,
) -> Element:
    """One field."""
    attrs = {"var": var, **{key: it for key, it in (("type", type), ("label", label)) if it}}
    inner = [element(f"{{{ns.DATA_FORM}}}desc", None, desc)] if desc else []
    inner += [element(f"{{{ns.DATA_FORM}}}required")] if required else []
    return element(
        FIELD,
        attrs,
        *inner,
        *(element(VALUE, None, NOT_XML.sub("\N{REPLACEMENT CHARACTER}", it)) for it in values),
    )


def form(title: str, instructions: str, fields: Iterable[Element], *, kind: str = "form") -> Element:
    """A form, or with the kind `result` what came of it."""
    texts = (("title", title), ("instructions", instructions))
    heads = (element(f"{{{ns.DATA_FORM}}}{name}", None, text) for name, text in texts if text)
    return element(FORM, {"type": kind}, *heads, *fields)


# parameters of commands


def asked(about: Description, given: Mapping[str, Any]) -> Element:
    """The form for the parameters of a command, with what was given before."""
    fields = [
        _asked(parameter, given.get(parameter.name, parameter.default)) for parameter in about.parameters
    ]
    return form(about.help, "", fields)


def _asked(parameter: Parameter, value: Any) -> Element:
    if parameter.secret:
        kind = "text-private"
    elif parameter.many:
        kind = "jid-multi" if parameter.kind == "Jid" else "text-multi"
    else:
        kind = TYPES[parameter.kind]
    return field(
        parameter.name,
        [] if parameter.secret else texts_of(value),
        type=kind,
        label=parameter.name.replace("_", " "),
        desc=parameter.help,
        required=parameter.required,
    )


def submitted(command: Element) -> dict[str, list[str]]:
    """The values of a form that was filled in, by field; StanzaError bad-payload where there is none."""
    found = command.find(FORM)
    if found is None or found.get("type") not in ("submit", "cancel"):  # XEP-0050 3.5.1
        raise bad_payload("A form is needed.")
    return {
        name: [value.text or "" for value in inner.iterfind(VALUE)]
        for inner in found.iterfind(FIELD)
        if (name := inner.get("var"))
    }


def arguments(about: Description, values: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Arguments for a command, as JSON has them; what was left empty is not given. CommandError."""
    found: dict[str, Any] = {}
    for parameter in about.parameters:
        texts = [text for text in values.get(parameter.name, ()) if text or parameter.kind == "str"]
        if parameter.kind == "bool":
            texts = ["true" if text in TRUE else "false" if text in FALSE else text for text in texts]
        if texts and (parameter.many or texts != [""]):
            found[parameter.name] = parameter.read_text(texts)
    return found


def bad_payload(text: str) -> StanzaError:
    """The refusal of a form (XEP-0050 4.5)."""
    return StanzaError("bad-request", text, detail=BAD_PAYLOAD)


# results


def texts_of(value: Any) -> list[str]:
    """A value of JSON as the values of a field."""
    if value is None:
        return []
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        return [text for item in value for text in texts_of(item)]
    return [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)]


def rows_of(result: Any) -> list[Mapping[str, Any]] | None:
    """The rows of a result that is a table."""
    if isinstance(result, list) and result and all(isinstance(row, Mapping) for row in result):
        return result
    return None


def shown(title: str, result: Any) -> Element | None:
    """A result as a form: a table of rows, a field for each key, or one field; None for nothing."""
    if result is None:
        return None
    if (rows := rows_of(result)) is not None:
        names = list(dict.fromkeys(name for row in rows for name in row))
        head = element(f"{{{ns.DATA_FORM}}}reported", None, *(field(name, label=name) for name in names))
        items = [
            element(
                f"{{{ns.DATA_FORM}}}item", None, *(field(name, texts_of(row.get(name))) for name in names)
            )
            for row in rows
        ]
        return form(title, "", [head, *items], kind="result")
    if isinstance(result, Mapping):
        return form(
            title, "", [field(key, texts_of(it), label=key) for key, it in result.items()], kind="result"
        )
    return form(title, "", [field("result", texts_of(result), label="result")], kind="result")
