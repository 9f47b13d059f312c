"""Who the patient is there: `Patient/$match` (PDQm ITI-119) or a demographics search (PDQm ITI-78).

A remote record is linked by itself only if it is the one certain match and its demographics agree with ours. Whatever
the server's opinion, a record with another birth date, another family name or the other gender is nobody we asked for.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from chartwire.errors import IssueCode, PermanentNetworkError
from chartwire.formats.fhir_patient import GENDERS, patient_resource
from chartwire.model.document import JsonObject
from chartwire.model.registry import Demographics, LinkState
from chartwire.networks.fhir.bundles import read_entries, resource, search
from chartwire.networks.fhir.client import FhirClient
from chartwire.networks.fhir.datatypes import first, objects, reference_id, text
from chartwire.networks.fhir.failures import RefusedError
from chartwire.networks.network import Discovery, Issue, PatientLink

_OPPOSITES = frozenset({("female", "male"), ("male", "female")})
_MATCH_GRADE = "http://hl7.org/fhir/StructureDefinition/match-grade"
_CANDIDATES = 20
_SEARCH_PAGES = 5
_OPERATION_ABSENT = frozenset({
    IssueCode.NOT_FOUND, IssueCode.REJECTED, IssueCode.FORBIDDEN, IssueCode.INVALID_ANSWER
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Candidate:
    """A remote record: how certain it is, by the server's word or by our comparison."""

    remote_id: str
    certain: bool
    score: float | None = None


async def find_by_operation(client: FhirClient, who: Demographics, minimum_score: float, seconds: float) -> Discovery:
    """Ask `Patient/$match`. Candidates that are not certain, too, are wanted: they are for a human to look at."""
    parameters = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "resource", "resource": patient_resource(who)},
            {"name": "count", "valueInteger": _CANDIDATES},
        ],
    }
    entries, trouble = read_entries(await client.post_json("Patient/$match", parameters, seconds))
    candidates = [
        Candidate(remote_id, _is_certain(entry, minimum_score), _score(entry))
        for entry in entries
        if (remote_id := _living_id(resource(entry))) and _grade(entry) != "certainly-not"
        and agrees(resource(entry), who)
    ]  # fmt: skip
    return _decide(candidates, [Issue(IssueCode.SERVER_ERROR)] if trouble else [])


async def find_by_search(client: FhirClient, who: Demographics, seconds: float) -> Discovery:
    """Search by family name and birth date, which every PDQm server takes, and compare the hits ourselves."""
    narrow = {"family": _any_of(who.last_name), "birthdate": who.dob.isoformat()}
    try:
        return await _search(client, who, narrow, seconds)
    except RefusedError as refused:
        if refused.code is not IssueCode.REJECTED:
            raise
    # Some servers answer only when more is asked.
    return await _search(
        client, who, narrow | {"given": _any_of(who.first_name), "gender": GENDERS[who.gender_at_birth]}, seconds
    )


async def find(
    client: FhirClient,
    who: Demographics,
    way: Literal["auto", "operation", "search"],
    minimum_score: float,
    seconds: float,
) -> Discovery:
    """Find the patient; `auto` searches where the server has no `$match` for us."""
    if way == "search":
        return await find_by_search(client, who, seconds)
    try:
        return await find_by_operation(client, who, minimum_score, seconds)
    except PermanentNetworkError as error:
        if way == "operation" or error.code not in _OPERATION_ABSENT:
            raise
    return await find_by_search(client, who, seconds)


async def _search(client: FhirClient, who: Demographics, parameters: dict[str, str], seconds: float) -> Discovery:
    candidates: list[Candidate] = []
    issues: list[Issue] = []
    pages = search(client, "Patient", parameters | {"_count": "50"}, max_pages=_SEARCH_PAGES, seconds=seconds)
    async for page in pages:
        issues += [Issue(code) for code in page.trouble]
        for patient in map(resource, page.entries):
            remote_id = _living_id(patient)
            if remote_id and agrees(patient, who):
                candidates.append(Candidate(remote_id, is_same_person(patient, who)))
    return _decide(candidates, issues)


