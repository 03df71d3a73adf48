"""``/tokenize`` and ``/detokenize``, in llama-server's words and TEI's, and TEI's ``/decode``."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field, Tag

from ggrank.server.dialects import fields
from ggrank.server.dialects.fields import AS_OTHERS, AS_TEI, Served, tei_if
from ggrank.server.errors import documented
from ggrank.server.intake import ThreadRoute
from ggrank.server.service import Service

router = APIRouter(tags=["tokens"], route_class=ThreadRoute, responses=documented())


class TokensBody(fields.Body):
    """What every request here may say."""

    model: str | None = Field(
        default=None,
        description="The name of a served model; for any other the default reranker, else the embedder.",
    )


class TokenizeRequest(TokensBody):
    """One text, in llama-server's words."""

    content: fields.Text = Field(examples=["What is the capital of France ?"])
    add_special: bool = Field(default=False, description="Add the special tokens of a single text.")
    with_pieces: bool = Field(default=False, description="Send each token's text as well.")


class TeiTokenizeRequest(TokensBody):
    """Texts, in TEI's words."""

    inputs: fields.Strings = Field(examples=["What is Deep Learning?"])
    add_special_tokens: bool = Field(default=True, description="Add the special tokens of a single text.")


AnyTokenize = Annotated[
    Annotated[TokenizeRequest, Tag(AS_OTHERS)] | Annotated[TeiTokenizeRequest, Tag(AS_TEI)], tei_if("inputs")
]


@router.post("/tokenize")
def tokenize(request: AnyTokenize, service: Served) -> dict[str, Any] | list[list[dict[str, Any]]]:
    """Token ids of texts, not cut: `content` as llama-server, `inputs` as TEI.

    llama-server's `tokens` are ids, or with `with_pieces` objects `id` and `piece`; TEI's are lists of
    objects `id`, `text` and `special`, whose `start` and `stop` are not known here. Special tokens have no
    text, and their text in a request, such as `[SEP]`, is plain text: none can be smuggled in.
    """
    if isinstance(request, TeiTokenizeRequest):
        return _tei_tokens(request, service)
    [tokens] = service.tokenize(
        [request.content], model=request.model, add_special=request.add_special, name="content"
    )
    if not request.with_pieces:
        return {"tokens": tokens}
    pieces = _pieces(service, [tokens], request.model)
    return {"tokens": [{"id": token, "piece": pieces[token]} for token in tokens]}


def _tei_tokens(request: TeiTokenizeRequest, service: Service) -> list[list[dict[str, Any]]]:
    lists = service.tokenize(
        request.inputs, model=request.model, add_special=request.add_special_tokens, name="inputs"
    )
    # Which are special is seen by asking with and without them.
    [framed] = service.tokenize([""], model=request.model, name="inputs")
    [bare] = service.tokenize([""], model=request.model, add_special=False, name="inputs")
    special = set(framed) - set(bare)
    pieces = _pieces(service, lists, request.model)
    shown = {
        id: {"id": id, "text": text.removeprefix(" "), "special": id in special, "start": None, "stop": None}
        for id, text in pieces.items()
    }
    return [[shown[token] for token in tokens] for tokens in lists]


def _pieces(service: Service, lists: list[list[int]], model: str | None) -> dict[int, str]:
    """The text of each token that occurs: there are fewer of those than tokens."""
    tokens = sorted(set().union(*lists))
    pieces = service.detokenize([[token] for token in tokens], model=model, name="tokens")
    return dict(zip(tokens, pieces, strict=True))


class DetokenizeRequest(TokensBody):
    """Token ids, in llama-server's words."""

    tokens: fields.Ids = Field(examples=[[7592, 2088]])


class DecodeRequest(TokensBody):
    """Token ids, in TEI's words."""

    ids: fields.IdLists = Field(examples=[[7592, 2088]])


AnyDetokenize = Annotated[
    Annotated[DetokenizeRequest, Tag(AS_OTHERS)] | Annotated[DecodeRequest, Tag(AS_TEI)], tei_if("ids")
]


@router.post("/detokenize")
def detokenize(request: AnyDetokenize, service: Served) -> dict[str, str] | list[str]:
    """The text of token ids, special tokens left out: `tokens` give `content`, TEI's `ids` a list."""
    if isinstance(request, DecodeRequest):
        return decode(request, service)
    [text] = service.detokenize([request.tokens], model=request.model, name="tokens")
    return {"content": text}


@router.post("/decode", responses=documented(tei=True))
def decode(request: DecodeRequest, service: Served) -> list[str]:
    """The texts of token ids as TEI gives them: no special tokens, no space in front."""
    texts = service.detokenize(request.ids, model=request.model, name="ids")
    return [text.removeprefix(" ") for text in texts]
