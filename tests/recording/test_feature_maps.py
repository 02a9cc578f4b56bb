"""Positions that are a feature map of a picture, of a backbone or cut into windows: where each lies in the picture."""

import math

import pytest
import torch
import transformers as hf
from torch import nn

import headscope as hs
from headscope.hf.pictures import Windows, step_of
from headscope.recording.axes.feature_maps import Around, maps_in, windows_of
from headscope.recording.layer import Layer

HEIGHT, WIDTH, PATCH = 24, 40, 4
DETR = {
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "num_queries": 6,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 8,
    "decoder_ffn_dim": 8,
}


def recording_of(model, **inputs) -> hs.Recording:
    with torch.no_grad(), hs.record(model) as recording:
        model(**inputs)
    return recording


def swin(kind: str = "Swin", **options) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"image_size": (HEIGHT, WIDTH), "patch_size": PATCH, "embed_dim": 12, "num_heads": [2, 2], "depths": [2, 1]}
    config = getattr(hf, f"{kind}Config")(**sizes | {"window_size": 3} | options)
    return getattr(hf, f"{kind}Model")._from_config(config).eval()


def what_moved(before: Layer, after: Layer) -> tuple[int, int]:
    """The item that changed and the position without which nothing did: there all weights keep their ratios."""
    one, two = (torch.stack([x.head(0, item).weights() for item in range(x.items)]) for x in (before, after))
    (item,) = ((one - two).abs().amax((1, 2)) > 1e-6).nonzero().flatten().tolist()
    moved = two[item].log() - one[item].log()
    moved[one[item] < 1e-30] = torch.nan  # hidden by the mask of shifted windows
    spread = []
    for position in range(len(moved)):
        rest = [i for i in range(len(moved)) if i != position]
        rows = [row[row.isfinite()] for row in moved[rest][:, rest]]
        spread.append(max(float(row.max() - row.min()) for row in rows if len(row)))
    assert sorted(spread)[1] > 1e-4 > min(spread)
    return item, spread.index(min(spread))


def detr(kind: str) -> nn.Module:
    torch.manual_seed(0)
    backbone = hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    config = getattr(hf, f"{kind}Config")(backbone_config=backbone, **DETR)
    return getattr(hf, f"{kind}Model")._from_config(config).eval()


class TestWindows:
    @pytest.mark.parametrize(("kind", "shift"), [("Swin", 0), ("Swin", 1), ("Swin", 2), ("Swinv2", 1)])
    def test_a_marked_patch_is_where_the_axis_says(self, kind, shift):
        model = swin(kind)
        model.encoder.layers[0].blocks[0].shift_size = shift  # so that the first layer sees the marked patch alone
        picture = torch.rand(2, 3, HEIGHT, WIDTH)
        before = recording_of(model, pixel_values=picture).layers[0]
        assert before.items == 2 * 8  # six rows and ten columns of patches, the columns filled up to twelve
        for row, column in [(0, 4), (2, 0)]:  # which come around the edge where windows are shifted
            marked = picture.clone()
            marked[1, :, PATCH * row : PATCH * (row + 1), PATCH * column : PATCH * (column + 1)] += 9.0
            after = recording_of(model, pixel_values=marked).layers[0]
            item, position = what_moved(before, after)
            axis = after.keys[item]
            assert (axis.grid, axis.cells[position], axis.labels[position]) == (
                (6, 10),
                10 * row + column,
                f"({row}, {column})",
            )

    def test_every_patch_is_in_one_window_and_merged_patches_are_larger(self):
        recording = recording_of(swin(), pixel_values=torch.randn(1, 3, HEIGHT, WIDTH))
        for layer, grid in zip(recording.layers, [(6, 10), (6, 10), (3, 5)], strict=True):
            cells = [cell for axis in layer.keys for cell in axis.cells if cell is not None]
            assert sorted(cells) == list(range(math.prod(grid)))
            assert {axis.grid for axis in layer.keys} == {grid}
            assert layer.queries == layer.keys
            for axis in layer.keys:
                assert axis.special == tuple(label == "[PAD]" for label in axis.labels)
        # The second block is shifted by one: its last window holds the corners of the picture.
        assert "(0, 0)" in recording.layers[1].keys[-1].labels

    def test_windows_of_the_same_picture_share_its_thumbnail_on_the_disk(self, tmp_path):
        recording = recording_of(swin(), pixel_values=torch.rand(2, 3, HEIGHT, WIDTH))
        first, second = (recording.layers[0].keys[item].thumbnail for item in (0, 8))
        assert first != second
        path = recording.save(tmp_path / "windows")
        found = hs.load(path)
        for one, two in zip(recording.layers, found.layers, strict=True):
            assert [(a, a.thumbnail) for a in one.keys] == [(b, b.thumbnail) for b in two.keys]
        assert (path / "recording.json").read_bytes().count(b'"thumbnail"') == 2

    def test_sam_has_windows_without_a_shift(self):
        torch.manual_seed(0)
        config = hf.SamVisionConfig(
            hidden_size=12,
            output_channels=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=40,
            patch_size=8,
            window_size=3,
            global_attn_indexes=[1],
            mlp_dim=13,
            use_rel_pos=False,
        )
        model = hf.models.sam.modeling_sam.SamVisionEncoder._from_config(config).eval()
        windows, whole = recording_of(model, pixel_values=torch.randn(1, 3, 40, 40)).layers
        assert (windows.items, windows.keys[3].labels[:4]) == (4, ("(3, 3)", "(3, 4)", "[PAD]", "(4, 3)"))
        assert whole.keys == [hs.Axis.patches(5, 5)]

    def test_rollout_does_not_mix_different_windows(self):
        recording = recording_of(swin(depths=[2, 2]), pixel_values=torch.randn(1, 3, HEIGHT, WIDTH))
        assert [one.used for one in recording.rollout_layers()] == [False, False, True, True]
        assert "windows of the picture that are not those" in recording.rollout_layers()[0].why

    def test_a_model_that_does_not_tell_has_positions(self):
        class Cut(nn.Module):
            def __init__(self):
                super().__init__()
                self.window_size, self.shift_size = 2, 0
                self.layer = nn.TransformerEncoderLayer(3, 1, 5, batch_first=True)

            def forward(self, pixel_values):
                return self.layer(pixel_values.unfold(2, 2, 2).unfold(3, 2, 2).reshape(-1, 3, 4).mT)

        recording = recording_of(Cut().eval(), pixel_values=torch.randn(1, 3, 4, 4))
        assert recording.layers[0].keys == [hs.Axis.positions(4)] * 4

    def test_windows_that_do_not_come_to_the_items_of_the_call(self):
        module = nn.Identity()
        module.window_size, module.shift_size = 3, 1
        assert windows_of(module, [("input_dimensions", (6, 10))], 8, 9) == Windows(6, 10, 3, 1)
        assert windows_of(module, [("input_dimensions", (6, 10))], 12, 9) is None
        assert windows_of(module, [("input_dimensions", (6, 10))], 8, 16) is None
        assert windows_of(module, [("hidden_states", torch.zeros(1, 60, 4))], 8, 9) is None


