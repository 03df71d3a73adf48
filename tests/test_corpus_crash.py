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
from pathlib import Path

import pytest

import tiny_models
from command_line import ENVIRONMENT, ggrank
from corpus_jobs import contents, go_on, n_parts, start_stopping, text, wait_for_parts, write_jsonl
from ggrank import InputError, LlamaParams
from ggrank.jobs import EmbedStep, Job, find_sources, run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")

N_ROWS = 1200
PART_ROWS = 100


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("bert-mean", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of which every 150th is bad, in two files that make twelve parts."""
    folder = tmp_path_factory.mktemp("rows")
    lines = [b"bad" if i % 150 == 7 else {"id": i, "text": text(i)} for i in range(N_ROWS)]
    write_jsonl(folder / "a.jsonl", lines[:550])
    write_jsonl(folder / "b.jsonl", lines[550:])
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny: Path, rows: Path) -> Path:
    """What an uninterrupted run leaves."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert ggrank(*arguments(tiny, rows, folder / "out")).exit_code == 0
    return folder


def arguments(model: Path, rows: Path, output: Path, *more: str) -> list[str | Path]:
    job = ["embed", "--file", rows, "--output", output, "--output-format", "jsonl"]
    load = ["--model", model, "--engine", "llama.cpp", "--n-threads", "1"]
    return [*job, *load, "--part-rows", str(PART_ROWS), *more]


def same(found: Path, expected: Path) -> bool:
    """Parts, bad rows and what is known of the job."""
    bad = [path.with_name(f"{path.name}.bad.jsonl").read_bytes() for path in (found, expected)]
    mine, theirs = contents(found), contents(expected)
    for files in (mine, theirs):
        files["_job.json"] = json.dumps(json.loads(files["_job.json"])["summary"]).encode()
    return mine == theirs and bad[0] == bad[1]


def test_killed_again_and_again_at_random_moments_it_gives_the_same_bytes(
    tmp_path: Path, tiny: Path, rows: Path, undisturbed: Path
) -> None:
    output = tmp_path / "out"
    moments = random.Random(6)
    for _ in range(3):
        enough = n_parts(output) + moments.randint(1, 2)
        child = start_stopping(output, enough + 1, *arguments(tiny, rows, output))
        wait_for_parts(child, output, enough)
        child.kill()
        child.communicate()
    assert 3 <= n_parts(output) < N_ROWS / PART_ROWS, "it was killed in the middle"
    result = ggrank(*arguments(tiny, rows, output))
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert summary["resumed_rows"] > 0
    assert same(output, undisturbed / "out")


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


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_sync_it_gives_the_same_bytes(tmp_path: Path, tiny: Path, when: str) -> None:
    """One run after the other, each killed at another sync of those that a part and an end have."""
    lines = [b"bad" if i % 100 == 7 else {"id": i, "text": text(i)} for i in range(300)]
    rows = write_jsonl(tmp_path / "rows.jsonl", lines)
    output, expected = tmp_path / "out.jsonl", tmp_path / "expected.jsonl"
    assert ggrank(*arguments(tiny, rows, expected)).exit_code == 0
    code = textwrap.dedent(KILLED_AT_A_SYNC)
    n_killed = 0
    for at in (1, 2, 3, 4, 5, 3, 2, 1, 4, 2, 3, 1, 100):
        command = [sys.executable, "-c", code, str(at), when, *arguments(tiny, rows, output)]
        done = subprocess.run(
            [str(part) for part in command],
            env={**ENVIRONMENT, "GGRANK_CACHE_DIR": os.environ["GGRANK_CACHE_DIR"]},
            capture_output=True,
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        n_killed += done.returncode != 0
    assert n_killed >= 7
    assert done.returncode == 0
    for ending in ("", ".bad.jsonl"):
        found = output.with_name(output.name + ending).read_bytes()
        assert found == expected.with_name(expected.name + ending).read_bytes()
    assert not (tmp_path / "out.jsonl.parts").exists()


def test_killed_at_any_sync_of_the_end_it_goes_on_though_an_older_job_s_mark_is_there(
    tmp_path: Path, tiny: Path
) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"text": text(i)} for i in range(20)])
    output = tmp_path / "out.jsonl"
    assert ggrank(*arguments(tiny, rows, output, "--prefix", "older")).exit_code == 0
    mark = (tmp_path / "out.jsonl.job.json").read_bytes()
    output.unlink()
    code, at, killed = textwrap.dedent(KILLED_AT_A_SYNC), 0, True
    while killed:
        at += 1
        command = [sys.executable, "-c", code, str(at), "after", *arguments(tiny, rows, output)]
        done = subprocess.run(
            [str(part) for part in command],
            env={**ENVIRONMENT, "GGRANK_CACHE_DIR": os.environ["GGRANK_CACHE_DIR"]},
            capture_output=True,
        )
        killed = done.returncode != 0
        result = ggrank(*arguments(tiny, rows, output))
        assert result.exit_code == 0, result.stderr
        assert json.loads((tmp_path / "out.jsonl.job.json").read_text())["job"]["prefix"] == ""
        assert len(output.read_bytes().splitlines()) == 20
        output.unlink()
        (tmp_path / "out.jsonl.job.json").write_bytes(mark)
    assert at > 8, "two for each of job, part, mark and output, at least"


