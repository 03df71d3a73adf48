"""``/tokenize`` and ``/detokenize``, in llama-server's words and TEI's, and TEI's ``/decode``."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field, Tag

from ggrank.server.dialects import fields
from ggrank.server.dialects.fields import AS_OTHERS, AS_TEI, Served, tei_if
from ggrank.server.errors import RefusedError, documented, naming
from ggrank.server.intake import ThreadRoute
from ggrank.server.service import Service
from ggrank.types import Mode

ANY_MODE = (Mode.RERANK, Mode.EMBEDDING)

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
        name, texts, with_special = "inputs", request.inputs, request.add_special_tokens
    else:
        name, texts, with_special = "content", [request.content], request.add_special
    lists: list[list[int]] = []
    n_tokens = 0
    with service.model(request.model, *ANY_MODE) as (_, llama):
        for text in texts:
            lists.append((llama.framed(text) if with_special else llama.tokenize(text)).tolist())
            n_tokens += len(lists[-1])
            _check_tokens(n_tokens, name, service)
        if isinstance(request, TokenizeRequest) and not request.with_pieces:
            return {"tokens": lists[0]}
        # There are fewer different tokens than tokens.
        pieces = {token: llama.detokenize([token]) for token in set().union(*lists)}
        special = set(llama.framed("").tolist()) - set(llama.tokenize("").tolist())
    if isinstance(request, TokenizeRequest):
        return {"tokens": [{"id": token, "piece": pieces[token]} for token in lists[0]]}
    shown = {
        id: {"id": id, "text": text.removeprefix(" "), "special": id in special, "start": None, "stop": None}
        for id, text in pieces.items()
    }
    return [[shown[token] for token in tokens] for tokens in lists]


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
    [text] = _texts([request.tokens], "tokens", request, service)
    return {"content": text}


@router.post("/decode", responses=documented(tei=True))
def decode(request: DecodeRequest, service: Served) -> list[str]:
    """The texts of token ids as TEI gives them: no special tokens, no space in front."""
    return [text.removeprefix(" ") for text in _texts(request.ids, "ids", request, service)]


def _texts(lists: list[list[int]], name: str, request: TokensBody, service: Service) -> list[str]:
    _check_tokens(sum(map(len, lists)), name, service)
    with naming(name), service.model(request.model, *ANY_MODE) as (_, llama):
        return [llama.detokenize(tokens) for tokens in lists]


def _check_tokens(n_tokens: int, name: str, service: Service) -> None:
    most = service.settings.max_tokens
    if n_tokens > most:
        raise RefusedError(
            f"{name}: more than {most:,} tokens in one request; send fewer at a time, or start the "
            "server with a larger --max-tokens",
            status=413,
            field=name,
        )
