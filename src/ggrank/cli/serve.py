"""``ggrank serve``: embedders and rerankers over HTTP, in the dialects that others speak."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ggrank.cli import console
from ggrank.cli.options import BUNDLED_RERANKER, DEFAULT_MODEL, ENGINES, with_options
from ggrank.errors import GgrankWarning, InputError
from ggrank.server.settings import KEY_VARIABLE, ServerSettings, find_key

if TYPE_CHECKING:
    import uvicorn

    from ggrank import LlamaParams
    from ggrank.server.service import Service

NO_MODEL = "none"

WHOLE, TEXT = re.compile(r"-?\d{1,9}", re.ASCII), re.compile(r".+")
POOLING = re.compile("mean|cls|last")
OWN_OPTIONS = {
    **dict.fromkeys(("n_ctx", "n_threads", "n_gpu_layers"), WHOLE),
    **dict.fromkeys(("filename", "revision"), TEXT),
    "pooling_type": POOLING,
}
"""What may follow a model's name, and how its value looks."""

MOST_CONNECTIONS = 900
"""More are answered with 503; most systems let a process have 1,024 files and sockets."""

NEEDS = ("fastapi", "fastapi_offline", "orjson", "uvicorn", "prometheus_client")

_N, _SECONDS = click.IntRange(min=1), click.FloatRange(min=0, min_open=True, max=86400)
OPTIONS: tuple[tuple[str, Any, str | None, str], ...] = (
    ("n_threads", _N, "N", "CPU threads of each model."),
    ("n_gpu_layers", click.IntRange(min=-1), "N", "Layers of each model on the GPU; all by default."),
    ("cache", click.Path(file_okay=False), "DIR", "Compute each vector and score once, and keep it here."),
    ("engine", click.Choice(ENGINES), None, "Which library computes. [default: auto, the faster one]"),
    ("host", str, "HOST", "The address to listen on."),
    ("port", click.IntRange(0, 65535), "PORT", "0: the system chooses one."),
    (
        "api_key_file",
        click.Path(dir_okay=False),
        "FILE",
        "File whose first line is the key; overrides GGRANK_API_KEY.",
    ),
    ("max_bytes", _N, "N", "Most bytes of a request's body."),
    ("max_documents", _N, "N", "Most documents or texts of a request."),
    ("max_tokens", _N, "N", "Most tokens computed for a request."),
    ("max_queue", click.IntRange(1, 4096), "N", "Most requests running or waiting."),
    ("max_queue_tokens", _N, "N", "Most tokens waiting for one model."),
    ("timeout", _SECONDS, "SECONDS", "Seconds that a request may take."),
    ("health_timeout", _SECONDS, "SECONDS", "/health answers 503 if a micro-batch takes longer."),
    ("keep_alive", click.IntRange(1, 86400), "SECONDS", "How long an idle connection stays open."),
    (
        "idle_unload",
        _SECONDS,
        "MINUTES",
        "Unload a model after this time without a request. [default: never]",
    ),
)
"""Options with one value; their defaults are those of `ServerSettings` and `LlamaParams`."""


def _valued_option(name: str, value: Any, metavar: str | None, text: str) -> Callable[..., Any]:
    default, flag = getattr(ServerSettings, name, None), f"--{name.replace('_', '-')}"
    shown = default is not None
    return click.option(flag, type=value, default=default, show_default=shown, metavar=metavar, help=text)


def _repeatable(flag: str, name: str, metavar: str, text: str, **more: Any) -> Callable[..., Any]:
    return click.option(flag, name, multiple=True, metavar=metavar, help=text, **more)


def _model_option(role: str, default: str, text: str) -> Callable[..., Any]:
    more = {"default": (default,), "show_default": True}
    return _repeatable(f"--{role}", f"{role}s", "MODEL[,OPTION=VALUE]...", text, **more)


