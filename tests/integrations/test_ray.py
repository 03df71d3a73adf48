"""Jobs and datasets on a Ray that runs here: the rows of a plain run, whichever worker dies."""

from __future__ import annotations

import doctest
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Ray reads them when it is imported. It would else write a token into the home folder.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = "t" * 64

pytest.importorskip("ray")
pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

import tiny_models
from command_line import ENVIRONMENT, ggrank, process
from ggrank import EngineError, InputError, Llama, LlamaParams
from ggrank.integrations import ray as ggrank_ray
from ggrank.integrations.ray import StepActor, actor_options, map_step, run_on_ray
from ggrank.jobs import EmbedStep, Job, ScoreStep, find_sources, run
from job_rows import contents, text, write_jsonl

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parent.parent.parent
N_ROWS = 100
STORE = 80_000_000
"""Bytes, the least that Ray takes."""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[str]:
    """A Ray of two cores and, as it is told, a GPU; gives its address."""
    folder = tempfile.mkdtemp(prefix="ggrank-ray-", dir="/tmp")  # sockets have short names
    ray.init(
        "local",
        num_cpus=2,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=STORE,
        _temp_dir=folder,
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("bert-mean", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def step(tiny: Path) -> EmbedStep:
    return EmbedStep(LlamaParams(tiny, engine="llama.cpp"))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Four files of rows, each a unit of its own; one row is bad."""
    for n in range(4):
        lines = [
            b"bad" if (n, i) == (2, 7) else {"id": i, "text": text(100 * n + i), "padding": "x" * 12_000}
            for i in range(N_ROWS)
        ]
        (tmp_path / "rows").mkdir(exist_ok=True)
        write_jsonl(tmp_path / "rows" / f"{n}.jsonl", lines)
    return tmp_path / "rows"


def job(step: Any, rows: Path, output: Path, workers: int = 2) -> Job:
    sources = find_sources([str(rows)])
    return Job(step, sources, output, format="jsonl", shard_rows=30, workers=workers)


def deadly(step: EmbedStep, marker: Path, *, ids: Sequence[int], always: bool = False) -> EmbedStep:
    """A step whose process gets a SIGKILL while it computes these rows, the first time or each time."""

    class Deadly(EmbedStep):
        def compute(self, items: Sequence[str]) -> Any:
            for item in items:
                number = int(item.split()[0])
                mine = marker.with_name(f"{marker.name}-{number}")
                if number in ids and (always or not mine.exists()):
                    with mine.open("a") as file:
                        file.write("killed\n")
                    os.kill(os.getpid(), signal.SIGKILL)
            return super().compute(items)

    return Deadly(step.params)


# -- jobs


def test_a_job_on_ray_gives_the_bytes_of_a_plain_one_and_a_rerun_computes_only_new_files(
    tmp_path: Path, step: EmbedStep, rows: Path
) -> None:
    plain = run(job(step, rows, tmp_path / "plain", workers=1))
    summary = run_on_ray(job(step, rows, tmp_path / "ray"))
    assert (summary.rows, summary.bad_rows, summary.tokens) == (4 * N_ROWS - 1, 1, plain.tokens)
    assert contents(tmp_path / "ray") == contents(tmp_path / "plain")
    write_jsonl(rows / "4.jsonl", [{"text": "new"}])
    assert run_on_ray(job(step, rows, tmp_path / "ray")).new_rows == 1
    assert run(job(step, rows, tmp_path / "plain", workers=1)).new_rows == 1
    assert contents(tmp_path / "ray") == contents(tmp_path / "plain")
    assert run(job(step, rows, tmp_path / "ray", workers=1)).new_rows == 0, "either goes on with the other's"


def test_an_actor_that_is_killed_in_the_middle_changes_no_byte(
    tmp_path: Path, step: EmbedStep, rows: Path
) -> None:
    run(job(step, rows, tmp_path / "plain", workers=1))
    killing = deadly(step, tmp_path / "killed", ids=[50, 270])
    run_on_ray(job(killing, rows, tmp_path / "out"))
    assert len(list(tmp_path.glob("killed-*"))) == 2
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")


def test_a_file_that_kills_every_actor_ends_the_job_and_what_is_done_is_kept(
    tmp_path: Path, step: EmbedStep, rows: Path
) -> None:
    killing = deadly(step, tmp_path / "killed", ids=[50], always=True)
    with pytest.raises(EngineError, match="a worker was lost 6 times with the same file"):
        run_on_ray(job(killing, rows, tmp_path / "out"))
    assert (tmp_path / "out" / "part-00000-00000.jsonl").exists()
    run(job(step, rows, tmp_path / "plain", workers=1))
    run(job(step, rows, tmp_path / "out", workers=1))
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")


def test_the_command_gives_one_file_and_only_the_summary_on_stdout(
    tmp_path: Path, tiny: Path, rows: Path
) -> None:
    command = ["job", "embed", rows, "--model", tiny, "--engine", "llama.cpp", "--output"]
    for name, more in (("plain", []), ("ray", ["--ray", "local"])):
        result = ggrank(*command, tmp_path / f"{name}.parquet", *more)
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["bad_rows"] == 1
    for ending in (".parquet", ".parquet.bad.jsonl"):
        assert (tmp_path / f"ray{ending}").read_bytes() == (tmp_path / f"plain{ending}").read_bytes()


def test_errors_of_an_actor_are_those_of_a_plain_run(tmp_path: Path, step: EmbedStep, rows: Path) -> None:
    class Failing(EmbedStep):
        def compute(self, items: Sequence[str]) -> Any:
            raise InputError("this cannot be computed")

    with pytest.raises(InputError, match=r"^this cannot be computed$"):
        run_on_ray(job(Failing(step.params), rows, tmp_path / "out"))
    with pytest.raises(InputError, match="cannot read stdin"):
        run_on_ray(Job(step, find_sources(["-"]), tmp_path / "out"))
    with pytest.raises(InputError, match="3 workers of 1 cores and 0 GPUs do not fit"):
        run_on_ray(job(step, rows, tmp_path / "out", workers=3))


def test_a_cluster_without_free_cores_says_so(tmp_path: Path, step: EmbedStep, rows: Path) -> None:
    @ray.remote(num_cpus=2)
    class Busy:
        def ready(self) -> bool:
            return True

    busy = Busy.remote()
    ray.get(busy.ready.remote())
    try:
        with pytest.raises(InputError, match="cores are free"):
            run_on_ray(job(step, rows, tmp_path / "out"))
    finally:
        ray.kill(busy)


TWO_MACHINES = """
    import sys, threading, time
    from pathlib import Path
    import ray
    from ray.cluster_utils import Cluster
    from ggrank import LlamaParams
    from ggrank.integrations.ray import run_on_ray
    from ggrank.jobs import EmbedStep, Job, find_sources

    model, rows, output = sys.argv[1:]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")

    def kill() -> None:
        while not list(Path(output).glob("part-*")):
            time.sleep(0.01)
        cluster.remove_node(second, allow_graceful=False)
        print("removed", flush=True)

    threading.Thread(target=kill, daemon=True).start()
    step = EmbedStep(LlamaParams(model, engine="llama.cpp"))
    job = Job(step, find_sources([rows]), Path(output), format="jsonl", shard_rows=30, workers=2)
    print(run_on_ray(job).rows)
    ray.shutdown()
    cluster.shutdown()
"""


def test_a_machine_that_is_lost_in_the_middle_changes_no_byte(
    tmp_path: Path, tiny: Path, step: EmbedStep, rows: Path
) -> None:
    run(job(step, rows, tmp_path / "plain", workers=1))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TWO_MACHINES), tiny, rows, tmp_path / "out"],
        capture_output=True,
        encoding="utf-8",
        timeout=900,
        env={**ENVIRONMENT, "GGRANK_CACHE_DIR": os.environ["GGRANK_CACHE_DIR"]},
    )
    assert done.returncode == 0, done.stderr
    assert "removed" in done.stdout
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")


def test_an_address_where_nothing_is_is_one_clear_error(tmp_path: Path, rows: Path) -> None:
    command = ("job", "embed", rows, "--output", tmp_path / "out", "--ray")
    cache = os.environ["GGRANK_CACHE_DIR"]
    for address, set_outside in (("127.0.0.1:9", ""), ("auto", "127.0.0.1:9")):
        done = process(*command, address, RAY_ADDRESS=set_outside, GGRANK_CACHE_DIR=cache)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: no Ray at 127.0.0.1:9 (")
        assert len(done.stderr.splitlines()) == 1


# -- datasets


def dataset(n_rows: int, *, blocks: int = 8) -> ray.data.Dataset:
    return ray.data.from_items(
        [{"id": i, "text": text(i)} for i in range(n_rows)], override_num_blocks=blocks
    )


def test_a_dataset_gets_the_vectors_of_the_api_in_order(step: EmbedStep, tiny: Path) -> None:
    table = map_step(dataset(200), step, workers=2, batch_size=25).to_pandas()
    assert table["id"].tolist() == list(range(200))
    with Llama.load(tiny, engine="llama.cpp") as llama:
        expected = llama.embed_many([text(i) for i in range(200)])
    np.testing.assert_allclose(np.stack(table["embedding"].to_list()), expected, atol=1e-5)
    assert not table["embedding_truncated"].any()


def test_a_dataset_gets_the_scores_of_the_api() -> None:
    pairs = [{"query": "who grazes?", "document": text(i)} for i in range(60)]
    # Each pair by itself: Ray chooses the batches, and company moves a logit by up to 0.04.
    params = LlamaParams("ggrank-reranker-mini", engine="llama.cpp", n_seq_max=1)
    table = map_step(ray.data.from_items(pairs), ScoreStep(params), workers=1).to_pandas()
    with Llama.load(params) as llama:
        expected = dict(
            zip(table["document"], llama.rerank("who grazes?", list(table["document"])), strict=True)
        )
    np.testing.assert_allclose(table["score"], [expected[text] for text in table["document"]], atol=1e-3)


def test_an_actor_that_is_killed_in_the_middle_loses_no_row_of_a_dataset(
    tmp_path: Path, step: EmbedStep
) -> None:
    killing = deadly(step, tmp_path / "killed", ids=[60, 170])
    table = map_step(dataset(200), killing, workers=2, batch_size=25).to_pandas()
    assert len(list(tmp_path.glob("killed-*"))) == 2
    assert table["id"].tolist() == list(range(200))
    expected = map_step(dataset(200), step, workers=2, batch_size=25).to_pandas()
    np.testing.assert_array_equal(np.stack(table["embedding"]), np.stack(expected["embedding"]))


def test_a_dataset_larger_than_the_object_store_streams_through_it(step: EmbedStep) -> None:
    def loaded(row: dict[str, Any]) -> dict[str, Any]:
        return {"id": row["id"], "text": f"a text {row['id']}", "other": os.urandom(1_000_000)}

    rows = ray.data.range(160, override_num_blocks=40).map(loaded)
    ids = []
    for batch in map_step(rows, step, workers=1, batch_size=8).iter_batches(batch_size=2):
        ids += batch["id"].tolist()
    assert ids == list(range(160))
    assert STORE < 160 * 1_000_000
    assert "Spilled" not in ray._private.internal_api.memory_summary(stats_only=True)


def test_an_actor_tells_of_rows_without_a_text_and_of_a_column_that_is_taken(step: EmbedStep) -> None:
    @ray.remote
    def told(columns: dict[str, list[Any]]) -> str:
        with pytest.raises(InputError) as error:
            StepActor(step)(pa.table(columns))
        return str(error.value)

    rows = ({"text": ["x", None]}, {"text": ["x"], "embedding": [1]}, {"id": [1]})
    no_text, taken, no_column = ray.get([told.remote(columns) for columns in rows])
    assert "column 'text' has no string, but null" in no_text
    assert "there is a column 'embedding' already" in taken
    assert "no column 'text'" in no_column


def test_an_actor_takes_batches_of_numpy_and_its_share_of_the_cores(tiny: Path) -> None:
    step = EmbedStep(LlamaParams(tiny, engine="llama.cpp"))

    class Telling(StepActor):
        def __call__(self, batch: Any) -> Any:
            params = self._step.params
            n = len(batch["id"])
            return {
                **super().__call__(batch),
                "n_threads": np.full(n, params.n_threads),
                "n_gpu_layers": np.full(n, params.n_gpu_layers),
            }

    actors = ray.data.ActorPoolStrategy(size=1)
    for num_cpus, num_gpus, found in ((1.5, 0, (2, 0)), (1, 1, (1, -1))):
        table = dataset(10, blocks=1).map_batches(
            Telling,
            fn_constructor_args=[step],
            compute=actors,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            batch_size=10,
        )
        row = table.take(1)[0]
        assert (row["n_threads"], row["n_gpu_layers"]) == found
        assert row["embedding"].dtype == np.float32


def test_actors_share_what_the_cluster_has() -> None:
    """Two cores and a GPU; half a core and more stays free for what reads and writes."""
    asked: list[dict[str, Any]] = [{}, {"workers": 2}, {"num_cpus": 1}, {"num_gpus": 1}, {"num_gpus": 0.5}]
    ggrank_ray._wait_for_cores(2, 2)  # those of the test before may not be free at once
    found = [actor_options(**one) for one in asked]
    assert [one["compute"].max_size for one in found] == [1, 2, 2, 1, 2]
    for one in found:
        assert 2 - one["compute"].max_size * one["num_cpus"] >= 1
    for refused in ({"workers": 3}, {"workers": 2, "num_gpus": 1}, {"num_cpus": 32}, {"workers": 0}):
        with pytest.raises(InputError):
            actor_options(**refused)


def test_the_docstrings_are_right() -> None:
    assert doctest.testmod(ggrank_ray).failed == 0


# -- what is shown


def test_the_code_in_the_docs_runs_and_its_parquet_feeds_an_index(
    tmp_path: Path,
) -> None:
    page = (ROOT / "docs" / "ray.md").read_text("utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    dataset(100).write_parquet(str(tmp_path / "passages"))
    exec(code.replace("/shared/", f"{tmp_path}/"), {})
    for folder in ("vectors", "job"):
        table = pq.read_table(tmp_path / folder)
        assert sorted(table["id"].to_pylist()) == list(range(100))
        result = ggrank("index", tmp_path / folder, "--index", tmp_path / f"index-{folder}")
        assert result.exit_code == 0, result.output


def test_the_example_runs_and_no_ray_that_ggrank_starts_tells_anybody(tmp_path: Path) -> None:
    """In a process each, with a home of its own, where Ray keeps its token."""
    starts = """
        from ggrank.integrations.ray import _connect
        from ray._common.usage.usage_lib import usage_stats_enabled
        _connect(None)
        print("reports its use:", usage_stats_enabled())
    """
    variables = {key: value for key, value in ENVIRONMENT.items() if not key.startswith("RAY_")}
    output = ""
    for arguments in ([ROOT / "examples" / "ray_embed.py"], ["-c", textwrap.dedent(starts)]):
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            encoding="utf-8",
            timeout=900,
            env={**variables, "HOME": str(tmp_path), "GGRANK_CACHE_DIR": os.environ["GGRANK_CACHE_DIR"]},
        )
        assert done.returncode == 0, done.stderr
        output += done.stdout
    assert "4 vectors of 384 numbers by 2 actors" in output
    assert "The same without Ray: True" in output
    assert "reports its use: False" in output
