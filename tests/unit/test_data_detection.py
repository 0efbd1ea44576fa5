"""What stands around a detector: photos, letterbox, decoding, suppression, agreement and precision of boxes."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfab.data import coco, photos
from bitfab.data.detection import Boxes, agreement, cells, decode, detect, iou, letterbox, matches, suppress
from bitfab.errors import BitfabError

SIZE = (64, 96)
MARKS = {
    "images": [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}, {"id": 11, "file_name": "empty.png"}],
    "categories": [{"id": 5, "name": "dog"}, {"id": 3, "name": "cat"}],
    "annotations": [
        {"image_id": 7, "category_id": 3, "bbox": [10, 10, 40, 30]},
        {"image_id": 7, "category_id": 5, "bbox": [60, 20, 50, 50], "area": 2000, "iscrowd": 0},
        {"image_id": 9, "category_id": 5, "bbox": [5, 5, 20, 80]},
    ],
}

seeds = st.integers(0, 2**32 - 1)


def some_boxes(seed: int, count: int, classes: int = 3) -> Boxes:
    """Boxes that overlap often, with equal scores among them, and empty ones."""
    random = np.random.default_rng(seed)
    low = random.integers(0, 12, (count, 2))
    high = low + random.integers(0, 12, (count, 2))
    scores = random.integers(1, 6, count) / 5
    return Boxes(np.concatenate([low, high], axis=1).astype(float), scores, random.integers(0, classes, count))


def encode(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The inverse of decoding: for every cell the numbers that stand for these corners."""
    places, strides = cells(size)
    centres, sides = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    return np.concatenate([centres / strides - places, np.log(sides / strides)], axis=1)


def photo_file(folder: Path, name: str, size: tuple[int, int] = (40, 30), **options: Any) -> Path:
    image = pytest.importorskip("PIL.Image", reason='needs pip install "bitfab[detection]"')
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image.fromarray(pixels).save(folder / name, **options)
    return folder / name


