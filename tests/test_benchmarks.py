"""The tables of the docs say what the files of results say."""

import json

from benchmarks import table


def test_the_page_and_the_readme_are_made_from_the_results():
    found = table.results()
    again = "python benchmarks/table.py"
    assert table.PAGE.read_text() == table.page(found), again
    text = table.README.read_text()
    assert text == table.readme(text, found["attend-cpu"]), again


def test_the_readme_shows_each_peer_s_ratio_in_its_column():
    timing = {"seconds": 0.1, "ratio": 2.5, "low": 2.0, "high": 3.0}
    case = {"case": "a window", "dtype": "bfloat16", "direction": "forward"}
    rows = {"headscope": timing | {"ratio": 1.0}, "SDPA": timing, "formula": timing}
    made = table.short({"cases": [case | {"rows": rows}, {"case": "memory", "dtype": "float32", "rows": {}}]})
    assert made.splitlines()[2:] == ["| a window | SDPA |  |  | 2.50 |  |"]


def test_a_result_that_changes_changes_the_page():
    found = table.results()
    other = json.loads(json.dumps(found))
    other["attend-cpu"]["cases"][0]["case"] = "something else"
    assert table.page(found) != table.page(other)
