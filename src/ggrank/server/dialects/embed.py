"""Every embedding path: OpenAI (Jina's reads the same), Cohere's two APIs, TEI, llama-server."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal, NamedTuple
from uuid import uuid4

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from pydantic import AliasChoices, Field, Tag, field_validator
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from ggrank.errors import InputError
from ggrank.hub.presets import check_dimensions
from ggrank.server.dialects import fields
from ggrank.server.dialects.fields import Inputs, Vector
from ggrank.server.dialects.rerank import TeiRank, TeiRerankRequest, Usage, rank_texts, usage
from ggrank.server.errors import RefusedError, documented, naming
from ggrank.server.intake import JsonAnswer, ThreadRoute
from ggrank.server.service import Service
from ggrank.types import Mode, Truncate

MARKED = 100
"""Positions that a header names at most; a proxy refuses headers of some kilobytes."""

TEXTS = ["Llamas live in the Andes.", "Bread needs yeast."]
Encoding = Literal["float", "base64"]

router = APIRouter(route_class=ThreadRoute, responses=documented())


class Embedded(NamedTuple):
    """What a request for vectors gives; ``model`` is the one that computed."""

    model: str
    vectors: NDArray[np.float32]
    n_tokens: int
    truncated: list[bool]


class EmbedOptions(fields.Body):
    """What every embedding request may say, whatever its dialect."""

    model: str | None = Field(
        default=None, description="The name of a served embedder; any other name means the first one."
    )
    truncate: fields.Truncation = "end"
    truncation_direction: fields.Direction = "right"
    dimensions: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        validation_alias=AliasChoices("dimensions", "output_dimension"),
        description="Cut the vectors to this many numbers, one of the widths that the model was trained with "
        "(Matryoshka), and normalise them again. Others are refused. Cohere says `output_dimension`.",
    )
    normalize: bool | None = Field(
        default=None,
        validation_alias=AliasChoices("normalize", "normalized"),
        description="Give each vector length 1; yes by default.",
    )
    prefix: fields.Text = Field(
        default="", description="Set before each text, such as the instruction that Qwen3 wants."
    )
    input_type: fields.EmbedRole = Field(
        default="neither", validation_alias=AliasChoices("input_type", "task", "prompt_name")
    )

    @field_validator("truncate")
    @classmethod
    def _no_chunks(cls, truncate: Truncate) -> Truncate:
        if truncate == "chunk":
            raise fields.wrong("'chunk' is for reranking; send true or false")
        return truncate

    def embed(self, service: Service, texts: list[str | list[int]], name: str) -> Embedded:
        """The vectors; ``name`` is the field that holds the texts."""
        with service.model(self.model, Mode.EMBEDDING) as (model, llama):
            if self.dimensions is not None:
                trained = llama.matryoshka
                try:
                    check_dimensions(self.dimensions, model=model, n_embd=llama.n_embd, trained=trained)
                except InputError as error:  # which names its field
                    raise RefusedError(str(error), field="dimensions") from None
            own = {"query": llama.query_prefix, "document": llama.document_prefix}.get(self.input_type, "")
            with naming(name):
                found = llama.vectors(
                    texts,
                    prefix=self.prefix or own,
                    normalize=self.normalize is not False,
                    truncate=self.truncate,
                    dimensions=self.dimensions,
                )
        return Embedded(model, *found)


class EmbeddingsRequest(EmbedOptions):
    """Texts to embed. ``user`` does nothing here."""

    input: Inputs = Field(
        description="A string, a list of strings, the token ids of one text, or a list of those.",
        examples=[TEXTS],
    )
    encoding_format: Encoding | None = Field(
        default=None,
        validation_alias=AliasChoices("encoding_format", "embedding_type"),
        description="`float` (the default), or `base64` of little-endian float32, a quarter of the size.",
    )


class Embedding(TypedDict):
    """One text's vector, or with `base64` its bytes; whether the text was cut to fit the model."""

    object: Literal["embedding"]
    index: int
    embedding: Vector | str
    truncated: bool


class EmbeddingsResponse(TypedDict):
    """A vector for each text, in input order; ``model`` is the one that computed."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


@router.post("/v1/embeddings", tags=["openai", "jina"])
@router.post("/embeddings", tags=["openai"])
def embeddings(request: EmbeddingsRequest, service: fields.Served) -> EmbeddingsResponse:
    """Vectors of texts, as OpenAI gives them; Jina's requests read the same."""
    embedded = request.embed(service, request.input, "input")
    rows = _rows(embedded, request.encoding_format or "float")
    return EmbeddingsResponse(
        object="list",
        data=[
            Embedding(object="embedding", index=i, embedding=row, truncated=cut)
            for i, (row, cut) in enumerate(zip(rows, embedded.truncated, strict=True))
        ],
        model=embedded.model,
        usage=usage(embedded.n_tokens),
    )


