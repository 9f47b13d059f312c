"""Why there was no answer, in the codes that customers see (`docs/reference/webhooks.md`, Outcomes)."""

import socket
import ssl

from chartwire.errors import ForbiddenAddressError
from chartwire.model.webhook import Outcome

_REASONS: tuple[tuple[tuple[type[BaseException], ...], Outcome], ...] = (  # the first that fits
    ((ForbiddenAddressError,), Outcome.FORBIDDEN_ADDRESS),
    ((socket.gaierror, UnicodeError), Outcome.DNS),  # a name that is too long to be asked for fails in its codec
    ((ssl.SSLEOFError,), Outcome.RESET),
    ((ssl.SSLError,), Outcome.TLS),
    ((TimeoutError,), Outcome.TIMEOUT),
    ((ConnectionResetError, ConnectionAbortedError, BrokenPipeError), Outcome.RESET),
    ((OSError,), Outcome.REFUSED),
)


def reason_of(error: BaseException) -> Outcome:
    """The reason that an error of the operating system, of TLS or of the address rule stands for."""
    return next((reason for kinds, reason in _REASONS if isinstance(error, kinds)), Outcome.PROTOCOL)
