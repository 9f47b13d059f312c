"""Clinical documents as HTML and PDF: nothing readable is lost, nothing harmful gets through."""

import io
from collections.abc import Callable

import pytest
from lxml import html
from pypdf import PdfReader
from tests.support.ccda_samples import HL7, is_clinical_document, needs_samples, parse, sample_files

from chartwire.errors import CcdaError
from chartwire.formats.ccda_html import render_html
from chartwire.formats.ccda_pdf import render_pdf

Render = Callable[[bytes], bytes]
PAGE_TAGS = {
    *("html", "head", "meta", "title", "style", "body", "section", "h1", "h2", "dl", "dt", "dd", "div", "pre"),
    *("p", "span", "br", "strong", "em", "sub", "sup", "ul", "ol", "li"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
}


def document(narrative: str, title: str = "Notes") -> bytes:
    return f"""<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:xlink="http://www.w3.org/1999/xlink">
      <title>A &lt;title&gt;</title>
      <recordTarget><patientRole><id root="2.999" extension="7"/>
        <patient><name use="ASGN"><given>Other</given></name>
          <name use="L"><given>Ada</given> <family>Roe</family></name>
          <administrativeGenderCode code="F"/><birthTime value="19800203"/></patient></patientRole></recordTarget>
      <component><structuredBody><component><section>
        <title>{title}</title><text>{narrative}</text>
      </section></component></structuredBody></component></ClinicalDocument>""".encode()


def body_of(page: bytes) -> html.HtmlElement:
    root = html.document_fromstring(page.decode())
    body = root.find("body")
    assert body is not None
    return body


def packed(text: str) -> str:
    return "".join(text.split())


def pdf_text(pdf: bytes) -> str:
    return packed("".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages))


@pytest.mark.parametrize("render", [render_html, render_pdf])
def test_what_is_not_cda_is_an_error(render: Render) -> None:
    with pytest.raises(CcdaError):
        render(b"<html/>")


@pytest.mark.parametrize("render", [render_html, render_pdf])
def test_the_same_document_gives_the_same_bytes(render: Render) -> None:
    xml = document("<paragraph>Same</paragraph>")
    assert render(xml) == render(xml)


def test_the_header_is_shown() -> None:
    facts = body_of(render_html(document(""))).find("dl")
    assert facts is not None
    assert [element.text_content() for element in facts] == [
        *("Patient", "Ada Roe"),
        *("Date of birth", "1980-02-03"),
        *("Sex", "Female"),
        *("Patient ids", "7"),
    ]


def test_narrative_elements_become_their_html() -> None:
    narrative = """Before <content styleCode="Bold Italics">strong</content>, H<sub>2</sub>O<br/>next
      <paragraph>A paragraph</paragraph>
      <list listType="ordered"><caption>Steps</caption>
        <item>One</item><item>Two <list><item>In</item></list></item></list>
      <table><caption>Labs</caption><thead><tr><th>Test</th><th colspan="2">Value</th></tr></thead>
        <tbody><tr><td rowspan="2">HbA1c</td><td>7.1</td><td>%</td></tr>
        <tr><td>6.9</td><td>%</td></tr></tbody></table>"""
    section = body_of(render_html(document(narrative))).find("section")
    assert section is not None
    markup = html.tostring(section, encoding="unicode")
    for expected in (
        "<strong><span> strong</span></strong>",
        "<span>O</span><br>",
        "<ol><li><p><span>One</span></p></li>",
        "<ul><li><p><span>In</span></p></li></ul>",
        "<caption>Labs</caption><thead><tr><th>",
        '<th colspan="2">',
        '<td rowspan="2">',
    ):
        assert expected in markup.replace("<em>", "").replace("</em>", "")
    assert "Before strong, H2Onext" in section.text_content()


