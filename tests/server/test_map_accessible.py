"""axe-core finds no violation on the map, in both themes and the layouts of a desk and a phone, nor with two heads."""

import pytest

from tests.server.serving import text_head
from tests.server.test_map_browser import opened
from tests.view.test_accessible import axe, violations

__all__ = ["axe"]
pytestmark = pytest.mark.browser


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_map_has_no_violation(browser, axe, dark, width):
    with opened(browser, text_head(521), width=width) as there:
        there.page.emulate_media(color_scheme="dark" if dark else "light")
        assert "\n".join(violations(there.page, axe)) == ""
        there.complaints.clear()


def test_two_heads_have_none_either(browser, axe):
    with opened(browser, text_head(521), text_head(521)) as there:
        there.page.locator("#other").select_option(index=2)
        there.page.wait_for_selector("#pane-1:not([hidden])")
        there.settle()
        assert "\n".join(violations(there.page, axe)) == ""
        there.complaints.clear()
