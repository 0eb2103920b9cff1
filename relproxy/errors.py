"""What can go wrong, as one tree: a sentence for a person and an HTTP status for each.

A driver's own errors are translated at the driver's edge and kept as `__cause__`. Whatever reaches
a client is the sentence of one of these; nothing else of an exception ever does.
"""

from __future__ import annotations

from typing import ClassVar


class RelproxyError(Exception):
    """The root; carries the sentence that the client is told."""

    status: ClassVar[int] = 500
    retry_after_s: ClassVar[int | None] = None

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class BadRequestError(RelproxyError):
    """The request can't be understood, or means two things at once; nothing is forwarded."""

    status = 400


class UnauthenticatedError(RelproxyError):
    """Nobody vouches for a caller, and what was asked for needs one.

    `challenge` is the value of WWW-Authenticate.
    """

    status = 401

    def __init__(self, sentence: str, *, challenge: str = 'Token realm="images"') -> None:
        super().__init__(sentence)
        self.challenge = challenge


class ForbiddenError(RelproxyError):
    """The caller is known and may not do this."""

    status = 403


class NotFoundError(RelproxyError):
    """There is no such thing, or none that the caller may know of."""

    status = 404


class MethodNotAllowedError(RelproxyError):
    """The path is known, the method isn't one of its own."""

    status = 405

    def __init__(self, sentence: str, *, allowed: tuple[str, ...]) -> None:
        super().__init__(sentence)
        self.allowed = allowed


class SlowRequestError(RelproxyError):
    """The client stopped sending in the middle of a body."""

    status = 408


class BodyTooLargeError(RelproxyError):
    """A body that has to be read whole is over the configured cap."""

    status = 413


class TooManyRequestsError(RelproxyError):
    """The caller's project has as many requests under way as it may."""

    status = 429
    retry_after_s = 5


class OverloadedError(RelproxyError):
    """As many requests are under way as this relproxy, or the registry, may have."""

    status = 503
    retry_after_s = 5


class RegistryUnreachableError(RelproxyError):
    """No connection to the registry, or it broke before an answer came."""

    status = 502


class NothingSentError(RegistryUnreachableError):
    """No connection to any endpoint could be made, so the registry has seen nothing."""


class TlsFailedError(NothingSentError):
    """An endpoint isn't who it should be, or doesn't take relproxy for whom it should.

    `cause` is one of `relproxy.tls_failures.CAUSES`, `detail` what the library says: for the log
    alone.
    """

    def __init__(self, sentence: str, *, cause: str, detail: str) -> None:
        super().__init__(sentence)
        self.cause = cause
        self.detail = detail


class RegistryGarbageError(RelproxyError):
    """The registry answered something that can't be proven filtered, so none of it is shown."""

    status = 502


class AnswerTooLargeError(RegistryGarbageError):
    """The registry's answer is over the configured size."""


class NoDescriptorError(NothingSentError):
    """No connection to a registry could be made, because this process has no descriptor left."""

    status = 503
    retry_after_s = 5


class RegistryTimeoutError(RelproxyError):
    """The registry took longer than the configured time."""

    status = 504


class StoreUnavailableError(RelproxyError):
    """The store can't be read or written now."""

    status = 503
    retry_after_s: ClassVar[int | None] = 5


class RecordRefusedError(StoreUnavailableError):
    """The store does not take this very value, however often it is tried; it takes others."""

    retry_after_s = None


class StoreRefusedError(StoreUnavailableError):
    """The store will not be had by trying again: a newer schema, another host's file."""

    retry_after_s = None


class JournalUnavailableError(RelproxyError):
    """What is about to be done can't be made durable first, so it isn't done."""

    status = 503
    retry_after_s = 5


class WalkRefusedError(RelproxyError):
    """A walk through a registry can't be begun, or gone on with: a person has to do something."""


class JournalRefusedError(RelproxyError):
    """The journal's directory is not one that a journal may be kept in."""

    status = 503


class AnnouncementError(RelproxyError):
    """A connection that has to begin with a PROXY protocol header begins otherwise."""

    status = 400


class KeystoneUnavailableError(RelproxyError):
    """Keystone can't be asked, or refuses relproxy itself."""

    status = 503
    retry_after_s = 5


class TokensUnusableError(RelproxyError):
    """The file of the admin listener's tokens can't be read, or has a mistake: nobody is let in."""

    status = 503
    retry_after_s: ClassVar[int | None] = 5


class ListTooCostlyError(RelproxyError):
    """A list needs more upstream pages than one request may cost."""

    status = 503


class ListChangedError(RelproxyError):
    """A list changed while its pages were being read."""

    status = 503
    retry_after_s = 1


class AnswersWaitError(RelproxyError):
    """Clients haven't taken what they asked for, and no more is held for them."""

    status = 503
    retry_after_s = 5


class RecordNotKeptError(RelproxyError):
    """The registry made the image and the store didn't take its record."""

    status = 503


class ConfigurationError(RelproxyError):
    """The configuration can't be used; carries one line for each problem."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class WorkersRefusedError(RelproxyError):
    """The workers of a new configuration don't begin to serve; those of the old one go on."""
