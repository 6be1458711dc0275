"""What one client may make the scanner look at."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one stream; beyond them there is the stream error policy-violation (RFC 6120 4.9.3.14).

    `stanza_bytes` bounds one first-level element, `header_bytes` the stream header with its XML declaration.
    `depth` counts the first-level element as 1, `elements` counts it too. `attributes` and `namespaces`
    (declarations, at least 1) are per element. `name_bytes` bounds one name, of an element, attribute or
    namespace; it is checked in the header, and in elements with so many tags or attributes that a long one,
    repeated, would be costly.
    """

    stanza_bytes: int = 262_144
    depth: int = 64
    attributes: int = 64
    namespaces: int = 32
    elements: int = 2048
    header_bytes: int = 4096
    name_bytes: int = 512
    harmless_bytes: int = field(init=False, repr=False)
    """Attributes of at most so many bytes exceed no bound: ` a=''` is 5 bytes."""
    simple_bytes: int = field(init=False, repr=False)
    """A first-level element of at most so many bytes, without a declared prefix, exceeds no bound: a level
    takes 7 bytes (`<a></a>`), an element 4 (`<a/>`), an attribute 5, and none can declare two namespaces.
    """
    simple_tags: int = field(init=False, repr=False)
    """An element with at most so many `<` exceeds neither depth nor elements (depth d needs 2d - 1)."""

    def __post_init__(self) -> None:
        harmless = min(5 * self.attributes, 5 * self.namespaces, self.name_bytes)
        object.__setattr__(self, "harmless_bytes", harmless)
        simple = min(
            4 * self.elements, 7 * self.depth, 5 * self.attributes, self.name_bytes, self.stanza_bytes
        )
        object.__setattr__(self, "simple_bytes", simple)
        object.__setattr__(self, "simple_tags", min(2 * self.depth, self.elements))

    def allow(self, raw: bytes) -> bool:
        """Whether a first-level element without a declared prefix is below every bound for certain."""
        size = len(raw)
        return size <= self.simple_bytes or (
            size <= self.stanza_bytes
            and size - len(raw.replace(b"<", b"", self.simple_tags + 1))
            <= self.simple_tags  # `count` is slower
            and size - len(raw.replace(b"=", b"", self.attributes + 1)) <= self.attributes
        )
