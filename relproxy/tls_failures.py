"""Why TLS has failed, in one word for a metric and in the library's own for the log."""

from __future__ import annotations

import re
import ssl

CAUSES = (
    *("name", "expired", "not_yet_valid", "unknown_ca", "certificate"),
    *("own_certificate", "version", "not_tls", "other"),
)

# What X509_verify_cert says (openssl-verification-options(1), x509_vfy.h).
_BY_VERIFICATION = {
    9: "not_yet_valid",
    10: "expired",
    18: "unknown_ca",
    19: "unknown_ca",
    20: "unknown_ca",
    21: "unknown_ca",
    62: "name",
    64: "name",
}
# The alerts by which the other side refuses a certificate, or the want of one (RFC 8446, 6.2).
_OWN_CERTIFICATE = re.compile(
    r"ALERT_(BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_[A-Z]+|UNKNOWN_CA|ACCESS_DENIED"
    r"|HANDSHAKE_FAILURE|DECRYPT_ERROR)"
)
_VERSION = re.compile(r"ALERT_PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL")
_NOT_TLS = re.compile(r"WRONG_VERSION_NUMBER|HTTP_REQUEST|RECORD_LAYER_FAILURE|UNEXPECTED_MESSAGE")


def cause_of(failure: BaseException | None) -> str:
    """Return one of `CAUSES`."""
    if isinstance(failure, ssl.SSLCertVerificationError):
        return _BY_VERIFICATION.get(failure.verify_code, "certificate")
    reason = (failure.reason or "") if isinstance(failure, ssl.SSLError) else ""
    if is_refusal(failure):
        return "own_certificate"
    if _VERSION.search(reason):
        return "version"
    return "not_tls" if _NOT_TLS.search(reason) else "other"


def reason_of(failure: ssl.SSLError) -> str:
    """Return OpenSSL's own word for what went wrong: one of a fixed set, nothing of the peer's."""
    why = getattr(failure, "verify_message", "")
    reason = failure.reason or "unknown"
    return f"{reason} ({why})" if why else reason


def detail_of(failure: BaseException | None) -> str:
    """Return what the library says, for people who may know it."""
    if isinstance(failure, ssl.SSLCertVerificationError):
        return failure.verify_message
    return (isinstance(failure, ssl.SSLError) and failure.reason) or str(failure)


def is_refusal(failure: BaseException | None) -> bool:
    """Tell whether the other side has ended a handshake because of relproxy's certificate.

    With TLS 1.3 that may arrive when a request has been sent already: nobody has read it.
    """
    if not isinstance(failure, ssl.SSLError) or isinstance(failure, ssl.SSLCertVerificationError):
        return False
    return _OWN_CERTIFICATE.search(failure.reason or "") is not None
