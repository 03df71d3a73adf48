"""From `LlamaParams` to a model that computes: find the file, read its header, try it out, start it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ggrank.engine import start_engine
from ggrank.engine.lifetime import check_fork
from ggrank.errors import EngineError, GgrankError, ModelFileError
from ggrank.gguf import GgufFile, check_usable, open_gguf
from ggrank.hub import find_model
from ggrank.hub.checksums import Expected, check
from ggrank.hub.matryoshka import Matryoshka
from ggrank.hub.presets import Preset, preset_of_file
from ggrank.loading.heads import choose_pooling, warn_of_doubts
from ggrank.loading.params import LlamaParams, resolve_settings
from ggrank.loading.preflight import cpu_key, library_key, prove_file, safe_settings, warn_once
from ggrank.loading.tuning import Tuned, recall_tuned
from ggrank.types import Engine, EngineSettings

if TYPE_CHECKING:
    from ggrank.loading.cache import ResultCache


@dataclass(frozen=True)
class LoadedModel:
    """A running engine, its file and settings, and what is known of the model, as in `ggrank.hub.Preset`."""

    engine: Engine
    file: GgufFile
    settings: EngineSettings
    query_prefix: str
    document_prefix: str
    languages: tuple[str, ...] = ()
    matryoshka: Matryoshka | None = None
    blend: float = 0.0


def load_model(params: LlamaParams, *, tuned: Tuned | None = None) -> LoadedModel:
    """The model that ``params`` name; ``tuned`` replaces what was measured with this file before.

    Every check comes before llama.cpp sees the file, because llama.cpp may end the process.
    """
    check_fork(on_gpu=False)
    source = find_model(
        params.model,
        filename=params.filename,
        revision=params.revision,
        token=params.token,
        cache_dir=params.cache_dir,
        endpoint=params.endpoint,
        local_files_only=params.local_files_only,
    )
    file = open_gguf(source.path)
    settings = _checked_settings(params, file, source.preset, tuned)
    named = source.preset or Preset(name="", summary="", license="", file="")
    similar = source.preset or preset_of_file(source.path.name) or named
    query_prefix = named.query_prefix or file.text("ggrank.query_prefix")
    document_prefix = named.document_prefix or file.text("ggrank.document_prefix")
    in_file = Matryoshka(file.dimensions) if file.dimensions else None
    return LoadedModel(
        engine=_start(file, settings),
        file=file,
        settings=settings,
        query_prefix=query_prefix if params.query_prefix is None else params.query_prefix,
        document_prefix=document_prefix if params.document_prefix is None else params.document_prefix,
        # First the preset that was named, then the file, then the preset that the file's name suggests.
        languages=named.languages or file.texts("general.languages") or similar.languages,
        matryoshka=named.matryoshka or in_file or similar.matryoshka,
        blend=similar.blend,
    )


def _checked_settings(
    params: LlamaParams, file: GgufFile, preset: Preset | None, tuned: Tuned | None
) -> EngineSettings:
    """Settings with which this file computes here, tried out in a child process."""
    pooling = choose_pooling(file, asked=params.pooling_type, preset=preset.pooling_type if preset else None)
    check_usable(file, pooling)
    warn_of_doubts(file, pooling)
    tuned = recall_tuned(file, pooling) if tuned is None else tuned
    settings = resolve_settings(params, file=file, preset=preset, pooling=pooling, tuned=tuned)
    open_engine = params.engine == "auto"
    settings = safe_settings(settings, open_engine=open_engine, open_bufts=params.use_extra_bufts is None)
    try:
        prove_file(file.path, settings)
    except (EngineError, ModelFileError) as error:
        if settings.engine == "llama.cpp" or not open_engine:
            raise
        settings = replace(settings, engine="llama.cpp")
        prove_file(file.path, settings)
        warn_once(f"OpenVINO does not compute {file.path.name} ({error}); using llama.cpp instead.")
    return settings


def _start(file: GgufFile, settings: EngineSettings) -> Engine:
    try:
        return start_engine(file, settings)
    except GgrankError:
        raise
    except (ImportError, OSError, RuntimeError) as error:
        package = "openvino" if settings.engine == "openvino" else "llama-cpp-python"
        raise EngineError(
            f"{package} cannot be loaded: {error}. Install it again (pip install --force-reinstall {package})"
            "; 'ggrank doctor' says more."
        ) from error


_NEUTRAL = ("n_ctx", "n_threads", "use_mmap")
"""Settings that do not change the numbers of a sequence; ``n_ctx`` changes its tokens."""


def open_cache(params: LlamaParams, model: LoadedModel) -> ResultCache | None:
    """The cache of results that ``params`` ask for."""
    if params.cache is None:
        return None
    from ggrank.loading.cache import ResultCache  # it imports sqlite3: 12 ms that most loads can save

    return ResultCache(Path(params.cache), limit=params.cache_limit, context=identity(model))


def identity(model: LoadedModel) -> bytes:
    """Everything that results depend on, except their own tokens: equal for models with equal results.

    The file counts by its sha256, which is remembered with its size and times of change. The CPU counts too,
    because its kernels differ in the last bits.
    """
    engine, builds = model.engine, library_key()
    if engine.name == "openvino":
        from ggrank.engine.openvino.graph import VERSION

        builds = f"{version('openvino')}, graph {VERSION}"
    facts = {
        "model": check(model.file.path, Expected()),
        "engine": (engine.name, builds),
        "device": (engine.device, cpu_key()),
        "settings": {name: value for name, value in asdict(model.settings).items() if name not in _NEUTRAL},
    }
    return json.dumps(facts, sort_keys=True).encode()
