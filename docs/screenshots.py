"""Take the pictures of docs/report.md: ``python docs/screenshots.py runs/phones/report.html``.

Needs playwright and a Chromium of the machine's own (on Debian: apt-get install chromium).
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"


def open_page(browser: Any, report: Path, width: int, height: int, scheme: str, scale: float) -> Any:
    """The report in a window of its own."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=scale
    )
    page = context.new_page()
    page.goto(report.resolve().as_uri())
    page.wait_for_selector("html[data-ready]")
    return page


def hover(page: Any, what: str, right: float, down: float) -> None:
    """Hold the pointer over a part, at shares of its width and height."""
    box = page.locator(what).first.bounding_box()
    page.mouse.move(box["x"] + right * box["width"], box["y"] + down * box["height"])


def main(report: Path) -> None:
    """Curves on a light desktop, clients on a dark one, and the top on a phone."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = open_page(browser, report, 1180, 1120, "light", 1)
        page.get_by_role("radio", name="All bytes").check()
        hover(page, "#curve-charts .plot", 0.3, 0.5)
        page.screenshot(path=IMAGES / "report-light.png")
        page = open_page(browser, report, 1180, 1120, "dark", 1)
        page.evaluate("document.getElementById('bytes').scrollIntoView({behavior: 'instant'})")
        hover(page, ".map canvas", 0.6, 0.4)
        page.screenshot(path=IMAGES / "report-dark.png")
        page = open_page(browser, report, 390, 1180, "light", 1.5)
        page.screenshot(path=IMAGES / "report-phone.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
