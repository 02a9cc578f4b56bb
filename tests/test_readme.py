"""The README: its code runs, its test command is where CI looks for it, and what it points at exists."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def fences(text: str, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_its_code_runs(tmp_path, monkeypatch, capsys):
    from headscope.hf.models import packaged

    monkeypatch.chdir(tmp_path)
    (block,) = fences(README, "python")
    assert '"sentence-transformers/all-MiniLM-L6-v2"' in block
    names: dict[str, object] = {}
    exec(block.replace('"sentence-transformers/all-MiniLM-L6-v2"', repr(str(packaged()))), names)
    row, keys = names["row"], names["head"].keys
    assert row[keys.find("animal")].item() == pytest.approx(0.677, abs=1e-3)
    assert row[keys.find("street")].item() == pytest.approx(0.050, abs=1e-3)
    assert (tmp_path / "heads.html").exists()
    shown = capsys.readouterr().out
    assert '"it" → "animal" 0.68' in shown
    assert "tiled: the mask leaves" in shown
    before, after = (names["model"](**names["inputs"]).last_hidden_state, names["without"].last_hidden_state)
    moved = 1 - names["torch"].cosine_similarity(before, after, dim=-1)[0, 11 - 1]
    assert moved.item() == pytest.approx(0.118, abs=2e-3)  # the lesson says so, too


def test_it_is_a_page():
    """A picture, two commands, ten lines of API, one table: no longer than a screen or two."""
    assert len(README.splitlines()) <= 112
    (block,) = fences(README, "python")
    calls = [line for line in block.splitlines() if "hs." in line and "import" not in line]
    assert len(calls) <= 10
    assert README.count("|---|") == 1


def test_what_it_says_that_view_prints_is_what_the_walk_finds():
    """The same two lines are asserted in tests/cli/test_view.py."""
    assert 'layer 3 head 1: "it" → "animal" 0.68 (next: "street" 0.05)' in README
    assert "layer 0 head 2 looks at the previous token: mean weight 1.00" in README


def test_the_section_tests_has_exactly_one_command():
    section = README.split("\n## Tests\n")[1].split("\n## ")[0]
    assert fences(section, "bash") == ["pip install -c constraints.txt -e '.[test]' && pytest -n auto\n"]
    assert section.count("```") == 2


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_what_it_points_at_exists(link):
    assert (ROOT / link).exists()


@pytest.mark.parametrize("change", [("## Tests", "## Test"), ("pip install -c constraints.txt -e", "make")])
def test_ci_stops_when_it_cannot_find_the_command(tmp_path, change):
    """A copy of CI beside a README without its command ends at once, before anything is installed."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_bytes((ROOT / ".ci" / "run").read_bytes())
    (tmp_path / "README.md").write_text(README.replace(*change), encoding="utf-8")
    done = subprocess.run(["bash", tmp_path / ".ci" / "run"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "README.md" in done.stderr
