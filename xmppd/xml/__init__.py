"""The only place that parses or builds XML: bytes to stanzas (`scan`), the stanza itself, elements to bytes
(`build`).
"""
