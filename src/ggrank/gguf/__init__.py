"""The header of a GGUF file, memory-mapped and checked before llama.cpp sees it.

    format.py       the format
    checks.py       checks of what llama.cpp asserts or would compute wrongly
    impostors.py    names of files that are not GGUF at all

llama.cpp may still refuse a file that passes, or crash, so `ggrank.loading.preflight` tries it out.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ggrank.errors import ModelFileError, ModelModeError, ModelNotFoundError
from ggrank.gguf import format as gguf_format
from ggrank.gguf.checks import ENCODERS, NEEDED, check_kind, check_model, check_vocabulary
from ggrank.gguf.format import GgufArray, TensorInfo
from ggrank.gguf.impostors import what_it_is
from ggrank.types import PoolingType

MAGIC = b"GGUF"

_FILE_TYPES = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_k", 11: "q3_k_s",
    12: "q3_k_m", 13: "q3_k_l", 14: "q4_k_s", 15: "q4_k_m", 16: "q5_k_s", 17: "q5_k_m", 18: "q6_k",
    19: "iq2_xxs", 20: "iq2_xs", 21: "q2_k_s", 22: "iq3_xs", 23: "iq3_xxs", 24: "iq1_s", 25: "iq4_nl",
    26: "iq3_s", 27: "iq3_m", 28: "iq2_s", 29: "iq2_m", 30: "iq4_xs", 31: "iq1_m", 32: "bf16", 36: "tq1_0",
    37: "tq2_0", 38: "mxfp4_moe", 39: "nvfp4", 40: "q1_0", 41: "q2_0",
}  # fmt: skip
"""``enum llama_ftype``, llama.h."""


@dataclass(frozen=True)
class GgufFile:
    """The header of a GGUF that passed every check.

    Attributes:
        metadata: all keys. Numbers, booleans and strings are values; an array is a `GgufArray`, which
            `strings` or `numbers` reads.
        tensors: all tensors by name, in the file's order.
    """

    path: Path
    n_bytes: int
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]

    @property
    def architecture(self) -> str:
        """The kind of network, such as "bert" (XLM-R too) or "qwen3"."""
        return str(self.metadata["general.architecture"])

    @property
    def n_ctx_train(self) -> int:
        """Longest sequence in tokens that the model has positions for."""
        return int(self._fact("context_length"))

    @property
    def pooling_type(self) -> PoolingType:
        """The file's own pooling; UNSPECIFIED if it has none."""
        value = self._fact("pooling_type")
        return PoolingType(value) if value in range(5) else PoolingType.UNSPECIFIED

    @property
    def tokenizer_model(self) -> str:
        """llama.cpp's name of the tokenizer: "bert" (WordPiece), "t5" (unigram), "gpt2" (BPE) ..."""
        return str(self.metadata["tokenizer.ggml.model"])

    @property
    def tokenizer_pre(self) -> str:
        """How a BPE tokenizer splits text first, such as "modern-bert"; empty if the file does not say."""
        return self.text("tokenizer.ggml.pre")

    @property
    def unknown_id(self) -> int | None:
        """The token for what is not in the vocabulary; None if there is none."""
        default = NEEDED.get(self.tokenizer_model, {}).get("unknown")
        found: int | None = self.metadata.get("tokenizer.ggml.unknown_token_id", default)
        return found

    @property
    def rerank_template(self) -> str:
        """The chat template named "rerank"; empty if there is none."""
        return self.text("tokenizer.chat_template.rerank")

    @property
    def has_head(self) -> bool:
        """Whether it has the last layer of a classifier, without which it cannot rerank.

        That is ``cls.output.weight``, or ``cls.weight`` alone if it is not square (Jina's reranker). A square
        one alone is a pooler without the layer after it.
        """
        pooler = self.tensors.get("cls.weight")
        is_last = pooler is not None and pooler.shape[1:] != pooler.shape[:1]
        return is_last or "cls.output.weight" in self.tensors

    @property
    def segment_ids(self) -> bool:
        """Whether a pair's document is segment 1: in a WordPiece BERT with two different rows of token types.

        ``ggrank.segment_ids`` is false in the file of a model that was trained with segment 0 alone.
        """
        is_wordpiece_bert = (self.architecture, self.tokenizer_model) == ("bert", "bert")
        is_on = is_wordpiece_bert and self.metadata.get("ggrank.segment_ids", True) is True
        return is_on and self._rows_differ("token_types.weight")

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of a classifier's outputs, such as ("yes", "no"); empty if they have none."""
        return self.texts(f"{self.architecture}.classifier.output_labels")

    @property
    def n_ctx(self) -> int | None:
        """The length in tokens at which the original cuts; None if the file does not say."""
        value = self.metadata.get("ggrank.n_ctx")
        return value if isinstance(value, int) and 16 <= value <= self.n_ctx_train else None

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Widths to which vectors may be cut (Matryoshka), smallest first; empty if the file names none."""
        value = self.metadata.get("ggrank.dimensions")
        is_list = isinstance(value, GgufArray) and value.type in ("i4", "u4")
        return tuple(sorted(self.numbers("ggrank.dimensions").tolist())) if is_list else ()

    @property
    def quantization(self) -> str:
        """The type of most weights: the file's own name such as "q4_k_m", else that of the largest part."""
        name = _FILE_TYPES.get(self.metadata.get("general.file_type", -1))
        if name is not None:
            return name
        n_bytes: Counter[str] = Counter()
        for tensor in self.tensors.values():
            n_bytes[tensor.type] += tensor.n_bytes
        return n_bytes.most_common(1)[0][0]

    def text(self, key: str) -> str:
        """A string of the metadata; empty if there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings of the metadata; empty if there is none."""
        value = self.metadata.get(key)
        return tuple(self.strings(key)) if isinstance(value, GgufArray) and value.type == "string" else ()

    def strings(self, key: str) -> list[str]:
        """The strings of an array, read from the file now; a large vocabulary takes some 0.1 s."""
        with _mapped(self.path) as data:
            return gguf_format.strings(data, self._array(key))

    def numbers(self, key: str) -> NDArray[Any]:
        """The numbers of an array, read from the file now: shape (count,), the file's own dtype."""
        with _mapped(self.path) as data:
            return gguf_format.numbers(data, self._array(key))

    def _rows_differ(self, tensor: str) -> bool:
        """Whether a tensor has a second row, and other values in it than in the first."""
        found = self.tensors.get(tensor)
        if found is None or found.shape[1:2] < (2,):
            return False
        n_bytes = found.n_bytes // found.shape[1]
        with self.path.open("rb") as stream:
            stream.seek(found.offset)
            return stream.read(n_bytes) != stream.read(n_bytes)

    def _array(self, key: str) -> GgufArray:
        value = self.metadata[key]
        if not isinstance(value, GgufArray):
            raise TypeError(f"expected {key} to be an array, found {value!r}")
        return value

    def _fact(self, name: str) -> Any:
        return self.metadata.get(f"{self.architecture}.{name}")


