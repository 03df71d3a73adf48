"""The frameworks' examples, and the code in docs/integrations.md, run without any network."""

from __future__ import annotations

from pathlib import Path

import pytest

from frameworks import ROOT, run_without_network, shown_in_docs

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("framework", "module", "title"),
    [
        ("langchain", "langchain_classic", "LangChain"),
        ("llama_index", "llama_index.core", "LlamaIndex"),
        ("haystack", "haystack", "Haystack"),
    ],
)
def test_the_example_and_the_code_in_the_docs_put_the_answer_first(
    framework: str, module: str, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(module)
    monkeypatch.delenv("HAYSTACK_TELEMETRY_ENABLED", raising=False)  # the example sets it itself
    example = ROOT / "examples" / f"{framework}_reranker.py"
    best, second = run_without_network(tmp_path, example, "ggrank-reranker-mini")[2:]
    assert "Cooked rice keeps three to four days" in best
    assert float(best.split()[0]) > float(second.split()[0])
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    lines = run_without_network(tmp_path, "-c", shown_in_docs(title))
    assert lines[0].endswith("Llamas live in the Andes.")
    assert len(lines) == 2
