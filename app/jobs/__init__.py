"""The use cases, as plain functions over the ports. HTTP and Celery are two doors to them."""
