"""The service's page for all: by keyboard alone, with a screen reader, on a narrow screen."""

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from page_visit import IN_A_BROWSER, Visit, received, visit
from PIL import Image
from playwright.sync_api import Page, expect

pytestmark = IN_A_BROWSER

RULES = {"resultTypes": ["violations"]}
TABS = ["draw", "teach", "describe", "vary", "infill", "edit", "structure", "boxes", "write"]


def tab_to(page: Page, selector: str) -> None:
    """Press the tabulator until the element has the focus."""
    for _ in range(60):
        if page.evaluate("it => document.activeElement.matches(it)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"no way to {selector} by the tabulator")


def walk(guest: Visit):
    """Go through all tabs, each filled with something; gives their names."""
    page = guest.page
    yield "empty"
    guest.draw()
    page.locator("summary").click()
    for name in TABS:
        page.click(f"#tab-{name}")
        if name == "teach":
            guest.upload(Image.new("RGB", (64, 64), "purple"))
            page.fill("[name=name]", "zorp")
            page.click("#teach")
            expect(page.locator("#taught")).to_be_visible()
        if name == "boxes":
            page.click("text=Add a box")
        if name == "describe":
            page.click("#send")
            expect(page.locator(".text")).to_have_count(4)
        if name == "write":
            page.click("#send")
            expect(page.locator("#form-error")).not_to_be_empty()
        if name == "structure":
            page.check("[value=sketch]")
        yield name


def findings(page: Page) -> list[str]:
    violations = Axe().run(page, options=RULES).response["violations"]
    return [f"{one['id']}: {node['html'][:120]} {node['failureSummary'][:200]}"
            for one in violations if one["impact"] in ("serious", "critical")
            for node in one["nodes"]]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, scheme):
    with visit(browser, color_scheme=scheme, reduced_motion="reduce") as guest:
        page = guest.page
        for name in walk(guest):
            assert (name, findings(page)) == (name, [])
        guest.draw("red apple")
        page.locator("#documents-list input").first.uncheck()
        page.locator(".card").first.get_by_role("button", name="More to do").click()
        assert findings(page) == []
        page.keyboard.press("Escape")
        page.locator(".larger").first.click()
        assert findings(page) == []


@pytest.mark.parametrize("width", [320, 400])
def test_a_narrow_screen_does_not_scroll_sideways(browser, width):
    with visit(browser, viewport={"width": width, "height": 800}, reduced_motion="reduce") as guest:
        for name in walk(guest):
            wide = "document.documentElement.scrollWidth"
            assert (name, guest.page.evaluate(wide)) == (name, width)
        long = "unbroken" * 30
        guest.draw(long)
        assert guest.page.evaluate(wide) == width
        for image in guest.page.locator(".card img").all():
            assert image.bounding_box()["width"] > width / 3  # still to be seen


def test_keyboard_alone_draws_and_uses_a_picture(browser):
    with visit(browser) as guest:
        page = guest.page
        tab_to(page, ".skip")
        tab_to(page, "#panel-draw [name=prompt]")
        page.keyboard.type("blue pear on yellow")
        page.keyboard.press("Shift+Enter")
        assert page.locator(".card").count() == 0
        page.keyboard.press("Enter")
        guest.done()
        tab_to(page, "#documents-list input")
        page.keyboard.press("Space")
        tab_to(page, ".larger")
        page.keyboard.press("Enter")
        expect(page.locator("#viewer-facts")).to_contain_text("Picture 1 of 4")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#viewer-facts")).to_contain_text("Picture 2 of 4")
        page.keyboard.press("Escape")
        expect(page.locator(".larger").first).to_be_focused()
        tab_to(page, "[aria-haspopup]")
        page.keyboard.press("Enter")
        tab_to(page, "#menu :nth-child(5)")
        page.keyboard.press("Enter")
        expect(page.locator("#panel-infill")).to_be_visible()


def test_arrows_go_through_the_tabs(browser):
    with visit(browser) as guest:
        page = guest.page
        tab_to(page, "#tab-draw")
        for key, name in [("ArrowRight", "teach"), ("ArrowLeft", "draw"), ("ArrowLeft", "write"),
                          ("Home", "draw"), ("End", "write"), ("ArrowRight", "draw")]:  # fmt: skip
            page.keyboard.press(key)
            expect(page.locator(f"#tab-{name}")).to_be_focused()
            expect(page.locator(f"#panel-{name}")).to_be_visible()
            assert page.locator("[role=tabpanel]:visible").count() == 1
            assert page.locator("[role=tab][tabindex='0']").count() == 1


def test_cells_are_taken_by_keyboard(browser):
    with visit(browser) as guest:
        page = guest.page
        page.click("#tab-infill")
        guest.upload(Image.new("RGB", (64, 64), "purple"))
        tab_to(page, "#mask-painter canvas")
        for key in ("ArrowRight", "ArrowRight", "ArrowDown", "Space"):
            page.keyboard.press(key)
        expect(page.locator("#announce")).to_have_text("Row 2, column 3: will be redrawn")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Space")
        page.keyboard.press("Space")
        expect(page.locator("#announce")).to_have_text("Row 3, column 3: stays")
        tab_to(page, "#panel-infill [name=prompt]")
        page.keyboard.type("red hat")
        page.keyboard.press("Enter")
        guest.done()
        mask = np.asarray(received(guest.fake.asked("infill")["mask"]).convert("L")) > 127
        assert mask[8:16, 16:24].all() and mask.sum() == 64


def test_progress_is_told_a_few_times(browser):
    """Those who listen hear the start, the middle and the end, not each row."""
    with visit(browser) as guest:
        guest.page.evaluate("""() => {
            window.told = [];
            new MutationObserver(() => told.push(document.getElementById("announce").textContent))
                .observe(document.getElementById("announce"), {childList: true});
        }""")
        guest.draw()
        assert guest.page.evaluate("told") == [
            "Drawing 4 candidates.", "Half done.", "4 pictures drawn.",
        ]  # fmt: skip
