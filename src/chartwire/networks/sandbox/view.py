"""A chart as it was on an earlier day: a document must not know what came after it."""

from dataclasses import replace
from datetime import date

from chartwire.networks.sandbox.records import Chart, Medication, Problem


def as_of(chart: Chart, day: date) -> Chart:
    """The chart at the end of `day`."""
    return replace(
        chart,
        problems=tuple(_problem(problem, day) for problem in chart.problems if problem.onset <= day),
        medications=tuple(_medication(given, day) for given in chart.medications if given.started <= day),
        allergies=tuple(allergy for allergy in chart.allergies if allergy.onset <= day),
        panels=tuple(panel for panel in chart.panels if panel.taken.date() <= day),
        vitals=tuple(vitals for vitals in chart.vitals if vitals.taken.date() <= day),
        immunizations=tuple(given for given in chart.immunizations if given.given <= day),
        procedures=tuple(procedure for procedure in chart.procedures if procedure.done <= day),
        encounters=tuple(encounter for encounter in chart.encounters if encounter.start.date() <= day),
    )


def on_day(chart: Chart, day: date) -> Chart:
    """As `as_of`, with the measurements of that day alone."""
    view = as_of(chart, day)
    return replace(
        view,
        panels=tuple(panel for panel in view.panels if panel.taken.date() == day),
        vitals=tuple(vitals for vitals in view.vitals if vitals.taken.date() == day),
    )


def _problem(problem: Problem, day: date) -> Problem:
    if problem.resolved is None or problem.resolved <= day:
        return problem
    return replace(problem, resolved=None, note="")


def _medication(medication: Medication, day: date) -> Medication:
    reason = _problem(medication.reason, day)
    stopped = medication.stopped if medication.stopped is not None and medication.stopped <= day else None
    return replace(medication, reason=reason, stopped=stopped)