def open_gguf(path: str | os.PathLike[str]) -> GgufFile:
    """Reads and checks a file's header: some 0.1 s for a vocabulary of 250,000 words.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelFileError: it cannot be read, is not a GGUF, is cut off or damaged, or is one piece of several.
        ModelModeError: it is a valid GGUF, but not a model: an mmproj, an adapter.
    """
    path = Path(path)
    n_bytes = _size(path)
    with _mapped(path) as data:
        if data[:4] != MAGIC:
            raise ModelFileError(what_it_is(path, data[:4096], n_bytes))
        header = gguf_format.read_header(data, path)
        check_kind(header)
        check_vocabulary(header, data)
        check_model(header)
    return GgufFile(path=path, n_bytes=n_bytes, metadata=header.metadata, tensors=header.tensors)


def check_usable(file: GgufFile, pooling_type: PoolingType) -> None:
    """Raises ModelModeError if a file cannot be loaded with this pooling; UNSPECIFIED means not known."""
    name, architecture = file.path.name, file.architecture
    if pooling_type is PoolingType.RANK and not file.has_head:
        lost = "has a pooler (cls.weight) but" if "cls.weight" in file.tensors else "has"
        raise ModelModeError(
            f"{name} {lost} no classification layer (cls.output.weight), so it cannot rerank: it is an "
            "embedding model, or a reranker that lost its head in conversion. Use a reranker, such as "
            "the bundled 'ggrank-reranker-mini'."
        )
    if pooling_type is not PoolingType.UNSPECIFIED:
        return
    if architecture in ENCODERS:
        raise ModelModeError(
            f"{name} does not say how it pools token vectors (no {architecture}.pooling_type). Its model "
            "card does: set pooling_type to mean (most sentence-transformers models) or cls (bge, gte)."
        )
    raise ModelModeError(
        f"{name} looks like a chat model ({architecture}, with no {architecture}.pooling_type and no "
        "classification layer): it writes text. Expected an embedding or reranker model, such as "
        "'all-minilm-l6-v2' or 'bge-reranker-base'. If it is an embedding model whose file does not say so, "
        "set pooling_type to last (Qwen3-Embedding) or mean, as its model card says."
    )


def _size(path: Path) -> int:
    """The size of a file that can be opened, in bytes."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise ModelNotFoundError(
            f"{path} does not exist. Expected the path of a .gguf file: check the spelling and the folder "
            f"({Path.cwd()} is the current one), or give a preset's name."
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if stat.S_ISDIR(status.st_mode):
        names = sorted(file.name for file in path.glob("*.gguf"))
        found = (
            f"it holds {', '.join(names[:5])}: name one of them" if names else "there is no .gguf file in it"
        )
        raise ModelFileError(f"{path} is a directory. Expected a .gguf file; {found}.")
    if not stat.S_ISREG(status.st_mode):
        raise ModelFileError(f"{path} is a device, pipe or socket. Expected a .gguf file.")
    if status.st_size == 0:
        raise ModelFileError(
            f"{path} is empty: expected a .gguf file, found 0 bytes. The download did not begin, or the disk "
            "is full: download it again."
        )
    return status.st_size


def _unreadable(path: Path, error: OSError | ValueError) -> ModelFileError:
    if isinstance(error, PermissionError):
        return ModelFileError(
            f"{path} may not be read by this user (permission denied). Give yourself the right to read the "
            "file and its folders (chmod a+r), or copy it to a place of your own."
        )
    return ModelFileError(
        f"{path} could not be read: {getattr(error, 'strerror', error)}. Check disk and path."
    )


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    try:
        yield data
    finally:
        # An error's traceback may still hold views of it; then it is closed after them.
        with suppress(BufferError):
            data.close()
