"""``ggrank serve``: embedders and rerankers over HTTP, in the dialects that others speak."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ggrank.cli import console
from ggrank.cli.options import BUNDLED_RERANKER, DEFAULT_MODEL
from ggrank.errors import GgrankWarning, InputError
from ggrank.server.keys import VARIABLE, find_key
from ggrank.server.settings import ServerSettings

if TYPE_CHECKING:
    import uvicorn

    from ggrank import LlamaParams
    from ggrank.server.service import Service

NO_MODEL = "none"

_WHOLE, _TEXT = re.compile(r"-?\d{1,9}", re.ASCII), re.compile(r".+")
OWN_OPTIONS = {
    "n_ctx": _WHOLE,
    "n_threads": _WHOLE,
    "n_gpu_layers": _WHOLE,
    "filename": _TEXT,
    "revision": _TEXT,
}
"""What may follow a model's name, and how its value looks."""

NEEDS = ("fastapi", "fastapi_offline", "uvicorn", "prometheus_client")


@click.command(short_help="Serve models over HTTP, in every rerank dialect.")
@click.option(
    "--embedder",
    "embedders",
    multiple=True,
    default=(DEFAULT_MODEL,),
    show_default=True,
    metavar="MODEL[,OPTION=VALUE]...",
    help="Repeatable; the first is the default. none: no embedder.",
)
@click.option(
    "--reranker",
    "rerankers",
    multiple=True,
    default=(BUNDLED_RERANKER,),
    show_default=True,
    metavar="MODEL[,OPTION=VALUE]...",
    help="Likewise.",
)
@click.option("--n-threads", type=click.IntRange(min=1), metavar="N", help="CPU threads of each model.")
@click.option(
    "--n-gpu-layers", type=click.IntRange(min=-1), default=-1, metavar="N", help="Of each model; -1 for all."
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Keep vectors and scores in this folder, so that each is computed once.",
)
@click.option(
    "--engine",
    type=click.Choice(("auto", "llama.cpp", "openvino")),
    default="auto",
    show_default=True,
    help="What computes; auto is the faster one.",
)
@click.option("--host", default=ServerSettings.host, show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=ServerSettings.port,
    show_default=True,
    help="0: the system chooses one.",
)
@click.option(
    "--api-key",
    envvar=VARIABLE,
    metavar="KEY",
    show_envvar=True,
    help="What callers must send as 'Authorization: Bearer KEY'. Here other users of the machine see it.",
)
@click.option(
    "--api-key-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="A file that holds the key in its first line; it comes before GGRANK_API_KEY.",
)
@click.option(
    "--cors",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let web pages of this origin ask, such as https://example.com; * is any. Repeatable.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="A name by which callers may know this server on loopback, such as a proxy's. Repeatable.",
)
@click.option(
    "--strict-models",
    is_flag=True,
    help="Refuse names of models that are not served; else the default computes.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(min=1),
    default=ServerSettings.max_bytes,
    show_default=True,
    metavar="N",
    help="Bytes of a request's body.",
)
@click.option(
    "--max-documents",
    type=click.IntRange(min=1),
    default=ServerSettings.max_documents,
    show_default=True,
    metavar="N",
    help="Documents or texts of a request.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    default=ServerSettings.max_tokens,
    show_default=True,
    metavar="N",
    help="Tokens computed for a request.",
)
@click.option(
    "--max-queue",
    type=click.IntRange(1, 4096),
    default=ServerSettings.max_queue,
    show_default=True,
    metavar="N",
    help="Requests at work or waiting.",
)
@click.option(
    "--max-queue-tokens",
    type=click.IntRange(min=1),
    default=ServerSettings.max_queue_tokens,
    show_default=True,
    metavar="N",
    help="Tokens waiting for one model.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=86400),
    default=ServerSettings.timeout,
    show_default=True,
    metavar="SECONDS",
    help="What one request may take.",
)
@click.option(
    "--health-timeout",
    type=click.FloatRange(min=0, min_open=True, max=86400),
    default=ServerSettings.health_timeout,
    show_default=True,
    metavar="SECONDS",
    help="After so long a running micro-batch counts as hanging, and /health says 503.",
)
@click.option(
    "--keep-alive",
    type=click.IntRange(1, 86400),
    default=ServerSettings.keep_alive,
    show_default=True,
    metavar="SECONDS",
    help="How long an idle connection stays open.",
)
@click.option(
    "--access-log/--no-access-log", default=True, show_default=True, help="A line for each request."
)
def serve(
    embedders: tuple[str, ...],
    rerankers: tuple[str, ...],
    n_threads: int | None,
    n_gpu_layers: int,
    cache: str | None,
    engine: str,
    api_key: str | None,
    api_key_file: str | None,
    access_log: bool,
    **limits: Any,
) -> None:
    """Serve models over HTTP until Ctrl-C or SIGTERM; requests that are in then still get their answers.

    \b
    ggrank serve
    ggrank serve --reranker bge-reranker-v2-m3 --port 9000
    ggrank serve --embedder none --reranker bge-reranker-v2-m3,n_ctx=8192

    MODEL is a preset, a file or a Hugging Face repo; OPTION is n_ctx, n_threads, n_gpu_layers, filename
    or revision, for that model alone. A page to try it is at http://127.0.0.1:8080, and what it answers at
    /docs. Needs pip install 'ggrank[server]'.
    """
    _check_extra()
    is_typed = click.get_current_context().get_parameter_source("api_key") is ParameterSource.COMMANDLINE
    if is_typed and api_key_file is not None:
        raise click.UsageError("--api-key and --api-key-file: one at a time")
    key = find_key(api_key, None if api_key_file is None else Path(api_key_file))
    settings = ServerSettings(api_key=key, **limits)
    if key is None and not settings.is_on_loopback:
        warnings.warn(
            f"anybody who reaches {settings.host} may ask; set --api-key-file or GGRANK_API_KEY",
            GgrankWarning,
            stacklevel=1,
        )
    shared = {"n_threads": n_threads, "n_gpu_layers": n_gpu_layers, "cache": cache, "engine": engine}
    chosen: list[tuple[str, str, str | None]] = [(given, "--embedder", None) for given in embedders]
    chosen += [(given, "--reranker", "rank") for given in rerankers]
    models = [read_model(*one, shared=shared) for one in chosen if one[0] != NO_MODEL]
    if not models:
        raise click.UsageError("there is no model to serve: --embedder and --reranker are both none")
    _run(models, settings, access_log=access_log)


