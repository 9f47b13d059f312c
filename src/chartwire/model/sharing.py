"""Room for attempts that all endpoints share: a crowd of those that are slow must leave some for the others."""

ALWAYS = 2
"""Under way at an endpoint while there is any room at all: a first attempt and a repeat."""


def shared_room(limit: int, left: int, busy: int) -> int:
    """How many more an endpoint may have of the `left` of `limit`, `busy` of its own among the others.

    Never more than are left for all others, and a quarter beside: whoever has few under way finds room there.
    (Choudhury and Hahne, "Dynamic queue length thresholds", 1998.)
    """
    return min(left, max((left - limit // 4 - busy) // 2, ALWAYS - busy))
