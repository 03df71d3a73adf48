"""Chroma's own client, on disk: a collection keeps its model's name, and opens with it in another process."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("chromadb")

import chromadb
from chromadb.config import Settings
from chromadb.utils.embedding_functions import known_embedding_functions

import tiny_models
from frameworks import ROOT, run_without_network, shown_in_docs
from ggrank import GgrankError, InputError, Llama
from ggrank.integrations import chroma
from ggrank.integrations.chroma import GgrankEmbeddingFunction

pytestmark = pytest.mark.integration

TEXTS = ["Llamas live in the Andes.", "Paris is a city in France.", "Cooked rice keeps three days."]
IDS = ["andes", "paris", "rice"]
OPEN = "chromadb.PersistentClient(sys.argv[1], settings=chromadb.config.Settings(anonymized_telemetry=False))"


def client_at(folder: Path) -> Any:
    return chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))


def test_a_collection_finds_by_meaning(tmp_path: Path) -> None:
    collection = client_at(tmp_path).create_collection("notes", embedding_function=GgrankEmbeddingFunction())
    collection.add(ids=IDS, documents=TEXTS)
    found = collection.query(query_texts=["Where do llamas live?", "a town"], n_results=1)
    assert found["ids"] == [["andes"], ["paris"]]


def test_the_vectors_and_distances_are_those_of_ggrank(tmp_path: Path) -> None:
    collection = client_at(tmp_path).create_collection("notes", embedding_function=GgrankEmbeddingFunction())
    collection.add(ids=IDS, documents=TEXTS)
    kept = collection.get(ids=IDS, include=["embeddings"])
    found = collection.query(query_texts=["Where do llamas live?"], n_results=3)
    with Llama.load("all-minilm-l6-v2") as llama:
        vectors = dict(zip(IDS, llama.embed_many(TEXTS), strict=True))
        ranking = llama.rank("Where do llamas live?", TEXTS)
    for name, vector in zip(kept["ids"], kept["embeddings"], strict=True):
        np.testing.assert_allclose(vector, vectors[name], atol=1e-5)
    assert found["ids"][0] == [IDS[hit.index] for hit in ranking]
    np.testing.assert_allclose(found["distances"][0], [1 - hit.score for hit in ranking], atol=1e-5)


def test_a_collection_opens_in_another_process_with_its_model(tmp_path: Path) -> None:
    folder, home = tmp_path / "db", tmp_path / "home"
    embed = GgrankEmbeddingFunction("all-minilm-l6-v2", model_kwargs={"n_ctx": 64})
    client_at(folder).create_collection("notes", embedding_function=embed).add(ids=IDS, documents=TEXTS)
    code = f"""
import chromadb, json, sys, ggrank.integrations.chroma
collection = {OPEN}.get_collection("notes")
found = collection.query(query_texts=["Where do llamas live?"], n_results=1)
facts = collection.configuration["embedding_function"].get_config()
print(json.dumps([found["ids"], facts, collection.configuration_json["hnsw"]["space"]]))"""
    ids, config, space = json.loads(*run_without_network(home, "-c", code, folder))
    assert (ids, space) == ([["andes"]], "cosine")
    assert config == {"model": "all-minilm-l6-v2", "model_kwargs": {"n_ctx": 64}}
    assert not (home / ".cache" / "chroma").exists()  # where Chroma's own model would have gone


def test_opening_a_collection_loads_no_model_until_there_is_a_text(tmp_path: Path) -> None:
    code = f"""
import chromadb, sys
import ggrank.integrations.chroma as chroma
client = {OPEN}
collection = client.create_collection("notes", embedding_function=chroma.GgrankEmbeddingFunction())
collection.add(ids=["a"], embeddings=[[0.0] * 384])
assert "llama_cpp" not in sys.modules and "openvino" not in sys.modules
for _ in range(3):
    client.get_collection("notes").query(query_texts=["a text"])
print(chroma._held.cache_info().misses)"""
    assert run_without_network(tmp_path / "home", "-c", code, tmp_path / "db") == ["1"]


def test_queries_and_documents_get_the_model_s_own_prefixes(tmp_path: Path) -> None:
    path = tiny_models.write("bert-cls", tmp_path)
    prefixes = {"query_prefix": "where is ", "document_prefix": "here is "}
    embed = GgrankEmbeddingFunction(path, model_kwargs=prefixes)
    with Llama.load(path) as llama:
        expected = llama.embed_many(["where is rice", "here is rice"])
    np.testing.assert_allclose(embed.embed_query(["rice"])[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(embed(["rice"])[0], expected[1], atol=1e-5)


def test_it_is_registered_and_made_again_from_what_it_wrote_down() -> None:
    kind = known_embedding_functions["ggrank"]
    embed = GgrankEmbeddingFunction("a.gguf", model_kwargs={"n_ctx": 64})
    assert (
        kind.build_from_config(json.loads(json.dumps(embed.get_config()))).get_config() == embed.get_config()
    )
    assert not embed.is_legacy()
    assert embed.default_space() in embed.supported_spaces()


def test_a_moved_file_is_taken_and_another_model_refused(tmp_path: Path) -> None:
    collection = client_at(tmp_path).create_collection(
        "notes", embedding_function=GgrankEmbeddingFunction("/old/place/a.gguf")
    )
    modify = {"embedding_function": GgrankEmbeddingFunction("/new/place/a.gguf")}
    collection.modify(configuration=modify)
    with pytest.raises(InputError, match=r"vectors are of a\.gguf, not of b\.gguf"):
        collection.modify(configuration={"embedding_function": GgrankEmbeddingFunction("/new/place/b.gguf")})


def test_what_must_not_or_cannot_be_written_down_is_refused() -> None:
    with pytest.raises(InputError, match="HF_TOKEN"):
        GgrankEmbeddingFunction("org/model", model_kwargs={"token": "hf_secret"})
    with pytest.raises(InputError, match="as JSON"):
        GgrankEmbeddingFunction("org/model", model_kwargs={"cache": Path("folder")})
    with Llama.load("all-minilm-l6-v2") as llama, pytest.raises(InputError, match="name or path"):
        GgrankEmbeddingFunction(llama)


def test_a_model_that_is_not_there_is_ggrank_s_error(tmp_path: Path) -> None:
    embed = GgrankEmbeddingFunction(tmp_path / "none.gguf")
    with pytest.raises(GgrankError, match=r"none\.gguf"):
        embed(["a text"])


def test_the_example_and_the_code_in_the_docs_put_the_answer_first(tmp_path: Path) -> None:
    lines = run_without_network(tmp_path, ROOT / "examples" / "chroma_search.py")
    assert "4 of 6" in lines[1]
    assert "Cooked rice keeps three" in lines[2]
    assert "Cooked rice keeps three" in lines[7]
    assert "Llamas live in the Andes." in run_without_network(tmp_path, "-c", shown_in_docs("Chroma"))[0]


def test_the_examples_in_the_docstrings_hold() -> None:
    results = doctest.testmod(chroma)
    assert results.failed == 0 < results.attempted
