"""The report: fixed names in the JSON, honest figures, and a page that is whole, small, offline and well formed."""

import dataclasses
import json
import math
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bitfab.errors import BitfabError
from bitfab.report import (
    Accuracy,
    Available,
    ClassificationSample,
    Distribution,
    Metric,
    Network,
    QuantizedLayer,
    Report,
    Resources,
    SegmentationSample,
    SizeBytes,
    Verification,
    gops,
    images_per_second,
    latency_us,
    png,
    text,
    timing,
    write_html,
    write_json,
)
from bitfab.report.histogram import HEIGHT, WIDTH, histogram
from bitfab.report.html import render_html
from bitfab.report.pictures import MASK_PALETTE, panels
from tests.report_example import classification_samples, example_layers, example_report, segmentation_samples

FIXED_NAMES = {
    "network": {"parameters", "macs"},
    "accuracy": {
        "metric", "float", "integer", "pixel_accuracy_float", "pixel_accuracy_integer", "f1_float", "f1_integer",
    },
    "size_bytes": {"float", "integer"},
    "verification": {"images", "values_compared", "mismatches", "simulator", "fifo_peaks"},
    "timing": {
        "cycles_per_image", "latency_cycles", "fmax_mhz", "latency_us", "images_per_second", "gops", "mac_utilization",
    },
    "resources": {"part", "lut", "ff", "dsp", "bram", "available", "note"},
}  # fmt: skip
VOID = {"meta", "link", "img", "wbr", "br", "hr", "line", "circle", "path"}


def bare_report() -> Report:
    """What a build knows that neither measured, nor simulated, nor synthesized."""
    return Report(
        application="net",
        network=Network(100, 1000),
        accuracy=Accuracy(),
        size_bytes=SizeBytes(400, 100),
        verification=Verification(0, 0, 0, None, {}),
        timing=timing(cycles_per_image=10, latency_cycles=20, fmax_mhz=None, macs=1000, layers=()),
        resources=Resources("ecp5-25k", None, None, None, None, Available(24288, 24288, 28, 56)),
        wall_seconds={},
    )


def renamed_layer(report: Report, name: str) -> Report:
    first = dataclasses.replace(report.layers[0], name=name)
    return dataclasses.replace(report, layers=(first, *report.layers[1:]))


