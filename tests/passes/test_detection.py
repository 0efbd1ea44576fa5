"""A small detector from photos to boxes of its integer graph: sensitive activations found, boxes compared, a page."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

import bitfab as bf
from bitfab import detector
from bitfab.data import photos
from bitfab.data.coco import Marked, Truth
from bitfab.errors import BitfabError
from bitfab.frontend.torch import capture
from bitfab.quant import Override, Recipe, choose, fold
from bitfab.quant.encodings import Encoding
from bitfab.quant.metrics import Sqnr
from bitfab.quant.plan import make_plan
from bitfab.quant.presets import PRESETS
from bitfab.quant.sensitive import activation_sqnr, widen
from bitfab.quant.simulate import Simulation
from bitfab.report import detections
from bitfab.report.detections import Box, DetectionSample, ResultsTable, render_detections, write_detections

SIZE = (64, 64)
CLASSES = 3


class Head(nn.Module):
    """Four numbers of a box, likelihood of an object and of each class, for each cell."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.box, self.object, self.kind = (nn.Conv2d(channels, n, 1) for n in (4, 1, CLASSES))
        self.object_likely, self.kind_likely = nn.Sigmoid(), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        likely = self.object_likely(self.object(x)), self.kind_likely(self.kind(x))
        return torch.cat([self.box(x), *likely], 1).reshape(-1, 5 + CLASSES, x.shape[2] * x.shape[3])


