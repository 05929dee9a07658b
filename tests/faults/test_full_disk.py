"""A data folder on a disk that is full."""

import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
from app.domain.job import Job
from tests.factory import World
from tests.faults.checks import assert_all_is_well, assert_nothing_left, files_under, problem
from tests.faults.conftest import MakeSite
from tests.faults.processes import Site, frozen, until
from tests.faults.small_disk import SmallDisk, small_disk
from tests.faults.undisturbed import Undisturbed
from tests.uploads import parts

DISK_BYTES = 16 << 20
ROOM_FOR_A_FOLDER = 64 << 10


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "data", DISK_BYTES) as mounted:
        yield mounted


@pytest.fixture
def cramped(disk: SmallDisk, make_site: MakeSite) -> Site:
    """A site whose staging and artifacts are on that disk, its database elsewhere."""
    site = make_site()
    site.start_api()
    return site


@pytest.mark.parametrize("copies", [0, 0.5, 1.5])
def test_an_upload_to_a_full_disk_is_answered_as_a_problem_and_leaves_nothing(
    cramped: Site, disk: SmallDisk, world: World, copies: float
) -> None:
    """There is room for so many copies: staging takes the first, the store the second."""
    weights = (world.adapter / WEIGHTS_FILE).stat().st_size
    disk.fill(but_bytes=ROOM_FOR_A_FOLDER * bool(copies) + int(copies * weights))
    answer = cramped.http.post("/v1/adapters", files=parts(world.adapter))
    assert answer.status_code == 503
    assert problem(answer)["type"].endswith(":unavailable")
    assert list(cramped.staging.iterdir()) == []
    disk.free()
    cramped.upload(world.adapter)
    assert_nothing_left(cramped)


def test_an_archive_that_finds_no_room_unpacked_is_answered_as_a_problem(
    cramped: Site, disk: SmallDisk, world: World
) -> None:
    packed = zipped(world.adapter)
    disk.fill(but_bytes=ROOM_FOR_A_FOLDER + int(1.5 * len(packed)))
    answer = cramped.http.post("/v1/adapters", files={"archive": ("adapter.zip", packed)})
    assert (answer.status_code, problem(answer)["part"]) == (503, "storage")
    assert_nothing_left(cramped)


def test_a_job_that_finds_no_room_waits_and_succeeds_when_there_is(
    cramped: Site, disk: SmallDisk, world: World, undisturbed: Undisturbed
) -> None:
    cramped.start_worker()
    adapter = cramped.upload(world.adapter)
    cramped.await_workers()
    disk.fill()
    job = cramped.submit(adapter)
    given_back(cramped, job)
    disk.free()
    assert_all_is_well(cramped, {job: 1}, undisturbed)


def test_a_job_whose_result_finds_no_room_waits_and_succeeds_when_there_is(
    cramped: Site, disk: SmallDisk, world: World, undisturbed: Undisturbed
) -> None:
    """The disk fills up in the middle of the job."""
    cramped.start_worker()
    job = cramped.submit(cramped.upload(world.adapter))
    cramped.await_module(job)
    with frozen(cramped.workers[0]):
        disk.fill()
    given_back(cramped, job)
    until(lambda: files_under(cramped.staging) == [], "what the attempt had written is gone")
    disk.free()
    assert_all_is_well(cramped, {job: 1}, undisturbed)


def zipped(folder: Path) -> bytes:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            archive.write(folder / name, name)
    return packed.getvalue()


def given_back(site: Site, job: str) -> None:
    """At some moment: it is soon taken up again, and given back again."""

    def let_go() -> Job | None:
        found = site.job(job)
        return found if found.fence and found.status != "running" else None

    found = until(let_go, "the job is let go")
    assert (found.status, found.attempts) == ("queued", 0), found.fault
