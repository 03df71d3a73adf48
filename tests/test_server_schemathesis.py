"""Requests made from the OpenAPI document, right and wrong ones: none is answered with 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode

from ggrank import Index
from ggrank.server import ServerSettings, create_app
from ggrank.server.service import Service
from serving import EMBEDDER, RERANKER, running, service_of

SETTINGS = ServerSettings(max_tokens=20_000)
OPERATIONS = [
    (path, method)
    for path, methods in create_app(Service(), replace(SETTINGS, index=Path())).openapi()["paths"].items()
    for method in methods
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    settings = replace(SETTINGS, index=tmp_path_factory.mktemp("index"))
    with Index.open(settings.index) as index:
        index.add(["Llamas live in the Andes."], metadata=[{"year": 2020}])
    with running(service_of(EMBEDDER, RERANKER, settings=settings)) as client:
        yield schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")


@pytest.mark.parametrize(
    ("path", "method"), OPERATIONS, ids=[f"{method} {path}" for path, method in OPERATIONS]
)
def test_no_request_is_answered_with_5xx(api: schemathesis.BaseSchema, path: str, method: str) -> None:
    operation = api[path][method.upper()]
    right, wrong = (operation.as_strategy(generation_mode=mode) for mode in GenerationMode)
    modes = st.one_of(right, wrong) if operation.body or operation.query else right

    @settings(max_examples=12, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=modes)
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=[not_a_server_error])

    ask()
