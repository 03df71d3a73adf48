"""Files to documents: formats, encodings, sections and metadata; a file that cannot be read says why."""

from __future__ import annotations

import gzip
import io
import json
import sys
import zipfile
from datetime import date
from email.message import EmailMessage
from pathlib import Path

import pytest

from ggrank import InputError
from ggrank.search.readers import read_documents
from ggrank.search.sections import FileDocument


def read(path: Path, content: str | bytes) -> list[FileDocument]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_documents(path))


def shown(document: FileDocument) -> list[tuple[str, str]]:
    """Each section's path of headings (or its page) and its text after the heading."""
    return [
        (" > ".join(one.headings) or one.place, document.text[one.body : one.end].strip())
        for one in document.sections
        if document.text[one.start : one.end].strip()
    ]


def pdf(*pages: str) -> bytes:
    """A PDF as the specification's own first example has it (ISO 32000-1, H.3), one line of text a page."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, text in enumerate(pages):
        stream = f"BT /F1 24 Tf 100 700 Td ({text}) Tj ET" if text else ""
        objects += [
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * i} 0 R >>",
            f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        ]
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    tail = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\n"
    return out + f"{tail}startxref\n{len(out)}\n%%EOF\n".encode()


MARKDOWN = """Before.

# One

First.

```sh
# no heading
```

   Two
   lines
========

- item
---

### Deep ###
Second. #hash
#nor this

    # code

| a | b |
|---|---|

~~~~
```
# still code
~~~~
Last line
---------
"""


def test_markdown_has_a_section_for_each_heading_under_its_path(tmp_path: Path) -> None:
    found = read(tmp_path / "a.md", MARKDOWN)[0]
    table = "Second. #hash\n#nor this\n\n    # code\n\n| a | b |\n|---|---|\n\n~~~~\n```\n# still code\n~~~~"
    assert shown(found) == [
        ("", "Before."),
        ("One", "First.\n\n```sh\n# no heading\n```"),
        ("Two lines", "- item\n---"),
        ("Two lines > Deep", table),
        ("Two lines > Last line", ""),
    ]
    assert found.title == ""  # neither of two outermost headings is the title of both
    assert found.text == MARKDOWN


def test_front_matter_is_metadata_and_no_section(tmp_path: Path) -> None:
    matter = "title: 'Handbook: travel'\ntags: [hr, staff]\nyear: 2020 # a comment\ndraft: false\nempty:\n"
    nested = "authors:\n- Ana\n- Bo\nseo:\n  image: a.png\n  robots: none\ndate: 2024-05-01\n"
    found = read(tmp_path / "a.md", f"---\n{matter}{nested}---\n\n# Travel\n\nBy rail.")[0]
    assert found.metadata == {
        "title": "Handbook: travel",
        "tags": ["hr", "staff"],
        "year": 2020,
        "draft": False,
        "empty": None,
        "authors": ["Ana", "Bo"],
        "seo": {"image": "a.png", "robots": "none"},
        "date": date(2024, 5, 1),
    }
    assert (found.title, shown(found)) == ("Handbook: travel", [("Travel", "By rail.")])


@pytest.mark.parametrize(
    "text", ["---\nA line.\n\n---\n\nMore.", "Text.\n---\nno: matter\n---", "---\n---\nText"]
)
def test_a_rule_is_not_front_matter(tmp_path: Path, text: str) -> None:
    assert read(tmp_path / "a.md", text)[0].metadata == {}


@pytest.mark.parametrize(
    "line", ["# " + " " * 100_000 + "x", "# x" + " #" * 100_000, "```\n" * 50_000, "a" * 200_000]
)
def test_no_line_of_markdown_takes_long(tmp_path: Path, line: str) -> None:
    assert read(tmp_path / "a.md", f"---\n{line}\n{line}\n" * 3)


PAGE = """<html><head><title>Garden &amp; house</title><style>p {}</style><script>x()</script></head><body>
<nav><ul><li>Home</li></ul></nav><div role="navigation">Menu</div>
<h1>Garden</h1><p>Water the <b>toma</b>toes\n  daily.</p>At the roots<!-- hidden -->
<h2>Com<i>post</i><br>heap<a class="headerlink" href="#">\u00b6</a></h2>
<ul><li>Peels</li><li>Grounds</li></ul><template>hidden</template><br>End<pre>a\n  b</pre><p hidden>no
<h1>Shed</h1><p>unclosed<footer>\u00a9 2024</footer></body>"""


