"""SAM from a user's checkpoint: sizes are read off its tensors, and nothing in the file is ever executed."""

from __future__ import annotations

import math
import pickle
import textwrap
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from bitfab.errors import BitfabError
from bitfab.zoo.sam import Sam, SamShape
from bitfab.zoo.sam_image_encoder import EncoderShape
from bitfab.zoo.sam_mobile_encoder import MobileShape, Stage

__all__ = ["load_sam", "shape_of"]

# MobileSAMv2's file of the prompt encoder and the mask decoder alone holds two state_dicts (its spelling).
PARTS = {"PromtEncoder": "prompt_encoder.", "MaskDecoder": "mask_decoder."}
REMEDY = (
    "give a checkpoint of the segment-anything package (sam_vit_b, _l or _h) or MobileSAM's, "
    "or its state_dict as .safetensors"
)
MOBILE = "image_encoder.patch_embed.seq."  # only MobileSAM's encoder has such parameters
CLASSIFIER = ("image_encoder.head.", "image_encoder.norm_head.")  # left in MobileSAM's files, not part of the network
COUNTER = ".num_batches_tracked"
DERIVED = ".attention_bias_idxs"  # places in tables that follow from the tables' sizes


def load_sam(path: Path) -> Sam:
    """The SAM of a checkpoint in eval mode on the CPU, float32: ViT-B, -L, -H, MobileSAM, or one without image encoder.

    `.safetensors`, else what `torch.load(weights_only=True)` reads: a state_dict in the layout of `segment-anything`
    or MobileSAM (whose classifier is left out), or MobileSAMv2's file of the prompt encoder and the mask decoder.

    Raises:
        BitfabError: the file is missing, damaged, wants code to be run, or holds another network.
    """
    tensors = _read(path)
    try:
        shape = shape_of(tensors)
        with torch.device("meta"):  # nothing is initialized only to be replaced
            sam = Sam(shape)
        sam.load_state_dict(_used(tensors), assign=True)
    except BitfabError as error:
        raise BitfabError(f"{path}: {error}") from error
    except KeyError as error:
        raise BitfabError(f"{path}: not a SAM: it holds no {error.args[0]}; {REMEDY}") from error
    except (RuntimeError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        raise BitfabError(f"{path}: does not fit SAM ({textwrap.shorten(str(error), 200)}); {REMEDY}") from error
    return sam.eval().requires_grad_(False)


def shape_of(tensors: Mapping[str, Tensor]) -> SamShape:
    """The sizes of the SAM whose state_dict this is.

    The decoder's 8 heads leave no trace in its tensors and are taken for granted; so is the size of MobileSAM's images.

    Raises:
        KeyError: a tensor that tells a size is missing.
        BitfabError: the heads of MobileSAM's encoder do not divide its channels.
    """
    encoder = _encoder_shape(tensors)
    masks, dim = tensors["mask_decoder.mask_tokens.weight"].shape
    default = SamShape()
    return SamShape(
        dim=dim,
        depth=_count(tensors, "mask_decoder.transformer.layers."),
        hidden=len(tensors["mask_decoder.transformer.layers.0.mlp.lin1.weight"]),
        masks=masks,
        mask_channels=len(tensors["prompt_encoder.mask_downscaling.3.weight"]),
        iou_hidden=len(tensors["mask_decoder.iou_prediction_head.layers.0.weight"]),
        grid=encoder.grid if isinstance(encoder, EncoderShape) else default.grid,
        image=encoder.grid * encoder.patch if isinstance(encoder, EncoderShape) else default.image,
        encoder=encoder,
    )


def _encoder_shape(tensors: Mapping[str, Tensor]) -> EncoderShape | MobileShape | None:
    if _mobile(tensors):
        return _mobile_shape(tensors)
    if any(name.startswith("image_encoder.") for name in tensors):
        return _vit_shape(tensors)
    return None


def _mobile_shape(tensors: Mapping[str, Tensor]) -> MobileShape:
    dim = tensors["image_encoder.layers.0.blocks.0.conv1.c.weight"].shape[1]
    depths = [
        _count(tensors, f"image_encoder.layers.{i}.blocks.") for i in range(_count(tensors, "image_encoder.layers."))
    ]
    stages = []
    for i, depth in enumerate(depths[1:], 1):
        path = f"image_encoder.layers.{i}.blocks.0.attn"
        heads, places = tensors[f"{path}.attention_biases"].shape
        channels = tensors[f"{path}.qkv.weight"].shape[1]
        if channels % heads or not places:
            raise BitfabError(f"{path}: {heads} heads with {places} biases do not fit {channels} channels; {REMEDY}")
        stages.append(Stage(channels, depth, heads, math.isqrt(places)))
    return MobileShape(
        dim=dim,
        depth=depths[0],
        stages=tuple(stages),
        out=len(tensors["image_encoder.neck.0.weight"]),
    )


def _vit_shape(tensors: Mapping[str, Tensor]) -> EncoderShape:
    _, grid, _, dim = tensors["image_encoder.pos_embed"].shape
    depth = _count(tensors, "image_encoder.blocks.")
    reach, size = zip(*(tensors[f"image_encoder.blocks.{i}.attn.rel_pos_h"].shape for i in range(depth)), strict=True)
    windows = [(length + 1) // 2 for length in reach]
    return EncoderShape(
        dim=dim,
        depth=depth,
        heads=dim // size[0],
        patch=tensors["image_encoder.patch_embed.proj.weight"].shape[-1],
        grid=grid,
        window=min(windows),
        whole=tuple(i for i, window in enumerate(windows) if window == grid),
        hidden=len(tensors["image_encoder.blocks.0.mlp.lin1.weight"]),
        out=len(tensors["image_encoder.neck.0.weight"]),
    )


def _used(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in float32, counters as they are, without those that MobileSAM's files hold and nothing reads."""
    mobile = _mobile(tensors)
    return {
        name: x.detach() if name.endswith(COUNTER) else x.detach().float()
        for name, x in tensors.items()
        if not (mobile and (name.startswith(CLASSIFIER) or name.endswith(DERIVED)))
    }


def _mobile(names: Iterable[str]) -> bool:
    return any(name.startswith(MOBILE) for name in names)


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in tensors if name.startswith(prefix)})


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of the file by their names."""
    try:
        if path.suffix == ".safetensors":
            found: object = safetensors.torch.load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd pickles, which are then refused
                found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BitfabError(f"{path}: no such file; {REMEDY}") from None
    except pickle.UnpicklingError as error:
        raise BitfabError(f"{path}: holds more than tensors, or is damaged, and is not opened; {REMEDY}") from error
    except (OSError, safetensors.SafetensorError, RuntimeError, EOFError, ValueError, KeyError, IndexError) as error:
        raise BitfabError(f"{path}: unreadable ({textwrap.shorten(str(error), 150)}); {REMEDY}") from error
    if isinstance(found, dict) and set(found) == set(PARTS) and all(isinstance(part, dict) for part in found.values()):
        found = {PARTS[part] + name: tensor for part, state in found.items() for name, tensor in state.items()}
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) and isinstance(k, str) for k, v in found.items()):
        raise BitfabError(f"{path}: holds no state_dict of tensors by name; {REMEDY}")
    return found
