"""The learner's page: its code is run, and the output that it shows is the real one."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "multi-head-attention.md"


def test_the_page_shows_what_its_code_prints() -> None:
    text = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    shown = text.split("<!-- output of explanation.markdown() -->\n")[1].split("<!-- end of output -->")[0]
    names: dict[str, object] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert names["explanation"].markdown() == shown
    assert names["y"].shape == (30, 5, 512)
