"""``POST /search``: the index that ``ggrank serve --index`` was started with; there only with that option."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated, Any

import orjson
from fastapi import APIRouter
from pydantic import AfterValidator, Field
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from ggrank.errors import InputError
from ggrank.search.hits import Hit, printed_place
from ggrank.search.ranking import By
from ggrank.search.where import conditions
from ggrank.server.dialects import fields
from ggrank.server.errors import documented
from ggrank.server.intake import ThreadRoute
from ggrank.types import Mode

MOST_HITS = 100

router = APIRouter(tags=["index"], route_class=ThreadRoute, responses=documented())


def _where(where: dict[str, Any]) -> dict[str, Any]:
    try:
        conditions(where)
        orjson.dumps(where, option=orjson.OPT_STRICT_INTEGER)  # SQLite has no half of a surrogate pair either
    except (InputError, TypeError):
        example = '{"tags": "staff", "year": {">=": 2020}}'
        raise fields.wrong(f"must compare metadata with texts or numbers, as in {example}") from None
    return where


class SearchRequest(fields.Body):
    """A query, and which documents may answer it."""

    query: fields.Text = Field(examples=["Who pays for travel?"])
    top_n: int = Field(default=10, ge=1, le=MOST_HITS)
    by: By = Field(default="both", description="`meaning` compares vectors, `words` is BM25.")
    path: fields.Text | None = Field(
        default=None, max_length=1000, description="A glob or a folder that files must match: `notes/*.md`."
    )
    where: Annotated[dict[str, Any], Field(max_length=50), AfterValidator(_where)] | None = Field(
        default=None,
        description="Metadata that documents must have; a value means equal, or contained in a list.",
        examples=[{"tags": "staff", "year": {">=": 2020}}],
    )
    min_score: float | None = Field(
        default=None, ge=0, le=1, description="Leave out passages with a lower score."
    )
    rerank: bool = Field(default=False, description="Let the first reranker order the best 20.")


class FoundPassage(TypedDict):
    """A passage; ``score`` is 0..1 and means the same in every search."""

    place: Annotated[str, Field(examples=["/home/me/notes/travel.md:12"])]
    path: Annotated[str, Field(description="Empty where the document was added without a file.")]
    line: int
    page: str
    id: str | float | None
    title: str
    headings: str
    text: str
    score: float
    cosine: float | None
    words: Annotated[list[str], Field(description="Those of the query that the passage holds.")]
    logit: Annotated[float | None, Field(description="The reranker's.")]


class SearchResponse(TypedDict):
    """Passages, best first."""

    hits: list[FoundPassage]


@router.post("/search")
def search(request: SearchRequest, service: fields.Served) -> SearchResponse:
    """The passages of the server's index that answer a query, equal texts once."""
    with ExitStack() as stack:
        index, reranker = stack.enter_context(service.index()), None
        if request.rerank:
            _, reranker = stack.enter_context(service.model(None, Mode.RERANK))
        hits = index.search(
            request.query,
            reranker=reranker,
            top_n=request.top_n,
            by=request.by,
            where=request.where,
            paths=[] if request.path is None else [request.path],
            min_score=request.min_score,
        )
    return SearchResponse(hits=[_passage(hit) for hit in hits])


def _passage(hit: Hit) -> FoundPassage:
    return FoundPassage(
        place=printed_place(hit),
        path=hit.path,
        line=hit.line,
        page=hit.page,
        id=hit.id,
        title=hit.title,
        headings=hit.headings,
        text=hit.text,
        score=hit.score,
        cosine=hit.cosine,
        words=list(hit.words),
        logit=hit.logit,
    )
