"""Text that may hold anything, made fit to be one line for people."""

from __future__ import annotations

import re

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escape(text: str) -> str:
    """The text on one line: controls, line ends and turns of the reading direction become visible escapes."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def host_and_port(host: str, port: int) -> str:
    """`host:port`; an IPv6 address in brackets, without which nobody can tell it from the port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