@pytest.mark.parametrize(
    "narrative",
    [
        "<script>alert(1)</script>",
        '<content onclick="alert(1)" style="background:url(http://evil.example/x)">text</content>',
        '<linkHtml href="javascript:alert(1)">press</linkHtml>',
        '<linkHtml href="http://evil.example/">press</linkHtml>',
        '<renderMultiMedia referencedObject="http://evil.example/a.png"/>',
        '<paragraph styleCode="&quot; onclick=&quot;x"><img src="http://evil.example/b.png"/></paragraph>',
        "&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;",
        '<style>body{background:url("http://evil.example")}</style><iframe src="//evil.example"/>',
        '<table style="x" onload="y"><tr onclick="z"><td colspan="9&quot; onclick=&quot;x">cell</td></tr></table>',
        '<x:script xmlns:x="http://www.w3.org/1999/xhtml">alert(1)</x:script>',
        "]]&gt;&lt;/style&gt;&lt;script&gt;alert(1)&lt;/script&gt;",
    ],
)
def test_hostile_narrative_comes_out_inert(narrative: str) -> None:
    title = "&lt;/title&gt;&lt;script&gt;alert(2)&lt;/script&gt;"
    xml = document(narrative, title).replace(b"A &lt;title&gt;", title.encode())
    page = render_html(xml)
    root = html.document_fromstring(page.decode())
    assert {element.tag for element in root.iter()} <= PAGE_TAGS
    names = {name for element in root.iter() for name in element.attrib}
    assert names <= {"lang", "charset", "http-equiv", "content", "name", "class", "colspan", "rowspan"}
    assert [element.text for element in root.iter("style")] == [root.findtext("head/style")]
    assert "evil" not in (root.findtext("head/style") or "")
    assert render_pdf(xml).startswith(b"%PDF")
    assert b"/URI" not in render_pdf(xml)


def test_deep_nesting_keeps_its_text() -> None:
    narrative = "<list><item>" * 300 + "the bottom" + "</item></list>" * 300
    assert "the bottom" in body_of(render_html(document(narrative))).text_content()
    assert "thebottom" in pdf_text(render_pdf(document(narrative)))
    inline = "<content>" * 900 + "the bottom" + "</content>" * 900
    assert "the bottom" in body_of(render_html(document(inline))).text_content()


def test_a_cell_higher_than_a_page_is_laid_out() -> None:
    head = "<thead><tr><th>When</th><th>What</th></tr></thead>"
    row = f"<tr><td>Then</td><td>{'word ' * 5000} last</td></tr>"
    text = pdf_text(render_pdf(document(f"<table>{head}<tbody>{row}</tbody></table>")))
    assert "last" in text
    assert "When" in text


def test_letters_outside_latin_one_are_in_the_pdf() -> None:
    assert "≥5µg" in pdf_text(render_pdf(document("≥ 5 µg")))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('<text mediaType="text/plain" representation="B64">TGluZSBvbmUKTGluZSA8dHdvPg==</text>', "Line <two>"),
        ('<text mediaType="text/plain">As it is</text>', "As it is"),
        ('<text mediaType="application/pdf" representation="B64">JVBERi0x</text>', "application/pdf, 6 bytes"),
        ('<text mediaType="application/pdf"><reference value="http://evil.example"/></text>', "kept elsewhere"),
        ('<text mediaType="text/plain" representation="B64">!!!!!</text>', "cannot be read"),
    ],
)
def test_a_body_that_is_not_xml_is_shown_or_named(body: str, expected: str) -> None:
    component = f"<component><nonXMLBody>{body}</nonXMLBody></component>"
    xml = f'<ClinicalDocument xmlns="urn:hl7-org:v3">{component}</ClinicalDocument>'
    assert expected in body_of(render_html(xml.encode())).text_content()
    assert packed(expected) in pdf_text(render_pdf(xml.encode()))


@needs_samples
def test_every_title_and_word_of_real_documents_is_in_the_html() -> None:
    for path in sample_files():
        xml = path.read_bytes()
        if not is_clinical_document(xml):
            continue
        shown = packed(body_of(render_html(xml)).text_content())
        for section in parse(xml).iter(f"{HL7}section"):
            for part in (*section.findall(f"{HL7}title"), *section.findall(f"{HL7}text")):
                assert packed("".join(map(str, part.itertext()))) in shown, path.name


@needs_samples
def test_every_real_document_becomes_a_pdf_whose_words_can_be_read() -> None:
    for path in sample_files():
        xml = path.read_bytes()
        if not is_clinical_document(xml):
            continue
        pdf = render_pdf(xml)
        if path.parent.name == "hl7-examples":  # reading them all back takes longer than making them
            words = narrative_words(xml)
            shown = pdf_text(pdf)
            assert sum(word in shown for word in words) >= 0.99 * len(words), path.name


def narrative_words(xml: bytes) -> list[str]:
    texts = [text for section in parse(xml).iter(f"{HL7}section") for text in section.findall(f"{HL7}text")]
    return [word for text in texts for word in "".join(map(str, text.itertext())).split()]
