"""From `LlamaParams` to a model that computes: find the file, read what it says, prove it, start it.

Knows the order of these steps and what each decides for the next; none of their inner workings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ggrank.errors import EngineError
from ggrank.gguf_file import GgufFile, check_usable, open_gguf
from ggrank.heads import choose_pooling, warn_of_doubts
from ggrank.hub import find_model
from ggrank.params import LlamaParams, resolve_settings
from ggrank.preflight import prove_file, safe_settings
from ggrank.types import Engine, EngineSettings


@dataclass(frozen=True)
class LoadedModel:
    """A running engine, the file and the settings that it runs with, and the texts' prefixes."""

    engine: Engine
    file: GgufFile
    settings: EngineSettings
    query_prefix: str
    document_prefix: str


def load_model(params: LlamaParams) -> LoadedModel:
    """Every check comes before llama.cpp sees the file, because llama.cpp may end the process.

    Raises:
        GgrankError: any of the leaves that `Llama.load` names.
    """
    source = find_model(
        params.model,
        filename=params.filename,
        revision=params.revision,
        token=params.token,
        cache_dir=params.cache_dir,
        endpoint=params.endpoint,
        local_files_only=params.local_files_only,
    )
    preset = source.preset
    file = open_gguf(source.path)
    pooling = choose_pooling(file, asked=params.pooling_type, preset=preset.pooling_type if preset else None)
    check_usable(file, pooling)
    warn_of_doubts(file, pooling)
    settings = resolve_settings(params, file=file, preset=preset, pooling=pooling)
    settings = safe_settings(settings, may_change=params.use_extra_bufts is None)
    prove_file(source.path, settings)
    return LoadedModel(
        engine=_start(source.path, settings),
        file=file,
        settings=settings,
        query_prefix=_chosen(params.query_prefix, preset.query_prefix if preset else ""),
        document_prefix=_chosen(params.document_prefix, preset.document_prefix if preset else ""),
    )


def _chosen(asked: str | None, otherwise: str) -> str:
    return otherwise if asked is None else asked


def _start(path: Path, settings: EngineSettings) -> Engine:
    try:
        from ggrank.engine import LlamaCppEngine
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(
            f"llama-cpp-python cannot be loaded: {error}. Install it again "
            "(pip install --force-reinstall llama-cpp-python); 'ggrank doctor' says more."
        ) from error
    return LlamaCppEngine(path, settings)
