"""The LlamaIndex adapter, inside LlamaIndex's own index, query engine and ingestion pipeline."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Sequence

import pytest

pytest.importorskip("llama_index.core")

from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document, MetadataMode, NodeWithScore, TextNode

from frameworks import QUERY, TEXTS
from ggrank import InputError, Llama
from ggrank.integrations.llama_index import GgrankEmbedding, GgrankRerank
from ggrank.types import RankedDocument, Ranking

pytestmark = pytest.mark.integration


@pytest.fixture
def nodes() -> list[NodeWithScore]:
    """With the retrieval scores 0.5, 0, None, ..."""
    scores = [0.5, 0.0, None, 0.25, -0.5, 0.1]
    made = [TextNode(text=text, id_=str(i), metadata={"title": f"Note {i}"}) for i, text in enumerate(TEXTS)]
    return [NodeWithScore(node=node, score=score) for node, score in zip(made, scores, strict=True)]


def texts_of(nodes: Sequence[NodeWithScore]) -> list[str]:
    return [node.get_content(MetadataMode.EMBED) for node in nodes]


@pytest.fixture
def index(embedder: Llama) -> VectorStoreIndex:
    made = [TextNode(text=text, id_=str(i)) for i, text in enumerate(TEXTS)]
    return VectorStoreIndex(made, embed_model=GgrankEmbedding(model_name=embedder))


def test_retrieved_nodes_get_the_order_and_scores_of_rank(index: VectorStoreIndex, reranker: Llama) -> None:
    found = index.as_retriever(similarity_top_k=4).retrieve(QUERY)
    rerank = GgrankRerank(model=reranker, top_n=2)
    expected = [(hit.document, hit.score) for hit in reranker.rank(QUERY, texts_of(found), top_n=2)]
    best = rerank.postprocess_nodes(found, query_str=QUERY)
    assert [(node.text, node.score) for node in best] == expected
    best = asyncio.run(rerank.apostprocess_nodes(found, query_str=QUERY))
    assert [(node.text, node.score) for node in best] == expected
    assert all(type(node.score) is float for node in best)


def test_a_query_engine_answers_from_the_reranked_nodes(index: VectorStoreIndex, reranker: Llama) -> None:
    engine = index.as_query_engine(
        llm=MockLLM(),  # answers with the prompt that it got
        similarity_top_k=6,
        node_postprocessors=[GgrankRerank(model=reranker, top_n=2, keep_retrieval_score=True)],
    )
    expected = reranker.rank(QUERY, TEXTS, top_n=2)
    for response in (engine.query(QUERY), asyncio.run(engine.aquery(QUERY))):
        assert [node.node_id for node in response.source_nodes] == [str(hit.index) for hit in expected]
        assert all(0 < node.metadata["retrieval_score"] <= 1 for node in response.source_nodes)
        assert TEXTS[1] in str(response)
        assert "retrieval_score" not in str(response)


def test_a_node_s_text_is_what_it_shows_to_embedding_models(
    nodes: list[NodeWithScore], reranker: Llama
) -> None:
    best = GgrankRerank(model=reranker, top_n=1).postprocess_nodes(nodes, query_str=QUERY)[0]
    assert best.score == reranker.rank(QUERY, texts_of(nodes))[0].score
    assert texts_of([best])[0].startswith("title: Note 1\n")


def test_retrieval_scores_are_kept_in_copies_where_no_model_reads_them(
    nodes: list[NodeWithScore], reranker: Llama
) -> None:
    before = copy.deepcopy(nodes)
    rerank = GgrankRerank(model=reranker, top_n=6, keep_retrieval_score=True)
    ranked = rerank.postprocess_nodes(nodes, query_str=QUERY)
    assert nodes == before
    assert {node.node_id: node.metadata["retrieval_score"] for node in ranked} == {
        node.node_id: node.score for node in nodes
    }
    shown = [node.get_content(mode) for node in ranked for mode in (MetadataMode.EMBED, MetadataMode.LLM)]
    assert not any("retrieval_score" in text for text in shown)
    again = rerank.postprocess_nodes(ranked, query_str=QUERY)
    assert [node.score for node in again] == [node.score for node in ranked]


def test_without_it_the_nodes_are_the_ones_that_were_given(
    nodes: list[NodeWithScore], reranker: Llama
) -> None:
    best = GgrankRerank(model=reranker, top_n=1).postprocess_nodes(nodes, query_str=QUERY)[0]
    assert best.node is nodes[1].node
    assert nodes[1].score == 0.0


class ScoresAroundZero:
    """A remote reranker's place: three documents with the scores -1, 0 and 2."""

    def rank(self, query: str, documents: list[str], **options: object) -> Ranking:
        scores = {2: 2.0, 1: 0.0, 0: -1.0}
        hits = (RankedDocument(i, score, score, documents[i], False) for i, score in scores.items())
        return Ranking(tuple(hits), "logit", 0)