@click.command(short_help="Serve models over HTTP, in every rerank dialect.")
@_model_option(
    "embedder", DEFAULT_MODEL, "An embedding model. Repeatable; the first is the default. none: no embedder."
)
@_model_option(
    "reranker", BUNDLED_RERANKER, "A reranker. Repeatable; the first is the default. none: no reranker."
)
@with_options(*(_valued_option(*option) for option in OPTIONS))
@click.option(
    "--api-key",
    envvar=KEY_VARIABLE,
    metavar="KEY",
    show_envvar=True,
    help="What callers must send as 'Authorization: Bearer KEY'. Other users of the machine can see it.",
)
@_repeatable(
    "--cors", "cors_origins", "ORIGIN", "Allow requests from web pages of this origin; * is any. Repeatable."
)
@_repeatable(
    "--allowed-host",
    "allowed_hosts",
    "NAME",
    "Accept this Host header, such as a proxy's name for this server. Repeatable.",
)
@click.option(
    "--index",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    metavar="DIR",
    help="An index that `ggrank index` made: POST /search, and a search box on the page.",
)
@click.option("--strict-models", is_flag=True, help="Refuse names of models that are not served.")
@click.option("--access-log/--no-access-log", default=True, show_default=True, help="Log each request.")
def serve(
    embedders: tuple[str, ...],
    rerankers: tuple[str, ...],
    api_key: str | None,
    api_key_file: str | None,
    access_log: bool,
    **options: Any,
) -> None:
    """Serve models over HTTP until Ctrl-C or SIGTERM; running requests still get their answers.

    \b
    ggrank serve
    ggrank serve --reranker bge-reranker-v2-m3 --port 9000
    ggrank serve --index notes/.ggrank
    ggrank serve --embedder none --reranker bge-reranker-v2-m3,n_ctx=8192

    MODEL is a preset, a file or a Hugging Face repo; OPTION is n_ctx, n_threads, n_gpu_layers, filename,
    revision or pooling_type (mean, cls, last), for that model alone. There is a page to try it at
    http://127.0.0.1:8080, and a description of all paths at /docs. Needs pip install 'ggrank[server]'.
    """
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise InputError(f"ggrank serve needs {', '.join(missing)}: pip install 'ggrank[server]'")
    is_typed = click.get_current_context().get_parameter_source("api_key") is ParameterSource.COMMANDLINE
    if is_typed and api_key_file is not None:
        raise click.UsageError("--api-key and --api-key-file: one at a time")
    key = find_key(api_key, None if api_key_file is None else Path(api_key_file))
    shared = {name: options.pop(name) for name in ("n_threads", "n_gpu_layers", "cache", "engine")}
    settings = ServerSettings(api_key=key, **options)
    if key is None and not settings.is_on_loopback:
        warnings.warn(
            f"everyone who can reach {settings.host} may ask; set --api-key-file or GGRANK_API_KEY",
            GgrankWarning,
            stacklevel=1,
        )
    chosen = [("embedder", one) for one in embedders] + [("reranker", one) for one in rerankers]
    models = [read_model(given, role, shared=shared) for role, given in chosen if given != NO_MODEL]
    if not models:
        raise click.UsageError("there is no model to serve: --embedder and --reranker are both none")
    _run(models, settings, access_log=access_log)


def read_model(given: str, role: str, *, shared: Mapping[str, Any]) -> LlamaParams:
    """Reads ``NAME,n_ctx=8192``; a path that exists may have commas."""
    name, *own = [given] if Path(given).exists() else given.split(",")
    options = {key: value for key, value in shared.items() if value is not None}
    for item in own:
        key, _, value = item.partition("=")
        if key not in OWN_OPTIONS or not OWN_OPTIONS[key].fullmatch(value):
            expected = f"MODEL, and {', '.join(OWN_OPTIONS)} as OPTION=VALUE"
            raise click.BadParameter(f"expected {expected}; found {item!r}", param_hint=f"'--{role}'")
        options[key] = int(value) if OWN_OPTIONS[key] is WHOLE else value
    from ggrank import LlamaParams, PoolingType

    if role == "reranker":
        options["pooling_type"] = PoolingType.RANK
    return LlamaParams(name, **options)


def _run(models: Sequence[LlamaParams], settings: ServerSettings, *, access_log: bool) -> None:
    """Listens at once, loads in a thread, says when it is ready, and ends on a signal."""
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
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=int(settings.timeout) + 1,
    )
    server = uvicorn.Server(config)
    _end_well(server, service)
    failures: list[BaseException] = []

    def load(address: str) -> None:
        try:
            for params in models:
                _check_role(params)
            service.load(models)
            names = ", ".join(served.name for served in service.models())
            click.echo(f"ggrank listens on {address} with {names}")
        except BaseException as error:
            failures.append(error)
            server.should_exit = True

    with _listen(settings) as listener:
        address = _url(settings.host, listener.getsockname()[1])
        threading.Thread(target=load, args=(address,), name="ggrank-load", daemon=True).start()
        server.run(sockets=[listener])
    if failures:
        raise failures[0]


def _check_role(params: LlamaParams) -> None:
    """Raises InputError for a reranker that is given as --embedder, or the other way round."""
    from ggrank.gguf import open_gguf
    from ggrank.hub import find_model
    from ggrank.loading.heads import choose_pooling
    from ggrank.types import PoolingType

    source = find_model(params.model, filename=params.filename, revision=params.revision)
    file = open_gguf(source.path)
    own = choose_pooling(file, asked=None, preset=source.preset.pooling_type if source.preset else None)
    name = params.model
    if params.pooling_type is not PoolingType.RANK and own is PoolingType.RANK:
        raise InputError(f"--embedder {name}: it is a reranker; give it as --reranker {name}")
    # A file that says nothing of its pooling is refused when it is loaded.
    can_rerank = file.has_head or own in (PoolingType.UNSPECIFIED, PoolingType.RANK)
    if params.pooling_type is PoolingType.RANK and not can_rerank:
        raise InputError(f"--reranker {name}: it is an embedding model; give it as --embedder {name}")


def _end_well(server: uvicorn.Server, service: Service) -> None:
    """Both signals end the server once its requests have their answers; a second Ctrl-C drops them."""

    def stop(number: int, frame: object) -> None:
        line, is_second, server.should_exit = "", server.should_exit, True
        if is_second and number == signal.SIGINT:
            os.write(2, b"Stopped; requests without an answer are dropped.\n")
            os._exit(130)  # Python's own end would wait for threads that compute, or end beneath them.
        if service.n_requests and not is_second:
            count = console.count(service.n_requests, "request")
            line = f"Stopping once {count} got an answer. Ctrl-C stops at once.\n"
        os.write(2, line.encode())  # without buffers, which may be in the middle of something

    server.handle_exit = stop  # type: ignore[method-assign, assignment]  # what uvicorn installs while it runs
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


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