def read_model(
    given: str, option: str, pooling_type: str | None, *, shared: Mapping[str, Any]
) -> LlamaParams:
    """What ``NAME,n_ctx=8192`` means. A path that exists is one, commas or not."""
    name, *own = [given] if Path(given).exists() else given.split(",")
    options: dict[str, Any] = dict(shared)
    for item in own:
        key, _, value = item.partition("=")
        if key not in OWN_OPTIONS or not OWN_OPTIONS[key].fullmatch(value):
            expected = f"MODEL, and {', '.join(OWN_OPTIONS)} as OPTION=VALUE"
            raise click.BadParameter(f"expected {expected}; found {item!r}", param_hint=f"'{option}'")
        options[key] = value if OWN_OPTIONS[key].pattern == ".+" else int(value)
    from ggrank import LlamaParams, PoolingType

    pooling = None if pooling_type is None else PoolingType[pooling_type.upper()]
    return LlamaParams(name, pooling_type=pooling, **options)


def _run(models: Sequence[LlamaParams], settings: ServerSettings, *, access_log: bool) -> None:
    """Listens at once, loads in a thread, says when it is ready, and ends when it is told to."""
    import uvicorn

    from ggrank.server import create_app
    from ggrank.server.service import Service

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("ggrank.server").setLevel(logging.INFO)
    service = Service(settings)
    config = uvicorn.Config(
        create_app(service, settings, access_log=access_log),
        log_config=None,
        access_log=False,  # uvicorn's lines hold query strings
        server_header=False,
        timeout_keep_alive=settings.keep_alive,
        timeout_graceful_shutdown=int(settings.timeout) + 1,
    )
    server = uvicorn.Server(config)
    _end_well(server, service)
    failures: list[BaseException] = []
    with _listen(settings) as listener:
        address = _url(settings.host, listener.getsockname()[1])
        arguments = (service, models, server, address, failures)
        threading.Thread(target=_load, args=arguments, name="ggrank-load", daemon=True).start()
        server.run(sockets=[listener])
    if failures:
        raise failures[0]


def _load(
    service: Service,
    models: Sequence[LlamaParams],
    server: uvicorn.Server,
    address: str,
    failures: list[BaseException],
) -> None:
    try:
        for params in models:
            _check_kind(params)
        service.load(models)
        names = ", ".join(served.name for served in service.models())
        click.echo(f"ggrank listens on {address} with {names}")
    except BaseException as error:
        failures.append(error)
        server.should_exit = True


def _check_kind(params: LlamaParams) -> None:
    """Raises InputError for a reranker that was given as --embedder, or the other way round."""
    from ggrank.gguf import open_gguf
    from ggrank.hub import find_model
    from ggrank.loading.heads import choose_pooling
    from ggrank.types import PoolingType

    source = find_model(params.model, filename=params.filename, revision=params.revision)
    file = open_gguf(source.path)
    own = choose_pooling(file, asked=None, preset=source.preset.pooling_type if source.preset else None)
    if params.pooling_type is not PoolingType.RANK:
        is_right, given, right, kind = own is not PoolingType.RANK, "embedder", "reranker", "a reranker"
    else:  # What says nothing of its pooling is told of when it is loaded.
        is_right = file.has_head or own in (PoolingType.UNSPECIFIED, PoolingType.RANK)
        given, right, kind = "reranker", "embedder", "an embedding model"
    if not is_right:
        raise InputError(f"--{given} {params.model}: it is {kind}; give it as --{right} {params.model}")


def _end_well(server: uvicorn.Server, service: Service) -> None:
    """Both signals end the server once its requests have their answers, and the command with 0; a second
    Ctrl-C drops them.
    """

    def stop(number: int, frame: object) -> None:
        is_second, server.should_exit = server.should_exit, True
        if is_second and number == signal.SIGINT:
            _tell("Stopped; requests without an answer are dropped.")
            os._exit(130)  # Python's own end would wait for threads that compute, or end beneath them.
        if service.n_requests and not is_second:
            count = console.count(service.n_requests, "request")
            _tell(f"Stopping once {count} got an answer. Ctrl-C stops at once.")

    server.handle_exit = stop  # type: ignore[method-assign, assignment]  # what uvicorn installs while it runs
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _tell(line: str) -> None:
    """To stderr from a signal handler, where what buffers may be in the middle of something."""
    os.write(2, f"{line}\n".encode())


def _listen(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot listen on {_url(settings.host, settings.port)}: {reason}; choose another --host or "
            "--port (0: the system chooses one)"
        ) from error


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _check_extra() -> None:
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise InputError(f"ggrank serve needs {', '.join(missing)}: pip install 'ggrank[server]'")