def test_html_has_the_text_of_the_page_without_what_is_around_it(tmp_path: Path) -> None:
    pytest.importorskip("bs4")
    found = read(tmp_path / "a.html", PAGE.replace("<p hidden>no", "<p hidden>no</p>"))[0]
    assert found.title == "Garden & house"
    assert shown(found) == [
        ("Garden", "Water the tomatoes daily.\n\nAt the roots"),
        ("Garden > Compost heap", "Peels\n\nGrounds\n\nEnd\n\na\n  b"),
        ("Shed", "unclosed"),
    ]


def test_html_that_marks_its_main_part_is_that_part(tmp_path: Path) -> None:
    pytest.importorskip("bs4")
    page = (
        "<header>Shop</header><div>Cookies?</div><main><h1>Llamas</h1><p>They graze.</p></main><div>Ads</div>"
    )
    assert shown(read(tmp_path / "a.html", page)[0]) == [("Llamas", "They graze.")]


def test_html_in_another_encoding_is_read_as_it_says(tmp_path: Path) -> None:
    pytest.importorskip("bs4")
    page = '<meta charset="iso-8859-1"><p>Caf\xe9'.encode("latin-1")
    assert read(tmp_path / "a.htm", page)[0].text == "Caf\xe9"


def test_a_pdf_has_a_section_for_each_page(tmp_path: Path) -> None:
    pytest.importorskip("pypdf")
    found = read(tmp_path / "a.pdf", pdf("Llamas graze.", "", "Trains leave."))[0]
    assert shown(found) == [("page 1", "Llamas graze."), ("page 3", "Trains leave.")]


def test_a_pdf_that_is_mended_is_read_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pypdf")
    found = read(tmp_path / "a.pdf", b"no header\n" + pdf("Llamas graze."))[0]
    assert shown(found) == [("page 1", "Llamas graze.")]
    assert caplog.messages == []


def test_a_pdf_needs_no_password_where_it_is_empty(tmp_path: Path) -> None:
    pypdf = pytest.importorskip("pypdf")
    pytest.importorskip("cryptography")
    for name, password in (("a.pdf", ""), ("b.pdf", "secret")):
        writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf("Llamas graze.")))
        writer.encrypt(password, "owner", algorithm="AES-256")
        writer.write(tmp_path / name)
    assert shown(next(read_documents(tmp_path / "a.pdf"))) == [("page 1", "Llamas graze.")]
    with pytest.raises(InputError, match="a PDF with a password"):
        list(read_documents(tmp_path / "b.pdf"))


