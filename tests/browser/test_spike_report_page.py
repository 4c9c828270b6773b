"""A load run's report and the comparison of two in real Chromium: they open from the disk and ask for nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from loadgen.spike import compare_page
from loadgen.spike.compare import read
from loadgen.spike.comparison import compare
from loadgen.spike.report.page import page
from tests.browser.conftest import PHONE, PROJECTOR, SCREENSHOTS, SMALL_PHONE, assert_accessible, picture
from tests.spike.example_runs import PLAN, Fleet, dropped, points, summary, written

VIEWS = pytest.mark.parametrize(
    ("size", "scheme"),
    [(SMALL_PHONE, "dark"), (PHONE, "light"), (PHONE, "dark"), (PROJECTOR, "light"), (PROJECTOR, "dark")],
    ids=["small-dark", "phone-light", "phone-dark", "projector-light", "projector-dark"],
)
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])
BACKGROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(16, 17, 22)"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page(summary(), PLAN))
    return path.as_uri()


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("compared")
    a = read("A", written(path / "before"))
    b = read("B", written(path / "after", fleet=Fleet(more=120, ready_s=45), tool="locust", seed=2))
    (path / "compared.html").write_text(compare_page.page(compare(a, b)))
    return (path / "compared.html").as_uri()


def opened(guest: Any, url: str, size: dict, scheme: str) -> Any:
    """Its page, with its own sheet, and nothing else was asked for."""
    one = guest(size, color_scheme=scheme)
    asked: list[str] = []
    one.page.on("request", lambda request: asked.append(request.url))
    one.page.goto(url)
    assert one.page.evaluate("getComputedStyle(document.body).backgroundColor") == BACKGROUNDS[scheme]
    assert asked == [url]
    return one.page


@VIEWS
def test_report_is_read_by_everyone(guest: Any, report: str, size: dict, scheme: str) -> None:
    shown = opened(guest, report, size, scheme)
    expect(shown.get_by_role("heading", name="Fail")).to_be_in_viewport()
    plot = shown.get_by_role("img", name="Time to first token")
    expect(plot).to_be_visible()
    expect(plot).to_have_accessible_name(re.compile(r"p95: highest 12\S* seconds at \d:\d\d, .* p50: highest"))
    picture(shown, f"spike-report-{scheme}-{size['width']}")
    shown.get_by_text("The same as a table of figures").click()
    expect(shown.get_by_role("columnheader", name="TTFT p95, s")).to_be_visible()
    assert_accessible(shown, f"spike report {scheme} {size['width']}")


def test_the_first_screen_of_a_projector_has_verdict_figures_and_facts(guest: Any, report: str) -> None:
    shown = opened(guest, report, PROJECTOR, "light")
    for words in ("Simulated:", "Fail", "TTFT p95", "Goodput", "Dropped", "Began"):
        expect(shown.get_by_text(words, exact=True).first).to_be_in_viewport()


@SCHEMES
def test_an_invalid_run_says_so_in_red_with_its_reasons(guest: Any, tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(summary(found=dropped(points())), PLAN))
    shown = opened(guest, path.as_uri(), PHONE, scheme)
    box = shown.locator(".verdict")
    expect(box).to_contain_text("Invalid")
    expect(box).to_contain_text("396 of 1,980 arrivals were dropped")
    red, green, blue = map(int, re.findall(r"\d+", box.evaluate("one => getComputedStyle(one).backgroundColor"))[:3])
    assert red > 150 > min(green, blue) and red > green + 60
    assert_accessible(shown, f"invalid {scheme}")
    picture(shown, f"spike-report-invalid-{scheme}")


def test_report_prints_dark_on_light(guest: Any, report: str) -> None:
    one = guest(PROJECTOR, color_scheme="dark")
    one.page.emulate_media(media="print")
    one.page.goto(report)
    assert one.page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    one.page.set_viewport_size({"width": 794, "height": 1123})
    one.page.screenshot(path=SCREENSHOTS / "spike-report-print.png", full_page=True)


@VIEWS
def test_comparison_is_read_by_everyone(guest: Any, comparison: str, size: dict, scheme: str) -> None:
    shown = opened(guest, comparison, size, scheme)
    expect(shown.get_by_text("The tool is not the same: k6 in A, locust in B.")).to_be_visible()
    row = shown.get_by_role("row", name=re.compile("^First token p95"))
    expect(row).to_contain_text("better, beyond noise")
    expect(shown.get_by_role("img", name="Time to first token, p95")).to_be_visible()
    assert_accessible(shown, f"comparison {scheme} {size['width']}")
    picture(shown, f"spike-compare-{scheme}-{size['width']}")
