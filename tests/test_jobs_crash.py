"""Whatever ends a job and whenever: it goes on, and gives byte for byte what an undisturbed one gives."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

import ggrank as package
import tiny_models
from command_line import ENVIRONMENT, ggrank
from ggrank import InputError, LlamaParams
from ggrank.jobs import EmbedStep, Job, find_sources, run
from job_rows import contents, go_on, n_shards, start_stopping, text, wait_for_shards, write_jsonl

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")

N_ROWS = 1200
SHARD_ROWS = 100


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("bert-mean", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of which every 150th is bad, in two files; each is a unit of its own, and they make 13 shards."""
    folder = tmp_path_factory.mktemp("rows")
    padding = "x" * 2000
    lines = [
        b"bad" if i % 150 == 7 else {"id": i, "text": text(i), "padding": padding} for i in range(N_ROWS)
    ]
    write_jsonl(folder / "a.jsonl", lines[:550])
    write_jsonl(folder / "b.jsonl", lines[550:])
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny: Path, rows: Path) -> Path:
    """What an uninterrupted run leaves."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    assert ggrank(*arguments(tiny, rows, output)).exit_code == 0
    return output


def arguments(model: Path, rows: Path, output: Path, *more: str) -> list[str | Path]:
    job = ["job", "embed", rows, "--output", output, "--output-format", "jsonl"]
    return [*job, "--model", model, "--engine", "llama.cpp", "--shard-rows", str(SHARD_ROWS), *more]


def environment() -> dict[str, str]:
    return {**ENVIRONMENT, "GGRANK_CACHE_DIR": os.environ["GGRANK_CACHE_DIR"]}


def test_killed_again_and_again_at_random_moments_it_gives_the_same_bytes(
    tmp_path: Path, tiny: Path, rows: Path, undisturbed: Path
) -> None:
    output = tmp_path / "out"
    moments = random.Random(6)
    for _ in range(3):
        enough = n_shards(output) + moments.randint(1, 2)
        child = start_stopping(output, enough + 1, *arguments(tiny, rows, output))
        wait_for_shards(child, output, enough)
        child.kill()
        child.communicate()
    assert 3 <= n_shards(output) < N_ROWS / SHARD_ROWS, "it was killed in the middle"
    summary = json.loads(ggrank(*arguments(tiny, rows, output)).stdout)
    assert 0 < summary["new_rows"] < summary["rows"]
    assert contents(output) == contents(undisturbed)


KILLED_AT_A_SYNC = """
    import os, signal, sys
    from ggrank.cli import main
    at, when = int(sys.argv.pop(1)), sys.argv.pop(1)
    fsync, calls = os.fsync, 0
    def dying_fsync(number):
        global calls
        calls += 1
        if when == "before" and calls == at: os.kill(os.getpid(), signal.SIGKILL)
        fsync(number)
        if when == "after" and calls == at: os.kill(os.getpid(), signal.SIGKILL)
    os.fsync = dying_fsync
    main()