class Page(HTMLParser):
    """Checks that tags nest, and keeps every tag with its attributes."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


# ---- the JSON


def test_json_has_the_fixed_names(tmp_path: Path) -> None:
    write_json(example_report(), tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report)[:8] == [
        "application", "network", "accuracy", "size_bytes", "verification", "timing", "resources", "wall_seconds",
    ]  # fmt: skip
    for name, fields in FIXED_NAMES.items():
        assert set(report[name]) == fields
    assert set(report["resources"]["available"]) == {"lut", "ff", "dsp", "bram"}
    assert report["verification"]["fifo_peaks"]["skip_0"] == {"depth": 1024, "peak": 771}
    assert report["accuracy"]["metric"] == "iou"
    assert report["layers"][0]["input_shapes"] == [[1, 64, 64]]
    assert report["critical_path"][0]["kind"] == "clk-to-q"
    names = {field.name for field in dataclasses.fields(Distribution)}
    for layer in report["quantized"]:
        assert set(layer) == {"name", "sqnr_db", "weights", "activation"}
        assert set(layer["weights"]) == set(layer["activation"]) == names
    assert report["quantized"][0]["weights"]["clipped"] is None and report["quantized"][0]["weights"]["counts"] == []
    assert len(report["quantized"][1]["weights"]["counts"]) == 64


def test_json_keeps_its_names_where_nothing_was_measured(tmp_path: Path) -> None:
    write_json(bare_report(), tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["accuracy"]) == FIXED_NAMES["accuracy"]
    assert report["timing"]["images_per_second"] is None
    assert report["timing"]["cycles_per_image"] == 10


def test_json_is_the_same_bytes_each_time_and_takes_numpy_numbers(tmp_path: Path) -> None:
    report = example_report()
    typed = dataclasses.replace(report, network=Network(np.int64(7641), np.int64(report.network.macs)))
    write_json(report, tmp_path / "a.json")
    write_json(typed, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("figure", [math.nan, math.inf, np.float32(-math.inf)])
def test_json_refuses_what_is_no_finite_number_and_leaves_the_older_file(tmp_path: Path, figure: float) -> None:
    path = tmp_path / "report.json"
    path.write_text("older")
    broken = dataclasses.replace(example_report(), accuracy=Accuracy(Metric.IOU, 0.8, figure))
    with pytest.raises(ValueError, match=r"report\.accuracy\.integer"):
        write_json(broken, path)
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_json_refuses_a_value_that_is_not_plain(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"report\.recipe\.weights: a set"):
        write_json(dataclasses.replace(example_report(), recipe={"weights": {8}}), tmp_path / "report.json")


@pytest.mark.parametrize("write", [write_json, lambda report, path: write_html(report, [], path)])
def test_an_output_that_cannot_be_written_is_one_clear_line(tmp_path: Path, write) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BitfabError, match=r"file/report: cannot be written .*; choose another"):
        write(example_report(), tmp_path / "file" / "report")
    (tmp_path / "taken").mkdir()
    with pytest.raises(BitfabError, match="taken: cannot be written"):
        write(example_report(), tmp_path / "taken")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "taken"]


# ---- figures


def test_derived_figures_by_hand() -> None:
    assert latency_us(5000, 100.0) == 50.0
    assert images_per_second(8000, 80.0) == 10_000.0
    assert gops(13_000_000, 10_000.0) == 260.0


def test_timing_takes_the_utilization_of_the_slowest_layer_with_macs() -> None:
    layers = example_layers()
    slowest = dataclasses.replace(layers[0], cycles=50_000, utilization=0.5)
    idle = dataclasses.replace(layers[2], cycles=90_000)
    measured = timing(
        cycles_per_image=90_000, latency_cycles=1, fmax_mhz=90.0, macs=10, layers=(*layers, slowest, idle)
    )
    assert measured.mac_utilization == 0.5
    assert measured.images_per_second == pytest.approx(1000.0)


def test_figures_as_text() -> None:
    assert text.points(0.8162, 0.8143) == "\N{MINUS SIGN}0.19\u202fpoints"
    assert text.points(0.5, 0.5000001) == "0.00\u202fpoints"
    assert text.points(0.89, 0.90) == "+1.00\u202fpoints"
    sizes = {987: "987 B", 7785: "7.79 kB", 30564: "30.6 kB", 999_600: "1.00 MB", 235e6: "235 MB", 5e12: "5000 GB"}
    assert {value: text.size(value).replace("\u202f", " ") for value in sizes} == sizes
    assert [text.rate(value) for value in (None, 3.44, 2357.1)] == ["\N{EN DASH}", "3.4", "2,357"]
    waits = {0.0154: "15.4 ns", 507.66: "507.7 \N{MICRO SIGN}s", 12_345.6: "12.3 ms"}
    assert {value: text.latency(value).replace("\u202f", " ") for value in waits} == waits
    spent = {0.04: "0.04 s", 8.24: "8.2 s", 71.6: "72 s", 119.7: "2 min 0 s", 725: "12 min 5 s"}
    assert {value: text.seconds(value).replace("\u202f", " ") for value in spent} == spent


def test_shares_and_reals_as_text() -> None:
    shares = {0: "0 %", 1e-7: "<0.01 %", 0.00034: "0.03 %", 0.1234: "12.3 %", 1: "100 %"}
    assert {value: text.share(value).replace("\u202f", " ") for value in shares} == shares
    assert [text.real(value) for value in (None, -0.01234, 14.55)] == ["\N{EN DASH}", "\N{MINUS SIGN}0.0123", "14.6"]


# ---- pictures


def test_a_histogram_marks_what_is_clipped() -> None:
    counts = (0.0, 3.0, 1.0, 0.0, 7.0)  # bins of width 1 from 0 to 5; the last lies beyond the range
    chart = histogram(Distribution(0.0, 5.0, counts, -1.0, 4.0, 7 / 11, 0.9), "Activation of a")
    assert chart is not None and chart.clips
    unit = WIDTH / 6  # the axis spans range and values: -1 to 5
    assert chart.ends == (0.0, pytest.approx(5 * unit))
    assert chart.beyond == f"M{unit:.1f} {HEIGHT}H{5 * unit:.1f}V0.0H{WIDTH:.1f}V{HEIGHT}Z"
    assert chart.inside.startswith(
        f"M{unit:.1f} {HEIGHT}H{2 * unit:.1f}V{HEIGHT - HEIGHT * math.log(4) / math.log(8):.1f}"
    )
    assert chart.inside.endswith(f"H{4 * unit:.1f}V{HEIGHT:.1f}H{WIDTH:.1f}V{HEIGHT}Z")
    words = chart.alt.replace("\u202f", " ").replace("\N{MINUS SIGN}", "-")
    assert words == "Activation of a: values from 0 to 5, codes cover -1 to 4, 63.6 % clipped, 90.0 % of the error"


def test_a_histogram_of_one_value_or_of_nothing() -> None:
    assert histogram(Distribution(), "Weights of a") is None
    chart = histogram(Distribution(0.0, 0.0, (9.0,) + 63 * (0.0,), 0.0, 0.0, 0.0, None), "Weights of a")
    assert chart is not None and not chart.clips and chart.beyond == "" and "nan" not in chart.inside


def png_chunks(data: bytes) -> dict[bytes, bytes]:
    """The chunks of a PNG by their kind, each checksum verified."""
    chunks, data = {}, data.removeprefix(b"\x89PNG\r\n\x1a\n")
    while data:
        end = 8 + int.from_bytes(data[:4])
        assert zlib.crc32(data[4:end]) == int.from_bytes(data[end : end + 4])
        chunks[data[4:8]], data = data[8:end], data[end + 4 :]
    return chunks


def test_png_holds_the_pixels() -> None:
    indices = np.random.default_rng(1).integers(0, 4, (5, 7), np.uint8)
    chunks = png_chunks(png.encode(indices, MASK_PALETTE))
    assert list(chunks) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    assert chunks[b"IHDR"] == bytes([0, 0, 0, 7, 0, 0, 0, 5, 8, 3, 0, 0, 0])
    palette = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(5, 8)
    assert not rows[:, 0].any()
    assert np.array_equal(palette[rows[:, 1:]], MASK_PALETTE[indices])


def test_png_refuses_an_index_outside_of_the_palette() -> None:
    with pytest.raises(ValueError, match="palette"):
        png.encode(np.full((2, 2), 4, np.uint8), MASK_PALETTE)
    with pytest.raises(ValueError, match="indices"):
        png.encode(np.zeros((2, 2), np.int64), MASK_PALETTE)


def test_panels_tell_iou_and_disagreement() -> None:
    truth = np.array([[1, 1, 0, 0]], np.uint8)
    by_float, by_integer = np.array([[1, 0, 0, 0]], np.uint8), np.array([[1, 1, 1, 0]], np.uint8)
    given, true, floating, integer = panels(SegmentationSample(np.zeros((1, 4)), truth, by_float, by_integer))
    assert given.alt == "Input image, 4 by 1 pixels"
    assert true.alt == "True mask, 50.0 % of the pixels"
    assert floating.figure == "IoU 50.0 %"
    assert integer.figure == "IoU 66.7 %"
    assert "2 pixels differ" in integer.alt
    assert integer.source == png.data_uri(np.array([[1, 2, 2, 0]], np.uint8), MASK_PALETTE)


def test_a_sample_of_unequal_shapes_is_refused() -> None:
    mask = np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match="all four must be the same"):
        SegmentationSample(np.zeros((4, 5)), mask, mask, mask)


# ---- the page


def test_page_is_well_formed_small_and_self_contained(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "report.html"
    write_html(example_report(), segmentation_samples(), path)
    source = path.read_text()
    assert path.stat().st_size < 3_000_000
    assert "http:" not in source and "https:" not in source and "url(" not in source and "@import" not in source
    page = Page(source)
    assert page.all("script") == []
    addresses = [value for _, a in page.tags for key, value in a.items() if key in ("src", "href", "srcset", "data")]
    assert len(addresses) == 6 * 4 + 1
    assert all(value is not None and value.startswith("data:") for value in addresses)


def test_page_has_alternative_texts_captions_and_scopes() -> None:
    page = Page(render_html(example_report(), segmentation_samples()))
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table")) == 8
    assert all(cell["scope"] in ("row", "col") for cell in page.all("th"))
    charts = page.all("svg")
    assert len(charts) == 1 + 10 + 17  # an axis; a line for each layer, its figure beside it; histograms
    assert all(chart.get("aria-label") or chart["aria-hidden"] == "true" for chart in charts)


def test_page_tells_the_figures() -> None:
    source = render_html(example_report(), []).replace("\u202f", " ").replace("<wbr>", "")
    for words in (
        "bit-exact, 92.4 MHz, 2,357 images per second",
        "5,898,240 values",
        "81.4 % intersection over union in integers",
        "31.7 %",
        "merge_0_0.engine.dot.tree",
        "8 \N{MULTIPLICATION SIGN} 16",
        "5 min 1 s",
        "bitfab demo qubit --target ecp5-85k",
    ):
        assert words in source, words


def test_page_shows_the_worst_layer_first_with_its_histograms() -> None:
    source = render_html(example_report(), [])
    section = source[source.index("Where accuracy goes") :]
    order = [section.index(f'<th scope="row">{name}') for name in ("head", "merge.<wbr>0.<wbr>3", "image", "threshold")]
    assert order == sorted(order)
    assert section.count('class="worst"') == 1 and "Least exact is <b>head</b> with 34.1 dB" in section
    assert section.count("<path") == 8 + 9 + 1  # the weights, the activations and the input, what one of them clips
    assert section.count('class="beyond"') == 1 and section.count(' clips"') == 1
    assert "31.0\u202f% of the error" in section


def test_page_without_histograms_has_no_such_section() -> None:
    assert "Where accuracy goes" not in render_html(bare_report(), [])
    unmeasured = QuantizedLayer("a", None, Distribution(), Distribution())
    source = render_html(dataclasses.replace(bare_report(), quantized=(unmeasured,)), [])
    Page(source)
    assert "Where accuracy goes" in source and "Least exact" not in source and "None" not in source


def test_page_of_a_deep_network_stays_small(tmp_path: Path) -> None:
    layers = 20 * example_report().quantized
    write_html(
        dataclasses.replace(example_report(), quantized=layers), segmentation_samples(), tmp_path / "report.html"
    )
    assert (tmp_path / "report.html").stat().st_size < 1_000_000


def test_page_says_loudly_that_values_differ() -> None:
    report = example_report()
    wrong = dataclasses.replace(report, verification=dataclasses.replace(report.verification, mismatches=3))
    source = render_html(wrong, [])
    assert "NOT bit-exact, 3 values differ" in source
    assert 'class="tile alarm"' in source
    assert "all but 3 of the 5,898,240 values" in source
    assert 'class="tile alarm"' not in render_html(report, [])


def test_page_escapes_names_from_outside() -> None:
    hostile = '<script>alert("1")</script>'
    quantized = (dataclasses.replace(example_report().quantized[1], name=hostile),)
    report = dataclasses.replace(renamed_layer(example_report(), hostile), command=hostile, application=hostile)
    report = dataclasses.replace(report, quantized=quantized)
    page = Page(render_html(report, [ClassificationSample(np.zeros((8, 8)), hostile, hostile, hostile)]))
    assert page.all("script") == []


def test_page_of_a_classification_marks_what_is_wrong() -> None:
    source = render_html(example_report(), classification_samples())
    assert len(Page(source).all("img")) == 20
    assert "Image of class 3; float predicts 3, integer predicts 4" in source
    assert source.count('class="wrong"') == 2  # the one prediction, and the sentence that explains the mark


def test_page_without_measurements_says_so() -> None:
    source = render_html(bare_report(), [])
    Page(source)
    for words in ("not simulated", "not measured", "not placed and routed", "was not synthesized"):
        assert words in source
    assert "bit-exact" not in source and "None" not in source


def test_page_is_the_same_text_each_time() -> None:
    assert render_html(example_report(), segmentation_samples()) == render_html(
        example_report(), segmentation_samples()
    )


def test_a_page_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitfab.report.html.LIMIT_BYTES", 40_000)
    with pytest.raises(BitfabError, match="the limit is 40000: show fewer or smaller pictures"):
        write_html(example_report(), segmentation_samples(), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_import_loads_no_torch() -> None:
    code = "import sys, bitfab.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
