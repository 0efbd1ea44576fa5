"""MobileSAM's encoder: the published names and shapes, blocks as defined, checkpoints that load or say why not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitfab.errors import BitfabError
from bitfab.quant.dynamic import quantize_dynamic
from bitfab.quant.mixed import quantize_mixed
from bitfab.quant.move_scales import move_scales
from bitfab.zoo.sam import Sam, SamShape, scale_moves
from bitfab.zoo.sam_checkpoint import load_sam, shape_of
from bitfab.zoo.sam_mobile_encoder import (
    ConvBlock,
    ConvNorm,
    MobileEncoder,
    MobileShape,
    Stage,
    WindowAttention,
    WindowBlock,
    merging,
)

SMALL = MobileShape(dim=8, depth=1, stages=(Stage(8, 1, 2, 3), Stage(12, 2, 3, 4), Stage(16, 1, 4, 3)), out=16)
SHAPE = SamShape(dim=16, depth=1, hidden=24, masks=4, mask_channels=8, iou_hidden=12, encoder=SMALL)
ENCODER = "image_encoder."
Net = TypeVar("Net", bound=nn.Module)
Layout = Iterator[tuple[str, tuple[int, ...]]]


def _random(net: Net) -> Net:
    """The network with parameters and running statistics of every kind away from their defaults, in eval mode."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, std=0.2)
        if isinstance(module, WindowAttention):
            nn.init.normal_(module.attention_biases)
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def sam() -> Sam:
    return _random(Sam(SHAPE))


@pytest.fixture(scope="module")
def encoder(sam: Sam) -> MobileEncoder:
    assert isinstance(sam.image_encoder, MobileEncoder)
    return sam.image_encoder


def _image(side: int = 64) -> Tensor:
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))


def _conv(path: str, out: int, channels: int, kernel: int) -> Layout:
    yield f"{path}.c.weight", (out, channels, kernel, kernel)
    yield from ((f"{path}.bn.{name}", (out,)) for name in ("weight", "bias", "running_mean", "running_var"))
    yield f"{path}.bn.num_batches_tracked", ()


def _affine(path: str, *shape: int) -> Layout:
    yield f"{path}.weight", shape
    yield f"{path}.bias", shape[:1]


def _published() -> Layout:
    """Names and shapes of TinyViT-5M in MobileSAM's checkpoint, its classifier left out."""
    yield from _conv("patch_embed.seq.0", 32, 3, 3)
    yield from _conv("patch_embed.seq.2", 64, 32, 3)
    for block in ("layers.0.blocks.0", "layers.0.blocks.1"):
        yield from _conv(f"{block}.conv1", 256, 64, 1)
        yield from _conv(f"{block}.conv2", 256, 1, 3)
        yield from _conv(f"{block}.conv3", 64, 256, 1)
    for i, (dim, out) in enumerate(((64, 128), (128, 160), (160, 320))):
        yield from _conv(f"layers.{i}.downsample.conv1", out, dim, 1)
        yield from _conv(f"layers.{i}.downsample.conv2", out, 1, 3)
        yield from _conv(f"layers.{i}.downsample.conv3", out, out, 1)
    for i, dim, depth, heads, window in ((1, 128, 2, 4, 7), (2, 160, 6, 5, 14), (3, 320, 2, 10, 7)):
        for block in (f"layers.{i}.blocks.{j}" for j in range(depth)):
            yield f"{block}.attn.attention_biases", (heads, window * window)
            yield from _affine(f"{block}.attn.norm", dim)
            yield from _affine(f"{block}.attn.qkv", 3 * dim, dim)
            yield from _affine(f"{block}.attn.proj", dim, dim)
            yield from _affine(f"{block}.mlp.norm", dim)
            yield from _affine(f"{block}.mlp.fc1", 4 * dim, dim)
            yield from _affine(f"{block}.mlp.fc2", dim, 4 * dim)
            yield from _conv(f"{block}.local_conv", dim, 1, 3)
    yield "neck.0.weight", (256, 320, 1, 1)
    yield "neck.2.weight", (256, 256, 3, 3)
    yield from _affine("neck.1", 256)
    yield from _affine("neck.3", 256)


def test_full_sizes_are_the_published_ones() -> None:
    """With a classifier of 1000 classes in place of the neck: 5.39 million, TinyViT-5M as published."""
    with torch.device("meta"):
        net = MobileEncoder(MobileShape())
    assert {name: tuple(x.shape) for name, x in net.state_dict().items()} == dict(_published())
    whole, neck = (sum(p.numel() for p in part.parameters()) for part in (net, net.neck))
    classifier = 2 * 320 + 321 * 1000
    assert (whole, whole - neck + classifier) == (5_743_892, 5_392_764)
    assert MobileShape() == _shape_in_a_checkpoint(net)


