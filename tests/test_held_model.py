"""The model behind an adapter is loaded once, shared by copies, and loaded again from a pickle.

What the adapters do inside their frameworks is in tests/integrations.
"""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from ggrank import InputError, Llama, RemoteReranker
from ggrank.errors import InputTypeError
from ggrank.integrations.held_model import BUNDLED_EMBEDDER, HeldModel


def test_it_is_loaded_once_however_many_threads_ask() -> None:
    held, barrier = HeldModel(BUNDLED_EMBEDDER), Barrier(4)

    def ask(_: int) -> Llama:
        barrier.wait()
        return held.load()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(map(id, pool.map(ask, range(4))))) == 1


def test_a_deep_copy_shares_it() -> None:
    held = HeldModel(BUNDLED_EMBEDDER)
    assert copy.deepcopy(held).load() is held.load()


def test_a_pickle_loads_the_same_model_with_the_same_options() -> None:
    held = HeldModel(BUNDLED_EMBEDDER, {"n_ctx": 64, "query_prefix": "query: "})
    other = pickle.loads(pickle.dumps(held))
    assert other.load() is not held.load()
    assert other.load().n_ctx == 64
    assert other.query_vector("llamas") == held.query_vector("llamas")


def test_queries_and_documents_get_their_own_prefixes() -> None:
    with Llama.load(BUNDLED_EMBEDDER, query_prefix="query: ", document_prefix="passage: ") as llama:
        held = HeldModel(llama)
        assert held.query_vector("llamas") == llama.embed("query: llamas").tolist()
        assert held.document_vectors(["llamas"]) == llama.embed_many(["passage: llamas"]).tolist()
        assert held.name == str(llama.model_path)


def test_a_loaded_model_cannot_be_pickled_and_the_error_says_what_to_give() -> None:
    with (
        Llama.load(BUNDLED_EMBEDDER) as llama,
        pytest.raises(InputTypeError, match="name or path, and options"),
    ):
        pickle.dumps(HeldModel(llama))


def test_a_model_on_a_server_is_held_as_it_is() -> None:
    with RemoteReranker("http://127.0.0.1:9") as remote:
        held = HeldModel(remote)
        assert held.load() is remote
        assert "127.0.0.1" in held.name


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (3, None, "a preset's name, a path or a loaded Llama; found int"),
        (None, None, "found NoneType"),
        ("a.gguf", {"token": "hf_secret"}, "HF_TOKEN"),
    ],
)
def test_what_cannot_be_a_model_is_refused(
    model: object, options: dict[str, object] | None, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        HeldModel(model, options)  # type: ignore[arg-type]
    assert "hf_secret" not in str(caught.value)


def test_options_beside_a_loaded_model_are_refused() -> None:
    with Llama.load(BUNDLED_EMBEDDER) as llama, pytest.raises(InputError, match="loaded already"):
        HeldModel(llama, {"n_ctx": 64})


@pytest.mark.parametrize(
    ("module", "framework", "extra"),
    [
        ("langchain", "langchain_core", "langchain"),
        ("llama_index", "llama_index", "llama-index"),
        ("haystack", "haystack", "haystack"),
    ],
)
def test_without_its_framework_an_adapter_says_what_to_install(
    module: str, framework: str, extra: str
) -> None:
    code = f"import sys; sys.modules[{framework!r}] = None; import ggrank.integrations.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=600)
    assert done.stderr.splitlines()[-1].endswith(f": pip install 'ggrank[{extra}]'")
