"""ggrank ranks text on your own machine with GGUF models: embeddings, cosine and cross-encoder logits.

The names are loaded on first use: ``import ggrank`` alone loads neither llama.cpp nor the network code.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ggrank.conversion import convert as convert
    from ggrank.errors import ChecksumError as ChecksumError
    from ggrank.errors import ClosedError as ClosedError
    from ggrank.errors import DownloadError as DownloadError
    from ggrank.errors import EngineError as EngineError
    from ggrank.errors import GgrankError as GgrankError
    from ggrank.errors import GgrankWarning as GgrankWarning
    from ggrank.errors import InputError as InputError
    from ggrank.errors import InputTooLongError as InputTooLongError
    from ggrank.errors import InputTypeError as InputTypeError
    from ggrank.errors import ModelFileError as ModelFileError
    from ggrank.errors import ModelModeError as ModelModeError
    from ggrank.errors import ModelNotFoundError as ModelNotFoundError
    from ggrank.errors import RemoteError as RemoteError
    from ggrank.errors import RemoteInputError as RemoteInputError
    from ggrank.errors import SearchIndexError as SearchIndexError
    from ggrank.llama import Llama as Llama
    from ggrank.loading.params import LlamaParams as LlamaParams
    from ggrank.remote import RemoteEmbedder as RemoteEmbedder
    from ggrank.remote import RemoteReranker as RemoteReranker
    from ggrank.rows.documents import Document as Document
    from ggrank.search.index import Index as Index
    from ggrank.search.pipeline import Pipeline as Pipeline
    from ggrank.types import Mode as Mode
    from ggrank.types import PoolingType as PoolingType
    from ggrank.types import RankedDocument as RankedDocument
    from ggrank.types import Ranking as Ranking

__version__ = "0.1.0"

_HOMES = {
    "conversion": "convert",
    "errors": """ChecksumError ClosedError DownloadError EngineError GgrankError GgrankWarning InputError
        InputTooLongError InputTypeError ModelFileError ModelModeError ModelNotFoundError RemoteError
        RemoteInputError SearchIndexError""",
    "llama": "Llama",
    "loading.params": "LlamaParams",
    "remote": "RemoteEmbedder RemoteReranker",
    "rows.documents": "Document",
    "search.index": "Index",
    "search.pipeline": "Pipeline",
    "types": "Mode PoolingType RankedDocument Ranking",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'ggrank' has no attribute {name!r}")
    value = getattr(import_module(f"ggrank.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
