"""What the errors of Cassandra and its driver mean for a store."""

from __future__ import annotations

from ssl import SSLError

from cassandra import (
    AuthenticationFailed,
    InvalidRequest,
    OperationTimedOut,
    ReadFailure,
    ReadTimeout,
    RequestValidationException,
    Unauthorized,
    Unavailable,
    UnresolvableContactPoints,
    WriteTimeout,
)
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionException, ConnectionShutdown
from cassandra.protocol import IsBootstrappingErrorMessage, OverloadedErrorMessage, SyntaxException

from xmppd.errors import StoreBug, StoreError, StoreTimeout, StoreUnavailable

NOT_SENT = (NoHostAvailable, UnresolvableContactPoints, AuthenticationFailed, Unauthorized)
"""Nothing was done, and nobody will."""

NOT_DONE = (Unavailable, OverloadedErrorMessage, IsBootstrappingErrorMessage)
"""The coordinator refused before it did anything; of a conditional write that is not sure."""

REFUSED = (RequestValidationException, SyntaxException, TypeError, ValueError, OverflowError)
"""The request itself is wrong."""


def translated(error: BaseException, *, conditional: bool = False) -> StoreError:
    """The StoreError to raise for an error met with a request. What is not known has an unknown outcome."""
    if isinstance(error, StoreError):
        return error
    reason = _sentence(error)
    if isinstance(error, NOT_SENT):
        return StoreUnavailable(f"Cassandra cannot be asked: {reason}")
    if isinstance(error, (*NOT_DONE, ReadFailure)) and not conditional:
        return StoreUnavailable(f"Cassandra did not do it: {reason}")
    if isinstance(error, REFUSED):
        return StoreBug(f"Cassandra refused a statement: {reason}")
    return StoreTimeout(f"Cassandra did not answer in time: {reason}")


def met(error: Exception, *, conditional: bool = False) -> StoreError:
    """What an error met with a request means, with the error itself as its cause."""
    failed = translated(error, conditional=conditional)
    failed.__cause__ = failed.__cause__ or (error if error is not failed else None)
    return failed


def is_of_one_partition(error: StoreError) -> bool:
    """Whether the replicas are there and answer, and only what was asked for cannot be read: a partition in
    which too much was deleted lately. It would be no different next time, and says nothing of the others.
    """
    return isinstance(error.__cause__, ReadFailure)


def is_hung_up(error: BaseException) -> bool:
    """Whether a node was reached and hung up, as one does that wants TLS, or another certificate."""
    reasons: object = getattr(error, "errors", None)
    kinds = (ConnectionResetError, ConnectionShutdown, SSLError)
    return isinstance(reasons, dict) and any(isinstance(reason, kinds) for reason in reasons.values())


def _sentence(error: BaseException) -> str:
    """What went wrong, without the words of the protocol where we know better ones."""
    if isinstance(error, NoHostAvailable):
        reasons = error.errors if isinstance(error.errors, dict) else {}
        each = [f"{host}: {_sentence(reason)}" for host, reason in list(reasons.items())[:3]]
        return "; ".join(each) or str(error.args[0])
    if isinstance(error, Unavailable):
        return f"{error.alive_replicas} of {error.required_replicas} replicas needed are alive"
    if isinstance(error, WriteTimeout | ReadTimeout):
        answered = f"{error.received_responses} of {error.required_responses} replicas answered"
        return f"{answered} ({type(error).__name__})"
    if isinstance(error, OperationTimedOut):
        return f"no answer from {error.last_host}" if error.last_host else "no answer"
    if isinstance(error, InvalidRequest | RequestValidationException):
        return str(error.args[0]) if error.args else type(error).__name__
    if isinstance(error, ConnectionException):
        return f"the connection broke: {error}"
    if isinstance(error, OSError):
        # The driver puts its own words before those of the system or of OpenSSL.
        return (error.strerror or str(error)).rpartition("Last error: ")[2]
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
