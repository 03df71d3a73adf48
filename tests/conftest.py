"""What every test runs in: no network, and cache directories of its own.

The variables are set before anything is imported, since huggingface_hub reads them then, and so
that child processes and doctests get them too.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

HERE = Path(__file__).parent

# Doctests are the package's; what helps tests has none, and may need torch.
collect_ignore = [str(path) for path in HERE.rglob("*.py") if not path.name.startswith("test_")]
if importlib.util.find_spec("torch") is None:
    collect_ignore.append(str(HERE / "parity"))
if importlib.util.find_spec("haystack") is None:  # one of what `make integrations` installs
    collect_ignore.append(str(HERE / "integrations"))

# Hypothesis fails an example that takes 0.2 s or is slow to draw, and a busy machine is no fault; and its
# examples share a server or a model.
settings.register_profile(
    "any machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("any machine")

# What the outside may set, and would lead to others than the tests' servers, or change what is printed.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
NOT_OURS = {
    *("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE", "HUGGING_FACE_HUB_TOKEN", "GGRANK_API_KEY", "RAY_ADDRESS"),
    *(*_PROXIES, *map(str.lower, _PROXIES)),
    *("COLUMNS", "LINES", "NO_COLOR"),
}


def pytest_configure(config: pytest.Config) -> None:
    scratch = tempfile.mkdtemp(prefix="ggrank-tests-")
    config.add_cleanup(lambda: shutil.rmtree(scratch, ignore_errors=True))
    for name in set(os.environ) & NOT_OURS:
        del os.environ[name]
    os.environ["GGRANK_CACHE_DIR"] = str(Path(scratch, "ggrank"))
    os.environ["GGRANK_DATA_DIR"] = str(Path(scratch, "data"))
    os.environ["HF_HOME"] = str(Path(scratch, "huggingface"))
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_ETAG_TIMEOUT"] = os.environ["HF_HUB_DOWNLOAD_TIMEOUT"] = "600"  # seconds


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The examples of `ggrank.evaluation` need ir-measures, which has no wheel for Linux on ARM."""
    if importlib.util.find_spec("ir_measures") is None:
        for item in items:
            if item.path.parent.name == "evaluation":
                item.add_marker(pytest.mark.skip(reason="ir-measures is not installed"))
