"""SAM: sizes read off a checkpoint, windows and positions as defined, prompts as meant; no file executes anything."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from bitfab.errors import BitfabError
from bitfab.quant.dynamic import quantize_dynamic
from bitfab.quant.mixed import quantize_mixed
from bitfab.quant.move_scales import move_scales
from bitfab.zoo.sam import Prompts, Sam, SamShape, scale_moves
from bitfab.zoo.sam_checkpoint import load_sam, shape_of
from bitfab.zoo.sam_image_encoder import EncoderShape, LayerNorm2d, distances, join_windows, split_windows

ENCODER = EncoderShape(dim=16, depth=2, heads=2, patch=8, grid=8, window=3, whole=(1,), hidden=32, out=16)
SHAPE = SamShape(dim=16, depth=2, hidden=24, masks=4, mask_channels=8, iou_hidden=12, grid=8, image=64, encoder=ENCODER)


@pytest.fixture(scope="module")
def sam() -> Sam:
    torch.manual_seed(0)
    net = Sam(SHAPE).eval().requires_grad_(False)
    for name, parameter in net.named_parameters():
        if "pos" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return net


def _image() -> Tensor:
    return 255 * torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def _prompts(count: int = 3) -> Prompts:
    places = torch.rand(count, 4, generator=torch.Generator().manual_seed(1)) * 30
    return Prompts(places[:, None, :2], torch.ones(count, 1), torch.cat((places[:, :2], places[:, :2] + 30), 1))


def test_full_sizes_are_those_of_the_paper() -> None:
    """ViT-B has 91 million parameters (Kirillov et al. 2023, section 5), the decoder 4; names as in the checkpoints."""
    with torch.device("meta"):
        net = Sam(SamShape())
    assert net.image_encoder is not None
    assert sum(p.numel() for p in net.image_encoder.parameters()) == 89_670_912
    assert sum(p.numel() for p in net.mask_decoder.parameters()) == 4_058_340
    names = dict(net.state_dict())
    assert len(names) == 314
    assert names["image_encoder.blocks.2.attn.rel_pos_h"].shape == (127, 64)
    assert names["image_encoder.blocks.0.attn.rel_pos_w"].shape == (27, 64)
    assert names["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"].shape == (2, 128)
    assert names["mask_decoder.output_hypernetworks_mlps.3.layers.2.weight"].shape == (32, 256)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_checkpoints_come_back(sam: Sam, tmp_path: Path, ending: str) -> None:
    path, state = tmp_path / f"sam.{ending}", sam.state_dict()
    torch.save(state, path) if ending == "pth" else safetensors.torch.save_file(state, path)
    loaded = load_sam(path)
    assert loaded.shape == SHAPE and not loaded.training
    for found, wanted in zip(loaded(_image(), _prompts()), sam(_image(), _prompts()), strict=True):
        assert torch.equal(found, wanted)


def test_decoder_alone_loads_but_embeds_nothing(sam: Sam, tmp_path: Path) -> None:
    parts = {"PromtEncoder": sam.prompt_encoder.state_dict(), "MaskDecoder": sam.mask_decoder.state_dict()}
    torch.save(parts, tmp_path / "decoder.pt")
    loaded = load_sam(tmp_path / "decoder.pt")
    assert loaded.image_encoder is None and loaded.shape.dim == 16 and loaded.shape.grid == 64
    with pytest.raises(BitfabError, match="holds no image encoder"):
        loaded.embed(_image())


class _Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("harm"),)


def test_files_are_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"mask_decoder.mask_tokens.weight": _Harmful()}, "sam.pth")
    Path("plain.pth").write_bytes(pickle.dumps(_Harmful()))
    for name in ("sam.pth", "plain.pth"):
        with pytest.raises(BitfabError, match=r"holds more than tensors, or is damaged") as error:
            load_sam(Path(name))
        assert "\n" not in str(error.value)
    assert not Path("harm").exists()


def test_wrong_files_give_one_line(sam: Sam, tmp_path: Path) -> None:
    state = sam.state_dict()
    wrong: dict[str, object] = {
        "not a SAM: it holds no mask_decoder.mask_tokens.weight": {"weight": torch.ones(2)},
        "not a SAM: it holds no mask_decoder.iou_prediction_head": {
            name: x for name, x in state.items() if "iou_prediction_head" not in name
        },
        "does not fit SAM": {name: x for name, x in state.items() if "neck.3" not in name},
        "does not fit": state | {"mask_decoder.iou_token.weight": torch.ones(1, 3)},
        "holds no state_dict": [torch.ones(2)],
        "it holds no image_encoder.layers.0": state | {"image_encoder.patch_embed.seq.0.c.weight": torch.ones(2)},
        "does not fit SAM .*not enough values": state | {"mask_decoder.mask_tokens.weight": torch.ones(2)},
        "does not fit SAM .*0-d tensor": state
        | {"mask_decoder.iou_prediction_head.layers.0.weight": torch.tensor(1.0)},
    }
    for message, content in wrong.items():
        torch.save(content, tmp_path / "sam.pth")
        with pytest.raises(BitfabError, match=message) as error:
            load_sam(tmp_path / "sam.pth")
        assert "\n" not in str(error.value)
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("text.pth", "text.safetensors", "empty.pth", "absent.pth", "."):
        with pytest.raises(BitfabError) as error:
            load_sam(tmp_path / name)
        assert "\n" not in str(error.value)


def test_truncated_checkpoints_give_one_line(sam: Sam, tmp_path: Path) -> None:
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    data = (tmp_path / "sam.pth").read_bytes()
    for length in range(0, len(data), len(data) // 20):
        (tmp_path / "cut.pth").write_bytes(data[:length])
        with pytest.raises(BitfabError):
            load_sam(tmp_path / "cut.pth")


def test_shapes_are_read_off_the_tensors(sam: Sam) -> None:
    assert shape_of(sam.state_dict()) == SHAPE
    with torch.device("meta"):
        large = Sam(SamShape(encoder=EncoderShape(1280, 4, 16, whole=(1, 3), hidden=5120)))
    assert shape_of(large.state_dict()).encoder == large.shape.encoder


def test_windows_come_back() -> None:
    x = torch.randn(2, 8, 7, 3)
    windows = split_windows(x, 3)
    assert windows.shape == (2 * 9, 3, 3, 3)
    assert torch.equal(windows[1], x[0, 0:3, 3:6]) and not windows[2][:, 1:].any()
    assert torch.equal(join_windows(windows, 3, (8, 7)), x)


def test_relative_positions(sam: Sam) -> None:
    """The score of every pair of patches by its definition, in loops."""
    vectors = torch.randn(5, 4)
    table = distances(vectors, 3)
    assert all(torch.equal(table[q, k], vectors[q - k + 2]) for q in range(3) for k in range(3))
    attention = sam.get_submodule("image_encoder.blocks.0.attn")
    q = torch.randn(1, 2, 9, 8)
    found = attention._positions(q, 3, 3)
    down, across = attention.rel_pos_h, attention.rel_pos_w
    for asked, key in ((0, 8), (4, 2), (7, 3)):
        (y, x), (ky, kx) = divmod(asked, 3), divmod(key, 3)
        wanted = q[0, :, asked] @ (down[y - ky + 2] + across[x - kx + 2])
        torch.testing.assert_close(found[0, :, asked, key], wanted)


def test_windows_do_not_see_each_other(sam: Sam) -> None:
    block = sam.get_submodule("image_encoder.blocks.0")
    x = torch.randn(1, 8, 8, 16)
    other = x.clone()
    other[:, 4, 4, :8] += 1
    changed = (block(x) != block(other)).any(-1)[0]
    assert changed[3:6, 3:6].all() and changed.sum() == 9


def test_layer_norm_is_over_channels() -> None:
    norm, x = LayerNorm2d(5), torch.randn(2, 5, 3, 3)
    y = norm(x)
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 3, 3), rtol=0, atol=1e-6)
    torch.testing.assert_close(y.var(1, correction=0), torch.ones(2, 3, 3), rtol=0, atol=1e-3)


def test_prompts_become_tokens(sam: Sam) -> None:
    encoder, prompts = sam.prompt_encoder, _prompts()
    both, dense = encoder(prompts)
    assert both.shape == (3, 3, 16) and dense.shape == (1, 16, 8, 8)  # a point and two corners
    points, _ = encoder(Prompts(prompts.points, prompts.labels))
    assert points.shape == (3, 2, 16)  # with one that says nothing
    assert torch.equal(points[:, 1], encoder.not_a_point_embed.weight.expand(3, -1))
    assert torch.equal(points[:, 0], both[:, 0])
    nothing, _ = encoder(Prompts(prompts.points, -torch.ones(3, 1)))
    assert torch.equal(nothing[:, 0], nothing[:, 1])
    background, _ = encoder(Prompts(prompts.points, torch.zeros(3, 1)))
    shift = encoder.point_embeddings[0].weight - encoder.point_embeddings[1].weight
    torch.testing.assert_close(background[:, 0] - points[:, 0], shift.expand(3, -1))
    sparse, dense = encoder(Prompts(masks=torch.randn(2, 1, 32, 32)))
    assert sparse.shape == (2, 0, 16) and dense.shape == (2, 16, 8, 8)


def test_a_prompts_mask_does_not_depend_on_the_others(sam: Sam) -> None:
    embedding, prompts = sam.embed(_image()), _prompts()
    masks, iou = sam.segment(embedding, prompts)
    assert masks.shape == (3, 4, 32, 32) and iou.shape == (3, 4)
    assert prompts.points is not None and prompts.labels is not None and prompts.boxes is not None
    one = sam.segment(embedding, Prompts(prompts.points[1:2], prompts.labels[1:2], prompts.boxes[1:2]))
    torch.testing.assert_close(one[0][0], masks[1], rtol=1e-4, atol=1e-5)


def test_quantized_sam_stays_near(sam: Sam) -> None:
    inputs = [(_image(), _prompts())]
    masks, _ = sam(*inputs[0])
    moved = move_scales(sam, inputs, scale_moves(sam))
    torch.testing.assert_close(moved(*inputs[0])[0], masks, rtol=1e-3, atol=1e-4)
    mixed = quantize_mixed(moved, inputs)
    assert 0.98 < mixed.integer_share < 1  # the frequencies of places stay float
    for net in (quantize_dynamic(sam), mixed.module):
        found, _ = net(*inputs[0])
        assert (found - masks).norm() < 0.2 * masks.norm()


def test_moves_are_found_in_parts_too(sam: Sam) -> None:
    whole, decoder = scale_moves(sam), scale_moves(sam.mask_decoder)
    assert len(whole) == len(decoder) + 2 * ENCODER.depth
    assert all(f"mask_decoder.{move.divided}" in {m.divided for m in whole} for move in decoder)
    for move in decoder:
        for name in (move.divided, *move.inputs, *move.outputs):
            sam.mask_decoder.get_submodule(name)
