"""The report in a real browser: Debian's Chromium, headless. Skipped, and said so, where there is none."""

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from report_kit import ENDS_SCRIPT, HOSTILE, made_up, record_run, row

from thinwire.cli.recorded_run import RecordedRun
from thinwire.cli.report_page import page as report
from thinwire.cli.report_page import write

playwright = pytest.importorskip("playwright.sync_api", reason="no browser test without playwright: pip install it")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no browser here: apt-get install chromium")

DESKTOP, PHONE = {"width": 1180, "height": 900}, {"width": 390, "height": 844}
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """name -> a written report: two runs, a hostile one, one that has just begun, and a long one."""
    folder = tmp_path_factory.mktemp("reports")
    names = {0: HOSTILE, 1: ENDS_SCRIPT, 2: '" onmouseover="alert(3)', 3: "n" * 80}
    more = {"hostile": {"client": HOSTILE, "round": 3, "detail": ENDS_SCRIPT}, HOSTILE: {"detail": HOSTILE}}
    paths = {
        "run": record_run(folder / "ef21"),
        "dense": record_run(folder / "fedavg", rate=0.2, method="fedavg", uplink="identity", downlink="identity"),
        "hostile": record_run(folder / HOSTILE.replace("/", ""), names=names, more=more, over=False),
        "begun": record_run(folder / "begun", rounds=0, over=False),
    }
    runs = {name: RecordedRun.read(path) for name, path in paths.items()}
    written = {name: folder / f"{name}.html" for name in ("run", "hostile", "begun", "long")}
    write(written["run"], report(runs["run"], [runs["dense"]], {"accuracy": 0.8}))
    write(written["hostile"], report(runs["hostile"], [runs["hostile"]], {}))
    write(written["begun"], report(runs["begun"], [], {}))
    write(written["long"], report(made_up(3_000, 300, 20), [], {}))
    return written


