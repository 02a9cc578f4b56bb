"""Hooks of the site: every page runs and makes its pictures, shared files become a gallery, formulas MathML, and the
search works from a disk.

    mkdocs build

Source: the hooks of MkDocs, https://www.mkdocs.org/user-guide/configuration/#hooks
"""

from __future__ import annotations

import html
import logging
import re
import tempfile
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from run_pages import COMMANDS, PageFailed, all_pages, run_all, with_outputs

from headscope.share.manifest import PAGE, Manifest
from headscope.share.unpack import unpack

DOCS = Path(__file__).parent
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
FORMULA = re.compile(r"^\$\$(.+?)\$\$", re.MULTILINE | re.DOTALL)
MADE = {".png", ".html"}
# A figure on a line of its own; figures have 300 dots per inch, of which a page shows 160 in an inch of its own.
PICTURE = re.compile(r"^!\[[^\]]*\]\((?P<file>[\w-]+\.png)\)$", re.MULTILINE)
SHOWN = 160 / 300
# A picture or page beside a page of how-to, which the code of that page makes.
BESIDE = re.compile(r"""\]\([\w-]+\.png\)|src="[\w-]+\.html\"""")
# The gallery's table, once the files are made.
table: list[str] = []
# The folder in which each page ran.
ran: dict[Path, Path] = {}

log = logging.getLogger("mkdocs.hooks.pages")
folder = tempfile.TemporaryDirectory(prefix="headscope-lesson-")


def shared(folder: Path) -> list[tuple[Path, Manifest]]:
    """The files of the gallery: those of docs/gallery, and those that the page on sharing made in its folder."""
    found = [*sorted((DOCS / "gallery").glob("*.zip")), *sorted(folder.glob("*.zip"))]
    for path in found:
        (folder / f"unpacked-{path.stem}").mkdir()
    return [(path, unpack(path, folder / f"unpacked-{path.stem}")) for path in found]


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
    """Run every page, and add the pictures and pages that those of the lesson and of how-to make."""
    try:
        folders = run_all(all_pages(), Path(folder.name), log.info)
    except PageFailed as failed:
        raise SystemExit(str(failed)) from None
    ran.update(folders)
    for page, into in folders.items():
        kind, text = page.parent.name, page.read_text(encoding="utf-8")
        if kind == "lesson" or (kind == "howto" and BESIDE.search(text)):
            for path in sorted(path for path in into.iterdir() if path.suffix in MADE and path.name in text):
                files.append(File.generated(config, f"{kind}/{path.name}", abs_src_path=str(path)))
    sharing = folders[DOCS / "howto" / "share.md"]
    shown = shared(sharing)
    for path, _ in shown:
        page = str(sharing / f"unpacked-{path.stem}" / PAGE)
        files.append(File.generated(config, f"gallery/{path.stem}.html", abs_src_path=page))
        files.append(File.generated(config, f"gallery/{path.name}", abs_src_path=str(path)))
    table.append(gallery(shown))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Outputs as they were printed, and formulas between double dollars outside of code as MathML."""
    parts, at = [], 0
    source = Path(page.file.abs_src_path)
    if source in ran:
        commands = source.parent.name != "lesson" and source.stem in COMMANDS
        markdown = sized(with_outputs(markdown, ran[source], commands=commands), ran[source])
    markdown = markdown.replace("<!-- gallery -->", table[-1] if table else "")
    for block in FENCED.finditer(markdown):
        parts += [formulas(markdown[at : block.start()]), block[0]]
        at = block.end()
    return "".join([*parts, formulas(markdown[at:])])


def sized(markdown: str, folder: Path) -> str:
    """The figures that a page made in a folder with their width, so that their letters are as large as those around."""

    def one(found: re.Match[str]) -> str:
        path = folder / found["file"]
        if not path.exists():
            return found[0]
        width = int.from_bytes(path.read_bytes()[16:20], "big")  # the header of a PNG
        return f"{found[0]}{{ width={round(width * SHOWN)} }}"

    return PICTURE.sub(one, markdown)


def formulas(text: str) -> str:
    """The text with its formulas as MathML."""
    return FORMULA.sub(lambda found: convert(" ".join(found[1].split()), display="block"), text)


@event_priority(-100)  # after the search has written its index
def on_post_build(*, config: Any) -> None:
    """The index of the search as a script, which a page that was opened from a disk can read (see docs/worker.js)."""
    index = Path(config.site_dir) / "search" / "search_index.json"
    index.with_suffix(".js").write_text(f"var __index = {index.read_text(encoding='utf-8')}", encoding="utf-8")
    folder.cleanup()  # what the pages made is in the site now