def _shape_in_a_checkpoint(net: MobileEncoder) -> object:
    with torch.device("meta"):
        rest = Sam(SamShape(encoder=None)).state_dict()
    found = shape_of(dict(rest) | {ENCODER + name: x for name, x in net.state_dict().items()})
    assert (found.grid, found.image) == (64, 1024)
    return found.encoder


@pytest.mark.parametrize("side", [64, 112])
def test_embeddings_are_a_sixteenth_of_the_image(encoder: MobileEncoder, side: int) -> None:
    found = encoder(_image(side))
    assert found.shape == (1, 16, side // 16, side // 16)
    assert found.isfinite().all() and found.std() > 0.1
    both = encoder(torch.cat((torch.zeros(1, 3, side, side), _image(side))))
    torch.testing.assert_close(both[1:], found, rtol=1e-4, atol=1e-5)


def test_attention_is_as_defined() -> None:
    """Every head, query and key in loops: weights of each head lie together in qkv, biases go by distances."""
    attention = _random(WindowAttention(Stage(6, 1, 2, 3)))
    x = torch.randn(1, 3, 3, 6)
    pixels = attention.qkv(attention.norm(x)).reshape(9, 2, 3, 3)  # pixel, head, which of q, k, v, channel
    mixed = torch.zeros(9, 2, 3)
    for head in range(2):
        for query in range(9):
            scores = torch.zeros(9)
            for key in range(9):
                down, across = abs(query // 3 - key // 3), abs(query % 3 - key % 3)
                bias = attention.attention_biases[head, 3 * down + across]
                scores[key] = pixels[query, head, 0] @ pixels[key, head, 1] / 3**0.5 + bias
            mixed[query, head] = scores.softmax(0) @ pixels[:, head, 2]
    wanted = attention.proj(mixed.reshape(1, 3, 3, 6))
    torch.testing.assert_close(attention(x), wanted)


def test_blocks_attend_within_windows_and_to_the_zeros_beyond_the_image() -> None:
    block = _random(WindowBlock(Stage(6, 1, 2, 3)))
    attention, x = block.attn, torch.randn(1, 6, 4, 4)
    after, local, mlp = {}, block.local_conv, block.mlp
    local.register_forward_pre_hook(lambda _, given: after.update(attended=given[0]))
    found = block(x)
    corner = torch.zeros(1, 3, 3, 6)
    corner[0, 0, 0] = x[0, :, 3, 3]
    torch.testing.assert_close(after["attended"][0, :, 3, 3], x[0, :, 3, 3] + attention(corner)[0, 0, 0])
    first = x[:, :, :3, :3].movedim(1, -1)
    torch.testing.assert_close(after["attended"][:, :, :3, :3].movedim(1, -1), first + attention(first))
    mixed = local(after["attended"]).movedim(1, -1)  # no shortcut around the convolution
    torch.testing.assert_close(found.movedim(1, -1), mixed + mlp(mixed))


def _by_hand(part: ConvNorm, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    """A convolution, then the batch norm by its running statistics."""
    y = F.conv2d(x, part.c.weight, None, stride, part.c.weight.shape[-1] // 2, 1, groups)
    mean, scale, bias = (v[:, None, None] for v in (part.bn.running_mean, part.bn.weight, part.bn.bias))
    return (y - mean) / (part.bn.running_var[:, None, None] + 1e-5).sqrt() * scale + bias


def test_convolutional_blocks_are_as_defined() -> None:
    block, x = _random(ConvBlock(4)), torch.randn(1, 4, 5, 5)
    wide = F.gelu(_by_hand(block.conv1, x))
    wanted = F.gelu(x + _by_hand(block.conv3, F.gelu(_by_hand(block.conv2, wide, groups=16))))
    torch.testing.assert_close(block(x), wanted)


@pytest.mark.parametrize("stride", [1, 2])
def test_mergings_are_as_defined(stride: int) -> None:
    merge, x = _random(merging(4, 6, stride)), torch.randn(1, 4, 6, 6)
    mixed = F.gelu(_by_hand(merge.conv1, x))
    wanted = _by_hand(merge.conv3, F.gelu(_by_hand(merge.conv2, mixed, stride, groups=6)))
    torch.testing.assert_close(merge(x), wanted)
    assert wanted.shape == (1, 6, 6 // stride, 6 // stride)


def _file(sam: Sam) -> dict[str, Tensor]:
    """The state_dict as MobileSAM's files hold it: with a classifier, and the places of biases as some have them."""
    state = sam.state_dict()
    unused = {"head.weight": (5, 16), "head.bias": (5,), "norm_head.weight": (16,), "norm_head.bias": (16,)}
    state |= {ENCODER + name: torch.ones(shape) for name, shape in unused.items()}
    return state | {f"{ENCODER}layers.1.blocks.0.attn.attention_bias_idxs": torch.zeros(9, 9, dtype=torch.int64)}


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_checkpoints_come_back(sam: Sam, encoder: MobileEncoder, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"mobile_sam.{ending}"
    torch.save(_file(sam), path) if ending == "pt" else safetensors.torch.save_file(_file(sam), path)
    loaded = load_sam(path)
    assert loaded.shape == SHAPE and not loaded.training
    assert isinstance(loaded.image_encoder, MobileEncoder)
    assert torch.equal(loaded.image_encoder(_image()), encoder(_image()))
    assert {name: x.dtype for name, x in loaded.state_dict().items()} == {
        n: x.dtype for n, x in sam.state_dict().items()
    }
    assert not any(x.is_meta for x in loaded.state_dict().values())


def test_wrong_checkpoints_give_one_line(sam: Sam, tmp_path: Path) -> None:
    state, path = _file(sam), f"{ENCODER}layers.1.blocks.0"
    biases = f"{path}.attn.attention_biases"
    wrong = {
        "Unexpected key.*head2": state | {f"{ENCODER}head2.weight": torch.ones(2)},
        "Missing key.*running_var": {k: x for k, x in state.items() if k != f"{path}.local_conv.bn.running_var"},
        "size mismatch.*mlp.fc1.weight": state | {f"{path}.mlp.fc1.weight": torch.ones(24, 8)},
        "size mismatch.*attention_biases": state | {biases: torch.ones(2, 8)},
        "layers.1.blocks.0.attn: 3 heads with 9 biases do not fit 8 channels": state | {biases: torch.ones(3, 9)},
        "2 heads with 0 biases": state | {biases: torch.ones(2, 0)},
        "does not fit SAM .*by zero": state | {biases: torch.ones(0, 9)},
        "does not fit SAM .*not enough values": state | {biases: torch.ones(9)},
        "it holds no image_encoder.layers.1.blocks.0.attn.qkv": {k: x for k, x in state.items() if "qkv" not in k},
        "it holds no image_encoder.neck.0": {k: x for k, x in state.items() if "neck" not in k},
        "it holds no image_encoder.layers.0": {k: x for k, x in state.items() if ".layers." not in k or "decoder" in k},
    }
    for message, content in wrong.items():
        torch.save(content, tmp_path / "sam.pt")
        with pytest.raises(BitfabError, match=message) as error:
            load_sam(tmp_path / "sam.pt")
        assert "\n" not in str(error.value)


def test_a_classifier_belongs_to_no_other_sam(tmp_path: Path) -> None:
    state = Sam(SamShape(dim=8, depth=1, hidden=8, mask_channels=4, iou_hidden=8, encoder=None)).state_dict()
    torch.save(state, tmp_path / "sam.pt")
    assert load_sam(tmp_path / "sam.pt").image_encoder is None
    torch.save(state | {"mask_decoder.attention_bias_idxs": torch.ones(2)}, tmp_path / "sam.pt")
    with pytest.raises(BitfabError, match="Unexpected key"):
        load_sam(tmp_path / "sam.pt")


def _bytes(net: nn.Module) -> int:
    return sum(x.numel() * x.element_size() for x in net.state_dict().values())


def test_dynamic_integers_are_smaller_and_near() -> None:
    net = _random(MobileEncoder(MobileShape()))
    integers = quantize_dynamic(net)
    assert _bytes(integers) < 0.28 * _bytes(net)
    wanted = net(_image())
    assert (integers(_image()) - wanted).norm() < 0.1 * wanted.norm()


def test_moved_scales_change_nothing_and_static_integers_stay_near(encoder: MobileEncoder) -> None:
    inputs = [(_image(),)]
    wanted = encoder(_image())
    moves = scale_moves(encoder)
    assert len(moves) == 2 * sum(stage.depth for stage in SMALL.stages)
    moved = move_scales(encoder, inputs, moves)
    torch.testing.assert_close(moved(_image()), wanted, rtol=1e-3, atol=1e-4)
    assert not torch.equal(moved.get_submodule("layers.1.blocks.0.attn.norm").weight, torch.ones(8))
    mixed = quantize_mixed(moved, inputs)
    assert mixed.integer_share == 1
    assert (mixed.module(_image()) - wanted).norm() < 0.2 * wanted.norm()
