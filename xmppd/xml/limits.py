"""What one client may make the scanner look at."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one stream; beyond them there is the stream error policy-violation (RFC 6120 4.9.3.14).

    `stanza_bytes` bounds one first-level element, `header_bytes` the stream header with its XML declaration.
    `depth` counts the first-level element as 1, `elements` counts it too. `attributes` and `namespaces`
    (declarations) are per element. `name_bytes` bounds one name, of an element, attribute or namespace; it is
    checked in the header, and in elements with so many tags or attributes that a long one, repeated, would be
    costly.
    """

    stanza_bytes: int = 262_144
    depth: int = 64
    attributes: int = 64
    namespaces: int = 32
    elements: int = 2048
    header_bytes: int = 4096
    name_bytes: int = 512
    harmless_bytes: int = field(init=False, repr=False)
    """An element of at most so many bytes cannot exceed any other bound: `<a/>` is 4 bytes, ` a=''` is 5."""
    harmless_tags: int = field(init=False, repr=False)
    """An element with at most so many `<` exceeds neither depth nor elements (depth d needs 2d - 1)."""
    harmless_pairs: int = field(init=False, repr=False)
    """An element with at most so many `=` exceeds neither attributes nor namespaces."""

    def __post_init__(self) -> None:
        pairs = min(self.attributes, self.namespaces)
        object.__setattr__(self, "harmless_pairs", pairs)
        object.__setattr__(self, "harmless_tags", min(2 * self.depth, self.elements))
        smallest = min(4 * self.elements, 7 * self.depth, 5 * pairs, self.name_bytes)
        object.__setattr__(self, "harmless_bytes", smallest)
