"""Free-text search as people write it for web search engines: words, "a phrase", -without, this or that."""

import re
from dataclasses import dataclass

from chartwire.model.registry import Demographics

_TERM = re.compile(r'(-?)(?:"([^"]*)"|(\S+))')


@dataclass(frozen=True, slots=True)
class SearchTerm:
    """A normalised word or phrase that must occur, or must not."""

    text: str
    excluded: bool = False


def parse_search(text: str) -> tuple[tuple[SearchTerm, ...], ...]:
    """Alternatives, each a tuple of terms that all must hold: `ana "elm st" -fresno or roe`."""
    alternatives: list[list[SearchTerm]] = [[]]
    for minus, phrase, word in _TERM.findall(text):
        if word.casefold() == "or" and not minus:
            alternatives.append([])
        elif normalised := normalise_search(phrase or word.replace('"', "")):
            alternatives[-1].append(SearchTerm(normalised, excluded=bool(minus)))
    return tuple(tuple(terms) for terms in alternatives if terms)


def normalise_search(text: str) -> str:
    """Lower case, single spaces."""
    return " ".join(text.casefold().split())


def searchable(demographics: Demographics) -> str:
    """What a search looks into: names, birth date, addresses, contacts. Personal identifiers are not searched."""
    parts: list[str | None] = [demographics.first_name, demographics.last_name, demographics.dob.isoformat()]
    for place in demographics.address:
        parts += [place.address_line1, place.address_line2, place.city, place.state, place.zip]
    for contact in demographics.contact:
        parts += [contact.phone, contact.email]
    return normalise_search(" ".join(part for part in parts if part))
