"""Files to texts: formats, encodings and places; a file that cannot be read says why."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest

from ggrank import InputError
from ggrank.search.readers import Part, read_parts


def parts(path: Path, content: str | bytes) -> list[Part]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_parts(path))


def shown(found: list[Part]) -> list[tuple[str, str]]:
    return [(part.place, part.text.strip()) for part in found if part.text.strip()]


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


def test_markdown_has_a_part_for_each_heading_at_its_place(tmp_path: Path) -> None:
    text = "Before.\n\n# One\n\nFirst.\n\n```sh\n# no heading\n```\n\n## Two #\nSecond. #hash\n#nor this"
    found = parts(tmp_path / "a.md", text)
    assert [(part.place, part.text) for part in found] == [
        ("", "Before.\n\n"),
        ("One", "# One\n\nFirst.\n\n```sh\n# no heading\n```\n\n"),
        ("Two", "## Two #\nSecond. #hash\n#nor this"),
    ]
    assert all(text[part.start :].startswith(part.text) for part in found)


@pytest.mark.parametrize("line", ["# " + " " * 100_000 + "x", "# x" + " #" * 100_000, "```\n" * 50_000])
def test_no_line_of_markdown_takes_long(tmp_path: Path, line: str) -> None:
    assert parts(tmp_path / "a.md", f"{line}\n" * 3)


def test_html_is_read_as_a_browser_shows_it(tmp_path: Path) -> None:
    pytest.importorskip("bs4")
    found = parts(
        tmp_path / "a.html",
        "<html><head><title>Garden &amp; house</title><style>p {}</style><script>x()</script></head><body>"
        "<p>Water the <b>toma</b>toes\n  daily.</p>At the roots<!-- hidden --><h2>Com<i>post</i><br>heap</h2>"
        "<ul><li>Peels</li><li>Grounds</li></ul><template>hidden</template><br>End<p>unclosed",
    )
    assert shown(found) == [
        ("Garden & house", "Garden & house\n\nWater the tomatoes daily.\n\nAt the roots"),
        ("Compost heap", "Compost heap\n\nPeels\n\nGrounds\n\nEnd\n\nunclosed"),
    ]


def test_html_in_another_encoding_is_read_as_it_says(tmp_path: Path) -> None:
    pytest.importorskip("bs4")
    page = '<meta charset="iso-8859-1"><p>Caf\xe9'.encode("latin-1")
    assert shown(parts(tmp_path / "a.htm", page)) == [("", "Caf\xe9")]


def test_a_pdf_has_a_part_for_each_page(tmp_path: Path) -> None:
    pytest.importorskip("pypdf")
    found = parts(tmp_path / "a.pdf", pdf("Llamas graze.", "", "Trains leave."))
    assert shown(found) == [("page 1", "Llamas graze."), ("page 3", "Trains leave.")]


def test_a_pdf_that_is_mended_is_read_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pypdf")
    found = parts(tmp_path / "a.pdf", b"no header\n" + pdf("Llamas graze."))
    assert shown(found) == [("page 1", "Llamas graze.")]
    assert caplog.messages == []


def test_jsonl_has_a_part_for_each_record_with_its_id(tmp_path: Path) -> None:
    lines = [
        '{"_id": "a", "title": "T", "text": "one"}',
        "",
        '{"id": 7, "text": "two"}',
        "oops",
        '{"text": "three"}',
    ]
    found = parts(tmp_path / "a.jsonl", "\n".join(lines))
    assert [(part.id, part.place, part.text) for part in found if not part.problem] == [
        ("a", "line 1", "T one"),
        (7, "line 3", "two"),
        (None, "line 5", "three"),
    ]
    problems = [part.problem for part in found if part.problem]
    assert len(problems) == 1
    assert problems[0].startswith("line 4: not JSON")
    assert found[-1].n_bytes == (tmp_path / "a.jsonl").stat().st_size


def test_compressed_jsonl_is_read_too_and_a_cut_off_one_says_so(tmp_path: Path) -> None:
    data = gzip.compress("\n".join(json.dumps({"text": f"t{i}" * 99}) for i in range(999)).encode())
    assert len(parts(tmp_path / "a.jsonl.gz", data)) == 999
    with pytest.raises(InputError, match="end-of-stream"):
        parts(tmp_path / "b.jsonl.gz", data[: len(data) // 2])


@pytest.mark.parametrize(
    "content",
    ["\ufeffCaf\xe9\r\nau lait\r".encode(), "Caf\xe9\nau lait\n".encode("utf-16")],
    ids=["utf-8", "utf-16"],
)
def test_text_may_have_a_byte_order_mark_and_any_line_ends(tmp_path: Path, content: bytes) -> None:
    assert [part.text for part in parts(tmp_path / "a.txt", content)] == ["Caf\xe9\nau lait\n"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"caf\xe9", "not UTF-8 \\(byte 4\\)"),
        ("a.md", b"\xff\xfea", "not UTF-16"),
        ("a.txt", b"zero\0byte", "binary"),
        ("a.jsonl", b'{"no": "text"}\n{"text": "a"}', 'no "text" string'),
        ("a.jsonl", b"\xff\xff", "utf-8"),
        ("a.jsonl.gz", b"no gzip", "gzip"),
        ("a.pdf", b"no PDF", "PDF"),
        ("a.pdf", pdf("text")[:150], "PDF"),
        ("a.pdf", pdf("", ""), "without text"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    if name.endswith("pdf"):
        pytest.importorskip("pypdf")
    with pytest.raises(InputError, match=message):
        parts(tmp_path / name, content)


def test_a_missing_file_or_one_without_permission_is_the_same_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        list(read_parts(tmp_path / "gone.txt"))
    with pytest.raises(InputError, match="directory"):
        list(read_parts(tmp_path))


def test_html_nested_beyond_measure_ends_nothing(tmp_path: Path) -> None:
    pytest.importorskip("bs4")
    assert shown(parts(tmp_path / "a.html", "<div>" * 20_000 + "deep")) == [("", "deep")]


@pytest.mark.parametrize(("name", "module"), [("a.html", "bs4"), ("a.pdf", "pypdf")])
def test_a_reader_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"pip install 'ggrank\[files\]'"):
        parts(tmp_path / name, "<p>text")
