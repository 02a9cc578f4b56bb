"""Write docs/notebooks/ from the pages of the lesson, for Jupyter, VS Code and Colab: python docs/write_notebooks.py

Text becomes text and code becomes code, with the output that the page shows; a picture that the code writes is shown
by the cell that writes it.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
PAGES = sorted((DOCS / "lesson").glob("[0-9]*.md"))
FOLDER = DOCS / "notebooks"
PART = re.compile(r"^```(?P<language>python|text)\n(?P<content>.*?)^```\n", re.MULTILINE | re.DOTALL)
FRONT = re.compile(r"\A---\n.*?\n---\n+", re.DOTALL)
PICTURE = re.compile(r"^!\[[^\]]*\]\((?P<file>[\w-]+\.png)\)\n", re.MULTILINE)
FRAME = re.compile(r'^<iframe src="(?P<file>[\w-]+\.html)".*?</iframe>\n', re.MULTILINE)
BETWEEN = re.compile(r"\]\((?P<page>[0-9][\w-]*)\.md\)")
ABOVE = (
    "*This notebook is made from [a page of the lesson](../lesson/{page}). In Colab, run first:* "
    "`%pip install 'headscope[demo,plot]'`"
)


def notebook(page: Path) -> dict[str, Any]:
    """A page as a notebook."""
    text = FRONT.sub("", page.read_text(encoding="utf-8"))
    cells: list[dict[str, Any]] = []
    at = 0
    for part in PART.finditer(text):
        prose(cells, text[at : part.start()])
        at = part.end()
        if part["language"] == "python":
            cells.append(code(part["content"]))
        elif cells and cells[-1]["cell_type"] == "code":
            output = {"name": "stdout", "output_type": "stream", "text": lines(part["content"])}
            cells[-1]["outputs"] = [] if "..." in part["content"] else [output]
        else:
            prose(cells, part[0])
    prose(cells, text[at:])
    title, rest = cells[0]["source"][0], cells[0]["source"][1:]
    cells[0]["source"] = [title, "\n", ABOVE.format(page=page.name) + "\n", *rest]
    for place, cell in enumerate(cells):
        said = f"{page.stem} {place} {''.join(cell['source'])}"
        cell["id"] = hashlib.sha256(said.encode()).hexdigest()[:12]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def prose(cells: list[dict[str, Any]], text: str) -> None:
    """Add text between two blocks of code; the pictures in it go to the code above that writes them."""
    made = [*(found["file"] for found in PICTURE.finditer(text)), *(found["file"] for found in FRAME.finditer(text))]
    for file in made:
        writer = next((cell for cell in reversed(cells) if file in "".join(cell["source"])), None)
        if writer is not None:
            show = f'Image("{file}")' if file.endswith(".png") else f'IFrame("{file}", "100%", 760)'
            name = show.partition("(")[0]
            writer["source"] = lines(f"from IPython.display import {name}\n\n{''.join(writer['source'])}\n{show}")
    for pattern in (PICTURE, FRAME):
        text = pattern.sub("", text)
    text = BETWEEN.sub(r"](\g<page>.ipynb)", text).strip()
    if text:
        cells.append({"cell_type": "markdown", "metadata": {}, "source": lines(text)})


def code(content: str) -> dict[str, Any]:
    """A cell of code that was not run yet."""
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": lines(content.rstrip()),
    }


def lines(text: str) -> list[str]:
    """A text as the format keeps it: one string for each line, with its end."""
    return text.splitlines(keepends=True)


def text_of(page: Path) -> str:
    """The notebook's file."""
    return json.dumps(notebook(page), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for page in PAGES:
        (FOLDER / f"{page.stem}.ipynb").write_text(text_of(page), encoding="utf-8")
