"""Lists of an account's patients: chosen by facility and free text, whole or in parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, exists, func, not_, or_, select

from chartwire.model.listing import Part, Window
from chartwire.model.registry import Patient
from chartwire.model.search import SearchTerm, normalise_search, parse_search
from chartwire.store.listing import read_part
from chartwire.store.registry import select_patients
from chartwire.store.schema import facility, patient, patient_facility

Condition = ColumnElement[bool]

_DEMOGRAPHICS = patient.c.demographics
ORDERS = {
    "added": patient.c.id,
    "name": func.lower(_DEMOGRAPHICS["last_name"].as_string() + ", " + _DEMOGRAPHICS["first_name"].as_string()),
    "born": patient.c.dob,
    "own-id": func.coalesce(patient.c.external_id, ""),
    "consent": case((patient.c.opted_out, 1), else_=0),
}


@dataclass(frozen=True, slots=True)
class PatientFilter:
    """Which patients of an account: of a facility, found by free text."""

    facility_id: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class PatientWindow:
    """Which part of a list in descending order of ids: `count` from `from_item` on, or `count` up to `to_item`."""

    count: int
    from_item: str | None = None
    to_item: str | None = None


@dataclass(frozen=True, slots=True)
class PatientPage:
    """A part of a list, and the items that the parts before and after it are asked by; None where there are none."""

    patients: list[Patient]
    next_item: str | None = None
    previous_item: str | None = None


def count_patients(connection: Connection, account_id: str, chosen: PatientFilter) -> int:
    """How many patients are chosen."""
    query = select(func.count()).select_from(patient).where(*_chosen(account_id, chosen))
    return connection.execute(query).scalar_one()


def list_patients(connection: Connection, account_id: str, chosen: PatientFilter) -> list[Patient]:
    """Every patient that is chosen, the newest first."""
    return select_patients(connection, _chosen(account_id, chosen), patient.c.id.desc())


def page_patients(connection: Connection, account_id: str, chosen: PatientFilter, window: PatientWindow) -> PatientPage:
    """A part of `list_patients`."""
    conditions = _chosen(account_id, chosen)
    if window.to_item is None:
        return _page_from(connection, conditions, window.from_item, window.count)
    return _page_up_to(connection, conditions, window.to_item, window.count)


def sort_patients(connection: Connection, account_id: str, chosen: PatientFilter, window: Window) -> Part[Patient]:
    """A part of the patients that are chosen, ordered by one of `ORDERS`."""
    query = select(patient.c.id).where(*_chosen(account_id, chosen))
    part = read_part(connection, query, ORDERS, patient.c.id, window, lambda row: str(row.id))
    found = {each.id: each for each in select_patients(connection, [patient.c.id.in_(part.items)])}
    return Part([found[patient_id] for patient_id in part.items], part.end)


def _page_from(connection: Connection, conditions: list[Condition], from_item: str | None, count: int) -> PatientPage:
    below = [] if from_item is None else [patient.c.id <= from_item]
    found = select_patients(connection, [*conditions, *below], patient.c.id.desc(), count + 1)
    above = None
    if from_item is not None:
        above = _nearest(connection, func.min(patient.c.id), [*conditions, patient.c.id > from_item])
    return PatientPage(found[:count], _beyond(found, count), above)


def _page_up_to(connection: Connection, conditions: list[Condition], to_item: str, count: int) -> PatientPage:
    found = select_patients(connection, [*conditions, patient.c.id >= to_item], patient.c.id.asc(), count + 1)
    below = _nearest(connection, func.max(patient.c.id), [*conditions, patient.c.id < to_item])
    return PatientPage(found[:count][::-1], below, _beyond(found, count))


def _beyond(found: Sequence[Patient], count: int) -> str | None:
    """The first item after a page; a page of none leads nowhere."""
    return found[count].id if 0 < count < len(found) else None


def _nearest(connection: Connection, which: Any, conditions: list[Condition]) -> str | None:
    nearest: str | None = connection.execute(select(which).where(*conditions)).scalar_one()
    return nearest


def _chosen(account_id: str, chosen: PatientFilter) -> list[Condition]:
    conditions: list[Condition] = [patient.c.account_id == account_id]
    if chosen.facility_id is not None:
        conditions.append(_belongs_to(patient_facility.c.facility_id == chosen.facility_id))
    if chosen.text is not None:
        conditions.append(_says(chosen.text))
    return conditions


def _belongs_to(*which: Condition) -> Condition:
    return exists().where(patient_facility.c.patient_id == patient.c.id, *which)


def _says(text: str) -> Condition:
    """The words are in the demographics, or the whole text is part of an id or of a facility's name."""
    whole = normalise_search(text)
    facility_of = facility.c.id == patient_facility.c.facility_id
    return or_(
        *(and_(*map(_holds, terms)) for terms in parse_search(text)),
        patient.c.id.contains(whole, autoescape=True),
        func.lower(patient.c.external_id).contains(whole, autoescape=True),
        _belongs_to(facility_of, func.lower(facility.c.name).contains(whole, autoescape=True)),
    )


def _holds(term: SearchTerm) -> Condition:
    found = patient.c.search_text.contains(term.text, autoescape=True)
    return not_(found) if term.excluded else found
