"""Which models are served: OpenAI's ``/v1/models``, and TEI's ``/info``. No question here loads a model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from ggrank import __version__
from ggrank.server.errors import RefusedError
from ggrank.server.service import ModelFacts
from ggrank.types import Mode

router = APIRouter(tags=["models"])


class Model(TypedDict):
    """One served model; ``created`` is when its file was written, in Unix seconds."""

    id: Annotated[str, Field(description="The name to ask for.", examples=["ggrank-reranker-mini"])]
    object: Literal["model"]
    created: int
    owned_by: str
    meta: ModelFacts


class Models(TypedDict):
    """All served models; the first of each kind is that kind's default."""

    object: Literal["list"]
    data: list[Model]


@router.get("/v1/models")
@router.get("/models")
async def list_models(request: Request) -> Models:
    """The models by name."""
    return Models(object="list", data=_models(request))


@router.get("/v1/models/{name:path}", responses={404: {"description": "No such model is served."}})
async def get_model(name: str, request: Request) -> Model:
    """One model by name."""
    for model in _models(request):
        if model["id"] == name:
            return model
    raise RefusedError("no such model; /v1/models lists those there are", status=404, field="model")


def _models(request: Request) -> list[Model]:
    return [
        Model(id=one.name, object="model", created=one.written, owned_by="ggrank", meta=one.facts)
        for one in request.app.state.service.models()
    ]


@router.get("/info")
async def info(
    request: Request,
    model: Annotated[str | None, Query(description="A served model; the first reranker by default.")] = None,
) -> dict[str, Any]:
    """What a served model is: TEI serves one, so this is the first reranker unless `model` names another."""
    service = request.app.state.service
    served = {one.name: one for one in service.models()}
    rerankers = [one for one in served.values() if one.facts.mode is Mode.RERANK]
    one = served.get(model or "") or (rerankers or list(served.values()))[0]
    kind: dict[str, Any] = {"embedding": {"pooling": one.facts.pooling}}
    if one.facts.mode is Mode.RERANK:
        kind = {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    return {
        "model_id": one.name,
        "model_sha": None,
        "model_dtype": one.facts.quantization,
        "served_model_name": one.name,
        "model_type": kind,
        "max_concurrent_requests": service.settings.max_queue,
        "max_input_length": one.facts.n_ctx,
        "max_batch_tokens": service.settings.max_tokens,
        "max_client_batch_size": service.settings.max_documents,
        "auto_truncate": True,
        "version": __version__,
    }
