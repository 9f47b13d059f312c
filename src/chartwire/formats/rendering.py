"""Renders one C-CDA document in a process of its own: `python -m chartwire.formats.rendering html|pdf`.

The document comes on standard input, the page leaves on standard output. A document whose layout has no end, or takes
all memory there is, ends this process and nothing else.
"""

import resource
import sys
from collections.abc import Callable

from chartwire.errors import CcdaError

NOT_CCDA = 3
"""The exit status that says: this is not a C-CDA document."""
SECONDS = 20
MEMORY_BYTES = 1 << 30


def main(form: str) -> int:
    """Render; returns the exit status."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))  # also when nobody is left to stop it
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        rendered = _renderer(form)(sys.stdin.buffer.read())
    except CcdaError:
        return NOT_CCDA
    sys.stdout.buffer.write(rendered)
    return 0


def _renderer(form: str) -> Callable[[bytes], bytes]:
    """Imported when needed: the server reads this module for its limits, and should not load a PDF library."""
    match form:
        case "html":
            from chartwire.formats.ccda_html import render_html

            return render_html
        case "pdf":
            from chartwire.formats.ccda_pdf import render_pdf

            return render_pdf
        case _:
            raise ValueError("the form is html or pdf")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