def package(files: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return stream.getvalue()


W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
WORD = f"""<w:document {W}><w:body>
<w:p><w:pPr><w:pStyle w:val="berschrift1"/></w:pPr><w:r><w:t>Travel</w:t></w:r></w:p>
<w:p><w:r><w:t xml:space="preserve">By </w:t></w:r><w:del><w:r><w:delText>car</w:delText></w:r></w:del>
<w:ins><w:r><w:t>rail</w:t></w:r></w:ins><w:r><w:br/><w:t>only.</w:t></w:r></w:p>
<w:tbl><w:tr><w:tc><w:p><w:r><w:t>Class</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>2</w:t></w:r></w:p></w:tc>
</w:tr></w:tbl></w:body></w:document>"""
STYLES = (
    f"""<w:styles {W}><w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style></w:styles>"""
)
CORE = """<x xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Handbook</dc:title></x>"""

TEXT = "urn:oasis:names:tc:opendocument:xmlns:text:1.0"
ODT = f"""<o:body xmlns:o="urn:oasis:names:tc:opendocument:xmlns:office:1.0" xmlns:text="{TEXT}"><o:text>
<text:tracked-changes><text:p>gone</text:p></text:tracked-changes>
<text:h text:outline-level="1">Travel</text:h>
<text:p>By<text:s/><text:span>rail</text:span><text:line-break/>only.</text:p>
<t:table xmlns:t="t"><t:table-row><t:table-cell><text:p>Class</text:p></t:table-cell>
<t:table-cell><text:p>2</text:p></t:table-cell></t:table-row></t:table></o:text></o:body>"""

R = 'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
SLIDES = f"""<p {R}><sldIdLst><sldId id="256" r:id="r2"/><sldId id="257" r:id="r1"/></sldIdLst></p>"""
LINKS = """<Relationships><Relationship Id="r1" Target="slides/slide1.xml"/>
<Relationship Id="r2" Target="slides/slide2.xml"/></Relationships>"""
SLIDE = """<sld><sp><nvPr><ph type="{}"/></nvPr><txBody><p><r><t>{}</t></r></p></txBody></sp>
<sp><txBody><p><r><t>{}</t></r></p></txBody></sp></sld>"""

CONTAINER = """<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>"""
BOOK = """<package xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>Handbook</dc:title></metadata>
<manifest><item id="b" href="b%20two.xhtml"/><item id="a" href="a.xhtml"/></manifest>
<spine><itemref idref="a"/><itemref idref="b"/></spine></package>"""


def test_word_and_libreoffice_files_have_headings_and_tables(tmp_path: Path) -> None:
    names = {"word/document.xml": WORD, "word/styles.xml": STYLES, "docProps/core.xml": CORE}
    word = read(tmp_path / "a.docx", package(names))[0]
    libre = read(tmp_path / "a.odt", package({"content.xml": ODT, "meta.xml": CORE}))[0]
    for found in (word, libre):
        assert found.title == "Handbook"
        assert [(path, text.split()) for path, text in shown(found)] == [
            ("Travel", ["By", "rail", "only.", "Class", "|", "2"])
        ]


def test_slides_are_read_in_the_order_in_which_they_are_shown(tmp_path: Path) -> None:
    slides = {
        "ppt/presentation.xml": SLIDES,
        "ppt/_rels/presentation.xml.rels": LINKS,
        "ppt/slides/slide1.xml": SLIDE.format("ctrTitle", "Second", "By rail."),
        "ppt/slides/slide2.xml": SLIDE.format("title", "First", "By bus."),
    }
    found = read(tmp_path / "a.pptx", package(slides))[0]
    assert shown(found) == [("First", "By bus."), ("Second", "By rail.")]
    assert [one.place for one in found.sections] == ["slide 1", "slide 2"]


def test_a_book_is_its_chapters_in_order(tmp_path: Path) -> None:
    pytest.importorskip("bs4")
    chapters = {"OPS/a.xhtml": "<h1>One</h1><p>By bus.</p>", "OPS/b two.xhtml": "<h1>Two</h1><p>By rail.</p>"}
    content = package({"META-INF/container.xml": CONTAINER, "OPS/book.opf": BOOK, **chapters})
    found = read(tmp_path / "a.epub", content)[0]
    assert found.title == "Handbook"
    assert shown(found) == [("One", "By bus."), ("Two", "By rail.")]


S = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
WORKBOOK = f"""<workbook {S} {R}><workbookPr/><sheets><sheet name="Budget" sheetId="1" r:id="r1"/>
<sheet name="Notes" sheetId="2" r:id="r2"/></sheets></workbook>"""
SHEET_LINKS = """<Relationships><Relationship Id="r2" Target="worksheets/sheet2.xml"/>
<Relationship Id="r1" Target="/xl/worksheets/sheet1.xml"/></Relationships>"""
SHARED = f"""<sst {S}><si><t>Item</t></si><si><r><t>Train </t></r><r><t>fares</t></r><rPh><t>ruby</t></rPh>
</si><si><t>Cost</t></si><si><t>Paid</t></si></sst>"""
STYLE = f"""<styleSheet {S}><numFmts><numFmt numFmtId="164" formatCode="[Red]dd/mm/yy"/>
<numFmt numFmtId="165" formatCode="0.0 &quot;days&quot;"/></numFmts>
<cellStyleXfs><xf numFmtId="14"/></cellStyleXfs>
<cellXfs><xf numFmtId="0"/><xf numFmtId="164"/><xf numFmtId="165"/><xf numFmtId="22"/></cellXfs>
</styleSheet>"""
SHEET = f"""<worksheet {S}><sheetData>
<row r="1"><c r="A1" t="inlineStr"><is><t>Budget of 2024</t></is></c></row><row r="2"><c r="A2"/></row>
<row r="3"><c r="A3" t="s"><v>0</v></c><c r="C3" t="s"><v>2</v></c><c r="D3" t="s"><v>3</v></c>
<c r="E3" t="s"><v>3</v></c></row>
<row r="5"><c r="A5" t="s"><v>1</v></c><c r="C5"><f>1+2</f><v>0.30000000000000004</v></c>
<c r="D5" s="1"><v>45292</v></c><c r="E5" t="b"><v>1</v></c></row>
<row r="6"><c r="C6" s="2"><v>1200</v></c><c r="D6" s="3"><v>45292.5</v></c>
<c r="F6" t="str"><v>late</v></c></row>
</sheetData></worksheet>"""
PLAIN_SHEET = f"""<worksheet {S}><sheetData><row><c><v>1</v></c><c t="inlineStr"><is><t>one</t></is></c></row>
<row><c t="inlineStr"><is><t>two</t></is></c></row></sheetData></worksheet>"""


def test_a_spreadsheet_has_a_document_for_each_row_with_dates_as_dates(tmp_path: Path) -> None:
    book = {
        "xl/workbook.xml": WORKBOOK,
        "xl/_rels/workbook.xml.rels": SHEET_LINKS,
        "xl/sharedStrings.xml": SHARED,
        "xl/styles.xml": STYLE,
        "xl/worksheets/sheet1.xml": SHEET,
        "xl/worksheets/sheet2.xml": PLAIN_SHEET,
    }
    found = read(tmp_path / "a.xlsx", package(book))
    assert [(one.title, one.place, one.text) for one in found] == [
        ("Budget", "Budget, row 1", "Budget of 2024"),
        ("Budget", "Budget, row 5", "Item: Train fares\nCost: 0.3\nPaid (D): 2024-01-01\nPaid (E): True"),
        ("Budget", "Budget, row 6", "Cost: 1200\nPaid (D): 2024-01-01 12:00\nF: late"),
        ("Notes", "Notes, row 1", "1 | one"),
        ("Notes", "Notes, row 2", "two"),
    ]
    assert found[2].metadata == {"Cost": 1200, "Paid (D)": "2024-01-01 12:00", "F": "late"}


def test_a_sheet_with_a_column_text_is_read_as_csv(tmp_path: Path) -> None:
    table = "id,title,text,year\nr2,Bees,Bees dance.,2020\nr3,Ants,,2021\n"
    cells = ([f'<c t="str"><v>{value}</v></c>' for value in row.split(",")] for row in table.splitlines())
    rows = "".join(f"<row>{''.join(row)}</row>" for row in cells)
    book = {
        "xl/workbook.xml": f'<workbook {S} {R}><sheets><sheet name="Facts" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": SHEET_LINKS,
        "xl/worksheets/sheet1.xml": f"<worksheet {S}><sheetData>{rows}</sheetData></worksheet>",
    }
    sheet, as_csv = read(tmp_path / "a.xlsx", package(book)), read(tmp_path / "a.csv", table)
    facts = [[(one.id, one.title, one.text, one.metadata) for one in found] for found in (sheet, as_csv)]
    assert facts[0] == facts[1]
    assert sheet[0].place == "Facts, row 2"


def test_mail_has_its_parts_as_sections_and_names_attachments(tmp_path: Path) -> None:
    pytest.importorskip("bs4")
    mail = EmailMessage()
    mail["From"], mail["To"] = "Zoë <zoe@example.org>", "a@example.org, b@example.org"
    mail["Subject"], mail["Date"] = "Züge nach Wien " * 9, "Fri, 05 Apr 2024 09:30:00 +0200"
    mail.set_content("Café at noon.", charset="latin-1")
    mail.add_alternative("<p>Café at <b>noon</b>.</p>", subtype="html")
    mail.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="Fahrplan für März.pdf")
    forwarded = EmailMessage()
    forwarded["Subject"] = "Tickets"
    forwarded.set_content("<h1>Price</h1>Forty euros.", subtype="html")
    mail.add_attachment(forwarded)
    found = read(tmp_path / "a.eml", mail.as_bytes())[0]
    assert found.title == ("Züge nach Wien " * 9).strip()
    assert found.metadata == {
        "from": "Zoë <zoe@example.org>",
        "to": "a@example.org, b@example.org",
        "subject": found.title,
        "date": "2024-04-05T09:30:00+02:00",
    }
    assert [(one.place, one.headings, found.text[one.body : one.end].strip()) for one in found.sections] == [
        (
            "",
            (),
            "From: Zoë <zoe@example.org>\nTo: a@example.org, b@example.org\n"
            f"Subject: {found.title}\nDate: 2024-04-05T09:30:00+02:00",
        ),
        ("part 1", (), "Café at noon."),
        ("part 3", (), "Attachment: Fahrplan für März.pdf"),
        ("part 4", ("Tickets",), ""),
        ("part 4", ("Price",), "Forty euros."),
    ]


