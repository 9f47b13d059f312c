"""The sandbox's documents: valid, coherent, readable, and always the same bytes."""

import io
import re
from collections import Counter
from datetime import date, datetime

import pytest
from lxml import etree
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from pypdf import PdfReader
from tests.support.ccda_rules import fetch_schematron, select

from chartwire.formats.ccda import recognise
from chartwire.formats.ccda_html import render_html
from chartwire.formats.ccda_pdf import render_pdf
from chartwire.formats.media_type import effective_type, sniff
from chartwire.model.document import DocumentStatus
from chartwire.networks.sandbox.charts import CHARTS, find_chart
from chartwire.networks.sandbox.documents import SandboxDocument, content, documents_of
from chartwire.networks.sandbox.records import Chart, Consultation
from chartwire.networks.sandbox.terms import SYSTEMS
from chartwire.networks.sandbox.view import as_of

REFUSED_ZIPS = {"00000", "99999", "12345", "54321", *(f"{digit}0000" for digit in range(1, 10))}

DOCUMENTS = [
    pytest.param(chart, document, id=f"{chart.key}-{document.name}")
    for chart in CHARTS
    for document in documents_of(chart)
]
CLINICAL = [
    pytest.param(chart, document, id=f"{chart.key}-{document.name}")
    for chart in CHARTS
    for document in documents_of(chart)
    if document.mime_type == "application/xml"
]


def tree_of(chart: Chart, document: SandboxDocument) -> "etree._Element":
    return etree.fromstring(content(chart.key, document.name))


