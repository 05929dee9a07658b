"""The product's worker behind a broker that hands a message out again after half a second."""

from workers.celery_app import app

__all__ = ["app"]

app.conf.broker_transport_options |= {
    "visibility_timeout": 0.5,
    "unacked_restore_interval": 0.1,
    "unacked_restore_throttle": 1,
}
