"""What the pages say to run does what they say: every snippet and command of every page, from top to bottom."""

from __future__ import annotations

import pytest

from tests.documents.expectations import CHECKS, GIVEN
from tests.documents.pages import PAGES, RUN, SHOWN, read_blocks, read_items
from tests.documents.rules import RULES, all_items, find_rule
from tests.documents.run import PageRun

WITH_CODE = [name for name in PAGES if read_items(name)]


@pytest.mark.parametrize("page", WITH_CODE)
def test_a_page_does_what_it_says(page, workplace, capsys, request):
    run = PageRun(page, capsys, GIVEN.get(page, dict)(), lambda: request.getfixturevalue("warm_environment") / "bin")
    run.run()
    if page in CHECKS:
        CHECKS[page](run)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_in_a_language_that_is_run_or_shown(page):
    for block in read_blocks(page):
        assert block.language in (*RUN, *SHOWN), (
            f"{page} has a block of {block.language or 'no language'}:\n{block.text}"
        )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.match)
def test_what_is_done_otherwise_than_a_page_says_is_still_on_a_page(rule):
    assert any(find_rule(item) is rule for item in all_items()), f"stale: nothing on a page is {rule.match}"
    assert (not rule.needs) == bool(rule.add or rule.replace[0])


def test_expectations_are_of_pages_that_are_there():
    assert {*CHECKS, *GIVEN} <= set(WITH_CODE)