@contextlib.contextmanager
def shown(browser: Any, path: Path, size: dict[str, int] = DESKTOP, **settings: Any) -> Iterator[Any]:
    """The page in a context of its own; at the end: no error, no message, no dialog, no request but for the page."""
    context = browser.new_context(viewport=size, **settings)
    page, heard = context.new_page(), []
    page.on("console", lambda message: heard.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (heard.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: heard.append(f"request: {request.url}"))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")
    yield page
    assert set(heard) == {f"request: {path.as_uri()}"}
    context.close()


def wider_than_the_screen(page: Any) -> list[str]:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    return page.evaluate("""() => [...document.querySelectorAll("main *")]
        .filter((node) => node.getBoundingClientRect().right > innerWidth + 1 && !node.closest(".wide, pre, nav, svg"))
        .map((node) => node.outerHTML.slice(0, 80))""")


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", ["run", "hostile", "begun", "long"])
def test_a_page_fits_its_screen_fetches_nothing_and_has_no_error(
    name: str, size: dict[str, int], scheme: str, browser: Any, pages: dict[str, Path]
) -> None:
    with shown(browser, pages[name], size, color_scheme=scheme) as page:
        assert wider_than_the_screen(page) == []


def test_hovering_a_curve_shows_the_values_of_all_runs_in_all_charts(browser: Any, pages: dict[str, Path]) -> None:
    with shown(browser, pages["run"]) as page:
        charts = page.locator("#curve-charts .plot")
        assert charts.count() == 2
        box = charts.first.bounding_box()
        page.mouse.move(box["x"] + 46 + (box["width"] - 58) / 2, box["y"] + 60)
        tips = page.locator("#curve-charts .tip")
        for place in range(2):
            text = tips.nth(place).inner_text()
            assert text.startswith("round 20"), text
            assert "ef21: top-k both ways" in text
            assert "fedavg: dense both ways" in text
        assert "66.89 %" in tips.first.inner_text(), "1 - 0.9 exp(-1)"
        sent = sum(made["uplink_bytes"] + made["downlink_bytes"] for made in (row(n, 6, 3) for n in range(1, 21)))
        assert f"{sent / 1000:g} kB up and down" in tips.first.inner_text()
        page.mouse.move(5, 5)
        assert not tips.first.is_visible()


def test_the_keyboard_reads_the_values_too(browser: Any, pages: dict[str, Path]) -> None:
    with shown(browser, pages["run"]) as page:
        page.locator("#curve-charts .plot").first.focus()
        page.keyboard.press("End")
        page.keyboard.press("ArrowLeft")
        assert "round 39" in page.locator("#said").inner_text()
        page.keyboard.press("Escape")
        assert not page.locator("#curve-charts .tip").first.is_visible()


def test_the_x_axis_can_be_rounds_time_and_bytes_and_y_logarithmic(browser: Any, pages: dict[str, Path]) -> None:
    with shown(browser, pages["run"]) as page:
        paths = set()
        for choice, title in (("Time", "time of the rounds"), ("Bytes up", "sent up"), ("All bytes", "up and down")):
            page.get_by_label(choice, exact=True).check()
            assert title in page.locator("#curve-charts svg").first.text_content()
            paths.add(page.locator("#curve-charts .line").last.get_attribute("d"))
        page.get_by_label("Log y").check()
        paths.add(page.locator("#curve-charts .line").last.get_attribute("d"))
        assert len(paths) == 4
        page.get_by_role("button", name="fedavg: dense both ways").click()
        assert page.locator("#curve-charts .line").count() == 2


def test_the_theme_follows_the_system_until_somebody_chooses(browser: Any, pages: dict[str, Path]) -> None:
    def ground(page: Any) -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    dark, light = "rgb(18, 21, 23)", "rgb(250, 250, 248)"
    with shown(browser, pages["run"], color_scheme="dark") as page:
        assert ground(page) == dark
        page.locator("#theme").click()
        assert ground(page) == light
        page.reload()
        page.wait_for_selector("html[data-ready]")
        assert ground(page) == light
        page.locator("#theme").click()
        assert ground(page) == dark
        page.emulate_media(media="print")
        assert ground(page) == "rgb(255, 255, 255)"


def test_names_of_peers_are_shown_as_they_are_and_do_nothing(browser: Any, pages: dict[str, Path]) -> None:
    with shown(browser, pages["hostile"]) as page:
        assert page.locator("img, iframe, object").count() == 0
        assert page.locator("script").count() == 2
        assert page.locator("[onerror], [onmouseover], [onclick]").count() == 0
        assert page.get_by_role("rowheader", name=HOSTILE, exact=True).count() >= 1
        assert page.locator("#event-list td", has_text=ENDS_SCRIPT).count() >= 1
        page.locator(".map canvas").hover(position={"x": 400, "y": 4})
        assert page.locator(".map .tip strong").inner_text() == HOSTILE


def test_the_map_says_who_did_what_to_the_pointer_and_to_the_keyboard(browser: Any, pages: dict[str, Path]) -> None:
    with shown(browser, pages["run"]) as page:
        page.locator(".map canvas").focus()
        for key in ("ArrowRight", "ArrowDown", "ArrowDown"):
            page.keyboard.press(key)
        said = page.locator("#said").inner_text()
        assert said.startswith("client-2, round 1: "), said


def test_clients_can_be_sorted_and_events_filtered(browser: Any, pages: dict[str, Path]) -> None:
    with shown(browser, pages["run"]) as page:
        table = page.locator("#client-table")
        table.get_by_role("button", name="Failed").click()
        assert table.locator("tbody th").first.inner_text() == "client-1"
        assert table.locator("th[aria-sort='descending']").inner_text() == "Failed"
        events = page.locator("#event-list tbody tr")
        before = events.count()
        page.get_by_role("button", name="client-error").click()
        assert 0 < events.count() < before
        page.get_by_label("Find in events").fill("round 40: out of memory")
        assert events.count() == 1
        page.get_by_label("Find in events").fill("nothing like it")
        assert events.count() == 0


def test_a_long_run_says_that_it_was_thinned_and_shows_its_clients_in_parts(
    browser: Any, pages: dict[str, Path]
) -> None:
    with shown(browser, pages["long"]) as page:
        assert "of 3,000 rounds" in page.locator("#thinned").inner_text()
        assert "in stretches of" in page.locator(".map h3").inner_text()
        rows = page.locator("#client-table tbody tr")
        few = rows.count()
        page.get_by_role("button", name="Show all 300").click()
        assert few < rows.count() == 300
        page.get_by_label("Find a client").fill("client-29")
        assert rows.count() == 11


def test_every_button_link_and_picture_has_a_name(browser: Any, pages: dict[str, Path]) -> None:
    with shown(browser, pages["run"]) as page:
        unnamed = page.evaluate("""() =>
            [...document.querySelectorAll("button, a, input, svg[role], canvas, [tabindex]")]
            .filter((node) => !(node.textContent.trim() || node.getAttribute("aria-label") || node.labels?.length))
            .map((node) => node.outerHTML.slice(0, 120))""")
        assert unnamed == []
        levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((node) => Number(node.tagName[1]))")
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
