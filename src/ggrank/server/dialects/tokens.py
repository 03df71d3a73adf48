"""``/tokenize`` and ``/detokenize``, in llama-server's words and TEI's, and TEI's ``/decode``.

Knows the shapes; which token is special it learns from the service, by asking with and without them.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field, Tag
from starlette.concurrency import run_in_threadpool

from ggrank.server.dialects import tei
from ggrank.server.dialects.lists import IdLists, Ids, Strings, read_ids, read_one_or_many, read_text
from ggrank.server.dialects.llama_server import ERRORS
from ggrank.server.dialects.options import AS_OTHERS, AS_TEI, Body, Served, Text, tei_if
from ggrank.server.service import Service

router = APIRouter(tags=["tokens"])

_MODEL = "The name of a served model; the default reranker for any other, else the default embedder."


class TokenizeRequest(Body):
    """One text, in llama-server's words."""

    content: Text = Field(examples=["What is the capital of France ?"])
    model: str | None = Field(default=None, description=_MODEL)
    add_special: bool = Field(default=False, description="Add the special tokens of a single text.")
    with_pieces: bool = Field(default=False, description="Send each token's text as well.")


class Piece(BaseModel):
    """A token and its text."""

    id: int = Field(examples=[7592])
    piece: str = Field(
        description="Its text; bytes that are no character become U+FFFD. Empty for special tokens.",
        examples=["hello"],
    )


class Tokenized(BaseModel):
    """The text's token ids, or with `with_pieces` objects."""

    tokens: list[int] | list[Piece] = Field(examples=[[7592, 2088]])


class TeiTokenizeRequest(Body):
    """Texts, in TEI's words."""

    inputs: Strings = Field(examples=["What is Deep Learning?"])
    model: str | None = Field(default=None, description=_MODEL)
    add_special_tokens: bool = Field(default=True, description="Add the special tokens of a single text.")


class TeiToken(BaseModel):
    """One token."""

    id: int = Field(examples=[7592])
    text: str = Field(description="Its text; empty for special tokens.", examples=["hello"])
    special: bool = Field(examples=[False])
    start: int | None = Field(default=None, description="Not known here.")
    stop: int | None = Field(default=None, description="Not known here.")


AnyTokenizeRequest = Annotated[
    Annotated[TokenizeRequest, Tag(AS_OTHERS)] | Annotated[TeiTokenizeRequest, Tag(AS_TEI)], tei_if("inputs")
]


@router.post("/tokenize", responses=ERRORS.documented())
async def tokenize(request: AnyTokenizeRequest, service: Served) -> Tokenized | list[list[TeiToken]]:
    """Token ids of texts, not cut: `content` as llama-server, `inputs` as TEI.

    The text of a special token, such as `[SEP]`, is plain text: no request can smuggle one in.
    """
    if isinstance(request, TeiTokenizeRequest):
        return await _tei_tokens(request, service)
    [tokens] = await service.tokenize(
        [request.content], model=request.model, add_special=request.add_special, name="content"
    )
    if not request.with_pieces:
        return Tokenized(tokens=tokens)
    pieces = await _pieces(service, [tokens], request.model)
    shown = {token: Piece(id=token, piece=piece) for token, piece in pieces.items()}
    return Tokenized(tokens=[shown[token] for token in tokens])


async def _tei_tokens(request: TeiTokenizeRequest, service: Service) -> list[list[TeiToken]]:
    texts = await read_one_or_many(service, request.inputs, read_text, "inputs")
    lists = await service.tokenize(
        texts, model=request.model, add_special=request.add_special_tokens, name="inputs"
    )
    [framed] = await service.tokenize([""], model=request.model)
    [bare] = await service.tokenize([""], model=request.model, add_special=False)
    special = set(framed) - set(bare)
    pieces = await _pieces(service, lists, request.model)
    shown = {
        token: TeiToken(id=token, text=piece.removeprefix(" "), special=token in special)
        for token, piece in pieces.items()
    }
    return [[shown[token] for token in tokens] for tokens in lists]


async def _pieces(service: Service, lists: list[list[int]], model: str | None) -> dict[int, str]:
    """The text of each token that occurs: there are fewer of those than tokens."""
    tokens = sorted(set().union(*lists))
    pieces = await service.detokenize_many([[token] for token in tokens], model=model)
    return dict(zip(tokens, pieces, strict=True))


class DetokenizeRequest(Body):
    """Token ids, in llama-server's words."""

    tokens: Ids = Field(examples=[[7592, 2088]])
    model: str | None = Field(default=None, description=_MODEL)


class Detokenized(BaseModel):
    """The text of the tokens."""

    content: str = Field(examples=["hello world"])


class DecodeRequest(Body):
    """Token ids, in TEI's words."""

    ids: IdLists = Field(examples=[[7592, 2088]])
    model: str | None = Field(default=None, description=_MODEL)


AnyDetokenizeRequest = Annotated[
    Annotated[DetokenizeRequest, Tag(AS_OTHERS)] | Annotated[DecodeRequest, Tag(AS_TEI)], tei_if("ids")
]


@router.post("/detokenize", responses=ERRORS.documented())
async def detokenize(request: AnyDetokenizeRequest, service: Served) -> Detokenized | list[str]:
    """The text of token ids, special tokens left out: `tokens` as llama-server, `ids` as TEI's `/decode`."""
    if isinstance(request, DecodeRequest):
        return await decode(request, service)
    tokens = await run_in_threadpool(read_ids, request.tokens, "tokens")
    return Detokenized(content=await service.detokenize(tokens, model=request.model))


@router.post("/decode", responses=tei.ERRORS.documented())
async def decode(request: DecodeRequest, service: Served) -> list[str]:
    """The texts of token ids as TEI gives them: no special tokens, no space in front."""
    lists = await read_one_or_many(service, request.ids, read_ids, "ids")
    texts = await service.detokenize_many(lists, model=request.model, name="ids")
    return [text.removeprefix(" ") for text in texts]
