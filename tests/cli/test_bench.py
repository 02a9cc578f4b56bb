import pytest
import typer

from headscope.cli import bench as benches
from headscope.cli.app import run
from headscope.errors import MissingExtra


def test_benchmarks_are_listed(capsys):
    assert run(["bench"]) == 0
    shown = capsys.readouterr().out
    assert "attend" in shown
    assert "timing" not in shown


def test_an_unknown_benchmark_is_named(capsys):
    assert run(["bench", "nothing"]) == 2
    assert "there is no benchmark 'nothing'; there are" in capsys.readouterr().err
    with pytest.raises(typer.BadParameter, match="there is no benchmark 'nothing'; there are .*attend"):
        run(["bench", "nothing", "--debug"])


def test_one_case_runs_and_reports_ratios(capfd):
    assert run(["bench", "attend", "--only", "decode", "--rounds", "3"]) == 0
    shown = capfd.readouterr().out
    assert "decode, 32 heads on 8" in shown
    assert "SDPA" in shown


def test_an_installation_without_benchmarks_says_where_they_are(monkeypatch, tmp_path):
    monkeypatch.setattr(benches, "HERE", tmp_path / "a" / "b" / "c" / "d.py")
    with pytest.raises(MissingExtra, match="the benchmarks are not installed here"):
        benches.folder()