def _rows(embedded: Embedded, encoding: Encoding) -> list[Any]:
    if encoding == "float":
        return list(embedded.vectors)
    return [base64.b64encode(row.astype("<f4").tobytes()).decode("ascii") for row in embedded.vectors]


class CohereRequest(EmbedOptions):
    """Texts to embed. ``max_tokens`` and ``priority`` do nothing here."""

    texts: Inputs = Field(examples=[TEXTS])
    embedding_types: list[Encoding] | None = Field(
        default=None,
        max_length=10,
        description="`float` (the default) and `base64` of little-endian float32.",
    )


@router.post("/v2/embed", tags=["cohere"])
def embed_v2(request: CohereRequest, service: fields.Served) -> dict[str, Any]:
    """Vectors of texts, as Cohere's second API gives them: `embeddings` by type, `texts`, `meta`."""
    return _cohere(request, service, types=request.embedding_types or ["float"], version="2")


@router.post("/v1/embed", tags=["cohere"])
def embed_v1(request: CohereRequest, service: fields.Served) -> dict[str, Any]:
    """Vectors of texts, as Cohere's first API gives them: lists, or by type where `embedding_types` asks."""
    return _cohere(request, service, types=request.embedding_types or [], version="1")


def _cohere(
    request: CohereRequest, service: Service, *, types: list[Encoding], version: str
) -> dict[str, Any]:
    embedded = request.embed(service, request.texts, "texts")
    tokens = {"input_tokens": embedded.n_tokens}
    api_version = {"version": version, "is_experimental": False}
    meta: dict[str, Any] = {"api_version": api_version, "billed_units": tokens, "tokens": tokens}
    by_type = {encoding: _rows(embedded, encoding) for encoding in types}
    return {
        "id": str(uuid4()),
        "response_type": "embeddings_by_type" if types else "embeddings_floats",
        "embeddings": by_type or _rows(embedded, "float"),
        "texts": [text if isinstance(text, str) else "" for text in request.texts],
        "meta": meta,
    }


class TeiRequest(EmbedOptions):
    """Texts to embed: what TEI's clients send."""

    inputs: Inputs = Field(examples=["What is Deep Learning?"])


@router.post(
    "/embed",
    tags=["text-embeddings-inference"],
    response_model=list[Vector],
    response_description="A vector for each input, in input order.",
    responses=documented(tei=True),
)
def embed(request: TeiRequest, service: fields.Served) -> JsonAnswer:
    """Vectors of texts, as TEI gives them.

    The header `x-truncated` holds the positions of the inputs that were cut (the first hundred of them),
    `x-compute-tokens` how many tokens were computed.
    """
    embedded = request.embed(service, request.inputs, "inputs")
    headers = {"x-compute-tokens": str(embedded.n_tokens)}
    cut = [str(i) for i, truncated in enumerate(embedded.truncated) if truncated]
    if cut:
        headers["x-truncated"] = ",".join(cut[:MARKED])
    return JsonAnswer(list(embedded.vectors), headers=headers)


EmbedOrRerank = Annotated[
    Annotated[TeiRerankRequest, Tag(fields.AS_TEI)] | Annotated[TeiRequest, Tag(fields.AS_OTHERS)],
    fields.BY_TEXTS,
]


@router.post(
    "/",
    tags=["text-embeddings-inference"],
    response_model=list[Vector] | list[TeiRank],
    responses=documented(tei=True),
)
def any_task(request: EmbedOrRerank, service: fields.Served) -> JsonAnswer | list[TeiRank]:
    """What Hugging Face's clients send to a server's address alone: `texts` are ranked, `inputs` embedded."""
    if isinstance(request, TeiRerankRequest):
        return rank_texts(request, service)
    return embed(request, service)


class LlamaServerRequest(EmbedOptions):
    """Texts to embed: what llama-server's own path takes."""

    content: Inputs = Field(examples=[TEXTS])


@router.post("/embedding", tags=["llama-server"])
def embedding(request: LlamaServerRequest, service: fields.Served) -> list[dict[str, Any]]:
    """Vectors of texts, each a list of one vector, as llama-server's own path gives them."""
    rows = enumerate(request.embed(service, request.content, "content").vectors)
    return [{"index": i, "embedding": [row]} for i, row in rows]
