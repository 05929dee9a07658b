"""A machine that is gone with all that was on it, and what its backup brings back elsewhere."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
from sqlalchemy import make_url

from app.config import Settings
from tests.conftest import new_postgres_database
from tests.factory import World
from tests.faults.checks import assert_one_end, assert_right
from tests.faults.conftest import MakeSite
from tests.faults.postgres import _tools
from tests.faults.processes import Site
from tests.faults.undisturbed import Undisturbed
from tests.servers import RedisServer, S3Server
from workers.runtime import make_runtime

CLI = [sys.executable, "-c", "from app.cli import main; main()"]


def with_work_done_and_work_waiting(site: Site, world: World) -> tuple[str, str]:
    """A job that has succeeded, by a worker's work in this process, and one that nobody took."""
    site.start_api()
    adapter = site.upload(world.adapter)
    done = site.submit(adapter)
    with patch.dict(os.environ, site.environment()):
        worker = make_runtime(Settings())
        try:
            assert worker.run(done) == "succeeded"
        finally:
            worker.desk.records.close()
    return done, site.submit(adapter)


def assert_all_is_back(
    site: Site, done: str, waiting: str, digest: str, undisturbed: Undisturbed
) -> None:
    """With a Redis that knows nothing: what was done is there, and what waited is done."""
    site.start_api()
    site.start_worker()
    assert site.http.get(f"/v1/jobs/{done}/adapter").headers["Repr-Digest"] == digest
    assert_right(site, site.job(done), undisturbed)
    job = site.await_end(waiting)
    assert (job.status, job.attempts) == ("succeeded", 1)
    assert_one_end(site, job)
    assert_right(site, job, undisturbed)


def digest_of(site: Site, job: str) -> str:
    return site.http.get(f"/v1/jobs/{job}/adapter").headers["Repr-Digest"]


@contextmanager
def elsewhere(site: Site, data: Path, database_url: str, **settings: str) -> Iterator[Site]:
    """A site of the same settings, with a Redis of its own and nothing started."""
    redis = RedisServer()
    redis.start()
    (data / "staging").mkdir(parents=True, exist_ok=True)
    given = {**site.settings, **settings}
    other = Site(data, site.model_root, redis, database_url, given)
    try:
        yield other
    finally:
        other.close()
        redis.remove()


def run(settings: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [*CLI, *words], env={**os.environ, **settings}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_machine_is_restored_from_a_folder(
    make_site: MakeSite, world: World, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """`adapter-safety backup` while the API serves, `adapter-safety restore` where nothing is."""
    url = f"sqlite:///{tmp_path / 'data' / 'records.sqlite3'}"
    site = make_site(database_url=url)
    done, waiting = with_work_done_and_work_waiting(site, world)
    digest = digest_of(site, done)
    saved = run({"ADAPTER_SAFETY_DATA_DIR": str(site.data)}, "backup", str(tmp_path / "backup"))
    assert saved.startswith(f"saved in {tmp_path}/backup: the database at ")
    site.close()
    site.data.rename(tmp_path / "gone")
    new = tmp_path / "new"
    run({"ADAPTER_SAFETY_DATA_DIR": str(new)}, "restore", str(tmp_path / "backup"))
    with elsewhere(site, new, f"sqlite:///{new}/records.sqlite3") as other:
        assert_all_is_back(other, done, waiting, digest, undisturbed)


def test_postgresql_and_a_bucket_are_restored_from_a_dump_and_a_copy(
    make_site: MakeSite, world: World, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """The database first, then the bucket: docs/backup.md has these commands."""
    with ExitStack() as stack:
        s3 = S3Server()
        stack.callback(s3.stop)
        s3.start()
        old, new = (stack.enter_context(contextmanager(new_postgres_database)()) for _ in range(2))
        site = make_site(database_url=old)
        site.settings.update({**s3.environment, "ADAPTER_SAFETY_STORAGE_URL": s3.url("old")})
        done, waiting = with_work_done_and_work_waiting(site, world)
        digest = digest_of(site, done)
        dump(old, tmp_path / "records.dump")
        copy(s3, "old", "new")
        site.close()
        empty(s3, "old")
        load(new, tmp_path / "records.dump")
        moved = {"ADAPTER_SAFETY_STORAGE_URL": s3.url("new")}
        with elsewhere(site, tmp_path / "new", new, **moved) as other:
            assert_all_is_back(other, done, waiting, digest, undisturbed)


def dump(url: str, into: Path) -> None:
    tool("pg_dump", "--format=custom", f"--file={into}", f"--dbname={plain(url)}")


def load(url: str, source: Path) -> None:
    tool("pg_restore", "--exit-on-error", "--no-owner", f"--dbname={plain(url)}", str(source))


def tool(name: str, *words: str) -> None:
    subprocess.run([_tools() / name, *words], check=True, timeout=60)


def plain(url: str) -> str:
    """As PostgreSQL's own tools take it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def bucket(s3: S3Server) -> Any:
    login = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    where = {"endpoint_url": s3.environment["AWS_ENDPOINT_URL"], "region_name": "us-east-1"}
    return boto3.resource("s3", **where, **login).Bucket(S3Server.BUCKET)


def copy(s3: S3Server, source: str, target: str) -> None:
    """As `aws s3 sync` does from one bucket to another."""
    found = bucket(s3)
    for each in found.objects.filter(Prefix=f"{source}/"):
        key = each.key.replace(source, target, 1)
        found.Object(key).copy_from(CopySource={"Bucket": S3Server.BUCKET, "Key": each.key})


def empty(s3: S3Server, prefix: str) -> None:
    bucket(s3).objects.filter(Prefix=f"{prefix}/").delete()
