"""`show`: the page in a notebook, a picture of characters in a terminal."""

from __future__ import annotations

import html
import sys

from headscope.errors import LookError
from headscope.look.head import Head
from headscope.recording.recording import Recording
from headscope.view.labels import model_name
from headscope.view.subject import Subject

FRAME_HEIGHT, LEAST_HEIGHT = 760, 200


def show(x: Recording | Head, *, layer: int | None = None, head: int | None = None, height: int = FRAME_HEIGHT) -> None:
    """Show a recording or one head: in a notebook as the page, in a terminal as characters.

    In a terminal: every head as a small picture, one head with its labels, and the findings in plain words. In a
    notebook (Jupyter, JupyterLab, VS Code, Colab) the page stands in a frame of its own, which can reach neither the
    notebook nor a network nor the frame of another call.

    Args:
        x: a recording, or one head.
        layer, head: the head that is shown large; the one with the most informative pair of tokens unless given.
        height: pixels of the frame in a notebook; at least 200.

    Raises:
        LookError: a head that does not exist, or a frame too low to see anything.

    Example:
        >>> import torch, headscope as hs
        >>> axis = hs.Axis.tokens(["the", "cat", "sat"])
        >>> show(hs.Head(9 * torch.eye(3), torch.eye(3).roll(-1, 0), mask=hs.causal(), queries=axis))
        One head  queries down, keys along
        ...
    """
    if height < LEAST_HEIGHT:
        raise LookError(f"show: height={height}; give the pixels of the frame, {LEAST_HEIGHT} or more.")
    subject = Subject("show", x)
    start = subject.start(layer, head)
    if in_notebook():
        from IPython.display import HTML, display  # type: ignore[import-not-found, unused-ignore]

        from headscope.view.page import document

        display(HTML(frame(document(subject, layer=layer, head=head), height)))  # type: ignore[no-untyped-call, unused-ignore]
        return
    from rich.console import Console

    from headscope.view.terminal import view

    Console().print(view(subject, start, title=model_name(subject.recording.model)))


def in_notebook() -> bool:
    """Whether this runs in a notebook, where HTML can be shown; IPython in a terminal is none."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def frame(document: str, height: int = FRAME_HEIGHT) -> str:
    """The page in a frame that may run its own script and nothing else."""
    return (
        f'<iframe sandbox="allow-scripts" srcdoc="{html.escape(document)}" title="headscope" '
        f'style="width: 100%; height: {height}px; border: 0"></iframe>'
    )