def words_of(pdf: bytes) -> str:
    return " ".join(" ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages).split())


def named(chart: Chart, name: str) -> SandboxDocument:
    return next(document for document in documents_of(chart) if document.name == name)


@pytest.mark.parametrize(
    ("first_name", "key"),
    [("Jane", "jane"), ("CHRIS", "chris"), ("ollie", "ollie"), ("Mary, Kyla", "kyla"), ("Andreas Karl", "andreas")],
)
def test_a_chart_is_found_by_first_name(first_name: str, key: str) -> None:
    chart = find_chart(first_name)
    assert chart is not None
    assert chart.key == key


@pytest.mark.parametrize("first_name", ["", "Janet", "Jan", "Smith", ","])
def test_another_first_name_finds_nothing(first_name: str) -> None:
    assert find_chart(first_name) is None


def test_the_five_patients_are_acceptable_to_the_api() -> None:
    assert [chart.name for chart in CHARTS] == [
        *("Jane Smith", "Chris Smith", "Ollie Brown", "Kyla Fields", "Andreas Sims")
    ]
    for chart in CHARTS:
        for address in chart.demographics.address:
            assert re.fullmatch(r"\d{5}", address.zip)
            assert address.zip not in REFUSED_ZIPS


def test_npis_are_well_formed_and_nobody_s() -> None:
    clinicians = {chart.pathology.pathologist for chart in CHARTS} | {
        encounter.clinician for chart in CHARTS for encounter in chart.encounters
    }
    assert len(clinicians) == 15
    for clinician in clinicians:
        assert re.fullmatch(r"2\d{9}", clinician.npi)
        doubled = [int(digit) * (2 - index % 2) for index, digit in enumerate(clinician.npi)]
        assert (24 + sum(value // 10 + value % 10 for value in doubled)) % 10 == 0


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.key)
def test_each_patient_has_seven_documents_of_these_kinds(chart: Chart) -> None:
    documents = documents_of(chart)
    assert Counter(document.mime_type for document in documents) == {
        "application/xml": 3,
        "application/pdf": 2,
        "image/jpeg": 1,
        "image/tiff": 1,
    }
    assert len({document.types[0].code for document in documents}) == 7
    assert documents[0].types[0].code == "34133-9"
    assert documents[0].title == f"{chart.name.replace(' ', '')}.xml"


def test_no_two_documents_share_a_master_identifier() -> None:
    identifiers = [document.master_identifier for chart in CHARTS for document in documents_of(chart)]
    assert len(set(identifiers)) == 35


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.key)
def test_the_superseded_document_is_replaced_by_a_current_one(chart: Chart) -> None:
    documents = documents_of(chart)
    (old,) = [document for document in documents if document.status is DocumentStatus.SUPERSEDED]
    (new,) = [document for document in documents if old.master_identifier in document.replaces]
    assert new.status is DocumentStatus.CURRENT
    assert new.indexed > old.indexed
    header = recognise(content(chart.key, new.name))
    assert header is not None
    assert header.replaces == (old.master_identifier,)
    assert header.version == 2


@pytest.mark.parametrize(("chart", "document"), DOCUMENTS)
def test_the_bytes_are_what_is_declared_and_always_the_same(chart: Chart, document: SandboxDocument) -> None:
    data = content(chart.key, document.name)
    assert effective_type(document.mime_type, sniff(data)) == document.mime_type
    assert document.make(chart) == data


@pytest.mark.parametrize(("chart", "document"), CLINICAL)
def test_a_clinical_document_says_what_is_declared(chart: Chart, document: SandboxDocument) -> None:
    header = recognise(content(chart.key, document.name))
    assert header is not None
    assert header.master_identifier == document.master_identifier
    assert header.type.coding == document.types
    assert header.effective_time == document.indexed
    assert header.title is not None
    assert chart.name in header.title


@pytest.mark.parametrize(("chart", "document"), CLINICAL)
def test_a_clinical_document_keeps_to_the_c_cda_templates(chart: Chart, document: SandboxDocument) -> None:
    assert fetch_schematron().failures(content(chart.key, document.name)) == []


def test_the_templates_rules_find_what_is_wrong() -> None:
    data = content("jane", "summary")
    faults = (
        (b'<statusCode code="completed"/>', b""),
        (b"<birthTime", b"<deathTime"),
        (b'code="48765-2"', b'code="1"'),
    )
    for correct, wrong in faults:
        assert fetch_schematron().failures(data.replace(correct, wrong)) != []


@pytest.mark.parametrize(("chart", "document"), CLINICAL)
def test_every_reference_into_the_narrative_resolves(chart: Chart, document: SandboxDocument) -> None:
    tree = tree_of(chart, document)
    anchors = select(tree, "//cda:section/cda:text//@ID")
    assert len(set(anchors)) == len(anchors)
    assert set(select(tree, "//cda:reference/@value")) == {f"#{anchor}" for anchor in anchors}


@pytest.mark.parametrize(("chart", "document"), CLINICAL)
def test_codes_are_complete_and_statements_have_ids_of_their_own(chart: Chart, document: SandboxDocument) -> None:
    tree = tree_of(chart, document)
    systems = {oid for oid, _ in SYSTEMS.values()}
    for code in select(tree, "//*[@codeSystem]"):
        assert code.get("code")
        assert code.get("displayName")
        assert code.get("codeSystem") in systems
    statements = select(tree, "//cda:entry/*/cda:id | //cda:component/cda:observation/cda:id")
    ids = Counter((element.get("root"), element.get("extension")) for element in statements)
    assert max(ids.values()) <= 2  # a medication may be on the list and among those to go home with


@pytest.mark.parametrize(("chart", "document"), CLINICAL)
def test_a_document_knows_nothing_of_its_future(chart: Chart, document: SandboxDocument) -> None:
    today = document.indexed.strftime("%Y%m%d")
    planned = {plan.due.strftime("%Y%m%d") for note in (chart.visit, chart.other) for plan in note.plans}
    for element in tree_of(chart, document).iter("{*}effectiveTime", "{*}low", "{*}high", "{*}time"):
        value = (element.get("value") or "")[:8]
        if re.fullmatch(r"\d{8}", value):
            assert value <= today or value in planned


@pytest.mark.parametrize(("chart", "document"), CLINICAL)
def test_a_clinical_document_can_be_read_as_html_and_pdf(chart: Chart, document: SandboxDocument) -> None:
    data = content(chart.key, document.name)
    assert chart.clinician.family.encode() in render_html(data) or document.name == "other-note"
    assert chart.demographics.last_name in words_of(render_pdf(data))


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.key)
def test_the_laboratory_report_has_every_result_of_the_visit(chart: Chart) -> None:
    words = words_of(content(chart.key, "laboratory-report"))
    assert chart.name in words
    day = chart.visit.encounter.start.date()
    results = [result for panel in chart.panels if panel.taken.date() == day for result in panel.results]
    assert len(results) >= 4
    for result in results:
        assert result.test.display in words
        assert result.value in words


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.key)
def test_the_visit_summary_tells_the_visit(chart: Chart) -> None:
    words = words_of(content(chart.key, "visit-summary"))
    for text in (chart.name, "PRELIMINARY", chart.visit.subjective, chart.visit.assessment, chart.visit.plans[0].text):
        assert text.replace(" ", "") in words.replace(" ", "")


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.key)
def test_the_pictures_can_be_opened(chart: Chart) -> None:
    with Image.open(io.BytesIO(content(chart.key, "photograph"))) as photograph:
        photograph.load()
        assert (photograph.format, photograph.size) == ("JPEG", (960, 720))
        assert len(photograph.reduce(8).getcolors(maxcolors=2**16) or []) > 50
    with TiffImageFile(io.BytesIO(content(chart.key, "pathology-report"))) as scan:
        scan.load()
        assert (scan.format, scan.mode, scan.size) == ("TIFF", "1", (1700, 2200))
        strips = scan.tag_v2[273]  # StripOffsets
        assert len(strips) > 1
        assert 0.005 < scan.histogram()[0] / (1700 * 2200) < 0.2


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.key)
def test_a_chart_is_coherent(chart: Chart) -> None:
    problems = set(chart.problems)
    assert {medication.reason for medication in chart.medications} <= problems
    assert {problem for encounter in chart.encounters for problem in encounter.diagnoses} <= problems
    assert {chart.visit.encounter, chart.other.encounter} == set(chart.encounters)
    assert chart.visit.signed <= chart.summarised
    assert chart.demographics.dob < min(problem.onset for problem in problems)
    for encounter in chart.encounters:
        assert encounter.start < encounter.end
        assert any(vitals.taken.date() == encounter.start.date() for vitals in chart.vitals)
    for vitals in chart.vitals:
        assert 18 < float(vitals.body_mass_index) < 32
        assert int(vitals.diastolic) < int(vitals.systolic)


