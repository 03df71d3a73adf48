"""llama.cpp in the few calls that ggrank needs: tokenize, run a micro-batch, free.

It uses the C API and not llama-cpp-python's ``Llama`` class. With rank pooling that class reads ``n_embd``
floats of a result that has ``n_cls_out``, and it cuts off the closing token of long texts.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.engine.base import EngineBase, check_token_ids
from ggrank.engine.library import (
    api,
    gpu_names,
    last_words,
    load_model,
    log,
    recent_errors,
    refusal,
    start_backend,
)
from ggrank.engine.lifetime import check_fork, in_living_threads, native_call
from ggrank.engine.weights import TokenVectors, Weights
from ggrank.errors import EngineError
from ggrank.gguf import GgufFile
from ggrank.types import Attention, EngineName, EngineSettings, PoolingType, TokenIds

LEAST_UNUSED = 1 << 20
"""Bytes; less is not worth the call that gives them back."""

_F32 = 0
"""``GGML_TYPE_F32``, ggml.h."""

_int32 = ctypes.POINTER(ctypes.c_int32)


class LlamaCppEngine(EngineBase):
    """One GGUF, loaded with one set of settings.

    Values that are not finite are computed again in a new context, and on a GPU then on the CPU.
    """

    name: EngineName = "llama.cpp"

    def __init__(self, file: GgufFile, settings: EngineSettings) -> None:
        super().__init__(file, settings)
        start_backend()
        self._most_tokens = 0
        self._context: Any = None  # a pointer to a ``llama_context``
        may_use_gpu = settings.n_gpu_layers != 0 and bool(api.llama_supports_gpu_offload())
        check_fork(on_gpu=may_use_gpu)  # before a GPU's driver is asked for its devices
        self._on_gpu = may_use_gpu and bool(gpu_names())
        self._take(self._load_model())
        try:
            with native_call():
                self._context = self._new_context()
        except BaseException:
            self.close()
            raise
        self._token_vectors: TokenVectors | None = None
        if settings.segment_ids:
            self._token_vectors = TokenVectors(Weights(file), separator=self.special.sep)
        self.n_embd = int(api.llama_model_n_embd_out(self._model))
        is_rank = settings.pooling_type is PoolingType.RANK
        self.n_outputs = int(api.llama_model_n_cls_out(self._model)) if is_rank else self.n_embd

    @property
    def device(self) -> str:
        """The device that computes: "CPU", or a GPU's backend and name."""
        return gpu_names()[0] if self._on_gpu else "CPU"

    @property
    def attention(self) -> Attention:
        """The cost of packing sequences into one micro-batch: none with flash attention."""
        return "packed" if self._settings.flash_attn else "full"

    def _load_model(self) -> Any:
        params = api.llama_model_default_params()
        params.n_gpu_layers = self._settings.n_gpu_layers if self._on_gpu else 0
        if not self._on_gpu:
            # An empty device list keeps a GPU build on the CPU; n_gpu_layers = 0 alone would still
            # send large matrix products to the GPU.
            self._no_devices = (ctypes.c_void_p * 1)(None)
            params.devices = ctypes.cast(self._no_devices, ctypes.c_void_p)
        params.load_mode = api.LLAMA_LOAD_MODE_MMAP if self._settings.use_mmap else api.LLAMA_LOAD_MODE_NONE
        params.use_extra_bufts = self._settings.use_extra_bufts
        return load_model(self._path, params)

    def _new_context(self) -> Any:
        settings = self._settings
        params = api.llama_context_default_params()
        # Models with a KV cache (causal rerankers) need room for the whole micro-batch in it.
        params.n_ctx = max(settings.n_ctx, settings.n_ubatch)
        params.n_batch = params.n_ubatch = settings.n_ubatch
        params.n_seq_max = settings.n_seq_max
        params.n_threads = params.n_threads_batch = settings.n_threads
        params.pooling_type = int(settings.pooling_type)
        # On means "where the device can" (-1); a GPU backend without it must not fail to start.
        params.flash_attn_type = -1 if settings.flash_attn else 0
        if not settings.flash_attn:
            params.type_k = params.type_v = _F32  # A causal model's cache; float16 costs 0.001 of a score.
        params.embeddings = True
        params.kv_unified = True
        params.offload_kqv = params.op_offload = self._on_gpu
        recent_errors.clear()
        context = api.llama_init_from_model(self._model, params)
        if not context:
            raise refusal(self._path, "make a context for the model")
        return context

    def _free(self) -> None:
        if self._context is not None:
            api.llama_free(self._context)
            self._context, self._most_tokens = None, 0

    def _finite(self, compute: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        self._check_open()
        finite = super()._finite
        return in_living_threads(lambda: finite(lambda: self._retried(compute)))

    def _retried(self, compute: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """A NaN from a GPU backend can stick to a context and spoil all that follows."""
        values = compute()
        if np.isfinite(values).all():
            return values
        log.warning("values are not finite; computing once more in a new context")
        self._free()
        self._context = self._new_context()
        values = compute()
        if np.isfinite(values).all() or not self._on_gpu:
            return values
        log.warning("still not finite; moving this model to the CPU")
        self._move_to_cpu()
        return compute()

    def _move_to_cpu(self) -> None:
        with self._vocabulary_lock:
            self._free()
            api.llama_model_free(self._model)
            self._on_gpu, self._model = False, None
            self._take(self._load_model())
            self._context = self._new_context()

    def _compute(self, sequences: Sequence[TokenIds]) -> NDArray[np.float32]:
        self._process(sequences)
        out = np.empty((len(sequences), self.n_outputs), dtype=np.float32)
        address, row_bytes = out.ctypes.data, 4 * self.n_outputs
        for i in range(len(sequences)):
            pointer = api.llama_get_embeddings_seq(self._context, i)
            if not pointer:
                raise EngineError(f"llama.cpp gave no result for sequence {i} of {len(sequences)}")
            # Exactly n_outputs floats: with rank pooling the buffer holds n_cls_out, not n_embd.
            ctypes.memmove(address + i * row_bytes, pointer, row_bytes)
        return out

    def _compute_tokens(self, tokens: TokenIds) -> NDArray[np.float32]:
        self._process([tokens])
        pointer = api.llama_get_embeddings(self._context)
        if not pointer:
            raise EngineError("llama.cpp gave no token vectors")
        return np.ctypeslib.as_array(pointer, shape=(len(tokens), self.n_embd)).copy()

    def _process(self, sequences: Sequence[TokenIds]) -> None:
        if self._context is None:  # An earlier attempt to make one failed, perhaps for want of memory.
            self._context = self._new_context()
        # llama.cpp's BERT graph adds segment 0 to every token (bert.cpp: "token types are hardcoded to
        # zero"), and takes vectors in place of ids; the difference of segment 1 to segment 0 is in these.
        vectors = None if self._token_vectors is None else self._token_vectors.of(sequences)
        check_token_ids(np.concatenate(sequences), self.n_vocab)
        batch, _arrays = make_batch(sequences, vectors)
        memory = api.llama_get_memory(self._context)
        if memory:
            api.llama_memory_clear(memory, True)
            status = api.llama_decode(self._context, batch)
        else:
            status = api.llama_encode(self._context, batch)
        if status != 0:
            raise EngineError(
                f"llama.cpp failed with status {status} on {batch.n_tokens} tokens: {last_words()}"
            )
        if not memory and batch.n_tokens > self._most_tokens:
            self._most_tokens = batch.n_tokens
            self._give_back_logits()

    def _give_back_logits(self) -> None:
        """Frees the room for the logits of every piece of the vocabulary for each token, which encoders lack.

        llama.cpp reserves and clears it for the largest micro-batch (``output_reserve``, llama-context.cpp:
        ``has_logits = true``): 490 MB for 250,002 pieces and 512 tokens. An encoder's vectors lie after it.
        """
        if not self._on_gpu:
            n_rows = max(self._most_tokens, self._settings.n_seq_max)
            address = ctypes.cast(api.llama_get_logits(self._context), ctypes.c_void_p).value
            give_back(address or 0, 4 * self.n_vocab * n_rows if address else 0)


def make_batch(sequences: Sequence[TokenIds], vectors: NDArray[np.float32] | None) -> tuple[Any, object]:
    """A ``llama_batch`` (llama.h), and the arrays into which it points, which must live as long.

    Sequence i has id i and positions from 0; every token is an output. ``vectors``, shape (n_tokens, n_embd),
    take the place of word vectors.
    """
    lengths = np.fromiter(map(len, sequences), dtype=np.int64, count=len(sequences))
    tokens = np.concatenate(sequences).astype(np.int32, copy=False)
    n_tokens = len(tokens)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    positions = (np.arange(n_tokens) - starts).astype(np.int32)
    # Each token points at its sequence's id: an address into ``ids``, four bytes an id.
    ids = np.arange(len(sequences), dtype=np.int32)
    owners = np.repeat(ids.ctypes.data + 4 * np.arange(len(sequences)), lengths).astype(np.uintp)
    n_ids, is_output = np.ones(n_tokens, np.int32), np.ones(n_tokens, np.int8)
    batch = api.llama_batch(
        n_tokens=n_tokens,
        token=tokens.ctypes.data_as(_int32) if vectors is None else None,
        embd=None if vectors is None else vectors.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
        pos=positions.ctypes.data_as(_int32),
        n_seq_id=n_ids.ctypes.data_as(_int32),
        seq_id=owners.ctypes.data_as(ctypes.POINTER(_int32)),
        logits=is_output.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
    )
    return batch, (tokens, vectors, positions, n_ids, ids, owners, is_output)


def give_back(address: int, n_bytes: int) -> None:
    """Gives the whole pages of a range of memory back to the system; they read as zeros from then on.

    For memory that is no longer read, or was only cleared. On Linux, where ``madvise`` promises this
    (``MADV_DONTNEED``, madvise(2)); elsewhere nothing happens.
    """
    first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (address + n_bytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if sys.platform == "linux" and size >= LEAST_UNUSED:
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), mmap.MADV_DONTNEED)