RTF = rb"""{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset204 Arial;}}
{\info{\title Hand\'e9book}{\author Ana}}{\stylesheet{\s1 heading 1;}}{\*\generator X;}{\header Top\par}
{\pard\outlinelevel0 Travel\par}\pard By {\b rail}\'85 {\f1\'cf\'f0} \u26085?\uc2\u233\'c3\'a9 \{a\}\~b
 c{\pict\bin4 }}}}}\line \u-10179?\u-8704??d\par
\trowd\intbl Class\par\cell 2\cell\row\pard {\field{\*\fldinst HYPERLINK x}{\fldrslt link}}}"""


def test_rtf_has_headings_tables_and_every_kind_of_character(tmp_path: Path) -> None:
    found = read(tmp_path / "a.rtf", RTF)[0]
    assert found.title == "Handébook"
    text = "By rail… Пр \u65e5é {a}\u00a0b c\n\U0001f600d\n\nClass | 2\n\nlink"
    assert shown(found) == [("Travel", text)]


MARKED = {
    "a.org": "#+TITLE: Handbook\n\n* TODO Travel :work:\nBy rail.\n** Hotels\nCheap ones.\n*bold* end\n",
    "a.adoc": "= Handbook\n\n== Travel\nBy rail.\n=== Hotels\nCheap ones.\n",
    "a.tex": "\\newcommand{x}\n\\section{no}\n\\title{Handbook}\n\\begin{document}\n% \\section{old}\n"
    "\\section*{Travel}\\label{a}\nBy rail.\n  \\subsection[H]{Hot{el}s}\nCheap ones.\n",
    "a.rst": "========\nHandbook\n========\n\nTravel\n======\nBy rail.\n\nHotels\n------\n"
    "= =\na b\n= =\nab cd\n--\n",
}


