"""Headers of a request as they are sent: each on a line of its own, after the end of the line before (RFC 9112 §5)."""

from collections.abc import Mapping


def header_lines(headers: Mapping[str, str]) -> bytes:
    """Raises `ValueError` for a header that is not one line."""
    text = "".join([f"\r\n{name}: {value}" for name, value in headers.items()])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers) or "\0" in text:
        raise ValueError("a header holds a line break")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError("a header holds what HTTP cannot say") from None


def headers_of(lines: bytes) -> dict[str, str]:
    """The inverse of `header_lines`."""
    return dict(line.split(": ", 1) for line in lines.decode("latin-1").split("\r\n")[1:])
