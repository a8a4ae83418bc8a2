"""Takes the pictures of a report that the documentation shows.

    potstill report runs/quickstart
    python docs/screenshots.py runs/quickstart docs/images

writes report-desktop.png (1280 pixels wide) and report-phone.png (390) from RUN/report.html: the page from
its top to the end of the curves. Needs Debian's chromium and `pip install potstill[browser]`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

MOST_BYTES = 400_000  # a repository keeps every version of a picture
VIEWS = {"report-desktop.png": (1280, "#curves"), "report-phone.png": (390, "#curves")}


def main() -> None:
    """Read the command line, take both pictures, say how large they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run directory with report.html in it")
    parser.add_argument("output", type=Path, help="the folder for the pictures")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser's program")
    given = parser.parse_args()
    report = given.run / "report.html"
    if not report.exists():
        parser.error(f"{report} does not exist; write it with `potstill report {given.run}`")
    given.output.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=given.chromium, args=["--no-sandbox"])
        for name, (width, last) in VIEWS.items():
            picture = take(browser, report, width, last)
            if len(picture) > MOST_BYTES:
                parser.error(f"{name} has {len(picture)} bytes, more than {MOST_BYTES}; end it at an earlier section")
            (given.output / name).write_bytes(picture)
            print(f"{given.output / name}  {len(picture)} bytes")
        browser.close()


def take(browser: Any, report: Path, width: int, last: str) -> bytes:
    """The page from its top to the end of the section `last`, as PNG."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="light", device_scale_factor=1)
    page.goto(report.resolve().as_uri())
    for place in page.locator(".plot").all():
        place.locator(".main-svg").first.wait_for()
    box = page.locator(last).bounding_box()
    height = int(box["y"] + box["height"]) + 32
    picture: bytes = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height})
    page.close()
    return picture


if __name__ == "__main__":
    main()
