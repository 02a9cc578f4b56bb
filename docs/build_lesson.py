"""Hooks of the site: the lesson's code runs, its pictures and pages come from it, and formulas become MathML.

    mkdocs build

Source: the hooks of MkDocs, https://www.mkdocs.org/user-guide/configuration/#hooks
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

DOCS = Path(__file__).parent
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
FORMULA = re.compile(r"^\$\$(.+?)\$\$", re.MULTILINE | re.DOTALL)
MADE = {".png", ".html"}

folder = tempfile.TemporaryDirectory(prefix="headscope-lesson-")


def run(page: Path, into: Path) -> list[Path]:
    """Run the code of a page in a folder and return the pictures and pages that it made."""
    script = into / f"page-{page.stem}.py"
    script.write_text("\n".join(CODE.findall(page.read_text(encoding="utf-8"))), encoding="utf-8")
    done = subprocess.run([sys.executable, script.name], cwd=into, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{page}: its code failed.\n{done.stderr[-3000:]}")
    script.unlink()
    return sorted(path for path in into.iterdir() if path.suffix in MADE)


def on_files(files: Files, *, config: Any) -> Files:
    """Add what the lesson's pages make."""
    for page in sorted((DOCS / "lesson").glob("[0-9]*.md")):
        into = Path(folder.name) / page.stem
        into.mkdir(exist_ok=True)
        for path in run(page, into):
            files.append(File.generated(config, f"lesson/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Formulas between double dollars outside of code: MathML, which every browser draws without a script."""
    parts, at = [], 0
    for block in FENCED.finditer(markdown):
        parts += [formulas(markdown[at : block.start()]), block[0]]
        at = block.end()
    return "".join([*parts, formulas(markdown[at:])])


def formulas(text: str) -> str:
    """The text with its formulas as MathML."""
    return FORMULA.sub(lambda found: convert(" ".join(found[1].split()), display="block"), text)


def on_post_build(**_: Any) -> None:
    """What the lesson made is in the site now."""
    folder.cleanup()