def test_a_score_of_zero_is_a_score(nodes: list[NodeWithScore]) -> None:
    rerank = GgrankRerank(model=ScoresAroundZero(), top_n=3)
    ranked = rerank.postprocess_nodes(nodes[:3], query_str=QUERY)
    assert [(node.node_id, node.score) for node in ranked] == [("2", 2.0), ("1", 0.0), ("0", -1.0)]


def test_no_nodes_give_no_nodes_and_no_query_is_an_error(nodes: list[NodeWithScore], reranker: Llama) -> None:
    rerank = GgrankRerank(model=reranker)
    assert rerank.postprocess_nodes([], query_str=QUERY) == []
    with pytest.raises(InputError, match="query_str or query_bundle"):
        rerank.postprocess_nodes(nodes)


def test_embeddings_are_those_of_the_model_with_its_prefixes(embedder: Llama) -> None:
    model = GgrankEmbedding(model_name=embedder)
    vectors = embedder.embed_many(TEXTS, prefix="passage: ").tolist()
    query = embedder.embed(QUERY, prefix="query: ").tolist()
    assert model.get_text_embedding_batch(TEXTS) == vectors
    assert asyncio.run(model.aget_text_embedding_batch(TEXTS)) == vectors
    assert model.get_query_embedding(QUERY) == query
    assert asyncio.run(model.aget_query_embedding(QUERY)) == query
    one = model.get_text_embedding(TEXTS[0])
    assert asyncio.run(model.aget_text_embedding(TEXTS[0])) == one
    # Alone too: beside others it moves a little with llama.cpp.
    assert one == embedder.embed(TEXTS[0], prefix="passage: ").tolist()


def test_an_ingestion_pipeline_embeds_with_it(embedder: Llama) -> None:
    steps = [SentenceSplitter(chunk_size=64, chunk_overlap=0), GgrankEmbedding(model_name=embedder)]
    nodes = IngestionPipeline(transformations=steps).run(documents=[Document(text="\n\n".join(TEXTS))])
    assert len(nodes) > 1
    assert all(len(node.embedding) == embedder.n_embd for node in nodes)


def test_what_was_given_by_name_can_be_pickled_and_saved(nodes: list[NodeWithScore]) -> None:
    rerank = GgrankRerank(model_kwargs={"n_ctx": 64}, top_n=3, keep_retrieval_score=True)
    expected = rerank.postprocess_nodes(nodes, query_str=QUERY)
    for other in (pickle.loads(pickle.dumps(rerank)), GgrankRerank.from_dict(rerank.to_dict())):
        assert other.postprocess_nodes(nodes, query_str=QUERY) == expected
    model = GgrankEmbedding(embed_batch_size=7)
    for other in (pickle.loads(pickle.dumps(model)), GgrankEmbedding.from_dict(model.to_dict())):
        assert other.get_query_embedding(QUERY) == model.get_query_embedding(QUERY)
        assert (other.embed_batch_size, other.model_name) == (7, "all-minilm-l6-v2")
    assert (rerank.to_dict()["class_name"], model.to_dict()["class_name"]) == (
        "GgrankRerank",
        "GgrankEmbedding",
    )


def test_a_loaded_model_is_shared_by_copies_and_cannot_be_pickled(embedder: Llama, reranker: Llama) -> None:
    rerank, model = GgrankRerank(model=reranker), GgrankEmbedding(model_name=embedder)
    assert copy.deepcopy(model).get_query_embedding(QUERY) == model.get_query_embedding(QUERY)
    assert model.model_name == str(embedder.model_path)
    for component in (rerank, model):
        with pytest.raises(InputError, match="name or path"):
            pickle.dumps(component)


def test_llama_index_s_instrumentation_hears_of_a_reranking(
    nodes: list[NodeWithScore], reranker: Llama
) -> None:
    heard = []

    class Listener(BaseEventHandler):
        def handle(self, event: object, **kwargs: object) -> None:
            heard.append(event)

    root, listener = get_dispatcher(), Listener()
    root.add_event_handler(listener)
    try:
        best = GgrankRerank(model=reranker, top_n=2).postprocess_nodes(nodes, query_str=QUERY)
    finally:
        root.event_handlers.remove(listener)
    start, end = heard
    assert isinstance(start, ReRankStartEvent)
    assert isinstance(end, ReRankEndEvent)
    assert (start.top_n, start.model_name, len(start.nodes)) == (2, str(reranker.model_path), 6)
    assert end.nodes == best
