"""The tables of the docs say what the files of results say."""

import importlib
import json
import sys

import pytest

from benchmarks import table


def test_the_page_and_the_readme_are_made_from_the_results():
    found = table.results()
    again = "python benchmarks/table.py"
    assert table.PAGE.read_text() == table.page(found), again
    text = table.README.read_text()
    assert text == table.readme(text, found["attend-cpu"]), again
    assert set(table.CASES) <= {case["case"] for case in found["attend-cpu"]["cases"]}


def test_the_readme_shows_each_peer_s_ratio_in_its_column():
    timing = {"seconds": 0.1, "ratio": 2.5, "low": 2.0, "high": 3.0}
    case = {"case": "softcap, N = 8192", "dtype": "bfloat16", "direction": "forward"}
    rows = {"headscope": timing | {"ratio": 1.0}, "SDPA": timing, "formula": timing}
    made = table.short({"cases": [case | {"rows": rows}, {"case": "memory", "dtype": "float32", "rows": {}}]})
    assert made.splitlines()[2:] == ["| softcap, N = 8192 | SDPA |  |  | 2.50 |  |"]


@pytest.mark.parametrize("name", ["attend-cpu", "layer-cpu"])
def test_a_peer_that_is_faster_has_a_reason_beside_it(name):
    page = table.long(name, table.results()[name])
    for case in table.results()[name]["cases"]:
        if case["case"] == "limits" or case["case"].startswith("own cost"):
            continue  # no peers: the machine's limits, and the parts of the layer itself
        for who, row in case["rows"].items():
            if table.clearly_faster(row):
                why = table.reason(case["case"], who)
                assert why, f"{case['case']}: {who} takes {row['ratio']} of the time"
                assert f"*{who} is faster: {why}.*" in page


def test_a_result_that_changes_changes_the_page():
    found = table.results()
    other = json.loads(json.dumps(found))
    other["attend-cpu"]["cases"][0]["case"] = "something else"
    assert table.page(found) != table.page(other)


def test_a_benchmark_is_measured_in_parts_on_one_machine(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(table.HERE)
    timing = importlib.import_module("timing")
    one = timing.Timing(0.1, 1.0, 1.0, 1.0)

    def measured(*cases, keep, ratio=1.0):
        report = timing.Report("parts", "?")
        for case in cases:
            report.add(case, {"headscope": one, "peer": timing.Timing(0.1, ratio, 1.0, 1.0)}, dtype="float32")
        found = json.loads(report.write(tmp_path, keep=keep).read_text())["cases"]
        return {case["case"]: case["rows"]["peer"]["ratio"] for case in found}

    assert measured("a", "b", keep=True) == {"a": 1.0, "b": 1.0}
    assert measured("c", "a", keep=True, ratio=2.0) == {"a": 2.0, "b": 1.0, "c": 2.0}
    monkeypatch.setattr(timing, "machine", lambda device: {"device": "another"})
    assert measured("b", keep=True) == {"b": 1.0}
    assert measured("a", keep=False) == {"a": 1.0}
    sys.modules.pop("timing")


@pytest.mark.parametrize("model", ["Mistral, window 64", "gpt-oss, window 64, sinks"])
def test_generation_is_compared_with_a_peer_that_writes_the_same_tokens(model, monkeypatch, capsys):
    pytest.importorskip("transformers")
    monkeypatch.syspath_prepend(table.HERE)
    generate, timing = importlib.import_module("generate"), importlib.import_module("timing")
    report = timing.Report("generate", "?")
    made = generate.pair(generate.configurations(layers=2)[model], "cpu")
    inputs = generate.prompt(2, 17, "cpu")
    generate.measure(report, "case", made, inputs, new=2, rounds=1, how={})
    peer = "eager" if "gpt" in model else "sdpa"
    assert list(report.cases[0]["rows"]) == [peer, "headscope"]
    assert f"| {peer} |" in capsys.readouterr().out
    # A peer that writes other tokens is never timed.
    made[2].lm_head.weight.data.neg_()
    with pytest.raises(SystemExit, match="different tokens"):
        generate.measure(report, "case", made, inputs, new=2, rounds=1, how={})
    for name in ("generate", "timing"):
        sys.modules.pop(name)
