"""Namespaces that no stanza may have."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.parametrize("reference", [b"&#10;", b"&#xA;"])
@pytest.mark.parametrize("before", [b"", b"<x:y xmlns:x='urn:x'/>", b"<![CDATA[x]]>"])
def test_an_end_of_line_in_a_namespace_is_refused(
    header: bytes, scan: Callable[..., Any], before: bytes, reference: bytes
) -> None:
    """Parsers of clients that put one between namespace and name would read another element."""
    for child in (b"<y xmlns='a%sb'/>", b"<p:y xmlns:p='a%sb'/>"):
        whole = scan(header + b"<message>" + before + child % reference + b"</message>")
        assert whole.error == "not-well-formed"
