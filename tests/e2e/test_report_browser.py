"""The page in a real browser: it renders, fits a desk and a phone, is legible in both themes, and asks for nothing."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bitfab.report import Report, write_html
from bitfab.report.html import render_html
from tests.report_example import classification_samples, example_report, segmentation_samples

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt install chromium)")

DARK = "--blink-settings=preferredColorScheme=0"
LEAST_CONTRAST = 4.5  # WCAG 2.2, success criterion 1.4.3

# The browser makes no window narrower than 500 pixels, so each page is shown in a frame of the width asked for.
HARNESS = """<!DOCTYPE html>
<iframe style="width:%dpx;height:14000px;border:0" srcdoc="%s"></iframe>
<pre id="result"></pre>
<script>
function light(colour) {
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = colour.match(/[\\d.]+/g).map(v => linear(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function ground(element) {
  for (let e = element; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
}
function contrast(element) {
  const [a, b] = [light(getComputedStyle(element).color), light(ground(element))].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}
addEventListener("load", () => {
  const frame = document.querySelector("iframe"), page = frame.contentDocument, root = page.documentElement;
  const shown = e => {
    const box = e.getBoundingClientRect();
    return box.width > 0 && box.height > 0 && box.left < root.clientWidth;
  };
  const hasText = e => [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim());
  const written = [...page.querySelectorAll("main *")].filter(hasText);
  const found = {
    width: root.clientWidth, scroll: root.scrollWidth,
    tables: [...page.querySelectorAll("table")].map(shown),
    charts: [...page.querySelectorAll("svg[aria-label]")].filter(e => e.checkVisibility()).map(shown),
    bars: [...page.querySelectorAll("path")].map(e => e.getBoundingClientRect()).map(b => b.width > 9 && b.height > 9),
    fills: ["within", "beyond"].map(kind => getComputedStyle(page.querySelector("path." + kind)).fill),
    images: [...page.images].map(i => i.complete && i.naturalWidth > 0 && shown(i)),
    faint: written.filter(e => contrast(e) < %g).map(e => e.tagName + ": " + e.textContent.slice(0, 40)),
    paper: light(getComputedStyle(page.body).backgroundColor), texts: written.length,
    requests: frame.contentWindow.performance.getEntriesByType("resource").map(e => e.name),
  };
  document.getElementById("result").textContent = JSON.stringify(found);
});
</script>
"""


def browse(folder: Path, address: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]
    command += [f"--user-data-dir={folder / 'profile'}", *options, address.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def inspect(folder: Path, page: str, width: int, *options: str) -> dict[str, Any]:
    """What the browser finds when it shows the page in that width."""
    harness = folder / "harness.html"
    harness.write_text(HARNESS % (width, html.escape(page), LEAST_CONTRAST))
    dom = browse(folder, harness, "--window-size=1600,1000", "--dump-dom", *options).stdout
    result = re.search(r'<pre id="result">(.*?)</pre>', dom, re.DOTALL)
    assert result is not None and result[1], dom[-2000:]
    found: dict[str, Any] = json.loads(html.unescape(result[1]))
    return found


def complaints(run: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in run.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("theme", [(), (DARK,)], ids=["light", "dark"])
def test_page_fits_and_is_legible(tmp_path: Path, width: int, theme: tuple[str, ...]) -> None:
    found = inspect(tmp_path, render_html(example_report(), segmentation_samples()), width, *theme)
    assert found["width"] == width
    assert found["scroll"] <= width
    assert found["tables"] == [True] * 8
    assert found["images"] == [True] * 24
    assert found["bars"] == [True] * 18  # histograms, and what one of them clips, in another colour
    assert found["charts"] == [True] * (18 if width == 1280 else 17)  # a phone leaves the axis out
    assert len(set(found["fills"])) == 2
    assert found["texts"] > 200
    assert found["faint"] == []
    assert found["requests"] == []
    assert found["paper"] < 0.05 if theme else found["paper"] > 0.9


def test_page_of_a_classification_fits_a_phone(tmp_path: Path) -> None:
    found = inspect(tmp_path, render_html(example_report(), classification_samples()), 400)
    assert found["scroll"] <= 400
    assert found["images"] == [True] * 20


def test_the_inspection_sees_what_is_wrong(tmp_path: Path) -> None:
    wrong = '<p style="width:900px;color:#999">faint</p><img src="http://127.0.0.1:9/missing.png"></main>'
    page = render_html(example_report(), []).replace("</main>", wrong)
    found = inspect(tmp_path, re.sub("<meta http-equiv.*?>", "", page), 400)
    assert found["scroll"] > 400
    assert found["faint"] == ["P: faint"]
    assert found["images"] == [False]
    assert found["requests"] == ["http://127.0.0.1:9/missing.png"]


def test_console_is_silent_and_the_policy_lets_nothing_out(tmp_path: Path) -> None:
    page, wrong = tmp_path / "report.html", tmp_path / "wrong.html"
    write_html(example_report(), segmentation_samples(), page)
    wrong.write_text(page.read_text().replace("</main>", '<img src="missing.png"></main>'))
    picture = tmp_path / "page.png"
    assert complaints(browse(tmp_path, page, f"--screenshot={picture}", "--window-size=1280,2000")) == []
    assert picture.stat().st_size > 50_000
    assert any("Content Security Policy" in line for line in complaints(browse(tmp_path, wrong, "--dump-dom")))


@pytest.mark.parametrize("width", [1280, 400])
def test_long_names_do_not_widen_the_page(tmp_path: Path, width: int) -> None:
    found = inspect(tmp_path, render_html(with_long_names(example_report()), []), width)
    assert found["scroll"] <= width
    assert found["tables"] == [True] * 8


def with_long_names(report: Report) -> Report:
    long = "x" * 70
    return replace(
        report,
        application=long,
        layers=tuple(replace(layer, name=f"{long}_{layer.name}", op=long) for layer in report.layers),
        fifos=tuple(replace(fifo, name=f"{long}_{fifo.name}") for fifo in report.fifos),
        critical_path=tuple(replace(hop, instance=long, layer=long) for hop in report.critical_path),
        critical_layer=long,
        quantized=tuple(replace(layer, name=f"{long}.{layer.name}") for layer in report.quantized),
        wall_seconds={long: 1.0},
        recipe={long: long},
        versions={long: long},
        command=long * 3,
    )
