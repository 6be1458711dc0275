"""Every error that crosses a module boundary. Nothing else is raised on purpose.

Conditions are the element names of RFC 6120 (stream errors 4.9.3, SASL failures 6.5, stanza errors 8.3.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

STANZA_ERROR_TYPES = {
    "bad-request": "modify",
    "conflict": "cancel",
    "feature-not-implemented": "cancel",
    "forbidden": "auth",
    "gone": "cancel",
    "internal-server-error": "cancel",
    "item-not-found": "cancel",
    "jid-malformed": "modify",
    "not-acceptable": "modify",
    "not-allowed": "cancel",
    "not-authorized": "auth",
    "policy-violation": "modify",
    "recipient-unavailable": "wait",
    "redirect": "modify",
    "registration-required": "auth",
    "remote-server-not-found": "cancel",
    "remote-server-timeout": "wait",
    "resource-constraint": "wait",
    "service-unavailable": "cancel",
    "subscription-required": "auth",
    "undefined-condition": "cancel",
    "unexpected-request": "wait",
}
"""Stanza error condition -> its usual error type (RFC 6120 8.3.3)."""

STREAM_ERRORS = frozenset(
    """bad-format bad-namespace-prefix conflict connection-timeout host-gone host-unknown improper-addressing
    internal-server-error invalid-from invalid-namespace invalid-xml not-authorized not-well-formed
    policy-violation remote-connection-failed reset resource-constraint restricted-xml see-other-host
    system-shutdown undefined-condition unsupported-encoding unsupported-feature unsupported-stanza-type
    unsupported-version""".split()
)
"""The stream error conditions of RFC 6120 4.9.3."""

SASL_ERRORS = frozenset(
    """aborted account-disabled credentials-expired encryption-required incorrect-encoding invalid-authzid
    invalid-mechanism malformed-request mechanism-too-weak not-authorized temporary-auth-failure""".split()
)
"""The SASL failure conditions of RFC 6120 6.5."""


class XmppdError(Exception):
    """The root of all errors below."""


class StanzaError(XmppdError):
    """Refuses one stanza; its sender gets an error reply built in one place (RFC 6120 8.3).

    `type` is taken from the table of RFC 6120 8.3.3 unless given; `detail` is an application-specific
    condition (8.3.4), an element or its Clark name, "" for none. `content` stands in the condition, as
    `gone` may have it.
    """

    def __init__(
        self,
        condition: str,
        text: str = "",
        *,
        type: str | None = None,
        detail: str | Element = "",
        content: str = "",
    ) -> None:
        super().__init__(f"{condition}: {text}" if text else condition)
        self.condition = condition
        self.text = text
        self.type = type or STANZA_ERROR_TYPES[condition]
        self.detail = detail
        self.content = content


class StreamError(XmppdError):
    """Ends a stream with one of `STREAM_ERRORS` (RFC 6120 4.9). `content` is what stands in the condition, as
    only `see-other-host` has it; `extra` an element of another specification beside it (4.9.4).
    """

    def __init__(self, condition: str, text: str = "", content: str = "", extra: bytes = b"") -> None:
        super().__init__(f"{condition}: {text}" if text else condition)
        assert condition in STREAM_ERRORS, condition
        self.condition = condition
        self.text = text
        self.content = content
        self.extra = extra


class SaslError(XmppdError):
    """Refuses one authentication attempt with one of `SASL_ERRORS` (RFC 6120 6.5)."""

    def __init__(self, condition: str, text: str = "") -> None:
        super().__init__(f"{condition}: {text}" if text else condition)
        assert condition in SASL_ERRORS, condition
        self.condition = condition
        self.text = text


class JidError(XmppdError, ValueError):
    """A string that is no JID (RFC 7622)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration: where it is and what to do about it. `line` and `column` count
    from 1.
    """

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class Finding(NamedTuple):
    """A mistake that a machine shows. `is_fatal`: no server can work with it, whatever the machine is like at
    the moment.
    """

    problem: Problem
    is_fatal: bool = False


class ConfigError(XmppdError):
    """A configuration that cannot be used, with every mistake found in it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class CommandError(XmppdError):
    """A command that could not be done: one sentence for the operator, and the exit code of the
    command line. For machines: the `field`, a parameter, that is wrong if it is one, and the name of the
    `rule` that refused.
    """

    def __init__(self, message: str, exit_code: int = 1, *, field: str = "", rule: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.field = field
        self.rule = rule or ("usage" if exit_code == 2 else "refused")


class StoreError(XmppdError):
    """A store operation that failed; the four kinds are its subclasses."""


class StoreUnavailable(StoreError):
    """The store could not be asked; nothing was written."""


class StoreTimeout(StoreError):
    """The store did not answer in time; a write may or may not have been applied."""


class StoreConflict(StoreError):
    """Somebody else changed the row in between, again and again."""


class StoreBug(StoreError):
    """The request itself was wrong (unknown column, bad type, refused schema change)."""


class TrunkError(XmppdError):
    """What came from another node cannot be taken: the trunk is at its end."""


class TrustLost(TrunkError):
    """Nor can what comes after it on this connection: a frame is missing, or the other node may have given
    this one up. The connection has to be made anew, and the trunk goes on then.
    """


class NodesUnavailable(XmppdError):
    """The list of nodes cannot be read now, or this node cannot be put on it."""
