"""A file's text and its sections: which headings stand over each stretch of it, and on which page it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

SEPARATOR = " > "
"""Between the headings of a path: "Staff handbook > Travel"."""

_FRONT_MATTER = re.compile(
    r"---[^\S\n]*\n(?=[^\s:][^\n:]*:\s)(.*?)^(?:---|\.\.\.)[^\S\n]*(?:\n|\Z)", re.DOTALL | re.MULTILINE
)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?$")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_NO_PARAGRAPH = re.compile(r" {4}|\t| {0,3}(?:[-*+>|<]|\d{1,9}[.)][ \t])")


HEADINGS = {
    "org": re.compile(r"^(?P<mark>\*+)[ \t]+(?:TODO |DONE )?(?P<text>.*)$", re.M),
    "adoc": re.compile(r"^(?P<mark>={1,6})[ \t]+(?P<text>.+)$", re.M),
    "tex": re.compile(
        r"^[ \t]*\\(?P<mark>part|chapter|(?:sub){0,2}section)\*?(?:\[[^\]\n]*\])?"
        r"\{(?P<text>(?:[^{}\n]|\{[^{}\n]*\})*)\}(?:[ \t]*\\label\{[^{}\n]*\})?",
        re.M,
    ),
    "rst": re.compile(
        r"^(?:(?P<over>[^\w\s])(?P=over)+\n[ \t]*)?(?P<text>\S.*)\n"
        r"(?P<mark>(?P<under>[^\w\s])(?P=under)+)[ \t]*$",
        re.M,
    ),
}
"""What a heading looks like, by suffix; ``mark`` is what says its level."""

_TITLE = re.compile(r"^(?:#\+title:[ \t]*(.+)|\\title\{([^{}\n]+)\})", re.I | re.M)
_ORG_TAGS = re.compile(r" :\S+:$")
_TEX_LEVELS = ("part", "chapter", "section", "subsection", "subsubsection")


@dataclass(frozen=True)
class Section:
    """A stretch of a document's text under one heading.

    Attributes:
        start, end: characters of the text, the heading included.
        body: where the text after the heading begins.
        headings: the path, outermost first: ("Staff handbook", "Travel").
        place: "page 3", "slide 2"; "" where lines or headings say enough.
    """

    start: int
    end: int
    body: int
    headings: tuple[str, ...] = ()
    place: str = ""


@dataclass(frozen=True)
class FileDocument:
    """A document as a file holds it: a whole file, or one row of it.

    Attributes:
        text: what is shown; of Markdown, plain text and code the file's own text, so that lines agree.
        sections: in order; none for a text without any.
        title: "" where it has none.
        metadata: the front matter, or the other fields of a row.
        place: of a row, "line 3".
        id: of a row.
        n_bytes: of the file, read up to the end of a row; 0 where it was read as a whole.
        problem: why a row, or the front matter, could not be read.
        vector: of the whole text, where the file has one (Parquet of ``ggrank job embed``).
        origin: what the vector was made with.
    """

    text: str
    sections: tuple[Section, ...] = ()
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""
    id: str | float | None = None
    n_bytes: int = 0
    problem: str = ""
    vector: Sequence[float] | None = None
    origin: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Block:
    """A paragraph or a heading of a file that is not plain text.

    Attributes:
        level: of a heading, 1 for the outermost; 0 for a paragraph.
        place: where it is, such as "page 3".
    """

    text: str
    level: int = 0
    place: str = ""


@dataclass(frozen=True)
class _Mark:
    """Where a section begins, and its heading; level 0 where it goes on under the same headings."""

    start: int
    body: int
    level: int = 0
    heading: str = ""
    place: str = ""


def assembled(blocks: Iterable[Block], *, title: str = "") -> FileDocument:
    """The document that blocks make, with an empty line between two."""
    parts: list[str] = []
    marks: list[_Mark] = []
    position, place = 0, ""
    for block in blocks:
        text = block.text.strip()
        if block.level or block.place != place:
            body = position + len(text) if block.level else position
            marks.append(_Mark(position, body, block.level, " ".join(text.split()), block.place))
            place = block.place
        if text:
            parts.append(text)
            position += len(text) + 2
    text = "\n\n".join(parts)
    return FileDocument(text, _sections(marks, start=0, end=len(text)), title)


def markdown(text: str) -> FileDocument:
    """Markdown with its front matter as metadata and a section for each heading.

    Example:
        >>> found = markdown("---\\ntags: [a, b]\\n---\\n# Handbook\\n\\nTravel\\n------\\n\\nBy rail.\\n")
        >>> found.title, found.metadata, found.sections[-1].headings
        ('Handbook', {'tags': ['a', 'b']}, ('Handbook', 'Travel'))
    """
    match = _FRONT_MATTER.match(text)
    metadata, problem = _front_matter(match[1]) if match else ({}, "")
    start = match.end() if match else 0
    marks = list(_markdown_marks(text, start))
    found = _document(text, marks, title=metadata.get("title"), metadata=metadata, start=start)
    return replace(found, problem=problem)


def marked_text(text: str, suffix: str) -> FileDocument:
    """Org, AsciiDoc, LaTeX or reStructuredText with a section for each heading; LaTeX without its preamble.

    Example:
        >>> found = marked_text("Handbook\\n========\\n\\nTravel\\n------\\n\\nBy rail.\\n", "rst")
        >>> found.title, found.sections[-1].headings
        ('Handbook', ('Handbook', 'Travel'))
    """
    styles: list[tuple[str | None, str]] = []  # of reStructuredText, in the order of their levels
    marks = []
    start = max(0, text.find("\\begin{document}")) if suffix == "tex" else 0
    for match in HEADINGS[suffix].finditer(text, start):
        heading, level = " ".join(match["text"].split()), len(match["mark"])
        if suffix == "org":
            heading = _ORG_TAGS.sub("", heading)
        elif suffix == "tex":
            level = 1 + _TEX_LEVELS.index(match["mark"])
        elif suffix == "rst":
            if level < min(4, len(heading)) or match["over"] not in (None, match["under"]):
                continue  # a text or a table
            style = (match["over"], match["under"])
            styles += [style] if style not in styles else []
            level = 1 + styles.index(style)
        marks.append(_Mark(match.start(), match.end(), level, heading))
    title = _TITLE.search(text)
    return _document(text, marks, title=title and (title[1] or title[2]).strip(), metadata={}, start=start)


def _document(
    text: str, marks: Sequence[_Mark], *, title: object, metadata: Mapping[str, Any], start: int
) -> FileDocument:
    """Without a title of its own it has that of its only outermost heading."""
    outermost = [mark.heading for mark in marks if mark.level == 1]
    title = title or (outermost[0] if len(outermost) == 1 else "")
    return FileDocument(text, _sections(marks, start=start, end=len(text)), str(title), metadata)


def _front_matter(text: str) -> tuple[dict[str, Any], str]:
    """Its fields, or a problem: it is not YAML, or has references, by which a few lines can become huge."""
    import yaml

    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            return {}, "the front matter is left out: it has references (*name)"
        found = yaml.safe_load(text)
    except (
        yaml.YAMLError,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:  # bad tags too
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 2} of the file" if mark else ""
        reason = " ".join(str(getattr(error, "problem", error)).split())
        return {}, f"the front matter is left out: it is not YAML ({reason}{line})"
    return ({str(key): value for key, value in found.items()} if isinstance(found, dict) else {}), ""


def _markdown_marks(text: str, start: int) -> Iterator[_Mark]:
    """The headings of Markdown (CommonMark: ATX and setext); lines of code are none."""
    fence, paragraph = "", -1
    for line in text[start:].splitlines(keepends=True):
        end = start + len(line)
        line = line.rstrip()
        opening = _FENCE.match(line)
        if fence:
            fence = (
                "" if opening and opening[1].startswith(fence) and line.strip(" " + fence[0]) == "" else fence
            )
            paragraph = -1
        elif opening:
            fence, paragraph = opening[1], -1
        elif heading := _ATX.match(line):
            yield _Mark(start, end, len(heading[1]), _heading_text(heading[2] or ""))
            paragraph = -1
        elif paragraph >= 0 and (underline := _SETEXT.match(line)):
            level = 1 if underline[1][0] == "=" else 2
            yield _Mark(paragraph, end, level, _heading_text(text[paragraph:start]))
            paragraph = -1
        elif not line or (paragraph < 0 and _NO_PARAGRAPH.match(line)):
            paragraph = -1
        elif paragraph < 0:
            paragraph = start
        start = end


def _heading_text(text: str) -> str:
    text = " ".join(text.split())
    bare = text.rstrip("#")
    return bare.rstrip() if bare != text and (not bare or bare.endswith(" ")) else text


def _sections(marks: Sequence[_Mark], *, start: int, end: int) -> tuple[Section, ...]:
    path: list[_Mark] = []
    sections = [Section(start, marks[0].start if marks else end, start)]
    for mark, after in zip_longest(marks, marks[1:]):
        if mark.level:
            path = [*(above for above in path if above.level < mark.level), mark]
        headings = tuple(above.heading for above in path if above.heading)
        until = after.start if after else end
        sections.append(Section(mark.start, until, mark.body, headings, mark.place))
    found = tuple(section for section in sections if section.start < section.end)
    return found or (Section(end, end, end),)  # front matter alone: not a text without sections