def test_ctrl_c_exits_with_130_and_the_same_command_goes_on(
    tmp_path: Path, tiny: Path, rows: Path, undisturbed: Path
) -> None:
    output = tmp_path / "out"
    child = start_stopping(output, 5, *arguments(tiny, rows, output, "--workers", "2"))
    wait_for_parts(child, output, 2)
    child.send_signal(signal.SIGINT)
    out, errors = go_on(child)
    assert (child.returncode, out) == (130, b"")
    assert errors.strip() == b"Stopped. What is done is kept; the same command goes on."
    assert 2 <= n_parts(output) < N_ROWS / PART_ROWS
    assert ggrank(*arguments(tiny, rows, output)).exit_code == 0
    assert same(output, undisturbed / "out")


def test_workers_give_the_bytes_of_one_process(
    tmp_path: Path, tiny: Path, rows: Path, undisturbed: Path
) -> None:
    assert ggrank(*arguments(tiny, rows, tmp_path / "out", "--workers", "2")).exit_code == 0
    assert same(tmp_path / "out", undisturbed / "out")


def test_a_full_disk_is_one_clear_error_leaves_no_half_part_and_the_job_goes_on(
    tmp_path: Path, tiny: Path, rows: Path, undisturbed: Path
) -> None:
    resource = pytest.importorskip("resource")
    output = tmp_path / "out"
    # Bytes of a file: enough for all parts but the largest.
    limit = max(path.stat().st_size for path in (undisturbed / "out").glob("part-*")) - 1
    child = subprocess.run(
        [sys.executable, "-m", "ggrank", *map(str, arguments(tiny, rows, output))],
        env={**ENVIRONMENT, "GGRANK_CACHE_DIR": os.environ["GGRANK_CACHE_DIR"]},
        capture_output=True,
        encoding="utf-8",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert child.returncode == 1
    assert child.stderr.startswith("Error: ")
    assert "cannot be written (File too large)" in child.stderr
    assert len(child.stderr.splitlines()) == 1
    if output.exists():
        left = contents(output)
        assert set(left) - {"_job.json", "_parts.log"} <= set(contents(undisturbed / "out"))
        assert all(left[name] == contents(undisturbed / "out")[name] for name in left if "part-" in name)
    assert ggrank(*arguments(tiny, rows, output)).exit_code == 0
    assert same(output, undisturbed / "out")


def test_a_disk_that_is_full_at_the_start_is_no_other_process(tmp_path: Path, tiny: Path, rows: Path) -> None:
    resource = pytest.importorskip("resource")
    command = stopped(tmp_path, tiny, rows)
    child = subprocess.run(
        [sys.executable, "-m", "ggrank", *map(str, command)],
        env={**ENVIRONMENT, "GGRANK_CACHE_DIR": os.environ["GGRANK_CACHE_DIR"]},
        capture_output=True,
        encoding="utf-8",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    assert child.returncode == 1
    assert f"{tmp_path / 'out'}: cannot be written" in child.stderr
    assert "another process" not in child.stderr
    assert ggrank(*command).exit_code == 0


def test_a_line_of_the_log_that_was_cut_off_does_not_count(
    tmp_path: Path, tiny: Path, rows: Path, undisturbed: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(undisturbed / "out", output)
    shutil.copy(undisturbed / "out.bad.jsonl", tmp_path / "out.bad.jsonl")
    job = json.loads((output / "_job.json").read_text())
    (output / "_job.json").write_text(json.dumps({"job": job["job"]}))
    log = (output / "_parts.log").read_bytes().splitlines(keepends=True)
    (output / "_parts.log").write_bytes(b"".join(log[:5]) + log[5][:30])
    assert json.loads(ggrank(*arguments(tiny, rows, output)).stdout)["resumed_rows"] < 5 * PART_ROWS
    assert same(output, undisturbed / "out")


# -- what is refused


def stopped(tmp_path: Path, tiny: Path, rows: Path) -> list[str | Path]:
    """A job that was killed after a part or two, and the command that goes on with it."""
    command = arguments(tiny, rows, tmp_path / "out")
    child = start_stopping(tmp_path / "out", 2, *command)
    wait_for_parts(child, tmp_path / "out", 1)
    child.kill()
    child.communicate()
    return command


def test_another_model_setting_or_input_is_refused_and_the_same_goes_on(
    tmp_path: Path, tiny: Path, rows: Path
) -> None:
    mine = tmp_path / "rows"
    shutil.copytree(rows, mine)
    command = stopped(tmp_path, tiny, mine)
    before = contents(tmp_path / "out")
    other = tiny_models.write("bert-cls", tmp_path / "models")
    for change, word in (
        (["--model", other], "model.sha256"),
        (["--dtype", "float16"], "--dtype"),
        (["--prefix", "x"], "--prefix"),
        (["--n-ctx", "32"], "--n-ctx"),
        (["--part-rows", "50"], "--part-rows"),
        (["--output-column", "other"], "--output-column"),
        (["--text-column", "text"], "--text-column"),
    ):
        result = ggrank(*command, *change)
        assert result.exit_code == 1
        assert f"its {word} was" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    text_before = (mine / "b.jsonl").read_text()
    (mine / "b.jsonl").write_text(text_before.replace("llama", "alpaca", 1))
    assert "input." in ggrank(*command).stderr
    (mine / "b.jsonl").write_text(text_before)  # another time, the same bytes
    (mine / "c.jsonl").write_text('{"text": "one more"}\n')
    assert "files" in ggrank(*command).stderr
    (mine / "c.jsonl").unlink()
    assert contents(tmp_path / "out") == before
    assert ggrank(*command).exit_code == 0


def killed_before_its_first_part(output: Path, command: list[str | Path]) -> None:
    child = start_stopping(output, 0, *command)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)  # at its first sync, that of _job.json
    child.kill()
    child.communicate()


def test_a_job_that_was_killed_before_its_first_part_is_in_nobody_s_way(
    tmp_path: Path, tiny: Path, rows: Path, undisturbed: Path
) -> None:
    output = tmp_path / "out"
    killed_before_its_first_part(output, arguments(tiny, rows, output, "--dtype", "int8"))
    (output / "_job.json").write_text('{"job": {"dtype": "int8"}}')
    before = contents(output)
    refused = ggrank(*arguments(tiny, rows, output, "--text-column", "none"))
    assert "no column 'none'" in refused.stderr
    assert contents(output) == before, "an error leaves what was there"
    assert ggrank(*arguments(tiny, rows, output)).exit_code == 0
    assert same(output, undisturbed / "out")


def test_a_part_that_does_not_count_yet_is_another_job_s_all_the_same(
    tmp_path: Path, tiny: Path, rows: Path, undisturbed: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(undisturbed / "out", output)
    (output / "_parts.log").unlink()
    before = contents(output)
    assert "another job" in ggrank(*arguments(tiny, rows, output, "--dtype", "int8")).stderr
    assert contents(output) == before


def test_an_input_that_changes_while_it_is_read_is_noticed(tmp_path: Path, tiny: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ({"text": text(i)} for i in range(300)))
    job = Job(
        EmbedStep(LlamaParams(tiny, engine="llama.cpp", n_threads=1)),
        find_sources([str(source)]),
        tmp_path / "out",
        format="jsonl",
        part_rows=100,
    )

    def change(progress: object) -> None:
        with source.open("a") as file:
            file.write('{"text": "late"}\n')

    with pytest.raises(InputError, match="changed while it was read"):
        run(job, on_progress=change)
    assert n_parts(tmp_path / "out") == 1


def test_a_part_that_was_damaged_or_removed_is_noticed(tmp_path: Path, tiny: Path, rows: Path) -> None:
    command = stopped(tmp_path, tiny, rows)
    part = tmp_path / "out" / "part-00000.jsonl"
    whole = part.read_bytes()
    part.write_bytes(whole[:-1])
    assert "bytes instead of" in ggrank(*command).stderr
    part.unlink()
    assert "is gone" in ggrank(*command).stderr
    part.write_bytes(whole)
    assert ggrank(*command).exit_code == 0
    part.unlink()
    assert "is gone" in ggrank(*command).stderr, "of a job that is done too"


def test_a_folder_that_lost_its_log_is_made_again(
    tmp_path: Path, tiny: Path, rows: Path, undisturbed: Path
) -> None:
    shutil.copytree(undisturbed, tmp_path / "mine")
    output = tmp_path / "mine" / "out"
    (output / "_parts.log").unlink()
    assert ggrank(*arguments(tiny, rows, output)).exit_code == 0
    assert same(output, undisturbed / "out")


def test_a_file_that_was_changed_since_its_job_made_it_is_noticed(tmp_path: Path, tiny: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"text": "one"}])
    command = arguments(tiny, rows, tmp_path / "out.jsonl")
    assert ggrank(*command).exit_code == 0
    (tmp_path / "out.jsonl").write_text("mine\n")
    assert "5 bytes instead of" in ggrank(*command).stderr
    assert (tmp_path / "out.jsonl").read_text() == "mine\n"


def test_a_second_start_leaves_the_first_alone_before_it_has_a_part(
    tmp_path: Path, tiny: Path, rows: Path, undisturbed: Path
) -> None:
    command = arguments(tiny, rows, tmp_path / "out")
    child = start_stopping(tmp_path / "out", 0, *command)
    assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
    before = contents(tmp_path / "out")
    try:
        assert "another process works on this job" in ggrank(*command).stderr
        assert contents(tmp_path / "out") == before
    finally:
        _, errors = go_on(child)
    assert (child.returncode, len(errors.splitlines())) == (0, 1), errors  # that rows were left out
    assert same(tmp_path / "out", undisturbed / "out")


def test_one_process_at_a_time_works_on_a_job(tmp_path: Path, tiny: Path, rows: Path) -> None:
    command = arguments(tiny, rows, tmp_path / "out")
    child = start_stopping(tmp_path / "out", 1, *command)
    wait_for_parts(child, tmp_path / "out", 1)
    try:
        assert "another process works on this job" in ggrank(*command).stderr
    finally:
        go_on(child)
    assert child.returncode == 0


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path, tiny: Path, rows: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    result = ggrank(*arguments(tiny, rows, tmp_path / "out"))
    assert result.exit_code == 1
    assert "has other files in it" in result.stderr
    assert list(contents(tmp_path / "out")) == ["precious.txt"]


def test_a_job_that_is_done_is_not_done_again(tmp_path: Path, tiny: Path, rows: Path) -> None:
    for name in ("out", "out.jsonl"):
        command = arguments(tiny, rows, tmp_path / name)
        first = json.loads(ggrank(*command).stdout)
        again = json.loads(ggrank(*command).stdout)
        assert (again["rows"], again["resumed_rows"]) == (first["rows"], first["rows"])
        assert again["tokens_per_second"] is None


@pytest.mark.parametrize("name", ["out/part-00000.jsonl", "out.jsonl"])
def test_what_a_job_has_made_is_not_overwritten_by_another_one(tmp_path: Path, tiny: Path, name: str) -> None:
    rows, output = tmp_path / "rows.jsonl", tmp_path / name.partition("/")[0]
    write_jsonl(rows, [{"text": "one"}])
    assert ggrank(*arguments(tiny, rows, output)).exit_code == 0
    before = (tmp_path / name).read_bytes()
    write_jsonl(rows, [{"text": "one"}, {"text": "two"}])
    result = ggrank(*arguments(tiny, rows, output))
    assert result.exit_code == 1
    assert "another job" in result.stderr
    assert (tmp_path / name).read_bytes() == before


def children_of(number: int) -> Path:
    return Path(f"/proc/{number}/task/{number}/children")


def test_a_worker_that_is_killed_is_one_clear_error(tmp_path: Path, tiny: Path, rows: Path) -> None:
    if not children_of(os.getpid()).exists():
        pytest.skip("finds the workers in /proc")
    command = arguments(tiny, rows, tmp_path / "out", "--workers", "2")
    child = start_stopping(tmp_path / "out", 2, *command)
    wait_for_parts(child, tmp_path / "out", 1)
    found = children_of(child.pid).read_text().split()
    commands = {number: Path(f"/proc/{number}/cmdline").read_bytes() for number in found}
    worker = next(number for number, command in commands.items() if b"spawn_main" in command)
    os.kill(int(worker), signal.SIGKILL)
    _, errors = go_on(child)
    assert child.returncode == 1
    assert b"a worker process ended by itself" in errors
    assert ggrank(*arguments(tiny, rows, tmp_path / "out")).exit_code == 0
