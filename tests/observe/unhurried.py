"""The product's worker, whose modules wait as long as there is a file `hold` in the data folder."""

import threading

from celery.signals import worker_process_init

from workers.celery_app import app, settings

__all__ = ["app"]


@worker_process_init.connect
def _hold(**_: object) -> None:
    import workers.pipeline

    own = workers.pipeline._module

    def held(*arguments: object) -> None:
        pause = threading.Event()
        while (settings.data_dir / "hold").exists():
            pause.wait(0.05)
        own(*arguments)

    workers.pipeline._module = held
