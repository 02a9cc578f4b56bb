import sys
from pathlib import Path

import pytest
import torch

import headscope as hs
from headscope.errors import MissingExtra, ModelError
from headscope.nn import MultiheadAttention
from headscope.nn.recipes import llama, paper


def test_the_learners_example() -> None:
    explanation = hs.explain(MultiheadAttention(512, 8, input_dim=1024), torch.randn(30, 5, 1024))
    assert [(step.name, step.shape) for step in explanation.steps] == [
        ("input x", (30, 5, 1024)),
        ("q, k, v together", (30, 5, 1536)),
        ("q, k, v per head", (30, 8, 5, 192)),
        ("q, k, v each", (30, 8, 5, 64)),
        ("scores", (30, 8, 5, 5)),
        ("weights", (30, 8, 5, 5)),
        ("values", (30, 8, 5, 64)),
        ("merged", (30, 5, 512)),
        ("output", (30, 5, 512)),
    ]
    assert explanation.parameters == 1024 * 1536 + 1536 + 512 * 512 + 512
    assert explanation.steps[1].flops == 2 * 30 * 5 * 1024 * 1536
    # Splitting and merging heads: the first makes views, the second must put the numbers in a new order.
    assert [step.bytes for step in explanation.steps[2:4]] == [0, 0]
    assert "fused" in explanation.notes[0]


@pytest.mark.parametrize(
    "options",
    [{"num_kv_heads": 2}, {"kv_dim": 11}, {"bias": "qv"}, {"softcap": 2.0, "sinks": True}, {"bias": False}],
)
def test_other_layers_are_explained_as_they_are(options: dict[str, object]) -> None:
    layer = MultiheadAttention(21, 6, head_dim=5, input_dim=7, dropout=0.5, **options)
    memory = torch.randn(2, 13, 11) if "kv_dim" in options else None
    explanation = hs.explain(layer, torch.randn(2, 5, 7), memory, mask=hs.causal())
    assert explanation.parameters == sum(p.numel() for p in layer.parameters())
    assert explanation.steps[-1].shape == (2, 5, 21)
    assert layer.training


def test_a_packed_layer_with_a_memory() -> None:
    explanation = hs.explain(MultiheadAttention(21, 3), torch.randn(2, 5, 21), torch.randn(2, 13, 21))
    assert [step.name for step in explanation.steps[:5]] == ["input x", "memory", "q", "k", "v"]


def test_it_prints_as_a_table_and_as_markdown() -> None:
    explanation = hs.explain(MultiheadAttention(21, 3), torch.randn(2, 5, 21))
    assert "(2, 3, 5, 5)" in str(explanation)
    assert "| scores | q kᵀ / √7 | (2, 3, 5, 5) |" in explanation.markdown()


def test_a_picture(tmp_path: Path) -> None:
    hs.explain(MultiheadAttention(21, 3), torch.randn(2, 5, 21)).figure().savefig(tmp_path / "steps.png")
    assert (tmp_path / "steps.png").stat().st_size > 10_000


def test_a_picture_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    explanation = hs.explain(MultiheadAttention(21, 3), torch.randn(2, 5, 21))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        MissingExtra, match=r"figure: needs matplotlib; install it with: pip install 'headscope\[plot\]'"
    ):
        explanation.figure()


def test_a_changed_forward_is_noticed() -> None:
    class Doubled(MultiheadAttention):
        def forward(self, *args: object, **options: object) -> torch.Tensor:
            return 2 * super().forward(*args, **options)

    with pytest.raises(ModelError, match="the steps give another output than Doubled itself"):
        hs.explain(Doubled(21, 3), torch.randn(2, 5, 21))


def test_a_whole_transformer() -> None:
    model = paper(11, embed_dim=12, num_heads=2, layers=2, hidden_dim=7)
    ids = torch.randint(11, (2, 7))
    explanation = hs.explain(model, target=ids, source=ids[:, :5])
    steps = {step.name: step for step in explanation.steps}
    assert explanation.parameters == sum(p.numel() for p in model.parameters())
    assert steps["encoder 1 attention: scores"].shape == (2, 2, 5, 5)
    assert steps["decoder 0 attention: scores"].shape == (2, 2, 7, 7)
    assert steps["decoder 1 cross: scores"].shape == (2, 2, 7, 5)
    assert steps["decoder 1 feed_forward"].flops == 2 * 2 * 7 * 2 * 12 * 7
    assert steps["decoder 1 feed_forward: residual"].formula == "x + part(x), in the norm"
    assert steps["output"].shape == (2, 7, 11)
    assert steps["output"].parameters == 0  # the table of the embedding
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_language_model_with_rotary_positions_and_gates() -> None:
    model = llama(11, embed_dim=12, num_heads=2, num_kv_heads=1, layers=1, hidden_dim=7)
    explanation = hs.explain(model, torch.randint(11, (2, 7)))
    assert explanation.parameters == sum(p.numel() for p in model.parameters())
    names = [step.name for step in explanation.steps]
    assert "decoder 0 attention: q turned" in names
    assert "silu(x W_gateᵀ)" in explanation.markdown()


def test_qk_norms_are_steps() -> None:
    explanation = hs.explain(MultiheadAttention(20, 2, qk_norm=torch.nn.RMSNorm, scale=0.5), torch.randn(2, 5, 20))
    assert [step.parameters for step in explanation.steps if "normed" in step.name] == [10, 10]


def test_a_model_without_attention() -> None:
    with pytest.raises(ModelError, match=r"explain: in Linear no headscope\.nn\.MultiheadAttention ran"):
        hs.explain(torch.nn.Linear(2, 2), torch.zeros(1, 2))
