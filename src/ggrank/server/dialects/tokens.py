"""``/tokenize`` and ``/detokenize``, as llama-server has them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from ggrank.server.dialects import fields
from ggrank.server.errors import documented, naming
from ggrank.server.intake import ThreadRoute
from ggrank.server.worker import spend
from ggrank.types import Mode

ANY_MODEL = "The name of a served model; for any other the default reranker, else the embedder."

router = APIRouter(tags=["llama-server"], route_class=ThreadRoute, responses=documented())


class TokenizeRequest(fields.Body):
    """One text."""

    model: str | None = Field(default=None, description=ANY_MODEL)
    content: fields.Text = Field(examples=["What is the capital of France ?"])
    add_special: bool = Field(default=False, description="Add the special tokens of a single text.")
    with_pieces: bool = Field(default=False, description="Send each token's text as well.")


class DetokenizeRequest(fields.Body):
    """Token ids."""

    model: str | None = Field(default=None, description=ANY_MODEL)
    tokens: fields.Ids = Field(examples=[[7592, 2088]])


@router.post("/tokenize")
def tokenize(request: TokenizeRequest, service: fields.Served) -> dict[str, Any]:
    """The token ids of a text, not cut; with `with_pieces` objects `id` and `piece`.

    Special tokens have no text, and their text in a request, such as `[SEP]`, is plain text: none can be
    smuggled in.
    """
    with service.model(request.model, Mode.RERANK, Mode.EMBEDDING) as (_, llama):
        ids = (llama.framed if request.add_special else llama.tokenize)(request.content)
        spend(len(ids))
        tokens = ids.tolist()
        if not request.with_pieces:
            return {"tokens": tokens}
        pieces = {token: llama.detokenize([token]) for token in set(tokens)}
    return {"tokens": [{"id": token, "piece": pieces[token]} for token in tokens]}


@router.post("/detokenize")
def detokenize(request: DetokenizeRequest, service: fields.Served) -> dict[str, str]:
    """The text of token ids, special tokens left out."""
    spend(len(request.tokens))
    with naming("tokens"), service.model(request.model, Mode.RERANK, Mode.EMBEDDING) as (_, llama):
        return {"content": llama.detokenize(request.tokens)}
