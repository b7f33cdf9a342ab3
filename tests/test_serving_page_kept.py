"""What the page keeps: links, the history, files."""

from urllib.parse import parse_qs, urlsplit

from page_visit import IN_A_BROWSER
from PIL import Image
from playwright.sync_api import expect

pytestmark = IN_A_BROWSER


def test_link_round_trip(guest):
    page = guest.page
    page.click("summary")
    page.fill("[name=temperature]", "0.7")
    page.fill("#seed", "41")
    guest.draw("a “blue” pear & more #1 on yellow")
    page.locator("#documents-list input").first.uncheck()
    page.locator("#draw-again").click()
    guest.done()
    sent = guest.fake.asked("draw")
    words = parse_qs(urlsplit(page.url).fragment)
    assert words["prompt"] == ["a “blue” pear & more #1 on yellow"] and words["seed"] == ["41"]
    guest.fake.seen.clear()
    guest.page = other = guest.open(f"#{urlsplit(page.url).fragment}")
    expect(other.locator("#panel-draw [name=prompt]")).to_have_value(sent["prompt"])
    assert other.input_value("[name=temperature]") == "0.7"
    expect(other.locator("#send")).to_be_focused()
    assert not guest.fake.seen  # it draws on demand alone
    other.click("#send")
    guest.done()
    assert guest.fake.asked("draw") == sent
    other.goto(
        guest.url + '#task=boxes&boxes=[["red fox",0,10,99,256],["bad"]]&seed=x&candidates=2'
    )
    expect(other.locator(".box-name")).to_have_value("red fox")
    assert other.input_value("#seed") == "" and other.input_value("[name=candidates]") == "2"


def test_history_restores(guest):
    page = guest.page
    page.fill("[name=candidates]", "2")
    page.fill("#seed", "5")
    guest.draw()
    drawn = page.locator(".larger img").first.get_attribute("src")
    guest.draw("red apple")
    expect(page.locator(".earlier")).to_have_count(2)
    page.reload()
    page.get_by_role("button", name="Bring back: blue pear on yellow").click()
    expect(page.locator(".larger img").first).to_have_attribute("src", drawn)
    assert page.input_value("#panel-draw [name=prompt]") == "blue pear on yellow"
    assert page.input_value("[name=candidates]") == "2" and page.input_value("#seed") == "5"
    expect(page.locator("#documents-list .document")).to_have_count(2)
    page.click("#history-clear")
    expect(page.locator(".earlier")).to_have_count(0)
    page.click("#history-clear")  # undo
    expect(page.locator(".earlier")).to_have_count(2)
    page.get_by_role("button", name="Remove from the history: red apple").click()
    expect(page.locator(".earlier")).to_have_count(1)


def test_saves_files(guest):
    page = guest.page
    page.fill("#seed", "7")
    guest.draw("Blue pear, on yellow!")
    for press, name, side in [
        (lambda: page.locator(".card").first.get_by_role("button", name="Save").click(), "", 64),
        (lambda: guest.use("Save 512 px wide"), "-x8", 512),
    ]:
        with page.expect_download() as saved:
            press()
        assert saved.value.suggested_filename == f"blue-pear-on-yellow-10{name}.png"
        with Image.open(saved.value.path()) as picture:
            assert picture.size == (side, side)
