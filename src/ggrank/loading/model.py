"""From `LlamaParams` to a model that computes: find the file, read what it says, prove it, start it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ggrank.engine import start_engine
from ggrank.engine.lifetime import check_fork
from ggrank.errors import EngineError, GgrankError, ModelFileError
from ggrank.gguf import GgufFile, check_usable, open_gguf
from ggrank.hub import find_model
from ggrank.hub.matryoshka import Matryoshka
from ggrank.hub.presets import preset_of_file
from ggrank.loading.heads import choose_pooling, warn_of_doubts
from ggrank.loading.params import LlamaParams, resolve_settings
from ggrank.loading.preflight import prove_file, safe_settings, warn_once
from ggrank.loading.tuning import Tuned, recall_tuned
from ggrank.types import Engine, EngineSettings


@dataclass(frozen=True)
class LoadedModel:
    """A running engine, the file and the settings that it runs with, and what is known of the model.

    Attributes:
        languages: what it was trained for, as `ggrank.hub.presets.Preset` lists them; empty if not known.
        matryoshka: the widths to which its vectors may be cut.
        blend: how much a first stage counts beside its logits, as `ggrank.hub.presets.Preset` has it.
    """

    engine: Engine
    file: GgufFile
    settings: EngineSettings
    query_prefix: str
    document_prefix: str
    languages: tuple[str, ...] = ()
    matryoshka: Matryoshka | None = None
    blend: float = 0.0


def load_model(params: LlamaParams, *, tuned: Tuned | None = None) -> LoadedModel:
    """Every check comes before llama.cpp sees the file, because llama.cpp may end the process.

    Args:
        tuned: takes the place of what was measured with this file before.

    Raises:
        GgrankError: any of the leaves that `Llama.load` names.
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
    preset = source.preset
    file = open_gguf(source.path)
    known = preset or preset_of_file(source.path.name)
    in_file = Matryoshka(file.dimensions) if file.dimensions else None
    pooling = choose_pooling(file, asked=params.pooling_type, preset=preset.pooling_type if preset else None)
    check_usable(file, pooling)
    warn_of_doubts(file, pooling)
    tuned = recall_tuned(file, pooling) if tuned is None else tuned
    settings = resolve_settings(params, file=file, preset=preset, pooling=pooling, tuned=tuned)
    settings = safe_settings(
        settings, open_engine=params.engine == "auto", open_bufts=params.use_extra_bufts is None
    )
    settings = _proved(source.path, settings, open_engine=params.engine == "auto")
    return LoadedModel(
        engine=_start(source.path, settings),
        file=file,
        settings=settings,
        query_prefix=_first(params.query_prefix, preset.query_prefix if preset else None, file.query_prefix),
        document_prefix=_first(
            params.document_prefix, preset.document_prefix if preset else None, file.document_prefix
        ),
        # The surest first: the preset that was named, the file, the preset that its name suggests.
        languages=(preset.languages if preset else ())
        or file.languages
        or (known.languages if known else ()),
        matryoshka=(preset.matryoshka if preset else None)
        or in_file
        or (known.matryoshka if known else None),
        blend=known.blend if known else 0.0,
    )


def _proved(path: Path, settings: EngineSettings, *, open_engine: bool) -> EngineSettings:
    """The settings with which this file computes: llama.cpp's where OpenVINO alone fails, and may be left."""
    try:
        prove_file(path, settings)
    except (EngineError, ModelFileError) as error:
        if settings.engine == "llama.cpp" or not open_engine:
            raise
        settings = replace(settings, engine="llama.cpp")
        prove_file(path, settings)
        warn_once(f"OpenVINO does not compute {path.name} ({error}); using engine='llama.cpp' instead.")
    return settings


def _first(asked: str | None, preset: str | None, file: str) -> str:
    """The caller's, else the preset's where it knows one, else the file's own."""
    return (preset or file) if asked is None else asked


def _start(path: Path, settings: EngineSettings) -> Engine:
    try:
        return start_engine(path, settings)
    except GgrankError:
        raise
    except (ImportError, OSError, RuntimeError) as error:
        package = "openvino" if settings.engine == "openvino" else "llama-cpp-python"
        raise EngineError(
            f"{package} cannot be loaded: {error}. Install it again (pip install --force-reinstall {package})"
            "; 'ggrank doctor' says more."
        ) from error