@pytest.mark.parametrize("name", MARKED)
def test_markup_has_a_section_for_each_heading_and_keeps_its_text(tmp_path: Path, name: str) -> None:
    found = read(tmp_path / name, MARKED[name])[0]
    assert (found.title, found.text) == ("Handbook", MARKED[name])
    paths = [
        [one.replace("{el}", "el") for one in section.headings if one != "Handbook"]
        for section in found.sections
    ]
    assert [path for path in paths if path] == [["Travel"], ["Travel", "Hotels"]]
    assert found.text[found.sections[-1].body :].split()[0] in ("Cheap", "=")


def test_jsonl_has_a_document_for_each_record(tmp_path: Path) -> None:
    lines = [
        '{"_id": "a", "title": null, "text": "one", "year": 2020, "tags": ["x"]}',
        "",
        '{"id": 7.5, "title": "T", "text": "two"}',
        "oops",
        '{"text": "three"}',
    ]
    found = read(tmp_path / "a.jsonl", "\n".join(lines))
    assert [(one.id, one.place, one.title, one.text, one.metadata) for one in found if not one.problem] == [
        ("a", "line 1", "", "one", {"year": 2020, "tags": ["x"]}),
        (7.5, "line 3", "T", "two", {}),
        (None, "line 5", "", "three", {}),
    ]
    problems = [one.problem for one in found if one.problem]
    assert len(problems) == 1
    assert problems[0].startswith("line 4: not JSON")
    assert found[-1].n_bytes > found[0].n_bytes > 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "name,price\nTea,3\nMilk,\n"),
        ("a.csv", "name;price\nTea;3\nMilk;\n"),
        ("a.csv.gz", gzip.compress(b"name,price\nTea,3\nMilk,\n")),
        ("a.tsv", "name\tprice\nTea\t3\nMilk\t\n"),
        ("a.json", '[{"name": "Tea", "price": 3}, {"name": "Milk", "price": null}]'),
    ],
)
def test_a_table_has_a_document_for_each_row_with_the_names_of_its_columns(
    tmp_path: Path, name: str, content: str | bytes
) -> None:
    found = read(tmp_path / name, content)
    assert [one.text for one in found] == ["name: Tea\nprice: 3", "name: Milk"]
    assert found[0].metadata["name"] == "Tea"


