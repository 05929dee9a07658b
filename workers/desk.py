"""Where a worker's processes take jobs from. Imports no torch: the parent uses it too."""

from app.config import Settings
from app.jobs.run import Desk
from app.storage.events import RedisEvents
from app.storage.queue import CeleryQueue
from app.storage.records import SqlRecords
from workers.health import signs
from workers.stopping import stop_sign


def make_desk(settings: Settings) -> Desk:
    return Desk(
        records=SqlRecords(settings.resolved_database_url),
        events=RedisEvents(settings.resolved_redis_url, kept_s=settings.events_kept_s),
        queue=CeleryQueue(
            settings.resolved_redis_url, visibility_timeout_s=settings.visibility_timeout_s
        ),
        lease_s=settings.lease_s,
        coalesce=settings.coalesce,
        is_stopping=stop_sign.is_up,
        on_beat=signs.sign,
    )
