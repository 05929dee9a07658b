"""The proof's page, from rows; and that rows in the cache are not made again."""

from dataclasses import replace
from pathlib import Path

import pytest

from app.demo.safety_table import Search
from tests.demo.test_safety_table import ROWS
from tests.lab.proof import kept
from tests.lab.proof_page import lines, write_page

SEEDS = [*ROWS, *(replace(row, seed=4, skill=row.harm) for row in ROWS)]


def test_the_page_has_means_over_seeds_and_a_table_of_each(tmp_path: Path) -> None:
    write_page(SEEDS, Search(evaluations=12), tmp_path / "proof.md")
    page = (tmp_path / "proof.md").read_text()
    assert "--seeds 3 4 --evaluations 12 --page" in page
    assert "within 12 evaluations" in page
    assert "| benign | scale | 0.95 [0.95, 0.95] | 0.00 [0.00, 0.00] | 0.51 [0.05, 0.96] |" in page
    assert page.count("\n## Seed ") == 2
    assert "- seed 4, poisoned: every way refuses fewer" in page
    assert "cannot show" in page
    assert max(len(line) for line in page.splitlines() if not line.startswith(("|", "-"))) < 600


def test_the_chat_model_comes_once_a_seed_though_each_adapter_brings_it() -> None:
    twice = [*ROWS[:7], ROWS[0], *ROWS[7:]]
    assert list(lines(twice, Search())) == list(lines(ROWS, Search()))


def test_a_way_of_which_nothing_held_has_a_star() -> None:
    (last,) = [line for line in lines([*ROWS[:-1], replace(ROWS[-1], held=False)], Search())
               if line.startswith("| poisoned | scale \\* | a setting")]  # fmt: skip
    assert "0.80" in last


def test_rows_in_the_cache_are_not_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[int] = []

    def make() -> list:  # type: ignore[type-arg] # of anything
        made.append(1)
        return ROWS

    file = tmp_path / "0-benign" / "rows.json"
    assert kept(file, make) == ROWS
    assert kept(file, make) == ROWS
    assert made == [1]
    assert str(file) in capsys.readouterr().out
