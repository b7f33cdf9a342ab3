"""A visit to the service's page in a real browser; what the browser complains of is an error."""

import base64
import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_api import FakeService, serve
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
IN_A_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]
"""Marks of what needs one; its tests ask for the fixtures `browser` and `guest`."""
FILES = Path(__file__).parents[2] / "apps/cm3leon/serving/page"


@contextmanager
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=10_000)
    alone = ["--no-sandbox"] if os.getuid() == 0 else []  # its sandbox refuses to run as root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=alone)
        yield browser
        browser.close()


class Visit:
    """A page of a fake service, and what the browser said against it."""

    def __init__(self, context: BrowserContext, fake: FakeService, url: str, ready: bool) -> None:
        self.context, self.fake, self.url = context, fake, url
        self.said: list[str] = []
        self.expected: list[str] = []
        """Patterns of complaints that the test provokes."""
        self.page = self.open(ready=ready)

    def open(self, fragment: str = "", ready: bool = True) -> Page:
        page = self.context.new_page()
        page.on("console", lambda one: one.type == "error" and self.said.append(one.text))
        page.on("pageerror", lambda one: self.said.append(str(one)))
        page.on("dialog", lambda one: (self.said.append(one.message), one.dismiss()))
        page.goto(self.url + fragment)
        if ready:
            expect(page.locator("#form")).not_to_have_attribute("inert", "")
        return page

    def draw(self, prompt: str = "blue pear on yellow") -> None:
        """Draw, and wait for the end."""
        self.page.click("#tab-draw")
        self.page.fill("#panel-draw [name=prompt]", prompt)
        self.page.click("#send")
        self.done()

    def done(self) -> None:
        expect(self.page.locator("#progress")).to_be_hidden()
        expect(self.page.locator(".card.done").first).to_be_visible()

    def use(self, label: str, card: int = 0) -> None:
        """Choose from the menu below a picture."""
        self.page.locator(".card").nth(card).get_by_role("button", name="More to do").click()
        self.page.locator("#menu").get_by_role("button", name=label).click()

    def upload(self, picture: Image.Image, name: str = "cat.png", **save: Any) -> None:
        file = io.BytesIO()
        picture.save(file, Path(name).suffix[1:].replace("jpg", "jpeg"), **save)
        kind = "image/png" if name.endswith("png") else "image/jpeg"
        self.page.set_input_files(
            "#file", {"name": name, "mimeType": kind, "buffer": file.getvalue()}
        )
        expect(self.page.locator("#picked")).to_be_visible()

    def complaints(self) -> list[str]:
        return [one for one in self.said if not any(re.search(it, one) for it in self.expected)]


@contextmanager
def visit(
    browser: Browser, fake: FakeService | None = None, ready: bool = True, **context: Any
) -> Iterator[Visit]:
    """Open the page, and wait until it is ready; in the end, no complaint may be left."""
    fake = fake or FakeService()
    with serve(fake, FILES) as url:
        opened = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        opened.set_default_timeout(10_000)
        guest = Visit(opened, fake, url, ready)
        yield guest
        opened.close()
    assert not guest.complaints()


def received(text: str) -> Image.Image:
    """The picture in a request's body."""
    head, content = text.split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def drag(page: Page, selector: str, *corners: tuple[float, float], side: int = 64) -> None:
    """Drag over an element, in pixels of a picture of that side."""
    page.locator(selector).scroll_into_view_if_needed()
    box = page.locator(selector).bounding_box()
    scale = box["width"] / side
    for place, (x, y) in enumerate(corners):
        page.mouse.move(box["x"] + x * scale, box["y"] + y * scale, steps=1 if not place else 6)
        if not place:
            page.mouse.down()
    page.mouse.up()
