"""The private names of transformers: its rules by their values, its kernels by their own argument names."""

import sys

import pytest
import torch
from transformers import BertConfig, BertModel, masking_utils, modeling_utils
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from headscope.compat import names
from headscope.compat import transformers as compat
from headscope.errors import UnsupportedVersion


@pytest.mark.parametrize(
    ("rule", "sides"),
    [
        (masking_utils.causal_mask_function, (None, 0)),
        (masking_utils.bidirectional_mask_function, (None, None)),
        (masking_utils.sliding_window_overlay(1), (0, None)),
        (masking_utils.sliding_window_causal_mask_function(5), (4, 0)),
        (masking_utils.sliding_window_bidirectional_mask_function(3), (3, 3)),
        (masking_utils.chunked_causal_mask_function(3, torch.zeros(1, dtype=torch.long)), None),
        (lambda b, h, q, k: k <= q, None),
    ],
)
def test_rules_are_windows_where_they_are(rule, sides):
    assert compat.sides_of(rule) == sides


def named(rule, name):
    rule.__qualname__ = name
    return rule


def test_a_rule_that_took_a_known_name_for_another_meaning_is_no_window():
    known = compat.named_sides(named(lambda b, h, q, k: k < q, "causal_mask_function"))
    assert known == (None, 0)
    assert compat.sides_of(named(lambda b, h, q, k: k < q, "causal_mask_function")) is None
    assert compat.sides_of(named(lambda b, h, q, k: k <= q + 1, "causal_mask_function")) is None
    assert compat.sides_of(named(lambda b, h, q, k: q != k, "bidirectional_mask_function")) is None
    assert compat.sides_of(named(lambda b, h: True, "bidirectional_mask_function")) is None


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_window_that_counts_otherwise_is_no_window(shift):
    def sliding_window_overlay(sliding_window):
        def inner_mask(b, h, q, k):
            return k > q - sliding_window + shift

        return inner_mask

    rule = named(sliding_window_overlay(5), "sliding_window_overlay.<locals>.inner_mask")
    assert compat.sides_of(rule) is None
    assert compat.sides_of(masking_utils.sliding_window_overlay(5)) == (4, None)


def test_a_joint_rule_that_joins_otherwise_is_no_window():
    rules = (masking_utils.causal_mask_function, masking_utils.sliding_window_overlay(2))

    def joined(mask_functions):
        def and_mask(b, h, q, k):
            return mask_functions[0](b, h, q, k) | mask_functions[1](b, h, q, k)

        return and_mask

    assert compat.sides_of(named(joined(rules), "and_masks.<locals>.and_mask")) is None
    assert compat.sides_of(masking_utils.and_masks(*rules)) == (1, 0)


def test_kernels_say_the_order_of_their_arguments():
    from transformers.models.bert.modeling_bert import eager_attention_forward

    args = ("module", "q", "k", "v", "mask", 0.5, 0.25)
    assert compat.kernel_arguments(sdpa_attention_forward, args, {})["scaling"] == 0.25
    assert compat.kernel_arguments(eager_attention_forward, args, {"x": 1})["scaling"] == 0.5


def test_the_interface_is_found_where_models_were_loaded(monkeypatch):
    assert compat.attention_interface() is modeling_utils.AttentionInterface
    monkeypatch.delitem(sys.modules, "transformers.modeling_utils")
    assert compat.attention_interface() is None


def test_a_version_without_the_interface_is_captured_elsewhere_and_says_so(monkeypatch):
    monkeypatch.setattr(names, "_warned", set())
    monkeypatch.delattr(modeling_utils.AttentionInterface, "get_interface")
    with pytest.warns(UserWarning, match=r"transformers \S+ has no transformers.modeling_utils.AttentionInterface"):
        assert compat.attention_interface() is None


@pytest.mark.parametrize("name", compat.RULES)
def test_a_version_without_one_of_the_functions_of_masks_is_an_error(name, monkeypatch):
    assert compat.masks().causal is masking_utils.causal_mask_function
    monkeypatch.delattr(masking_utils, name)
    with pytest.raises(UnsupportedVersion, match=rf'has no transformers.masking_utils.{name}.*"sdpa" does'):
        compat.masks()


def test_what_a_model_says_about_itself():
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = BertModel._from_config(config, attn_implementation="eager")
    assert compat.attention_implementation(model) == "eager"
    assert compat.source_of(model) == ""
    config.name_or_path = "of/some-model"
    assert compat.source_of(BertModel(config)) == "of/some-model"
    assert compat.attention_implementation(torch.nn.Linear(2, 2)) is None
    assert compat.source_of(torch.nn.Linear(2, 2)) == ""