class Detector(nn.Module):
    """YOLOX in little; one channel of its stem is 300 times as large, and counts 300 times less for what follows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_act = nn.Conv2d(3, 8, 8, 8), nn.SiLU()
        self.middle, self.middle_act = nn.Conv2d(8, 8, 3, 2, 1), nn.SiLU()
        self.last, self.last_act = nn.Conv2d(8, 8, 3, 2, 1), nn.SiLU()
        self.heads = nn.ModuleList(Head(8) for _ in range(3))
        with torch.no_grad():
            self.stem.weight /= 40
            self.stem.weight[0] *= 300
            for reader in (self.middle, self.heads[0].box, self.heads[0].object, self.heads[0].kind):
                reader.weight[:, 0] /= 300

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_act(self.stem(x))
        y = self.middle_act(self.middle(x))
        z = self.last_act(self.last(y))
        found = torch.cat([head(scale) for head, scale in zip(self.heads, (x, y, z), strict=True)], 2)
        return found.permute(0, 2, 1)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Detector().eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, *SIZE)).astype(np.float32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = pytest.importorskip("PIL.Image", reason='needs pip install "bitfab[detection]"')
    place, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(1)
    for number, (height, width) in enumerate([(64, 64), (100, 60), (48, 80)]):
        image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(place / f"{number}.png")
    return place


def sqnr(net: nn.Module, images: Tensor, recipe: Recipe) -> float:
    predict = detector.integer_predictor(bf.quantize(net, [images], recipe))
    with torch.inference_mode():
        expected = net(images).numpy()
    return float(10 * np.log10((expected**2).sum() / ((expected - predict(images.numpy())) ** 2).sum()))


def test_each_activation_is_judged_as_if_it_were_alone(net: nn.Module, images: Tensor) -> None:
    choices = choose(fold(capture(net, images[:1])), [images], Recipe())
    plan = make_plan(choices.module, choices.recipe)
    judge = Sqnr(Simulation(plan), images)
    groups: dict[fx.Node, dict[str, Encoding]] = {}
    for node in plan.observed():
        root = node
        while root in plan.adopted:
            root = plan.adopted[root]
        groups.setdefault(root, {})[node.name] = choices.encodings[node.name]
    assert max(map(len, groups.values())) == 1 + 3 * 4  # the outputs: three scales of a head's three parts
    found = activation_sqnr(choices, images)
    assert list(found.values()) == sorted(found.values())
    expected = {root.meta["source"]: judge(Simulation(plan, {}, codes)) for root, codes in groups.items()}
    assert found == pytest.approx(expected, abs=0.05)


def test_widen_finds_what_spoils_the_output_and_nothing_else(net: nn.Module, images: Tensor) -> None:
    recipe = widen(net, [images], least_db=30)
    wide = {name for name, override in recipe.overrides.items() if override.activations == 16}
    assert {"stem", "stem_act"} <= wide
    assert not {"middle", "middle_act", "last", "last_act"} & wide
    assert {f"heads.{i}.{part}" for i in range(3) for part in ("box", "object_likely", "kind_likely")} <= wide
    graph = bf.quantize(net, [images], recipe)
    assert graph.output_values[0].type.bits == 16
    assert sqnr(net, images, recipe) > sqnr(net, images, Recipe()) + 6


def test_bits_that_the_user_chose_stay(net: nn.Module, images: Tensor) -> None:
    recipe = widen(net, [images], Recipe(overrides={"stem": Override(weights=4, activations=6)}), least_db=30)
    assert recipe.overrides["stem"] == Override(weights=4, activations=6)
    assert recipe.overrides["stem_act"].activations == 16


def test_the_graph_of_the_preset_is_exact_and_finds_the_same_boxes(net: nn.Module, folder: Path) -> None:
    paths = photos.folder(folder)
    calibration = np.stack(list(detector.inputs(paths, SIZE)))
    steps: list[str] = []
    recipe = PRESETS["detection"](net, [calibration], lambda step, done, total: steps.append(step))
    assert "activations alone" in steps
    graph = bf.quantize(net, [calibration], recipe)
    codes = bf.as_integers(graph, calibration)
    assert np.array_equal(bf.run(graph, codes), bf.run_fast(graph, codes))
    found = [
        detector.boxes_of(predict, paths, SIZE)
        for predict in (detector.float_predictor(net), detector.integer_predictor(graph))
    ]
    assert list(found[0]) == ["0.png", "1.png", "2.png"] and all(map(len, found[0].values()))
    compared = detector.compare(*found)
    assert compared.agreement.share > 0.5 and compared.agreement.score < 0.01
    itself = detector.compare(found[0], found[0])
    assert itself.agreement75.share == 1


def test_precision_stands_beside_where_the_truth_is_known(net: nn.Module, folder: Path) -> None:
    pytest.importorskip("pycocotools", reason='needs pip install "bitfab[detection]"')
    found = detector.boxes_of(detector.float_predictor(net), photos.folder(folder), SIZE)
    count = {name: len(boxes) for name, boxes in found.items()}
    marked = {
        name: Marked(boxes.corners, boxes.classes, np.full(count[name], 500.0), np.zeros(count[name], bool))
        for name, boxes in found.items()
    }
    compared = detector.compare(
        found, {name: boxes[:0] for name, boxes in found.items()}, Truth(("a", "b", "c"), marked)
    )
    assert compared.float_precision and compared.integer_precision
    assert compared.float_precision.map50 > 0.5 and compared.integer_precision.map50 == 0


def test_a_folder_is_all_that_calibration_and_report_need(
    net: nn.Module, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BitfabError, match="declares no input size"):
        detector.calibration(folder, net)
    monkeypatch.setattr(net, "input_shape", (None, 3, *SIZE), raising=False)
    calibration = detector.calibration(folder, net)
    assert [image.shape for image in calibration] == [(3, *SIZE)] * 3
    line = detector.report(tmp_path / "page.html", net, bf.quantize(net, calibration), folder)
    assert line.startswith(f"{tmp_path / 'page.html'}: 3 photos, ") and "\n" not in line
    assert len(Page((tmp_path / "page.html").read_text()).all("image")) == 3
    monkeypatch.setattr(detector, "MOST_PHOTOS", 2)
    assert len(detector.calibration(folder, net)) == 2
    monkeypatch.setattr(net, "input_shape", (None, 3, None, None))
    with pytest.raises(BitfabError, match=r"declares an input of \(None, 3, None, None\)"):
        detector.calibration(folder, net)


def test_a_network_that_is_no_detector_is_refused(folder: Path, images: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with pytest.raises(BitfabError, match=r"puts out \(84, 5 \+ classes\)"):
        detector.boxes_of(detector.float_predictor(net), photos.folder(folder), SIZE)


class Page(HTMLParser):
    """What a page holds: elements with their attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page_shows_both_sets_of_boxes_and_loads_nothing(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason='needs pip install "bitfab[detection]"')
    shared = Box(1, 2, 30, 20, "dog & <cat>", 0.91, True)
    alone = Box(5, 5, 9, 9, "hat", 0.4, False)
    sample = DetectionSample("a.png", np.zeros((40, 60, 3), np.uint8), (shared,), (shared, alone))
    table = ResultsTable(("network", "mAP"), (("FP32", "0.3"), ("INT8", "0.29")), "on 3 photos")
    write_detections(tmp_path / "page.html", "A title", "A lead", table, [sample])
    text = (tmp_path / "page.html").read_text()
    assert text == render_detections("A title", "A lead", table, [sample])
    page = Page(text)
    assert len(page.all("svg")) == 2 and len(page.all("image")) == 1
    assert [item.get("class", "") for item in page.all("rect")] == ["", "", "integer"]
    assert sum("dog & <cat> 0.91" in word for word in page.words) == 2
    assert "1 box without a partner" in text and "<cat>" not in text
    sources = [value for _, items in page.elements for name, value in items.items() if name in ("src", "href")]
    assert all(value and value.startswith(("data:", "#")) for value in sources)
    assert page.all("svg")[1]["aria-label"] == "a.png: the integer network finds dog & <cat> 0.91, hat 0.40"


def test_a_page_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("PIL", reason='needs pip install "bitfab[detection]"')
    monkeypatch.setattr(detections, "LIMIT_BYTES", 5_000)
    sample = DetectionSample("a.png", np.zeros((40, 60, 3), np.uint8), (), ())
    with pytest.raises(BitfabError, match="show fewer photos"):
        write_detections(tmp_path / "page.html", "", "", ResultsTable(("a",), ()), [sample])
    assert not (tmp_path / "page.html").exists()
