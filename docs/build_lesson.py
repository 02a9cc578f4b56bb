"""Hooks of the site: code of the lesson and of how-to pages makes their pictures, shared files become a gallery,
formulas MathML.

    mkdocs build

Source: the hooks of MkDocs, https://www.mkdocs.org/user-guide/configuration/#hooks
"""

from __future__ import annotations

import html
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

from headscope.share.manifest import PAGE, Manifest
from headscope.share.unpack import unpack

DOCS = Path(__file__).parent
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
FORMULA = re.compile(r"^\$\$(.+?)\$\$", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
MADE = {".png", ".html"}
# A picture or page beside a page of how-to, which the code of that page makes.
BESIDE = re.compile(r"""\]\([\w-]+\.png\)|src="[\w-]+\.html\"""")
# The gallery's table, once the files are made.
table: list[str] = []

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


def shared(into: Path) -> list[tuple[Path, Manifest]]:
    """The files of the gallery: those of docs/gallery, and those that the commands of how to share make."""
    page = (DOCS / "howto" / "share.md").read_text(encoding="utf-8")
    run_here = f"{shlex.quote(sys.executable)} -m headscope "
    script = re.sub(r"^headscope ", run_here, COMMANDS.findall(page)[0], flags=re.MULTILINE)
    done = subprocess.run(["bash", "-euc", script], cwd=into, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"howto/share.md: its commands failed.\n{done.stderr[-3000:]}")
    found = [*sorted((DOCS / "gallery").glob("*.zip")), *sorted(into.glob("*.zip"))]
    for path in found:
        (into / path.stem).mkdir()
    return [(path, unpack(path, into / path.stem)) for path in found]


def gallery(made: list[tuple[Path, Manifest]]) -> str:
    """The gallery as Markdown: each file's page, its own words about itself, and the file."""
    lines = ["| page | model | made by | file |", "|---|---|---|---|"]
    for path, content in made:
        words = (html.escape(text).replace("|", "&#124;") for text in (content.title, content.model, content.command))
        title, model, command = words
        size = path.stat().st_size / 2**20
        versions = f"{size:.1f} MiB, headscope {content.headscope}, torch {content.torch}"
        file = f"[{path.name}](../gallery/{path.name}), {versions}"
        lines.append(f"| [{title}](../gallery/{path.stem}.html) | {model} | `{command}` | {file} |")
    return "\n".join(lines)


def on_files(files: Files, *, config: Any) -> Files:
    """Add what the pages of the lesson and of how-to make."""
    howto = [page for page in sorted((DOCS / "howto").glob("*.md")) if BESIDE.search(page.read_text(encoding="utf-8"))]
    for page in [*sorted((DOCS / "lesson").glob("[0-9]*.md")), *howto]:
        into = Path(folder.name) / page.stem
        into.mkdir(exist_ok=True)
        for path in run(page, into):
            files.append(File.generated(config, f"{page.parent.name}/{path.name}", abs_src_path=str(path)))
    into = Path(folder.name) / "gallery"
    into.mkdir(exist_ok=True)
    made = shared(into)
    for path, _ in made:
        page = str(into / path.stem / PAGE)
        files.append(File.generated(config, f"gallery/{path.stem}.html", abs_src_path=page))
        files.append(File.generated(config, f"gallery/{path.name}", abs_src_path=str(path)))
    table.append(gallery(made))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Formulas between double dollars outside of code: MathML, which every browser draws without a script."""
    parts, at = [], 0
    markdown = markdown.replace("<!-- gallery -->", table[-1] if table else "")
    for block in FENCED.finditer(markdown):
        parts += [formulas(markdown[at : block.start()]), block[0]]
        at = block.end()
    return "".join([*parts, formulas(markdown[at:])])


def formulas(text: str) -> str:
    """The text with its formulas as MathML."""
    return FORMULA.sub(lambda found: convert(" ".join(found[1].split()), display="block"), text)


def on_post_build(**_: Any) -> None:
    """What the pages made is in the site now."""
    folder.cleanup()
