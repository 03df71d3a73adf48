"""The Dockerfile and compose.yaml, as far as they can be proved without a container engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from ggrank.cli.serve import serve
from ggrank.server.service import Service
from serving import EMBEDDER, LONG, RERANKER, running, service_of

ROOT = Path(__file__).resolve().parent.parent


class Instruction(NamedTuple):
    name: str
    value: str
    stage: int


def instructions() -> list[Instruction]:
    """What the Dockerfile says, comments left out and continued lines joined, as Docker reads it."""
    lines = [
        line for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if not line.startswith("#")
    ]
    found: list[Instruction] = []
    stage = 0
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        if line.strip():
            name, _, value = line.strip().partition(" ")
            stage += name == "FROM"
            found.append(Instruction(name, value.strip(), stage))
    return found


ALL = instructions()
LAST = max(each.stage for each in ALL)


def values(name: str, stage: int | None = None) -> list[str]:
    return [each.value for each in ALL if each.name == name and stage in (None, each.stage)]


def is_sent(path: Path) -> bool:
    """Whether .dockerignore lets a file travel to the build: the last line that fits it or a folder wins."""
    sent = True
    parts = path.relative_to(ROOT).parts
    paths = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        pattern = line.removeprefix("!").rstrip("/")
        if pattern and not line.startswith("#") and any(fits(each, pattern) for each in paths):
            sent = line.startswith("!")
    return sent


def fits(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch(path.rpartition("/")[2], pattern.removeprefix("**/"))
    return path.count("/") == pattern.count("/") and fnmatch(path, pattern)


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    return found


# -- the image


def test_it_runs_as_a_user_that_is_not_root_and_has_a_number() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", values("USER", LAST)[-1])


def test_the_last_stage_has_no_compiler() -> None:
    assert LAST == 2
    assert "build-essential" in " ".join(values("RUN", 1))
    assert "build-essential" not in " ".join(values("RUN", LAST))


def test_no_instruction_set_is_used_that_only_some_machines_have() -> None:
    arguments = next(value for value in values("ARG") if value.startswith("CMAKE_ARGS="))
    options = dict(re.findall(r"-D(\w+)=(\w+)", arguments))
    v3 = {"SSE42", "AVX", "AVX2", "FMA", "F16C", "BMI2"}
    beyond = {"AVX_VNNI", "AVX512", "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16"}
    beyond |= {"AMX_TILE", "AMX_INT8", "AMX_BF16"}
    assert {name for name in options if options[name] == "ON"} == {f"GGML_{name}" for name in v3}
    assert {f"GGML_{name}" for name in beyond | {"NATIVE"}} < {
        name for name in options if options[name] == "OFF"
    }


def test_what_is_installed_has_a_hash_in_a_lock_or_comes_from_the_build_itself() -> None:
    lines = " && ".join(values("RUN")).split("&&")
    installs = [line for line in lines if re.search(r"\bpip (install|wheel)\b", line)]
    assert installs
    for line in installs:
        assert "--no-deps" in line
        assert "--require-hashes" in line or "--no-index" in line or line.rstrip().endswith(" .")


@pytest.mark.parametrize("copied", values("COPY", 1))
def test_what_is_copied_is_there_and_is_sent_to_the_build(copied: str) -> None:
    *sources, _ = copied.split()
    for source in sources:
        path = ROOT / source
        assert path.exists(), source
        assert is_sent(path), f"{source} is in .dockerignore"


def test_the_models_are_sent_to_the_build_and_nothing_that_is_private_or_large() -> None:
    for sent in ("src/ggrank/models/ggrank-reranker-mini-q8_0.gguf", "src/ggrank/server/page/index.html"):
        assert is_sent(ROOT / sent)
    for kept in (
        "secrets/api_key",
        ".git/config",
        ".venv/bin/python",
        "models/large.gguf",
        "build/x",
        "tests/x.py",
    ):
        assert not is_sent(ROOT / kept), kept
    assert not is_sent(ROOT / "src/ggrank/__pycache__/llama.cpython-312.pyc")


@pytest.mark.skipif(shutil.which("sh") is None, reason="there is no sh")
@pytest.mark.parametrize("command", values("RUN"))
def test_what_it_runs_is_shell(command: str) -> None:
    subprocess.run(["sh", "-n", "-c", command], check=True)


def test_the_command_is_one_that_ggrank_has() -> None:
    ggrank, name, *arguments = json.loads(values("ENTRYPOINT", LAST)[-1])
    assert (ggrank, name) == ("ggrank", "serve")
    with serve.make_context("serve", arguments) as context:
        assert context.params["host"] == "0.0.0.0"
        assert values("EXPOSE", LAST) == [str(context.params["port"])]


def health_command(port: str) -> list[str]:
    _, _, command = values("HEALTHCHECK", LAST)[-1].partition(" CMD ")
    python, *arguments = json.loads(command)
    assert python == "python"
    assert f":{values('EXPOSE', LAST)[0]}/health" in arguments[1]
    return [sys.executable, "-I", *(each.replace(":8080/", f":{port}/") for each in arguments)]


def test_the_health_check_passes_when_the_models_compute_and_fails_before_and_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens there
    with running(service_of(EMBEDDER, RERANKER)) as client:
        command = health_command(str(client.base_url.port))
        assert subprocess.run(command, timeout=LONG).returncode == 0
    assert subprocess.run(command, capture_output=True, timeout=LONG).returncode != 0
    with running(Service()) as client:  # no model is loaded yet
        command = health_command(str(client.base_url.port))
        assert subprocess.run(command, capture_output=True, timeout=LONG).returncode != 0


# -- compose.yaml


def test_compose_keeps_the_container_small_and_on_this_machine() -> None:
    service = compose()["services"]["ggrank"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["read_only"] is True
    assert "/tmp" in service["tmpfs"]
    assert service["cap_drop"] == ["ALL"]
    assert service["restart"] == "unless-stopped"
    assert {"cpus", "mem_limit", "pids_limit"} <= set(service)


def test_compose_starts_the_server_with_the_key_from_the_secret_and_a_thread_a_cpu() -> None:
    service = compose()["services"]["ggrank"]
    _, _, *arguments = json.loads(values("ENTRYPOINT", LAST)[-1])
    with serve.make_context("serve", [*arguments, *service["command"]]) as context:
        secret = Path(context.params["api_key_file"])
        assert context.params["n_threads"] == service["cpus"]
    assert secret.parent == Path("/run/secrets")
    assert secret.name in service["secrets"]
    assert secret.name in compose()["secrets"]


def test_compose_mounts_a_volume_where_the_image_keeps_its_cache() -> None:
    volume, _, folder = compose()["services"]["ggrank"]["volumes"][0].partition(":")
    assert volume in compose()["volumes"]
    assert f"GGRANK_CACHE_DIR={folder}/" in values("ENV", LAST)[-1]
    assert f"HF_HOME={folder}/" in values("ENV", LAST)[-1]


def test_every_key_of_compose_is_one_that_docker_knows() -> None:
    known = {"build", "image", "command", "ports", "secrets", "volumes", "read_only", "tmpfs", "cap_drop"}
    known |= {"security_opt", "cpus", "mem_limit", "pids_limit", "restart", "stop_grace_period"}
    assert set(compose()) == {"services", "secrets", "volumes"}
    assert set(compose()["services"]["ggrank"]) <= known
