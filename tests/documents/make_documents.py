"""Makes the office files, PDFs, mail and Parquet of library/ once, with writers that ggrank does not use.

python -m venv tools && tools/bin/pip install pypandoc_binary openpyxl reportlab pyarrow
tools/bin/python tests/documents/make_documents.py
"""

from __future__ import annotations

from datetime import date
from email.message import EmailMessage
from pathlib import Path

import openpyxl
import pyarrow
import pyarrow.parquet
import pypandoc
from reportlab.lib.pagesizes import A5
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate, Spacer

HERE = Path(__file__).parent
LIBRARY = HERE / "library"

SONNETS = {
    "Sonnet 18": """Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date.
So long as men can breathe, or eyes can see,
So long lives this, and this gives life to thee.""",
    "Sonnet 29": """When in disgrace with fortune and men's eyes
I all alone beweep my outcast state,
And trouble deaf heaven with my bootless cries,
And look upon myself, and curse my fate.
For thy sweet love remember'd such wealth brings
That then I scorn to change my state with kings.""",
    "Sonnet 73": """That time of year thou mayst in me behold
When yellow leaves, or none, or few, do hang
Upon those boughs which shake against the cold,
Bare ruin'd choirs, where late the sweet birds sang.""",
    "Sonnet 116": """Let me not to the marriage of true minds
Admit impediments. Love is not love
Which alters when it alteration finds,
Or bends with the remover to remove:
O no! it is an ever-fixed mark
That looks on tempests and is never shaken.""",
    "Sonnet 130": """My mistress' eyes are nothing like the sun;
Coral is far more red than her lips' red;
If snow be white, why then her breasts are dun;
If hairs be wires, black wires grow on her head.""",
}
NOVELS = {
    "Pride and Prejudice": """It is a truth universally acknowledged, that a single man in
possession of a good fortune, must be in want of a wife.""",
    "A Tale of Two Cities": """It was the best of times, it was the worst of times, it was
the age of wisdom, it was the age of foolishness.""",
    "Moby-Dick": """Call me Ishmael. Some years ago -- never mind how long precisely -- having little or
no money in my purse, and nothing particular to interest me on shore, I thought I would sail about a little
and see the watery part of the world.""",
    "Alice's Adventures in Wonderland": """Alice was beginning to get very tired of sitting by her
sister on the bank, and of having nothing to do: once or twice she had peeped into the book her sister was
reading, but it had no pictures or conversations in it.""",
}
STATES = [
    ("Delaware", "Dover", date(1787, 12, 7)),
    ("Pennsylvania", "Harrisburg", date(1787, 12, 12)),
    ("New Jersey", "Trenton", date(1787, 12, 18)),
    ("Georgia", "Atlanta", date(1788, 1, 2)),
    ("Virginia", "Richmond", date(1788, 6, 25)),
    ("California", "Sacramento", date(1850, 9, 9)),
    ("Alaska", "Juneau", date(1959, 1, 3)),
    ("Hawaii", "Honolulu", date(1959, 8, 21)),
]
PRESIDENTS = [
    (1, "George Washington", "Virginia", 1789, "Commanded the Continental Army"),
    (3, "Thomas Jefferson", "Virginia", 1801, "Bought Louisiana from France"),
    (16, "Abraham Lincoln", "Illinois", 1861, "Kept the Union together in the Civil War"),
    (26, "Theodore Roosevelt", "New York", 1901, "Built the Panama Canal"),
    (34, "Dwight D. Eisenhower", "Kansas", 1953, "Began the Interstate highways"),
]
BIBLE = {
    "Genesis 1:1": "In the beginning God created the heaven and the earth.",
    "Psalm 23:1": "The LORD is my shepherd; I shall not want.",
    "Psalm 23:4": "Yea, though I walk through the valley of the shadow of death, I will fear no evil: "
    "for thou art with me; thy rod and thy staff they comfort me.",
    "Ecclesiastes 1:9": "The thing that hath been, it is that which shall be; and that which is done is "
    "that which shall be done: and there is no new thing under the sun.",
    "Ecclesiastes 3:1": "To every thing there is a season, and a time to every purpose under the heaven.",
    "Proverbs 16:18": "Pride goeth before destruction, and an haughty spirit before a fall.",
    "1 Corinthians 13:13": "And now abideth faith, hope, charity, these three; but the greatest of these is "
    "charity.",
}
GREELEY = """My paramount object in this struggle is to save the Union, and is not either to save or to
destroy slavery. If I could save the Union without freeing any slave I would do it, and if I could save it by
freeing all the slaves I would do it; and if I could save it by freeing some and leaving others alone I would
also do that.
"""
BEDELL = """<p>My dear little Miss,</p><p>Your very agreeable letter of the 15th is received. I regret the
necessity of saying I have no daughters. I have three sons.</p><p>As to the whiskers, having never worn any,
do you not think people would call it a piece of silly affection if I were to begin it now?</p>"""


def make_pdf(name: str, pages: dict[str, str], **options: object) -> None:
    style = getSampleStyleSheet()
    flow: list[object] = []
    for title, text in pages.items():
        flow += [Paragraph(title, style["Heading1"]), Spacer(1, 12)]
        flow += [Paragraph(line, style["BodyText"]) for line in text.splitlines()]
        flow.append(PageBreak())
    document = SimpleDocTemplate(str(LIBRARY / name), pagesize=A5, title=Path(name).stem, **options)
    document.build(flow)


def make_workbook() -> None:
    book = openpyxl.Workbook()
    states, presidents = book.active, book.create_sheet("Presidents")
    states.title = "States"
    states.append(["Admission of states to the Union"])
    states.append([])
    for row in [("State", "Capital", "Admitted"), *STATES]:
        states.append(row)
    for row in [("Number", "Name", "Home", "Took office", "Deed"), *PRESIDENTS]:
        presidents.append(row)
    book.save(LIBRARY / "united-states.xlsx")


def make_mail() -> None:
    letter = EmailMessage()
    letter["From"], letter["To"] = (
        "Abraham Lincoln <lincoln@example.org>",
        "Horace Greeley <greeley@example.org>",
    )
    letter["Subject"], letter["Date"] = (
        "The Union — and Miss Bedell's advice",
        "Fri, 22 Aug 1862 10:00:00 -0500",
    )
    letter.set_content(GREELEY)
    letter.add_alternative(f"<p>{GREELEY}</p>", subtype="html")
    letter.add_attachment(BEDELL, subtype="html", filename="To Grace Bedell, October 19, 1860.html")
    letter.add_attachment(b"\xff\xd8\xff", maintype="image", subtype="jpeg", filename="whiskers.jpg")
    (LIBRARY / "letters.eml").write_bytes(letter.as_bytes())


def main() -> None:
    formats = {"fables": "epub", "soliloquies": "docx", "origin-of-species": "odt", "speeches": "pptx"}
    for name, suffix in {**formats, "self-reliance": "rtf"}.items():
        source, target = HERE / "sources" / f"{name}.md", LIBRARY / f"{name}.{suffix}"
        pypandoc.convert_file(source, suffix, outputfile=str(target), extra_args=["--standalone"])
    make_pdf("sonnets.pdf", SONNETS)
    make_pdf("novels.pdf", NOVELS, encrypt=StandardEncryption("", ownerPassword="owner", strength=128))
    make_workbook()
    make_mail()
    table = pyarrow.table({"id": list(BIBLE), "text": list(BIBLE.values())})
    pyarrow.parquet.write_table(table, LIBRARY / "king-james.parquet")


if __name__ == "__main__":
    main()