def _decide(candidates: Sequence[Candidate], issues: list[Issue]) -> Discovery:
    """Confirm the one certain candidate, if it is one and nothing was left unseen."""
    unique = {candidate.remote_id: candidate for candidate in reversed(candidates)}
    certain = [candidate for candidate in unique.values() if candidate.certain]
    if len(certain) > 1:
        issues = [*issues, Issue(IssueCode.MULTIPLE_CANDIDATES)]
    confirmed = certain[0] if len(certain) == 1 and not issues else None
    links = [
        PatientLink(each.remote_id, LinkState.CONFIRMED if each is confirmed else LinkState.PROBABLE, each.score)
        for each in reversed(unique.values())
    ]
    return Discovery(tuple(links), tuple(issues))


def agrees(patient: JsonObject, who: Demographics) -> bool:
    """Whether birth date and a family name are the same, and gender is not the opposite."""
    families = {_plain(name) for name in _spellings(who.last_name)}
    return (
        patient.get("birthDate") == who.dob.isoformat()
        and any(_plain(text(name.get("family"))) in families for name in objects(patient.get("name")))
        and (GENDERS[who.gender_at_birth], text(patient.get("gender"))) not in _OPPOSITES
    )


def is_same_person(patient: JsonObject, who: Demographics) -> bool:
    """Whether a record that agrees is certain by comparison: given name and gender the same, zip not another."""
    ours = {address.zip[:5] for address in who.address}
    theirs = {(text(address.get("postalCode")) or "")[:5] for address in objects(patient.get("address"))} - {""}
    return (
        patient.get("gender") == GENDERS[who.gender_at_birth]
        and _has_full_name(patient, who)
        and (not ours or not theirs or not ours.isdisjoint(theirs))
    )


def _has_full_name(patient: JsonObject, who: Demographics) -> bool:
    families = {_plain(name) for name in _spellings(who.last_name)}
    givens = {_plain(name) for name in _spellings(who.first_name)}
    return any(
        _plain(text(name.get("family"))) in families and not givens.isdisjoint(_givens(name))
        for name in objects(patient.get("name"))
    )


def _givens(name: JsonObject) -> Iterator[str]:
    """The first given name, and all of them written together."""
    held = name.get("given")
    given = [each for each in (held if isinstance(held, list) else [held]) if isinstance(each, str) and each.strip()]
    if given:
        yield _plain(given[0])
        yield _plain("".join(given))


def _spellings(names: str) -> list[str]:
    """What a name field may mean: all of it, or each of the names that it lists, by comma or blank."""
    parts = re.split(r"[,\s]+", names)
    whole = " ".join(part for part in parts if part)
    return list(dict.fromkeys([whole, *(part for part in parts if len(part) > 1)]))


def _any_of(names: str) -> str:
    """A search value that any of the spellings meets (FHIR R4 §3.1.1.3), its special characters escaped."""
    return ",".join(re.sub(r"([\\$|])", r"\\\1", name) for name in _spellings(names))


def _plain(name: str | None) -> str:
    """A name without case, accents, blanks and punctuation."""
    decomposed = unicodedata.normalize("NFKD", name or "")
    return "".join(letter for letter in decomposed.casefold() if letter.isalnum())


def _living_id(patient: JsonObject) -> str | None:
    """The id of a Patient that was not merged into another."""
    merged = any(link.get("type") == "replaced-by" for link in objects(patient.get("link")))
    named = reference_id({"reference": f"Patient/{patient.get('id')}"}, "Patient")
    return None if merged or patient.get("resourceType") != "Patient" else named


def _is_certain(entry: JsonObject, minimum_score: float) -> bool:
    grade, score = _grade(entry), _score(entry)
    return grade == "certain" if grade is not None else score is not None and score >= minimum_score


def _grade(entry: JsonObject) -> str | None:
    extensions = objects(first(entry.get("search")).get("extension"))
    return next((text(each.get("valueCode")) for each in extensions if each.get("url") == _MATCH_GRADE), None)


def _score(entry: JsonObject) -> float | None:
    score = first(entry.get("search")).get("score")
    return float(score) if isinstance(score, int | float) and 0 <= score <= 1 else None
