"""What is said while it takes long, and the pause of the garbage collector."""

import gc
import io

import pytest
import rich.console

from headscope.cli.status import busy, collecting_later


def test_nothing_is_said_where_stderr_is_no_terminal(capsys):
    with busy("loading"):
        pass
    assert capsys.readouterr() == ("", "")


def test_a_terminal_sees_what_is_done(monkeypatch):
    screen = io.StringIO()
    console = rich.console.Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr(rich.console, "Console", lambda **options: console)
    with busy("loading [CLS] of my-model"):
        pass
    assert "loading [CLS] of my-model" in screen.getvalue()


def fail():
    """Fail inside the pause."""
    with collecting_later():
        assert not gc.isenabled()
        raise KeyError("inside")


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_as_before_also_after_an_error(on):
    before = gc.isenabled()
    try:
        gc.enable() if on else gc.disable()
        with pytest.raises(KeyError, match="inside"):
            fail()
        assert gc.isenabled() is on
    finally:
        gc.enable() if before else gc.disable()