class TestBackbones:
    @pytest.mark.parametrize("kind", ["Detr", "ConditionalDetr", "TableTransformer"])
    def test_the_map_of_a_backbone_and_what_a_mask_hides(self, kind):
        mask = torch.ones(2, 64, 96, dtype=torch.long)
        mask[1, :, 64:] = 0
        dark, marked = torch.zeros(2, 3, 64, 96), torch.zeros(2, 3, 64, 96)
        marked[0, :, 32:64, 64:96] = 1.0  # row 1 and column 2 of a map with steps of 32 pixels
        model = detr(kind)
        encoder, own, cross = recording_of(model, pixel_values=dark, pixel_mask=mask).layers
        grid = hs.Axis.patches(2, 3)
        assert (encoder.keys[0], encoder.queries[0], cross.keys[0]) == (grid,) * 3
        assert encoder.keys[1].padding == cross.keys[1].padding == (False, False, True) * 2
        # Six queries for objects are no patches, though the map has six positions, too.
        assert own.queries == own.keys == cross.queries == [hs.Axis.positions(6)] * 2
        after = recording_of(model, pixel_values=marked, pixel_mask=mask).layers[0]
        moved = (after.k - encoder.k)[0].abs().sum((0, 2))
        assert grid.labels[int(moved.argmax())] == "(1, 2)"

    def test_a_map_as_the_argument_of_a_module_around_the_call(self):
        """As RT-DETR has it."""

        class Layer(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.TransformerEncoderLayer(8, 2, 5, batch_first=True)

            def forward(self, hidden_states):
                return self.layer(hidden_states.flatten(2).mT)

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.backbone = nn.Conv2d(3, 8, 5, stride=4, padding=2)
                self.encoder = Layer()

            def forward(self, pixel_values):
                return self.encoder(self.backbone(pixel_values))

        recording = recording_of(Model().eval(), pixel_values=torch.randn(2, 3, 9, 20))
        axis = recording.layers[0].keys[1]
        assert (axis.grid, axis.length) == ((3, 5), 15)

    def test_what_arguments_say_of_maps(self):
        said = [
            ("shape", torch.Size([1, 8, 3, 5])),
            ("hidden_states", torch.zeros(1, 8, 5, 3)),
            ("attention_mask", torch.zeros(1, 8, 2, 4)),
            ("pixel_values", torch.zeros(1, 3, 2, 4)),
            ("height", 7),
        ]
        assert maps_in(said) == [(3, 5), (5, 3)]
        assert Around(maps=((3, 5), (2, 7))).map_of(15) == (3, 5)
        assert Around(maps=((3, 5), (5, 3))).map_of(15) is None
        assert Around(maps=((3, 5),)).map_of(14) is None

    def test_a_map_that_no_step_leads_to_is_not_of_this_picture(self):
        assert step_of(nn.Identity(), (1, 3, 64, 96), 2, 3) == 32
        assert step_of(nn.Identity(), (1, 3, 70, 96), 2, 3) == 32  # rounded down by a backbone without a border
        assert step_of(nn.Identity(), (1, 3, 64, 96), 3, 2) is None
