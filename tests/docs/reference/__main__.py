"""Write the pages: `python -m tests.docs.reference`."""

from tests.docs.reference.pages import FOLDER, PAGES

for name, page in PAGES.items():
    (FOLDER / name).write_text(page(), encoding="utf-8")
