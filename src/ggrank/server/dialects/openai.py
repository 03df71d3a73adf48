"""OpenAI: ``/v1/embeddings`` (Jina's reads the same) and ``/v1/models``.

Knows OpenAI's fields, as its Python client (3.x) reads and writes them; not how vectors are made.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import AliasChoices, BaseModel, Field

from ggrank.server.dialects.errors import ErrorShape, named
from ggrank.server.dialects.lists import Inputs, as_base64, read_input, read_one_or_many
from ggrank.server.dialects.llama_server import Usage, usage
from ggrank.server.dialects.options import (
    Body,
    Dimensions,
    EmbedRole,
    Served,
    Text,
    Truncation,
    truncate_word,
)
from ggrank.server.service import Embedded, ServedModel, Service

_ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


def error_body(status: int, message: str, field: str | None) -> dict[str, Any]:
    """``{"error": {"message", "type", "param", "code"}}``.

    Example:
        >>> error_body(400, "must be a string", "input")["error"]["param"]
        'input'
    """
    kind = _ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {
        "error": {
            "message": named(message, field),
            "type": kind,
            "param": field and field.partition(".")[0],
            "code": "model_not_found" if (status, field) == (404, "model") else _CODES.get(status),
        }
    }


ERRORS = ErrorShape(bad_input=400, body=error_body)
router = APIRouter(tags=["openai"])

Encoding = Literal["float", "base64"]


class EmbeddingsRequest(Body):
    """Texts to embed. ``user`` does nothing here."""

    input: Inputs = Field(
        description="A string, a list of strings, the token ids of one text, or a list of those.",
        examples=["The food was delicious and the waiter..."],
    )
    model: str | None = Field(
        default=None, description="The name of a served embedder; any other name means the first one."
    )
    encoding_format: Encoding | None = Field(
        default=None,
        validation_alias=AliasChoices("encoding_format", "embedding_type"),
        description="`float` (the default), or `base64` of little-endian float32, a quarter of the size.",
    )
    dimensions: Dimensions | None = None
    normalize: bool | None = Field(
        default=None,
        validation_alias=AliasChoices("normalize", "normalized"),
        description="Give each vector length 1; yes by default.",
    )
    truncate: Truncation | None = None
    prefix: Text = Field(default="", description="Set before each text, as models with instructions want it.")
    input_type: EmbedRole = Field(default="neither", validation_alias=AliasChoices("input_type", "task"))


class Embedding(BaseModel):
    """One text's vector."""

    object: Literal["embedding"] = "embedding"
    index: int = Field(description="Position in `input`, from 0.", examples=[0])
    embedding: list[float] | str = Field(
        description="The vector, or with `base64` its bytes.", examples=[[0.0023064255, -0.009327292]]
    )
    truncated: bool = Field(description="Whether the text was cut to fit the model.", examples=[False])


class EmbeddingsResponse(BaseModel):
    """A vector for each text, in input order."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str = Field(description="The model that computed.", examples=["all-minilm-l6-v2"])
    usage: Usage


@router.post("/v1/embeddings", responses=ERRORS.documented())
@router.post("/embeddings", responses=ERRORS.documented())
async def embeddings(request: EmbeddingsRequest, service: Served) -> EmbeddingsResponse:
    """Vectors of texts, as OpenAI gives them; Jina's requests read the same."""
    embedded = await service.embed(
        await read_one_or_many(service, request.input, read_input, "input"),
        name="input",
        model=request.model,
        normalize=request.normalize is not False,
        truncate=truncate_word(request.truncate),
        prefix=request.prefix,
        role=request.input_type,
        dimensions=request.dimensions,
    )
    return EmbeddingsResponse(
        data=_data(embedded, request),
        model=embedded.model.name,
        usage=usage(embedded.n_tokens),
    )


def _data(embedded: Embedded, request: EmbeddingsRequest) -> list[Embedding]:
    vectors = embedded.vectors
    shown = map(as_base64, vectors) if request.encoding_format == "base64" else vectors.tolist()
    pairs = zip(shown, embedded.truncated, strict=True)
    return [Embedding(index=i, embedding=value, truncated=cut) for i, (value, cut) in enumerate(pairs)]


class ModelMeta(BaseModel):
    """What ggrank knows of a model."""

    mode: str = Field(description="`rerank` or `embedding`.", examples=["rerank"])
    n_ctx: int = Field(description="Longest text, or query and document, in tokens.", examples=[512])
    n_embd: int = Field(description="Width of a vector.", examples=[384])
    score_scale: str = Field(description="What raw scores are.", examples=["logit"])
    engine: str = Field(examples=["llama.cpp"])
    device: str = Field(examples=["CPU"])
    file: str = Field(examples=["ggrank-reranker-mini-q8_0.gguf"])
    quantization: str = Field(examples=["q8_0"])


class Model(BaseModel):
    """One served model."""

    id: str = Field(description="The name to ask for.", examples=["ggrank-reranker-mini"])
    object: Literal["model"] = "model"
    created: int = Field(description="When its file was written, in Unix seconds.", examples=[1735142223])
    owned_by: str = Field(default="ggrank", examples=["ggrank"])
    meta: ModelMeta


class Models(BaseModel):
    """All served models; the first of each kind is that kind's default."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/v1/models")
@router.get("/models")
async def list_models(service: Served) -> Models:
    """The models by name."""
    return Models(data=[_model(service, served) for served in service.models()])


@router.get(
    "/v1/models/{name:path}",
    response_model=Model,
    responses={404: {"description": "No such model is served."}},
)
async def get_model(name: str, service: Served) -> Model | JSONResponse:
    """One model by name."""
    for served in service.models():
        if served.name == name:
            return _model(service, served)
    return JSONResponse(error_body(404, "no such model; /v1/models lists those there are", "model"), 404)


def _model(service: Service, served: ServedModel) -> Model:
    file = service.llamas()[served.name].model_path
    return Model(
        id=served.name,
        created=int(file.stat().st_mtime) if file.is_file() else 0,
        meta=ModelMeta(
            mode=served.mode.value,
            n_ctx=served.n_ctx,
            n_embd=served.n_embd,
            score_scale=served.score_scale,
            engine=served.engine,
            device=served.device,
            file=served.file,
            quantization=served.quantization,
        ),
    )
