"""The pictures of docs/serving.md: Chromium uses the page of a tuned run.

    uv run python docs/screenshots.py --run runs/tiny-sft

Starts apps/serve.py, draws, describes, redraws a painted part, edits and teaches, and writes a
picture of each. Wants Chromium, such as Debian's, and ends with an error if a step does not work.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).parents[1]
PROMPT = "blue top hat on yellow"


def done(page: Page) -> None:
    """Wait until nothing is drawn any more."""
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.locator(".card.done, .text").first).to_be_visible()


def use(page: Page, label: str) -> None:
    """Choose from the menu below the first picture."""
    page.locator(".card").first.get_by_role("button", name="More to do").click()
    page.locator("#menu").get_by_role("button", name=label).click()


def paint(page: Page) -> None:
    """Drag the brush over the middle of the picture."""
    canvas = page.locator("#mask-painter canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] * 0.35, box["y"] + box["height"] * 0.45
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + box["width"] * 0.3, y + box["height"] * 0.1, steps=6)
    page.mouse.up()


def first_picture(page: Page) -> bytes:
    """Return the first picture on the page as a file."""
    source = page.locator(".card.done img").first.get_attribute("src") or ""
    if source.startswith("data:"):
        return base64.b64decode(source.partition(",")[2])
    script = """async one => {
        const bytes = new Uint8Array(await (await fetch(one)).arrayBuffer());
        return btoa(String.fromCharCode(...bytes));
    }"""
    return base64.b64decode(page.evaluate(script, source))


def take(page: Page, out: Path, name: str) -> None:
    """Write a picture of the page."""
    page.mouse.move(0, 0)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(600)  # what slides has arrived
    shot = Image.open(io.BytesIO(page.screenshot()))
    shot.quantize(128, dither=Image.Dither.NONE).save(out / f"serve-{name}.png", optimize=True)


def tour(page: Page, url: str, out: Path) -> None:
    """Use the page, and take its pictures."""
    page.goto(url)
    expect(page.locator("#form")).not_to_have_attribute("inert", "")
    page.fill("#panel-draw [name=prompt]", PROMPT)
    page.fill("[name=seed]", "7")
    page.click("#send")
    done(page)
    expect(page.locator("#outcome-facts")).to_contain_text("seed 7")
    take(page, out, "draw")
    picture = first_picture(page)

    page.click("#tab-teach")
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": picture})
    page.fill("#panel-teach [name=name]", "zorp")
    page.keyboard.press("Enter")
    expect(page.locator("#taught-list")).to_contain_text("zorp")
    page.click("#tab-draw")
    page.fill("#panel-draw [name=prompt]", "red zorp on green")
    page.click("#send")
    expect(page.locator("#outcome-title")).to_have_text("red zorp on green")
    done(page)
    expect(page.locator("#documents-list .document").first).to_contain_text("taught")
    take(page, out, "teach")

    use(page, "Redraw a part")
    paint(page)
    page.click("#send")
    done(page)
    expect(page.locator("#shown")).to_contain_text("masked")
    take(page, out, "infill")

    page.click("#tab-edit")
    page.fill("[name=instruction]", "make it red")
    page.click("#send")
    expect(page.locator("#outcome-title")).to_have_text("make it red")
    done(page)
    take(page, out, "edit")

    page.click("#tab-describe")
    page.click("#send")
    expect(page.locator(".text").first).to_be_visible()
    done(page)
    take(page, out, "describe")


def main(arguments: list[str] | None = None) -> int:
    """Run; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("runs/tiny-sft"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    given = parser.parse_args(arguments)
    chromium = shutil.which("chromium")
    if chromium is None:
        parser.error("wanted `chromium` among the programs of this machine, got none")
    command = [sys.executable, "apps/serve.py", "--run", str(given.run.resolve()), "--port", "0"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().rpartition(": ")[2].strip()
        with sync_playwright() as playwright:
            options = ["--no-sandbox"] if os.geteuid() == 0 else []
            browser = playwright.chromium.launch(executable_path=chromium, args=options)
            said: list[str] = []
            page = browser.new_page(viewport={"width": 1280, "height": 960})
            page.on("console", lambda one: said.append(one.text) if one.type == "error" else None)
            page.set_default_timeout(60_000)
            expect.set_options(timeout=60_000)
            tour(page, url, given.out)
            browser.close()
        if said:
            raise RuntimeError(f"the page: wanted no complaint of the browser, got {said}")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
        if server.stdout is not None:
            server.stdout.close()
    print(f"wrote {given.out}/serve-*.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
