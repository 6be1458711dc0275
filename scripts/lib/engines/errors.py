"""What may go wrong with an engine."""


class EngineError(Exception):
    """An engine cannot be had or does not do what it was told; the text says why, for whoever called."""