def test_kidney_filtration_follows_from_creatinine() -> None:
    """CKD-EPI 2021: 142 · min(Cr/κ, 1)^α · max(Cr/κ, 1)^-1.2 · 0.9938^age, · 1.012 for women."""
    checked = 0
    for chart in CHARTS:
        for panel in chart.panels:
            values = {result.test.code: float(result.value) for result in panel.results}
            if "98979-8" not in values:
                continue
            woman = chart.demographics.gender_at_birth == "F"
            ratio = values["2160-0"] / (0.7 if woman else 0.9)
            age = (panel.taken.date() - chart.demographics.dob).days // 365.25
            low = min(ratio, 1) ** (-0.241 if woman else -0.302)
            expected = 142 * low * max(ratio, 1) ** -1.2 * 0.9938**age * (1.012 if woman else 1)
            assert values["98979-8"] == pytest.approx(expected, abs=1)
            checked += 1
    assert checked == 6


def test_the_chart_of_an_earlier_day_forgets_what_came_later() -> None:
    jane = CHARTS[0]
    earlier = as_of(jane, date(2024, 10, 8))
    trazodone = next(drug for drug in earlier.medications if "trazodone" in drug.drug.display)
    assert trazodone.stopped is None
    assert trazodone.reason.resolved is None
    assert {panel.taken.date() for panel in earlier.panels} == {date(2024, 10, 8)}
    assert len(earlier.encounters) == 1
    assert as_of(jane, datetime.now().astimezone().date()) == jane


def test_a_consultation_or_a_hospital_stay_is_told() -> None:
    kinds = Counter(isinstance(chart.other, Consultation) for chart in CHARTS)
    assert kinds == {True: 3, False: 2}
