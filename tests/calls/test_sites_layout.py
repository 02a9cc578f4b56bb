"""A place where attention is called is one file and one entry: nothing else of the package names it."""

import inspect

from headscope.calls import sites
from tests import imports
from tests.test_layout import SOURCE


def test_every_site_is_a_file_of_its_own_or_shares_one_with_its_library():
    files = {}
    for site in sites.SITES:
        files.setdefault(inspect.getfile(type(site)), []).append(site.name)
    there = {path for path in (SOURCE / "calls" / "sites").glob("*.py") if path.stem not in ("__init__", "site")}
    assert {str(path) for path in there} == set(files)


def test_only_the_list_and_the_interception_name_a_site():
    named = {
        (one.importer, one.imported)
        for one in imports.imports(SOURCE)
        if one.imported.startswith("headscope.calls.sites.") and not one.importer.startswith("headscope.calls.sites")
    }
    # Attention by hand has no function that could be replaced: the interception asks it about every function there is.
    assert named == {("headscope.calls.interception", "headscope.calls.sites.by_hand")}
