"""Models in forked children, at the end of a program, and in a pickle.

Forks and ends happen in programs of their own, as a user's would; each says on stdout what it found.
"""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from ggrank import GgrankError, Llama, LlamaParams
from ggrank.compat import CrossEncoder, FlagReranker, Reranker

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
ENGINES = ("llama.cpp", "openvino")
LONG = 600
"""Seconds after which a child counts as hanging."""

COMPUTE = """
import os, socket, sys, threading, time
import multiprocessing
import numpy as np
from ggrank import Llama

def vector(engine):
    with Llama.load("all-minilm-l6-v2", engine=engine, n_threads=2) as llama:
        return llama.embed("a text of some words " * 20)

def child(engine, expected):
    np.testing.assert_allclose(vector(engine), expected[engine], atol=1e-5)
    return "right"

parent, *engines = sys.argv[1:]
expected = {engine: vector(engine) for engine in engines}
kept = Llama.load("all-minilm-l6-v2", engine=parent, n_threads=2)
kept.embed("a text of some words")
"""

OS_FORK = """
for engine in engines:
    pid = os.fork()
    if pid == 0:
        child(engine, expected)
        sys.exit(7)  # a normal end, which frees what the libraries hold
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""

POOL = """
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.starmap(child, [(engine, expected) for engine in engines]))
"""

WHILE_COMPUTING = (
    """
begun = threading.Event()

def work():
    while True:
        kept.embed_many(["a text of some words " * 20] * 8)
        begun.set()

threading.Thread(target=work, daemon=True).start()
begun.wait()
"""
    + OS_FORK
)

SERVER = """
listener = socket.create_server(("127.0.0.1", 0))
workers = []
for engine in engines:
    workers.append(os.fork())
    if workers[-1] == 0:
        llama = Llama.load("all-minilm-l6-v2", engine=engine, n_threads=2)
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                text = connection.recv(1000).decode()
                connection.sendall(llama.embed(text).tobytes())
        sys.exit(0)
for _ in range(2 * len(engines)):
    with socket.create_connection(listener.getsockname()) as client:
        client.sendall(b"a text of some words")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    print(len(answer))
print([os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers])
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LONG)


@needs_fork
@pytest.mark.parametrize("parent", ENGINES)
def test_a_forked_child_loads_and_computes_after_its_parent_has_computed(parent: str) -> None:
    done = run(COMPUTE + OS_FORK, parent, *ENGINES)
    assert (done.stdout.split(), done.returncode) == (["7", "7"], 0), done.stderr


@needs_fork
@pytest.mark.parametrize("parent", ENGINES)
def test_a_fork_in_the_middle_of_a_computation_leaves_the_child_a_sound_library(parent: str) -> None:
    done = run(COMPUTE + WHILE_COMPUTING, parent, *ENGINES)
    assert (done.stdout.split(), done.returncode) == (["7", "7"], 0), done.stderr


@needs_fork
def test_a_pool_of_forked_processes_computes() -> None:
    done = run(COMPUTE + POOL, "llama.cpp", *ENGINES)
    assert (done.stdout.strip(), done.returncode) == ("['right', 'right']", 0), done.stderr


@needs_fork
def test_the_workers_of_a_server_that_forks_them_answer() -> None:
    done = run(COMPUTE + SERVER, "llama.cpp", *ENGINES)
    assert done.stdout.splitlines() == [*["1536"] * 4, "[0, 0]"], done.stderr


ON_A_GPU = """
from ggrank.engine.lifetime import check_fork
from ggrank import EngineError
if os.fork() == 0:
    try:
        check_fork(on_gpu=True)
    except EngineError as error:
        print(error)
else:
    os.wait()
    check_fork(on_gpu=True)
"""


@needs_fork
def test_a_gpu_after_a_fork_is_one_clear_error_and_the_parent_goes_on() -> None:
    done = run(COMPUTE + ON_A_GPU, "llama.cpp")
    assert "spawn" in done.stdout
    assert done.returncode == 0, done.stderr


END = """
import sys, threading, time
from ggrank import Llama

engine, delay, does = sys.argv[1], float(sys.argv[2]), sys.argv[3]
begun = threading.Event()

def work():
    llama = Llama.load("all-minilm-l6-v2", engine=engine)
    while True:
        begun.set()
        if does == "load":
            Llama.load("all-minilm-l6-v2", engine=engine).close()
        else:
            llama.embed_many(["a text of some words " * 20] * 20)

threading.Thread(target=work, daemon=True).start()
begun.wait()
time.sleep(delay)
"""


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("does", ["embed", "load"])
def test_a_program_may_end_while_a_daemon_thread_computes(engine: str, does: str) -> None:
    for delay in (0.13, 0.31):
        done = run(END, engine, str(delay), does)
        assert (done.returncode, done.stderr) == (0, "")


INTERRUPTED = """
import random, signal, sys
from ggrank import Llama

def interrupt(*_):
    raise KeyboardInterrupt

llama = Llama.load("all-minilm-l6-v2", engine=sys.argv[1])
signal.signal(signal.SIGALRM, interrupt)
for _ in range(500):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.002))
        while True:
            llama.tokenize("a text of some words")
    except KeyboardInterrupt:
        pass
print(llama.embed("a text").shape)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer that interrupts on this system")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_program_ends_wherever_ctrl_c_interrupts_it(engine: str) -> None:
    done = run(INTERRUPTED, engine)
    assert (done.stdout.strip(), done.returncode) == ("(384,)", 0), done.stderr


AT_EXIT = """
import atexit
atexit.register(lambda: print(llama.embed("a text").shape))
from ggrank import Llama
llama = Llama.load("all-minilm-l6-v2")
"""


def test_a_model_still_computes_in_an_exit_handler() -> None:
    done = run(AT_EXIT)
    assert (done.stdout.strip(), done.returncode) == ("(384,)", 0), done.stderr


@pytest.mark.parametrize("make", [Llama.load, CrossEncoder, FlagReranker, Reranker])
def test_a_loaded_model_is_not_pickled_and_says_what_to_send(make: Callable[[str], object]) -> None:
    model = make("ggrank-reranker-mini")
    for use in (pickle.dumps, copy.deepcopy):
        with pytest.raises(GgrankError, match=r"cannot be pickled or copied.*load it where it is") as caught:
            use(model)
        assert isinstance(caught.value, TypeError)


def test_params_are_pickled_and_load_the_same_model() -> None:
    params = pickle.loads(pickle.dumps(LlamaParams("all-minilm-l6-v2", n_ctx=64)))
    with Llama.load(params) as llama:
        assert llama.n_ctx == 64


PRINTS = """
import ctypes, os
from ggrank import Llama
with Llama.load("all-minilm-l6-v2", engine="openvino") as llama:
    llama.embed("a text")
    if os.fork() == 0:
        ctypes.CDLL(None).puts(b"written by C")
        raise SystemExit
    os.wait()
"""


@needs_fork
def test_what_a_child_s_libraries_have_written_is_not_lost() -> None:
    assert run(PRINTS).stdout.count("written by C") == 1
