"""The reckoning: what was promised against what arrived and what the database says. No I/O."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known at the end. Ids of messages are those of their `webhook-id`; times are of one clock, in seconds."""

    acknowledged: Sequence[str]
    """Messages that the API said it has."""
    unanswered: int
    """Requests for a message whose caller never heard an answer."""
    arrivals: Sequence[tuple[str, float]]
    """Every message that the receiver got, each time, in order."""
    forged: int
    """Requests whose signatures were wrong."""
    events: Sequence[str]
    """Messages in the database."""
    promised_documents: Mapping[str, int]
    """How many documents were found, by query."""
    announced_documents: Sequence[str]
    """Documents in messages; a message that arrived twice counts once."""
    closed: frozenset[str]
    """Queries that a closing message told of."""
    waiting: int
    """Deliveries that wait, or failed."""
    settled_twice: int
    """Deliveries that were written down as delivered more than once."""
    kills: Sequence[float]
    """When a process that posts was killed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    good: bool
    says: str


def reckon(facts: Facts) -> list[Finding]:
    """Whether everything arrived: each finding, good or bad."""
    return [
        _acknowledged(facts),
        _documents(facts),
        _closings(facts),
        _unasked(facts),
        _repeats(facts),
        _database(facts),
        Finding(facts.forged == 0, f"{_of(facts.forged, 'signature')} wrong"),
    ]


def _acknowledged(facts: Facts) -> Finding:
    missing = set(facts.acknowledged) - {message for message, _ in facts.arrivals}
    count = len(facts.acknowledged)
    said = f"{count - len(missing)} of {_of(count, 'acknowledged message')} arrived"
    return Finding(not missing and count > 0, said + _named(missing))


def _documents(facts: Facts) -> Finding:
    promised, told = sum(facts.promised_documents.values()), Counter(facts.announced_documents)
    again = [document for document, count in told.items() if count > 1]
    queries = _of(len(facts.promised_documents), "query", "queries")
    said = f"{len(told)} of {_of(promised, 'document')} of {queries} announced, {len(again)} of them in two messages"
    return Finding(len(told) == promised > 0 and not again, said)


def _closings(facts: Facts) -> Finding:
    missing = set(facts.promised_documents) - facts.closed
    count = len(facts.promised_documents)
    return Finding(not missing, f"{count - len(missing)} of {_of(count, 'query', 'queries')} told to be over")


def _unasked(facts: Facts) -> Finding:
    """A caller whose API was killed does not know; what was committed is sent all the same."""
    arrived = {message for message, _ in facts.arrivals}
    unknown = arrived - set(facts.events)
    said = (
        f"{_of(facts.unanswered, 'request')} lost the answer with its API; what was committed of them is counted below"
    )
    return Finding(
        not unknown, f"{_of(len(unknown), 'message')} that nobody wrote{_named(unknown)}" if unknown else said
    )


def _repeats(facts: Facts) -> Finding:
    """A process that is killed between the receiver's answer and writing it down leaves a message to be sent again."""
    times: dict[str, list[float]] = {}
    for message, at in facts.arrivals:
        times.setdefault(message, []).append(at)
    repeated = {message: came for message, came in times.items() if len(came) > 1}
    unexplained = {
        message
        for message, came in repeated.items()
        if not any(came[0] <= kill <= came[-1] for kill in facts.kills) or len(came) > len(facts.kills) + 1
    }
    if unexplained:
        return Finding(False, f"{_of(len(unexplained), 'message')} arrived again for no reason{_named(unexplained)}")
    why = ": whoever posted was killed before it could write that down; same id, so a receiver drops the second"
    return Finding(True, f"{_of(len(repeated), 'message')} arrived again{why if repeated else ''}")


def _database(facts: Facts) -> Finding:
    missing = set(facts.events) - {message for message, _ in facts.arrivals}
    good = not missing and facts.waiting == facts.settled_twice == 0
    said = f"{_of(len(facts.events), 'message')} in the database"
    said += f", {facts.settled_twice} settled twice, {facts.waiting} unsettled"
    return Finding(good, said + (f", {len(missing)} that never arrived{_named(missing)}" if missing else ""))


def _of(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"


def _named(ids: set[str]) -> str:
    """The first few of what is missing."""
    return f" ({', '.join(sorted(ids)[:3])}{', …' if len(ids) > 3 else ''})" if ids else ""
