"""The classes of the `segment-anything` package on random weights and inputs; what they gave, for comparison.

    python sam_reference.py SITE_PACKAGES FOLDER

Writes FOLDER/checkpoint.pth (a state_dict) and FOLDER/tensors.safetensors (inputs and outputs). torchvision, which the
package imports for other parts, is replaced by empty modules.
"""

import sys
import types
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

packages, folder = sys.argv[1], Path(sys.argv[2])
sys.path.append(packages)
for name in ("", ".ops", ".ops.boxes", ".transforms", ".transforms.functional"):
    module = sys.modules["torchvision" + name] = types.ModuleType("torchvision" + name)
    for function in ("batched_nms", "box_area", "resize", "to_pil_image"):
        setattr(module, function, None)

from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer  # noqa: E402

SIZE, GRID, DIM = 160, 10, 256

torch.manual_seed(0)
parts = {
    "image_encoder": ImageEncoderViT(
        SIZE,
        16,
        3,
        32,
        3,
        4,
        4,
        DIM,
        True,
        partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=4,
        global_attn_indexes=(2,),
    ),
    "prompt_encoder": PromptEncoder(DIM, (GRID, GRID), (SIZE, SIZE), 16),
    "mask_decoder": MaskDecoder(transformer_dim=DIM, transformer=TwoWayTransformer(2, DIM, 8, 2048)),
}
for part in parts.values():
    for parameter in part.eval().requires_grad_(False).parameters():
        nn.init.normal_(parameter, mean=0.3 if parameter.ndim == 1 else 0, std=0.1)
torch.save(
    {f"{name}.{key}": x for name, part in parts.items() for key, x in part.state_dict().items()},
    folder / "checkpoint.pth",
)

inputs = {
    "image": torch.randn(1, 3, SIZE, SIZE),
    "points": SIZE * torch.rand(3, 2, 2),
    "labels": torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, -1.0]]),
    "boxes": SIZE * torch.rand(3, 4),
    "masks": torch.randn(3, 1, 4 * GRID, 4 * GRID),
}
embedding = parts["image_encoder"](inputs["image"])
outputs = {"embedding": embedding}
for given in ("points", "boxes", "points boxes", "points boxes masks"):
    sparse, dense = parts["prompt_encoder"](
        points=(inputs["points"], inputs["labels"]) if "points" in given else None,
        boxes=inputs["boxes"] if "boxes" in given else None,
        masks=inputs["masks"] if "masks" in given else None,
    )
    pairs = [
        parts["mask_decoder"](embedding, parts["prompt_encoder"].get_dense_pe(), sparse, dense, several)
        for several in (False, True)
    ]
    outputs[f"logits: {given}"], outputs[f"iou: {given}"] = (torch.cat(pair, 1) for pair in zip(*pairs, strict=True))
save_file({name: x.contiguous() for name, x in (inputs | outputs).items()}, folder / "tensors.safetensors")
