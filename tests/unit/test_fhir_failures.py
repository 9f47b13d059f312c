"""Which kind of network error it is that the HTTP client could not get an answer."""

import aiohttp
import pytest

from chartwire.errors import IssueCode, TemporaryNetworkError
from chartwire.networks.fhir.failures import wire_errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (aiohttp.ConnectionTimeoutError(), IssueCode.UNREACHABLE),  # nobody is there, whatever was to be asked
        (aiohttp.SocketTimeoutError(), IssueCode.TIMEOUT),
        (TimeoutError(), IssueCode.TIMEOUT),
        (ConnectionResetError(), IssueCode.UNREACHABLE),
    ],
)
def test_silence_before_a_connection_is_not_silence_after_a_question(error: Exception, code: IssueCode) -> None:
    with pytest.raises(TemporaryNetworkError) as raised, wire_errors():
        raise error
    assert raised.value.code is code