"""


def killed_at_sync(at: int, when: str, *arguments: str | Path) -> bool:
    """Whether it was killed, and not done before."""
    command = [sys.executable, "-c", textwrap.dedent(KILLED_AT_A_SYNC), str(at), when, *map(str, arguments)]
    done = subprocess.run(command, env=environment(), capture_output=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_sync_it_gives_the_same_bytes(tmp_path: Path, tiny: Path, when: str) -> None:
    """One run after the other, each killed at another sync of those that a shard and an end have."""
    lines = [b"bad" if i % 100 == 7 else {"id": i, "text": text(i)} for i in range(300)]
    rows = write_jsonl(tmp_path / "rows.jsonl", lines)
    output, expected = tmp_path / "out.jsonl", tmp_path / "expected.jsonl"
    assert ggrank(*arguments(tiny, rows, expected)).exit_code == 0
    moments = (1, 3, 4, 5, 6, 7, 8, 7, 100)
    killed = [killed_at_sync(at, when, *arguments(tiny, rows, output)) for at in moments]
    assert sum(killed) >= 6
    assert not killed[-1]
    for ending in ("", ".bad.jsonl"):
        found = output.with_name(output.name + ending).read_bytes()
        assert found == expected.with_name(expected.name + ending).read_bytes()
    assert not list((tmp_path / "out.jsonl.job").glob("*part-*"))


def test_killed_at_any_sync_it_goes_on_though_an_older_job_s_mark_is_there(
    tmp_path: Path, tiny: Path
) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"text": text(i)} for i in range(20)])
    output = tmp_path / "out.jsonl"
    assert ggrank(*arguments(tiny, rows, output, "--prefix", "older")).exit_code == 0
    older = shutil.copytree(tmp_path / "out.jsonl.job", tmp_path / "older")
    output.unlink()
    at, killed = 0, True
    while killed:
        at += 1
        killed = killed_at_sync(at, "after", *arguments(tiny, rows, output))
        result = ggrank(*arguments(tiny, rows, output))
        assert result.exit_code == 0, result.stderr
        assert json.loads((tmp_path / "out.jsonl.job" / "_job.json").read_text())["job"]["prefix"] == ""
        assert len(output.read_bytes().splitlines()) == 20
        output.unlink()
        shutil.rmtree(tmp_path / "out.jsonl.job")
        shutil.copytree(older, tmp_path / "out.jsonl.job")
    assert at > 8, "two for each of job, unit, shard, record and output, at least"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_a_word_and_the_same_command_goes_on(
    number: signal.Signals, code: int, tmp_path: Path, tiny: Path, rows: Path, undisturbed: Path
) -> None:
    output = tmp_path / "out"
    child = start_stopping(output, 5, *arguments(tiny, rows, output, "--workers", "2"))
    wait_for_shards(child, output, 2)
    child.send_signal(number)
    out, errors = go_on(child)
    assert (child.returncode, out) == (code, b""), errors
    assert errors.strip() == b"Stopped. What is done is kept; the same command goes on."
    assert 2 <= n_shards(output) < N_ROWS / SHARD_ROWS
    assert ggrank(*arguments(tiny, rows, output)).exit_code == 0
    assert contents(output) == contents(undisturbed)


def test_workers_give_the_bytes_of_one_process(
    tmp_path: Path, tiny: Path, rows: Path, undisturbed: Path
) -> None:
    assert ggrank(*arguments(tiny, rows, tmp_path / "out", "--workers", "2")).exit_code == 0
    assert contents(tmp_path / "out") == contents(undisturbed)


def limited(limit: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """``ggrank`` that can write no file above so many bytes, as if the disk were full."""
    resource: Any = pytest.importorskip("resource")
    return subprocess.run(
        [sys.executable, "-m", "ggrank", *map(str, arguments)],
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


def test_a_full_disk_is_one_clear_error_leaves_no_half_shard_and_the_job_goes_on(
    tmp_path: Path, tiny: Path, rows: Path, undisturbed: Path
) -> None:
    output = tmp_path / "out"
    for limit in (0, max(path.stat().st_size for path in undisturbed.glob("part-*")) - 1):
        child = limited(limit, *arguments(tiny, rows, output))
        assert child.returncode == 1
        assert child.stderr.startswith("Error: ")
        assert "cannot be written (File too large)" in child.stderr
        assert len(child.stderr.splitlines()) == 1
    for path in output.glob("part-*"):
        assert path.read_bytes() == (undisturbed / path.name).read_bytes()
    assert ggrank(*arguments(tiny, rows, output)).exit_code == 0
    assert contents(output) == contents(undisturbed)


def test_a_worker_that_is_killed_is_one_clear_error(tmp_path: Path, tiny: Path, rows: Path) -> None:
    command = arguments(tiny, rows, tmp_path / "out", "--workers", "2")
    child = start_stopping(tmp_path / "out", 2, *command)
    wait_for_shards(child, tmp_path / "out", 1)
    os.kill(workers_of(child)[0], signal.SIGKILL)
    _, errors = go_on(child)
    assert child.returncode == 1
    assert b"a worker process ended by itself" in errors
    assert ggrank(*arguments(tiny, rows, tmp_path / "out")).exit_code == 0


def workers_of(child: subprocess.Popen[bytes]) -> list[int]:
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    if not children.exists():
        pytest.skip("finds the workers in /proc")
    found = children.read_text().split()
    return [int(number) for number in found if b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes()]


def test_workers_end_when_their_parent_is_killed(tmp_path: Path, tiny: Path, rows: Path) -> None:
    child = start_stopping(tmp_path / "out", 1, *arguments(tiny, rows, tmp_path / "out", "--workers", "2"))
    wait_for_shards(child, tmp_path / "out", 1)
    workers = workers_of(child)
    child.kill()
    child.communicate()
    deadline = time.monotonic() + 600
    while any(is_running(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(is_running(worker) for worker in workers)


def is_running(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- what is refused


def stopped(tmp_path: Path, tiny: Path, rows: Path) -> list[str | Path]:
    """A job that was killed after a shard or two, and the command that goes on with it."""
    command = arguments(tiny, rows, tmp_path / "out")
    child = start_stopping(tmp_path / "out", 2, *command)
    wait_for_shards(child, tmp_path / "out", 1)
    child.kill()
    child.communicate()
    return command


def test_another_model_or_setting_is_refused_and_the_same_goes_on(
    tmp_path: Path, tiny: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = stopped(tmp_path, tiny, rows)
    before = contents(tmp_path / "out")
    other = tiny_models.write("bert-cls", tmp_path / "models")
    for change, word in (
        (["--model", other], "model.sha256"),
        (["--dtype", "float16"], "dtype"),
        (["--prefix", "x"], "prefix"),
        (["--n-ctx", "32"], "model.n_ctx"),
        (["--shard-rows", "50"], "shard_rows"),
        (["--column", "other"], "column"),
        (["--text-column", "text"], "text_columns"),
    ):
        result = ggrank(*command, *change)
        assert result.exit_code == 1
        assert f"its {word} was" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert contents(tmp_path / "out") == {name: data for name, data in before.items() if name[0] != "."}
    monkeypatch.setattr(package, "__version__", "9.9.9")  # another release, the same text rule
    assert ggrank(*command).exit_code == 0


def test_a_half_done_file_that_was_changed_is_computed_anew(
    tmp_path: Path, tiny: Path, rows: Path, undisturbed: Path
) -> None:
    mine = tmp_path / "rows"
    shutil.copytree(rows, mine)
    changed = (mine / "a.jsonl").read_text()
    (mine / "a.jsonl").write_text(changed.replace("llama", "alpaca", 1))
    command = stopped(tmp_path, tiny, mine)
    (mine / "a.jsonl").write_text(changed)
    summary = json.loads(ggrank(*command).stdout)
    assert summary["new_rows"] == summary["rows"]
    for path in undisturbed.glob("part-*"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


def test_a_job_that_was_killed_before_its_first_shard_is_in_no_other_job_s_way(
    tmp_path: Path, tiny: Path, rows: Path, undisturbed: Path
) -> None:
    output = tmp_path / "out"
    child = start_stopping(output, 0, *arguments(tiny, rows, output, "--dtype", "int8"))
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)  # at its first sync, that of _job.json
    child.kill()
    child.communicate()
    assert ggrank(*arguments(tiny, rows, output)).exit_code == 0
    assert contents(output) == contents(undisturbed)


def test_an_input_that_changes_while_it_is_read_is_noticed(tmp_path: Path, tiny: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ({"text": text(i)} for i in range(300)))
    step = EmbedStep(LlamaParams(tiny, engine="llama.cpp", n_threads=1))
    sources = find_sources([str(source)])
    job = Job(step, sources, tmp_path / "out", format="jsonl", shard_rows=100)

    def change(progress: object) -> None:
        with source.open("a") as file:
            file.write('{"text": "late"}\n')

    with pytest.raises(InputError, match="changed while it was read"):
        run(job, on_progress=change)
    assert n_shards(tmp_path / "out") == 0


def test_one_process_at_a_time_works_on_a_job(
    tmp_path: Path, tiny: Path, rows: Path, undisturbed: Path
) -> None:
    for most in (0, 1):
        output = tmp_path / f"out-{most}"
        command = arguments(tiny, rows, output)
        child = start_stopping(output, most, *command)
        assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
        before = contents(output)
        try:
            assert "another process works on this job" in ggrank(*command).stderr
            assert contents(output) == before
        finally:
            _, errors = go_on(child)
        assert (child.returncode, len(errors.splitlines())) == (0, 1), errors  # that rows were left out
        assert contents(output) == contents(undisturbed)


def test_what_a_job_has_made_is_not_done_again_nor_overwritten_by_another_one(
    tmp_path: Path, tiny: Path
) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"text": "one"}])
    for name in ("out", "out.jsonl"):
        output = tmp_path / name
        assert json.loads(ggrank(*arguments(tiny, rows, output)).stdout)["new_rows"] == 1
        assert json.loads(ggrank(*arguments(tiny, rows, output)).stdout)["new_rows"] == 0
        result = ggrank(*arguments(tiny, rows, output, "--dtype", "int8"))
        assert result.exit_code == 1
        assert "another job: its dtype was 'float32'" in result.stderr
    output.write_text("mine\n")
    assert "was changed since its job wrote it" in ggrank(*arguments(tiny, rows, output)).stderr
    assert output.read_text() == "mine\n"


def test_a_stream_goes_on_when_it_is_given_again(tmp_path: Path, tiny: Path, rows: Path) -> None:
    data = b"".join(path.read_bytes() for path in sorted(rows.iterdir()))
    (tmp_path / "all.jsonl").write_bytes(data)
    output, expected = tmp_path / "out", tmp_path / "expected"
    command = arguments(tiny, Path("-"), output)
    with (tmp_path / "all.jsonl").open("rb") as stream:
        child = start_stopping(output, 4, *command, stdin=stream)
        wait_for_shards(child, output, 3)
    child.kill()
    child.communicate()
    other = ggrank(*command, stdin=data.replace(b"llama", b"alpaca", 1))
    assert "stdin is another stream than the one that" in other.stderr
    summary = json.loads(ggrank(*command, stdin=data).stdout)
    assert 0 < summary["new_rows"] < summary["rows"]
    assert ggrank(*arguments(tiny, tmp_path / "all.jsonl", expected)).exit_code == 0
    for path in expected.glob("part-*"):
        assert path.read_bytes() == (output / path.name).read_bytes()
    assert json.loads(ggrank(*command, stdin=data).stdout)["new_rows"] == 0
    for longer_or_shorter in (data + data, data[: len(data) // 2]):
        assert "stdin is another stream" in ggrank(*command, stdin=longer_or_shorter).stderr
