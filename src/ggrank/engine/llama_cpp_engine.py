"""llama.cpp in the few calls that ggrank needs: tokenize, run a micro-batch, free.

With ``library.py`` and ``vocabulary.py`` the only place that uses llama_cpp, and of it the C API: its
``Llama`` class reads ``n_embd`` floats where rank pooling gives ``n_cls_out``, and drops the closing token
when it cuts. Checked before every call, because llama.cpp ends the process otherwise: a micro-batch's tokens
against ``n_ubatch`` (``GGML_ASSERT`` in ``llama_context::encode``), token ids against the vocabulary.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.engine.batch_arrays import BatchArrays
from ggrank.engine.budget import check_budget
from ggrank.engine.library import api, gpu_names, log, recent_errors, refusal, start_backend
from ggrank.engine.lifetime import Lifetime, check_fork, in_living_threads, is_ending, native_call
from ggrank.engine.token_vectors import TokenVectors
from ggrank.engine.unused_memory import give_back
from ggrank.engine.vocabulary import Vocabulary
from ggrank.engine.weights import Weights
from ggrank.errors import EngineError, ModelFileError
from ggrank.gguf import open_gguf
from ggrank.types import Attention, EngineSettings, PoolingType, SpecialTokens, TokenIds

_F32 = 0
"""``GGML_TYPE_F32``, ggml.h."""


class LlamaCppEngine:
    """One GGUF, loaded with one set of settings. Safe to call from several threads.

    Raises:
        ModelFileError: llama.cpp refused the file; its own last words are in the message.

    Example:
        >>> from ggrank.engine.llama_cpp_engine import LlamaCppEngine
        >>> from ggrank.hub import find_model
        >>> from ggrank.types import EngineSettings, PoolingType
        >>> settings = EngineSettings(pooling_type=PoolingType.MEAN, n_ctx=256, n_ubatch=512,
        ...                           n_seq_max=64, n_threads=2)
        >>> engine = LlamaCppEngine(find_model("all-minilm-l6-v2").path, settings)
        >>> tokens = engine.tokenize("hello world")
        >>> engine.run([tokens, tokens]).shape
        (2, 384)
        >>> engine.close()
    """

    name = "llama.cpp"

    def __init__(self, path: Path, settings: EngineSettings) -> None:
        start_backend()
        self._path = path
        self._settings = settings
        self._lifetime = Lifetime()
        self._lock = threading.Lock()
        self._most_tokens = 0
        self._context: Any = None  # A pointer; ctypes gives it no type.
        may_use_gpu = settings.n_gpu_layers != 0 and bool(api.llama_supports_gpu_offload())
        check_fork(on_gpu=may_use_gpu)  # before a GPU's driver is asked for its devices
        self._on_gpu = may_use_gpu and bool(gpu_names())
        with native_call():
            self._model = self._load_model()
        self._vocabulary = Vocabulary(self._model, self._lifetime)
        try:
            with native_call():
                self._context = self._new_context()
        except BaseException:
            self.close()
            raise
        self._token_vectors: TokenVectors | None = None
        if settings.segment_ids:
            self._token_vectors = TokenVectors(Weights(open_gguf(path)), separator=self.special.sep)
        self._arrays = BatchArrays(settings.n_ubatch, settings.n_seq_max)
        self.n_embd = int(api.llama_model_n_embd_out(self._model))
        is_rank = settings.pooling_type is PoolingType.RANK
        self.n_outputs = int(api.llama_model_n_cls_out(self._model)) if is_rank else self.n_embd

    @property
    def device(self) -> str:
        """Where it computes: "CPU", or a GPU's backend and name."""
        return gpu_names()[0] if self._on_gpu else "CPU"

    @property
    def attention(self) -> Attention:
        """What packing sequences into one micro-batch costs here: nothing with flash attention."""
        return "packed" if self._settings.flash_attn else "full"

    @property
    def special(self) -> SpecialTokens:
        """The vocabulary's special tokens."""
        return self._vocabulary.special

    def control_tokens(self) -> dict[str, int]:
        """The text of every control token and its id, such as ``{"[SEP]": 102}``."""
        return self._vocabulary.control_tokens()

    def tokenize(self, text: str, *, parse_special: bool = False) -> TokenIds:
        """Token ids, shape (n_tokens,), int32; see `ggrank.engine.vocabulary.Vocabulary.tokenize`."""
        return self._vocabulary.tokenize(text, parse_special=parse_special)

    def detokenize(self, tokens: TokenIds) -> str:
        """The text of token ids, special tokens left out."""
        return self._vocabulary.detokenize(tokens)

    def run(self, sequences: Sequence[TokenIds]) -> NDArray[np.float32]:
        """Computes one micro-batch.

        Args:
            sequences: token ids, each at least one; ``n_ubatch`` tokens and ``n_seq_max``
                sequences in total at most.

        Returns:
            Shape (n_sequences, n_outputs), float32: vectors not normalised, or raw logits.

        Raises:
            InputError: the micro-batch is empty or over a budget, or has an unknown token id.
            EngineError: llama.cpp reported a failure, or the values are not finite even from a
                new context and, on a GPU, from the CPU.
        """
        check_budget(sequences, self._settings)
        return self._finite(lambda: self._compute(sequences))

    def run_tokens(self, tokens: TokenIds) -> NDArray[np.float32]:
        """Computes one sequence without pooling: shape (n_tokens, n_embd), float32.

        Raises:
            InputError, EngineError: as for `run`.
        """
        check_budget([tokens], self._settings)
        return self._finite(lambda: self._compute_tokens(tokens))

    def close(self) -> None:
        """Frees the context and the model, after calls in other threads have ended; twice is fine."""
        if not self._lifetime.in_this_process:
            return  # A forked child shares the memory, but not the threads that would have to end.
        with self._lock, self._vocabulary.lock, native_call():
            self._free_context()
            if self._model is not None:
                api.llama_model_free(self._model)
                self._model = None
            self._lifetime.end()

    def __del__(self, _is_ending: Callable[[], bool] = is_ending) -> None:
        # Bound early: at the interpreter's end this module's names are gone before the last engine is.
        if getattr(self, "_model", None) is not None and not _is_ending():
            self.close()

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
        recent_errors.clear()
        model = api.llama_model_load_from_file(os.fsencode(self._path), params)
        if not model:
            raise ModelFileError(refusal(self._path, "load the model"))
        return model

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
            raise ModelFileError(refusal(self._path, "make a context for the model"))
        return context

    def _free_context(self) -> None:
        if self._context is not None:
            api.llama_free(self._context)
            self._context, self._most_tokens = None, 0

    def _finite(self, compute: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """Computes; values that are not finite get a new context, then the CPU, then an error.

        A NaN from a GPU backend can stick to a context and spoil all that follows.
        """

        def locked() -> NDArray[np.float32]:
            with self._lock, native_call():
                self._lifetime.check()
                return self._computed(compute)

        self._lifetime.check()
        return in_living_threads(locked)

    def _computed(self, compute: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        values = compute()
        if np.isfinite(values).all():
            return values
        log.warning("values are not finite; computing once more in a new context")
        self._rebuild()
        values = compute()
        if not np.isfinite(values).all() and self._on_gpu:
            log.warning("still not finite; moving this model to the CPU")
            self._move_to_cpu()
            values = compute()
        if np.isfinite(values).all():
            return values
        raise EngineError(
            f"{self._path.name} computed values that are not finite (NaN or infinity), also in a new context "
            f"on {self.device}. The file is damaged (ggrank models verify) or this llama.cpp build computes "
            "wrongly here (ggrank doctor)."
        )

    def _rebuild(self) -> None:
        self._free_context()
        self._context = self._new_context()

    def _move_to_cpu(self) -> None:
        with self._vocabulary.lock:
            self._free_context()
            api.llama_model_free(self._model)
            self._on_gpu, self._model = False, None
            self._model = self._load_model()
            self._vocabulary.read_from(self._model)
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
        if self._context is None:  # A rebuild failed before, for want of memory perhaps.
            self._context = self._new_context()
        # llama.cpp's BERT graph adds segment 0 to every token (bert.cpp: "token types are hardcoded to
        # zero"), and takes vectors in place of ids: these hold what segment 1 differs from segment 0.
        vectors = None if self._token_vectors is None else self._token_vectors.of(sequences)
        fields = self._arrays.fill(sequences, n_vocab=self._vocabulary.n_tokens, vectors=vectors)
        batch = api.llama_batch(**fields)
        memory = api.llama_get_memory(self._context)
        if memory:
            api.llama_memory_clear(memory, True)
            status = api.llama_decode(self._context, batch)
        else:
            status = api.llama_encode(self._context, batch)
        if status != 0:
            reason = "; ".join(recent_errors) or "no reason given"
            raise EngineError(f"llama.cpp failed with status {status} on {batch.n_tokens} tokens: {reason}")
        if not memory and batch.n_tokens > self._most_tokens:
            self._most_tokens = batch.n_tokens
            self._give_back_logits()

    def _give_back_logits(self) -> None:
        """llama.cpp keeps and clears room for the logits of every piece of the vocabulary, for each token of
        the largest micro-batch (``output_reserve``, llama-context.cpp: ``has_logits = true``): 490 MB for
        250,002 pieces and 512 tokens. An encoder has no logits; its vectors lie after that room.
        """
        if not self._on_gpu:
            n_rows = max(self._most_tokens, self._settings.n_seq_max)
            address = ctypes.cast(api.llama_get_logits(self._context), ctypes.c_void_p).value
            give_back(address or 0, 4 * self._vocabulary.n_tokens * n_rows if address else 0)