@given(seeds)
def test_decode_inverts_encode(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = 8 * 12 + 4 * 6 + 2 * 3
    low = random.uniform(0, 80, (count, 2))
    corners = np.concatenate([low, low + random.uniform(0.5, 90, (count, 2))], axis=1)
    likely = random.uniform(0, 1, (count, 4))
    found, scores = decode(np.concatenate([encode(corners, SIZE), likely], axis=1), SIZE)
    np.testing.assert_allclose(found, corners, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(scores, likely[:, :1] * likely[:, 1:])


def test_cells_come_grid_by_grid_and_row_by_row() -> None:
    places, strides = cells((32, 64))
    assert len(places) == 4 * 8 + 2 * 4 + 1 * 2
    assert places[9].tolist() == [1, 1] and strides[9] == 8
    assert places[32 + 5].tolist() == [1, 1] and strides[32 + 5] == 16
    assert places[-1].tolist() == [1, 0] and strides[-1] == 32


@pytest.mark.parametrize("shape", [(126, 85), (125, 6), (126,), (126, 5)])
def test_decode_refuses_what_is_no_such_output(shape: tuple[int, ...]) -> None:
    if shape == (126, 85):
        assert decode(np.zeros(shape), SIZE)[1].shape == (126, 80)
        return
    with pytest.raises(BitfabError, match=r"puts out \(126, 5 \+ classes\)"):
        decode(np.zeros(shape), SIZE)


def test_decode_refuses_nan_and_survives_huge_sizes() -> None:
    output = np.zeros((126, 6))
    output[:, 2:4] = 1e30
    assert np.isfinite(decode(output, SIZE)[0]).all()
    output[3, 4] = np.nan
    with pytest.raises(BitfabError, match="NaN"):
        decode(output, SIZE)


@given(seeds, st.integers(0, 25), st.sampled_from([0.0, 0.25, 0.5, 0.65, 1.0]))
def test_suppress_is_its_definition(seed: int, count: int, overlap: float) -> None:
    boxes = some_boxes(seed, count)
    order = sorted(range(count), key=lambda i: (-boxes.scores[i], i))
    stays: list[int] = []
    for i in order:
        rivals = [j for j in stays if boxes.classes[j] == boxes.classes[i]]
        if all(iou(boxes.corners[[j]], boxes.corners[[i]])[0, 0] <= overlap for j in rivals):
            stays.append(i)
    assert suppress(boxes, overlap).tolist() == stays


@given(seeds)
def test_iou_counts_pixels(seed: int) -> None:
    ones, others = some_boxes(seed, 4).corners, some_boxes(seed + 1, 5).corners

    def mask(box: np.ndarray) -> np.ndarray:
        pixels = np.zeros((24, 24), bool)
        left, top, right, bottom = box.astype(int)
        pixels[top:bottom, left:right] = True
        return pixels

    found = iou(ones, others)
    for i, one in enumerate(ones):
        for j, other in enumerate(others):
            union = (mask(one) | mask(other)).sum()
            expected = (mask(one) & mask(other)).sum() / union if union else 0.0
            assert found[i, j] == pytest.approx(expected)


@given(seeds, st.integers(10, 300), st.integers(10, 300))
def test_letterbox_keeps_the_ratio_and_boxes_come_back(seed: int, height: int, width: int) -> None:
    photo = np.full((height, width, 3), (10, 20, 30), np.uint8)
    boxed = letterbox(photo, SIZE)
    inside = (boxed.image[0] == 30) & (boxed.image[1] == 20) & (boxed.image[2] == 10)  # blue, green, red
    rows, columns = inside.any(axis=1).sum(), inside.any(axis=0).sum()
    assert boxed.image.shape == (3, *SIZE) and inside[:rows, :columns].all()
    assert (boxed.image[:, ~inside] == 114).all()
    assert boxed.ratio == min(SIZE[0] / height, SIZE[1] / width)
    assert abs(rows - height * boxed.ratio) <= 1 and abs(columns - width * boxed.ratio) <= 1

    random = np.random.default_rng(seed)
    low = random.uniform(0, 0.5, 2) * (width, height)
    high = low + random.uniform(0.2, 0.5, 2) * (width, height)
    output = np.zeros((126, 7))
    output[:, :4] = encode(np.tile(np.concatenate([low, high]) * boxed.ratio, (126, 1)), SIZE)
    output[17, 4:] = 0.9, 0.1, 0.8
    found = detect(output, SIZE, (height, width))
    assert len(found) == 1 and found.classes.tolist() == [1]
    assert found.scores[0] == pytest.approx(0.72)
    np.testing.assert_allclose(found.corners[0], [*low, *high], rtol=1e-9, atol=1e-6)


def test_letterbox_at_its_own_size_changes_nothing_and_halving_takes_means() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    assert np.array_equal(letterbox(photo, SIZE).image, photo.transpose(2, 0, 1)[::-1])
    halved = letterbox(photo, (SIZE[0] // 2, SIZE[1] // 2)).image
    means = photo.reshape(SIZE[0] // 2, 2, SIZE[1] // 2, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(halved, np.rint(means).transpose(2, 0, 1)[::-1])


def test_detect_clips_to_the_photo_and_keeps_the_best() -> None:
    output = np.zeros((126, 6))
    output[:, 2:4], output[:, 4], output[:, 5] = np.log(0.5), 1.0, np.linspace(0.02, 1, 126)
    output[0, 2:4] = 9
    found = detect(output, SIZE, (32, 48), most=7)
    assert len(found) == 7 and (np.diff(found.scores) <= 0).all()
    assert (found.corners >= 0).all() and (found.corners <= [48, 32, 48, 32]).all()


@given(seeds, st.integers(0, 12))
def test_boxes_agree_with_themselves_wholly(seed: int, count: int) -> None:
    boxes = some_boxes(seed, count)
    full = boxes[(boxes.corners[:, 2:] > boxes.corners[:, :2]).all(axis=1)]
    same = agreement([(full, full)], 0.75)
    assert same.share == 1 and same.shared == len(full) and same.score == 0
    others = some_boxes(seed + 1, 9)
    pairs = matches(full, others)
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
    for a, b in pairs:
        assert full.classes[a] == others.classes[b] and iou(full.corners[[a]], others.corners[[b]])[0, 0] >= 0.5
    assert agreement([(full, others)]) == agreement([(full, others), (full[:0], others[:0])])


def test_agreement_counts_both_sides_and_classes() -> None:
    one = Boxes(np.array([[0, 0, 10, 10], [20, 20, 30, 30.0]]), np.array([0.9, 0.5]), np.array([0, 1]))
    other = Boxes(np.array([[0, 0, 10, 8], [20, 20, 30, 30.0]]), np.array([0.7, 0.5]), np.array([0, 2]))
    found = agreement([(one, other)])
    assert (found.shared, found.reference, found.found, found.share) == (1, 2, 2, 0.5)
    assert found.score == pytest.approx(0.2)
    assert agreement([(one, other)], 0.9).shared == 0
    assert agreement([]).share == 1


def marks(folder: Path, content: object = MARKS) -> Path:
    path = folder / "marks.json"
    path.write_text(json.dumps(content))
    return path


def perfect(truth: coco.Truth, name: str) -> Boxes:
    marked = truth.photos[name]
    return Boxes(marked.corners, np.ones(len(marked.classes)), marked.classes)


def test_perfect_boxes_have_precision_1_and_worse_ones_less(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pycocotools", reason='needs pip install "bitfab[detection]"')
    truth = coco.read(marks(tmp_path))
    assert truth.classes == ("cat", "dog")
    found = {name: perfect(truth, name) for name in truth.photos}
    assert coco.mean_average_precision(truth, found) == coco.Precision(1.0, 1.0)
    dogs = {name: boxes[boxes.classes == 1] for name, boxes in found.items()}
    assert coco.mean_average_precision(truth, dogs) == coco.Precision(0.5, 0.5)
    shrunk = {name: Boxes(b.corners * [1, 1, 0.97, 0.97], b.scores, b.classes) for name, b in found.items()}
    rough = coco.mean_average_precision(truth, shrunk)
    assert rough.map50 == 1.0 and 0.3 < rough.map < 1
    nothing = {name: boxes[:0] for name, boxes in found.items()}
    assert coco.mean_average_precision(truth, nothing) == coco.Precision(0.0, 0.0)
    assert capsys.readouterr().out == ""


def test_precision_refuses_what_has_no_truth(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools", reason='needs pip install "bitfab[detection]"')
    truth = coco.read(marks(tmp_path))
    boxes = perfect(truth, "a.png")
    with pytest.raises(BitfabError, match=r"^c\.png: has no annotations"):
        coco.mean_average_precision(truth, {"c.png": boxes})
    with pytest.raises(BitfabError, match="class 2, but the annotations know 2"):
        coco.mean_average_precision(truth, {"a.png": Boxes(boxes.corners, boxes.scores, boxes.classes + 1)})
    with pytest.raises(BitfabError, match="nothing is marked"):
        coco.mean_average_precision(truth, {"empty.png": boxes[:0]})


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {**MARKS, "categories": []},
        {**MARKS, "images": 3},
        {**MARKS, "annotations": [{"image_id": 8, "category_id": 3, "bbox": [1, 2, 3, 4]}]},
        {**MARKS, "annotations": [{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3]}]},
        {**MARKS, "annotations": [{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, float("inf")]}]},
    ],
)
def test_annotations_of_another_format_are_refused_in_one_line(tmp_path: Path, content: object) -> None:
    with pytest.raises(BitfabError, match=r"marks\.json: .*; give annotations in COCO's format") as error:
        coco.read(marks(tmp_path, content))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff"])
def test_damaged_annotations_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "marks.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(BitfabError, match=r"marks\.json: "):
        coco.read(path)
    with pytest.raises(BitfabError, match="no such file"):
        coco.read(tmp_path / "absent.json")


def test_photos_come_in_order_as_colours(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "c.webp"):
        photo_file(tmp_path, name, format={"G": "PNG", "g": "JPEG", "p": "WEBP"}[name[-1]])
    (tmp_path / "notes.txt").write_text("no photo")
    (tmp_path / "d.png").mkdir()
    found = photos.folder(tmp_path)
    assert [path.name for path in found] == ["a.jpg", "b.PNG", "c.webp"]
    assert photos.read(found[1]).shape == (30, 40, 3) and photos.read(found[1]).dtype == np.uint8
    expected = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    assert np.array_equal(photos.read(found[1]), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_every_kind_of_photo_becomes_three_colours(tmp_path: Path, mode: str) -> None:
    image = pytest.importorskip("PIL.Image", reason='needs pip install "bitfab[detection]"')
    path = tmp_path / f"photo.{'jpg' if mode == 'CMYK' else 'png'}"
    image.new(mode, (5, 4)).save(path)
    assert photos.read(path).shape == (4, 5, 3)


def test_a_photo_taken_sideways_is_turned_upright(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason='needs pip install "bitfab[detection]"')
    turned = image.new("RGB", (40, 30))
    metadata = turned.getexif()
    metadata[0x0112] = 6  # orientation: the camera was held upright
    turned.save(tmp_path / "photo.jpg", exif=metadata)
    assert photos.read(tmp_path / "photo.jpg").shape == (40, 30, 3)


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BitfabError, match="no photos in this folder"):
        photos.folder(tmp_path)
    with pytest.raises(BitfabError, match="no such folder"):
        photos.folder(tmp_path / "absent")
    with pytest.raises(BitfabError, match="is a file"):
        photos.folder(marks(tmp_path))


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.webp", "photo.bmp"])
def test_damaged_photos_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    whole = photo_file(tmp_path, name).read_bytes()
    random = np.random.default_rng(1)
    refused = 0
    for trial in range(40):
        damaged = bytearray(whole)
        if trial % 2:
            damaged = damaged[: int(random.integers(0, len(whole)))]
        else:
            for place in random.integers(0, min(len(whole), 200), 8):
                damaged[place] = int(random.integers(0, 256))
        (tmp_path / name).write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                photos.read(tmp_path / name)
            except BitfabError as error:
                refused += 1
                assert name in str(error) and "\n" not in str(error)
    assert refused >= 20


def test_other_formats_absent_files_and_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo_file(tmp_path, "photo.tiff").rename(tmp_path / "photo.png")
    with pytest.raises(BitfabError, match="damaged, or no photo"):
        photos.read(tmp_path / "photo.png")
    with pytest.raises(BitfabError, match="no such file"):
        photos.read(tmp_path / "absent.png")
    large = photo_file(tmp_path, "large.png", (100, 100))
    monkeypatch.setattr(photos, "MAX_PIXELS", 9_999)
    with pytest.raises(BitfabError, match="100 x 100 pixels, at most 9,999"):
        photos.read(large)


def test_what_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(BitfabError, match=r"Pillow.*bitfab\[detection\]"):
        photos.read(tmp_path / "a.jpg")
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(BitfabError, match=r"pycocotools.*bitfab\[detection\]"):
        coco.mean_average_precision(coco.read(marks(tmp_path)), {})
