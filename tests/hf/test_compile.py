"""Models on headscope in graphs: the outputs and gradients that they have without, and recorded."""

import pytest

from tests import warm
from tests.hf.graphs_of_one import masks_of
from tests.hf.nine import KINDS


def run(module: str, *options: str) -> list[str]:
    done = warm.run_module(module, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "padding", "layers"), [("llama", "padded", 2), ("bert", "padded", 3), ("bert", "whole", 3)]
)
def test_outputs_gradients_and_a_recording(kind, padding, layers):
    assert run("tests.hf.compile_one", kind, padding)[-1] == f"{layers} layers"


@pytest.mark.parametrize(("kind", "mask"), [("gemma3", "left")])
def test_a_sample_of_the_graphs_gives_what_eager_gives(kind, mask):
    """Grouped heads, a window in one layer, and padding that the traced program did not have."""
    assert len(run("tests.hf.graphs_of_one", kind, "--masks", mask)) == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_one_graph_and_an_exported_program_give_what_eager_gives(kind):
    # A line for each compiled and each exported program; the step on a cache of fixed size is compiled only.
    masks = masks_of(kind)
    assert len(run("tests.hf.graphs_of_one", kind)) == 2 * len(masks) - ("static cache" in masks)
