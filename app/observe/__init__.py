"""What the service says of itself: log lines, figures, traces. Below the use cases, so that they
may name what they are at; nothing here knows HTTP, Celery or the settings."""
