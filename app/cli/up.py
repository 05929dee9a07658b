"""`adapter-safety up`: API, worker and broker on this machine; one Ctrl-C stops all."""

import os
import sys
from typing import Annotated

import typer

from app.cli.exits import FAILED, explained, fail
from app.config import LOOPBACK, Settings
from app.domain.access import live
from app.domain.errors import InvalidField
from app.supervisor.errors import PortTaken, SupervisorError
from app.supervisor.up import run_up


def up(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on; 0 takes a free one")] = 8000,
    verbose: Annotated[bool, typer.Option(help="show the parts' logs here")] = False,
) -> None:
    """Run the whole service on this machine until Ctrl-C."""
    with explained():
        settings = _prepared()
        auth = _auth(host, settings)
    try:
        code = run_up(
            data_dir=settings.data_dir,
            host=host,
            port=port,
            redis_url=settings.redis_url,
            environment={
                "ADAPTER_SAFETY_LOG_FORMAT": "console",  # unless it is set: a person reads these
                **os.environ,
                "ADAPTER_SAFETY_DATA_DIR": str(settings.data_dir.absolute()),
                "ADAPTER_SAFETY_AUTH": auth,
            },
            api_command=_api_command,
            worker_command=_worker_command(),
            on_ready=lambda url: _say_ready(url, settings),
            verbose=verbose,
        )
    except PortTaken as error:
        raise fail(f"{error} Choose another with --port; 0 takes a free one.", FAILED) from error
    except SupervisorError as error:
        raise fail(str(error), FAILED) from error
    raise typer.Exit(code)


def _prepared() -> Settings:
    """Settings, with their folders made and the database at this version's schema."""
    from app.storage.migrate import upgrade  # here: it takes 0.2 s that no other command needs

    settings = Settings()
    root = settings.model_root
    if root is not None and not root.is_dir():
        reason = f"ADAPTER_SAFETY_MODEL_ROOT is {root}, which is no folder"
        raise InvalidField(field="model_root", reason=reason)
    for folder in (settings.data_dir, settings.resolved_model_root, settings.staging_dir):
        folder.mkdir(parents=True, exist_ok=True)
    upgrade(settings.resolved_database_url)
    return settings


def _auth(host: str, settings: Settings) -> str:
    """Whether requests need a key. Raises InvalidField for an address that others can reach, where
    nobody has one."""
    if host in LOOPBACK:
        return settings.auth or "none"
    if settings.auth == "none":
        reason = f"none is for an address that only this machine reaches, not {host}"
        raise InvalidField(field="ADAPTER_SAFETY_AUTH", reason=reason)
    if not _has_keys(settings):
        reason = (
            f"others can reach {host}, and there is no API key yet; make one first: "
            "adapter-safety keys create --name NAME --scope submit,read"
        )
        raise InvalidField(field="--host", reason=reason)
    return "keys"


def _has_keys(settings: Settings) -> bool:
    from app.storage.keys import SqlKeys  # here, as `upgrade` below

    kept = SqlKeys(settings.resolved_database_url)
    try:
        return bool(live(kept.all()))
    finally:
        kept.close()


def _say_ready(url: str, settings: Settings) -> None:
    typer.echo(f"adapter-safety is ready at {url} (API description: {url}/docs)")
    typer.echo(f"data: {settings.data_dir.absolute()}")
    typer.echo(f"models: {settings.resolved_model_root.absolute()}")
    typer.echo("Ctrl-C stops all")
    sys.stdout.flush()


def _api_command(descriptor: int) -> list[str]:
    factory = ["--factory", "app.main:create_app", "--fd", str(descriptor)]
    plain = ["--no-proxy-headers", "--no-server-header"]  # proxies are trusted by our own setting
    return [sys.executable, "-m", "uvicorn", *factory, *plain, "--timeout-graceful-shutdown", "3"]


def _worker_command() -> list[str]:
    pool = ["--pool", "prefork", "--concurrency", "1"]
    quiet = ["--without-gossip", "--without-mingle", "--loglevel", "INFO"]
    return [sys.executable, "-m", "celery", "-A", "workers.celery_app", "worker", *pool, *quiet]
