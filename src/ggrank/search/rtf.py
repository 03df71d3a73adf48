r"""Rich Text Format (.rtf) to documents: groups in braces, and control words such as ``\par``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ggrank.errors import InputError
from ggrank.search.sections import Block, FileDocument, assembled

_TOKEN = re.compile(
    rb"\\([a-z]{1,32})(-?\d{1,9})? ?|((?:\\'[0-9a-f]{2})+)|\\(.)|([{}])|[\r\n\0]+|([^\\{}\r\n\0]+)",
    re.IGNORECASE | re.DOTALL,
)
"""A control word and its number, bytes in hexadecimal, an escaped sign, a brace, or text."""

_LEFT_OUT = """
colortbl datastore deleted filetbl fonttbl footer footerf footerl footerr generator header headerf headerl
headerr info latentstyles listtable listoverridetable nonshppict objdata pict revtbl rsidtbl stylesheet
themedata xmlnstbl
"""
_ENDS = frozenset(("par", "row", "page", "sect"))
_SIGNS = {
    "line": "\n",
    "cell": " | ",
    "tab": "\t",
    "emdash": "\u2014",
    "endash": "\u2013",
    "bullet": "\u2022",
    "lquote": "\u2018",
    "rquote": "\u2019",
    "ldblquote": "\u201c",
    "rdblquote": "\u201d",
    "~": "\u00a0",
    "_": "-",
    "\\": "\\",
    "{": "{",
    "}": "}",
}
_CHARSETS = dict(
    zip(
        (128, 129, 134, 136, 161, 162, 163, 177, 178, 186, 204, 222, 238),
        (932, 949, 936, 950, 1253, 1254, 1258, 1255, 1256, 1257, 1251, 874, 1250),
        strict=True,
    )
)
"""Code pages by a font's ``\\fcharset``."""


@dataclass(frozen=True)
class _State:
    """What a brace saves and the closing one brings back.

    Attributes:
        target: where text goes: "text", "title", or "" where it is left out.
        code_page: of bytes; 0 for the document's.
        n_replaced: characters that stand for a ``\\u`` in programs that do not know it.
        level: of a heading; 0 for a paragraph.
        in_table: paragraphs stand in a cell.
    """

    target: str = "text"
    code_page: int = 0
    n_replaced: int = 1
    level: int = 0
    in_table: bool = False


def read_rtf(path: Path) -> Iterator[FileDocument]:
    """The document of a file. Raises InputError where it is no RTF."""
    data = path.read_bytes()
    if not data.lstrip().startswith(b"{\\rtf"):
        raise InputError("not RTF: it does not begin with {\\rtf")
    reader = _RtfReader()
    reader.read(data)
    yield assembled(reader.blocks, title=" ".join("".join(reader.texts["title"]).split()))


class _RtfReader:
    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.texts: dict[str, list[str]] = {"text": [], "title": [], "": []}
        self._state, self._saved = _State(), list[_State]()
        self._code_page = 1252
        self._fonts: dict[int, int] = {}
        self._font = 0
        self._n_skipped = 0

    def read(self, data: bytes) -> None:
        position = 0
        while match := _TOKEN.match(data, position):
            position = match.end()
            word, number, codes, sign, brace, text = match.groups()
            if word:
                name, value = word.decode().lower(), int(number or 0)
                self._control(name, value)
                position += max(value, 0) if name == "bin" else 0
            elif brace == b"{":
                self._saved.append(self._state)
            elif brace:
                self._state = self._saved.pop() if self._saved else self._state
            elif sign == b"*":
                self._state = replace(self._state, target="")
            elif sign:
                self._add(_SIGNS.get(sign.decode("latin-1"), ""))
            elif codes or text:
                self._add_bytes(bytes.fromhex(codes.replace(b"\\'", b"").decode()) if codes else text)
        self._end_paragraph()

    def _control(self, word: str, value: int) -> None:
        state = self._state
        if word in _ENDS and not (state.in_table and word == "par"):
            self._end_paragraph()
        elif word in _SIGNS:
            self._add(_SIGNS[word])
        elif word == "u":
            self._add(chr(value % 0x10000))
            self._n_skipped = state.n_replaced
        elif word in ("f", "fcharset", "ansicpg"):
            self._set_font(word, value)
        elif word == "uc":
            self._state = replace(state, n_replaced=value)
        elif word == "pard":
            self._state = replace(state, level=0, in_table=False)
        elif word == "intbl":
            self._state = replace(state, in_table=True)
        elif word == "outlinelevel":
            self._state = replace(state, level=value + 1 if value < 9 else 0)
        elif word == "title" or word in _LEFT_OUT.split():
            self._state = replace(state, target="title" if word == "title" else "")

    def _set_font(self, word: str, value: int) -> None:
        if word == "ansicpg":
            self._code_page = value
        elif word == "f":
            self._font = value
            self._state = replace(self._state, code_page=self._fonts.get(value, 0))
        else:
            self._fonts[self._font] = _CHARSETS.get(value, 0)

    def _add_bytes(self, data: bytes) -> None:
        shown = data[self._n_skipped :]
        self._n_skipped -= len(data) - len(shown)
        try:
            self._add(shown.decode(f"cp{self._state.code_page or self._code_page}", "replace"))
        except LookupError:
            self._add(shown.decode("cp1252", "replace"))

    def _add(self, text: str) -> None:
        self.texts[self._state.target].append(text)

    def _end_paragraph(self) -> None:
        if self._state.target == "text":
            # An emoji is two ``\\u``, the halves of UTF-16.
            text = "".join(self.texts["text"]).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            self.blocks.append(Block(text.strip(" |"), self._state.level if text.strip() else 0))
            self.texts["text"].clear()
