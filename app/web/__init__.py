"""The page: static files that `app.api.page` serves. No build step, nothing from elsewhere."""
