"""A real detector on real photos: preparation, decoding and suppression are what the network was trained with."""

from pathlib import Path

import pytest

from bitfab import detector
from bitfab.data import coco, photos
from bitfab.frontend.onnx import load_onnx

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
MODEL, FOLDER, TRUTH = DATA / "models/yolox_nano.onnx", DATA / "coco/val2017", DATA / "coco/instances_val64.json"


@pytest.mark.skipif(not (MODEL.exists() and TRUTH.exists()), reason=f"needs {MODEL} and {TRUTH}")
def test_yolox_finds_what_is_marked_in_photos() -> None:
    pytest.importorskip("PIL", reason='needs pip install "bitfab[detection]"')
    pytest.importorskip("pycocotools", reason='needs pip install "bitfab[detection]"')
    paths = photos.folder(FOLDER)[:12]
    found = detector.boxes_of(detector.float_predictor(load_onnx(MODEL)), paths, (416, 416))
    precision = coco.mean_average_precision(coco.read(TRUTH), found)
    assert precision.map50 > 0.55 and precision.map > 0.35