def test_a_table_with_a_text_column_has_that_text(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", "id,text,author\n1,Llamas graze.,Ana\n")[0]
    assert (found.id, found.text, found.metadata) == ("1", "Llamas graze.", {"author": "Ana"})


def test_a_notebook_is_its_cells(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Load\n", "Read the rows."]},
        {"cell_type": "code", "source": "# no heading\nrows = read()", "outputs": [{"text": "hidden"}]},
    ]
    found = read(tmp_path / "a.ipynb", json.dumps({"cells": cells}))[0]
    assert shown(found) == [("Load", "Read the rows.\n\n```\n# no heading\nrows = read()\n```")]


def test_compressed_jsonl_is_read_too_and_a_cut_off_one_says_so(tmp_path: Path) -> None:
    data = gzip.compress("\n".join(json.dumps({"text": f"t{i}" * 99}) for i in range(999)).encode())
    assert len(read(tmp_path / "a.jsonl.gz", data)) == 999
    with pytest.raises(InputError, match="end-of-stream"):
        read(tmp_path / "b.jsonl.gz", data[: len(data) // 2])


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffEin Caf\xe9 f\xfcr M\xfcller.\r\nau lait\r".encode(),
        "Ein Caf\xe9 f\xfcr M\xfcller.\nau lait\n".encode("utf-16"),
        "Ein Caf\xe9 f\xfcr M\xfcller.\nau lait\n".encode("cp1252"),
    ],
    ids=["utf-8", "utf-16", "windows"],
)
def test_text_may_be_in_any_encoding_with_any_line_ends(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path / "a.txt", content)[0].text == "Ein Caf\xe9 f\xfcr M\xfcller.\nau lait\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"zero\0byte", "binary"),
        ("a.jsonl", b'{"no": "text"}\n{"text": "a"}', "no column 'text'"),
        ("a.ipynb", b"{}", "notebook"),
        ("a.jsonl.gz", b"no gzip", "gzip"),
        ("a.pdf", b"no PDF", "PDF"),
        ("a.docx", b"no zip", "docx file that cannot be read"),
        ("a.epub", package({"mimetype": "x"}), "epub file that cannot be read"),
        ("a.odt", package({"content.xml": "<a>"}), "odt file that cannot be read"),
        ("a.odt", package({"content.xml": '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'}), "entities"),
        ("a.xlsx", package({"xl/workbook.xml": "<a/>"}), "xlsx file that cannot be read"),
        ("a.eml", b"no mail", "not a mail"),
        ("a.rtf", b"no rtf", "not RTF"),
        ("a.pdf", pdf("text")[:150], "PDF"),
        ("a.pdf", pdf("", ""), "without text"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    if name.endswith("pdf"):
        pytest.importorskip("pypdf")
    with pytest.raises(InputError, match=message):
        read(tmp_path / name, content)


def test_a_missing_file_or_one_without_permission_is_the_same_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        list(read_documents(tmp_path / "gone.txt"))
    with pytest.raises(InputError, match="directory"):
        list(read_documents(tmp_path))


def test_html_nested_beyond_measure_ends_nothing(tmp_path: Path) -> None:
    pytest.importorskip("bs4")
    assert read(tmp_path / "a.html", "<div>" * 20_000 + "deep")[0].text == "deep"


@pytest.mark.parametrize(("name", "module"), [("a.html", "bs4"), ("a.pdf", "pypdf")])
def test_a_reader_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"pip install 'ggrank\[files\]'"):
        read(tmp_path / name, "<p>text")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.docx", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("word/document.xml", b" " * ((1 << 26) + 1))
    assert (tmp_path / "a.docx").stat().st_size < 100_000
    with pytest.raises(InputError, match="has 64 MB, the limit is 64"):
        list(read_documents(tmp_path / "a.docx"))


def test_a_word_file_with_damaged_bytes_is_an_error_of_that_file(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("word/document.xml", WORD * 50)
    data = bytearray(stream.getvalue())
    data[60:120] = b"\xff" * 60
    (tmp_path / "a.docx").write_bytes(data)
    with pytest.raises(InputError, match="cannot be read"):
        list(read_documents(tmp_path / "a.docx"))


@pytest.mark.parametrize("field", ["a: !!bool foo", "a: !!timestamp foo", "a: !!int x"])
def test_front_matter_that_is_no_yaml_is_none(field: str, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(f"---\n{field}\n---\n# Title\n\nText.\n")
    (found,) = read_documents(tmp_path / "a.md")
    assert found.metadata == {}
