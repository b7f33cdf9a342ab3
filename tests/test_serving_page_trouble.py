"""The page when something is in the way: a token, a crowd, an end, malice."""

import re
import threading
import time

from fake_api import FakeService
from page_visit import IN_A_BROWSER, visit
from playwright.sync_api import expect

pytestmark = IN_A_BROWSER


def test_cancel_ends_the_request(browser):
    with visit(browser, FakeService(hold=threading.Event())) as guest:
        page = guest.page
        page.fill("#panel-draw [name=prompt]", "blue pear")
        page.click("#send")
        expect(page.locator(".card.growing")).to_have_count(4)
        page.click("#cancel")
        expect(page.locator("#outcome-facts")).to_have_text("Cancelled")
        expect(page.locator("#send")).to_be_focused()
        assert page.input_value("#panel-draw [name=prompt]") == "blue pear"
        deadline = time.monotonic() + 5
        while guest.fake.aborted != ["draw"] and time.monotonic() < deadline:
            page.wait_for_timeout(20)
        assert guest.fake.aborted == ["draw"]


def test_asks_for_the_token_once(browser):
    with visit(browser, FakeService(token="s3cret"), ready=False) as guest:
        guest.expected = ["status of 401"]
        page = guest.page
        page.fill("#token-value", "wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#token-words")).to_have_text("That token was not accepted.")
        page.fill("#token-value", "s3cret")
        page.keyboard.press("Enter")
        expect(page.locator("#token")).to_be_hidden()
        guest.draw()
        assert page.evaluate("[sessionStorage.getItem('cm3-token'), localStorage.length]") == [
            "s3cret", 0,
        ]  # fmt: skip
        page.reload()
        guest.draw()
        other = guest.context.browser.new_page()
        other.goto(guest.url)
        other.click("#token-cancel")
        expect(other.locator("#notice")).to_contain_text("a token is wanted")
        other.close()


def test_busy_is_tried_again(guest):
    guest.expected = ["status of 429"]
    page, fake = guest.page, guest.fake
    fake.busy = 1
    guest.draw()
    assert [name for name, _ in fake.seen] == ["draw", "draw"]
    fake.busy = 99
    page.click("#send")
    expect(page.locator("#notice")).to_contain_text("Busy: trying again in 1 s (try 1 of 5)")
    page.click("#cancel")
    expect(page.locator("#notice")).to_be_hidden()
    fake.seen.clear()
    page.wait_for_timeout(1200)
    assert not fake.seen


def test_what_goes_wrong_is_said_and_nothing_is_lost(guest):
    guest.expected = ["status of 503", "status of 400", "ERR_FAILED"]
    page, fake = guest.page, guest.fake
    notice = page.locator("#notice")
    for refusal, said in [
        ((503, "closing", None), "The service is closing or has stopped: closing"),
        ((400, "prompt: <i>too</i> long", "prompt"), "prompt: <i>too</i> long"),
    ]:
        fake.refusal = refusal
        page.fill("#panel-draw [name=prompt]", "blue pear")
        page.click("#send")
        expect(notice).to_contain_text(said)
    expect(page.locator("#panel-draw [name=prompt]")).to_have_attribute("aria-invalid", "true")
    failed = '{"error": {"message": "the model failed", "code": "model_failed"}}'
    page.route("**/api/draw", lambda route: route.fulfill(status=503, body=failed))
    page.click("#send")
    expect(notice).to_have_text(re.compile("^the model failed"))
    page.unroute("**/api/draw")
    page.route("**/api/draw", lambda route: route.abort())
    page.click("#send")
    expect(notice).to_contain_text("The service cannot be reached. Nothing you entered is lost.")
    assert page.input_value("#panel-draw [name=prompt]") == "blue pear"
    page.unroute("**/api/draw")
    notice.get_by_role("button", name="Try again").click()
    guest.done()
    expect(notice).to_be_hidden()


def test_texts_stay_texts(browser):
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    with visit(browser, FakeService(examples=[evil])) as guest:
        page = guest.page
        expect(page.locator("#examples button")).to_have_text(evil)
        page.click("#examples button")
        guest.done()
        expect(page.locator("#outcome-title")).to_have_text(evil)
        expect(page.locator(".earlier span")).to_have_text(evil)
        guest.use("Teach it")
        page.fill("#panel-teach [name=name]", evil)
        page.click("#teach")
        expect(page.locator("#taught-list span")).to_have_text(evil)
        assert page.locator("img[src=x], main script").count() == 0
