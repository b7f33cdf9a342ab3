"""The service's page in a real Chromium: what it asks for, and how it shows what comes."""

import threading

import numpy as np
from fake_api import BASE, FakeService
from page_visit import IN_A_BROWSER, drag, received, visit
from PIL import Image
from playwright.sync_api import expect

pytestmark = IN_A_BROWSER


def test_rows_appear_while_it_is_drawn(browser):
    hold = threading.Event()
    with visit(browser, FakeService(hold=hold, waiting=(2, 1))) as guest:
        page = guest.page
        page.fill("#panel-draw [name=prompt]", "blue pear on yellow")
        page.keyboard.press("Enter")
        rows = page.locator(".card.growing img")
        expect(rows).to_have_count(4)
        page.wait_for_function("document.querySelector('.growing img').naturalHeight === 8")
        assert page.locator("#progress-words").inner_text() == "Row 1 of 8"
        assert page.locator(".card.done").count() == 0
        hold.set()
        guest.done()
        body = guest.fake.asked("draw")
        assert body == {"prompt": "blue pear on yellow", "candidates": 4, "seed": body["seed"]}
        order = [body["seed"] + n for n in (3, 2, 1, 0)]  # the best first
        labels = page.locator(".larger").evaluate_all("all => all.map(one => one.ariaLabel)")
        assert [int(one.rpartition(" ")[2]) for one in labels] == order
        assert f"seed {body['seed']}" in page.locator("#outcome-facts").inner_text()
        page.click("text=keep this seed")
        guest.draw()
        assert guest.fake.asked("draw")["seed"] == body["seed"]


def test_settings_are_sent_where_they_differ(guest):
    page = guest.page
    page.click("summary")
    page.fill("[name=candidates]", "2")
    page.fill("[name=guidance_scale]", "3.5")
    page.select_option("[name=sampler]", "cd-k")
    page.fill("[name=cd_k]", "5")
    page.fill("[name=temperature]", "1.0")  # as the run does it
    page.fill("[name=retrieve]", "0")
    page.click("#die")
    assert page.input_value("#seed").isdigit()
    page.fill("#seed", "7")
    guest.draw()
    assert guest.fake.asked("draw") == {
        "prompt": "blue pear on yellow", "candidates": 2, "seed": 7, "guidance_scale": 3.5,
        "sampler": "cd-k", "cd_k": 5, "retrieve": 0, "temperature": 1,
    }  # fmt: skip
    page.fill("[name=candidates]", "99")
    page.click("#send")
    expect(page.locator("#form-error")).to_have_text("Candidates: wanted a number from 1 to 16.")
    page.click("#settings-reset")
    assert page.input_value("[name=candidates]") == "4"


def test_documents_are_switched(guest):
    page, fake = guest.page, guest.fake
    guest.draw()
    rows = page.locator("#documents-list .document")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("score 0.91")
    assert "documents" not in fake.asked("draw")
    seed = fake.asked("draw")["seed"]
    rows.first.locator("input").uncheck()
    page.click("text=Draw again with 1 of 2")
    guest.done()
    assert fake.asked("draw")["documents"] == ["9007199254740993001"]
    assert fake.asked("draw")["seed"] == seed  # the documents alone differ
    expect(rows).to_have_count(2)
    assert [box.is_checked() for box in rows.locator("input").all()] == [False, True]
    page.click("#documents-more")
    expect(rows).to_have_count(4)
    rows.nth(3).locator("input").check()
    page.click("#send")  # the same prompt: the same documents
    guest.done()
    assert fake.asked("draw")["documents"] == ["9007199254740993001", "9007199254740993003"]
    guest.draw("red apple")
    assert "documents" not in fake.asked("draw")


def test_describe_and_ask(guest):
    page = guest.page
    page.click("#tab-describe")
    page.click("#send")
    expect(page.locator("#form-error")).to_have_text("A picture is needed first.")
    guest.upload(Image.new("RGB", (30, 20), "blue"))
    page.click("#send")
    expect(page.locator(".text")).to_have_count(4)
    expect(page.locator(".text").first).to_contain_text("<b>blue</b> pear on green")
    body = guest.fake.asked("describe")
    assert received(body["picture"]).size == (20, 20) and body["candidates"] == 4
    for name in ("sampler", "guidance_scale", "cd_k"):  # they change no caption
        expect(page.locator(f"[name={name}]")).to_be_hidden()
    page.get_by_role("button", name="Draw “a blue pear”").click()
    guest.done()
    assert guest.fake.asked("draw")["prompt"] == "a blue pear"
    page.click("#tab-describe")
    page.fill("[name=question]", "what colour is it?")
    expect(page.locator("#settings")).to_be_hidden()
    page.keyboard.press("Enter")
    expect(page.locator(".text")).to_have_text(["it is blueCopy"])
    asked = guest.fake.asked("ask")
    assert asked == {"picture": body["picture"], "question": "what colour is it?"}


def test_infill_sends_what_was_painted(guest):
    page = guest.page
    guest.draw()
    guest.use("Redraw a part")
    expect(page.locator("#panel-infill [name=prompt]")).to_have_value("blue pear on yellow")
    page.click("#send")
    expect(page.locator("#form-error")).to_have_text("Paint over what shall be redrawn.")
    page.click("text=Rectangle")
    drag(page, "#mask-painter canvas", (16.5, 16.5), (39.5, 31.5))
    page.click("#send")
    guest.done()
    body = guest.fake.asked("infill")
    mask = received(body["mask"])
    expected = np.zeros((64, 64), bool)
    expected[16:32, 16:40] = True
    assert mask.size == received(body["picture"]).size == (64, 64)
    assert np.array_equal(np.asarray(mask.convert("RGB")), expected[..., None] * [[[255] * 3]])
    assert mask.convert("RGBA").getextrema()[3] == (255, 255)

    page.click("text=Eraser")
    drag(page, "#mask-painter canvas", (12, 24), (50, 24))
    page.click("#send")
    guest.done()
    erased = np.asarray(received(guest.fake.asked("infill")["mask"]).convert("L")) > 127
    assert not erased[23:25].any() and erased[17].sum() == 24 and not (erased & ~expected).any()
    page.click("#mask-painter >> text=Undo")
    page.click("#mask-painter >> text=Invert")
    page.click("#send")
    guest.done()
    inverted = np.asarray(received(guest.fake.asked("infill")["mask"]).convert("L")) > 127
    assert np.array_equal(inverted, ~expected)


def test_edit_vary_and_the_other_tabs(guest):
    page, fake = guest.page, guest.fake
    guest.draw()
    page.locator(".card").nth(1).get_by_role("button", name="Vary").click()
    guest.done()
    assert fake.asked("vary")["prompt"] == "blue pear on yellow"
    guest.use("Edit it")
    page.fill("[name=instruction]", "put it on green")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#outcome-title")).to_have_text("put it on green")
    guest.done()
    assert received(fake.asked("edit")["picture"]).size == (64, 64)
    expect(page.locator("#shown")).to_contain_text("source")

    page.click("#tab-structure")
    page.check("[value=sketch]")
    page.fill("#panel-structure [name=prompt]", "red hat")
    drag(page, "#sketch-painter canvas", (10, 10), (50, 50))
    page.click("#send")
    guest.done()
    body = fake.asked("structure")
    assert body["is_feature"] is True and body["feature"] == "canny" and "guide" not in body
    colours = received(body["picture"]).convert("L").getcolors()
    assert {colour for _, colour in colours} == {0, 255} and max(colours)[1] == 255

    page.click("#tab-boxes")
    drag(page, ".boxes-stage", (20, 30), (128, 200), side=256)
    page.keyboard.type("red fox")
    page.click("text=Add a box")
    page.keyboard.type("blue bird")
    page.get_by_label("right").nth(1).fill("250")
    page.click("#send")
    guest.done()
    assert fake.asked("boxes")["boxes"] == [
        {"name": "red fox", "box": [20, 30, 128, 200]},
        {"name": "blue bird", "box": [64, 64, 250, 192]},
    ]
    page.click("#tab-write")
    page.fill("[name=text]", "HELLO")
    page.keyboard.press("Enter")
    expect(page.locator("#outcome-title")).to_have_text("HELLO")
    guest.done()
    assert fake.asked("write")["text"] == "HELLO"


def test_teach_then_draw(guest):
    page = guest.page
    page.click("#tab-teach")
    guest.upload(Image.new("RGB", (80, 80), "purple"), "zorp.png")
    page.fill("#panel-teach [name=name]", "zorp")
    page.keyboard.press("Enter")
    expect(page.locator("#taught-list")).to_contain_text("zorp")
    assert received(guest.fake.asked("taught")["picture"]).size == (80, 80)
    page.click("text=blue zorp on yellow")
    guest.done()
    assert guest.fake.asked("draw")["prompt"] == "blue zorp on yellow"
    first = page.locator("#documents-list .document").first
    expect(first).to_contain_text("taught")
    expect(first).to_contain_text("zorp")
    page.click("#tab-teach")
    page.get_by_role("button", name="Forget zorp").click()
    expect(page.locator("#taught")).to_be_hidden()
    assert not guest.fake.taught


def test_a_photo_is_made_small_and_upright(guest):
    page = guest.page
    photo = Image.new("RGB", (1600, 1200), "red")
    photo.paste("blue", (0, 0, 800, 1200))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: what is left comes to the top
    page.click("#tab-describe")
    guest.upload(photo, "photo.jpg", exif=exif)
    page.click("#send")
    expect(page.locator(".text")).to_have_count(4)
    sent = received(guest.fake.asked("describe")["picture"]).convert("RGB")
    assert sent.size == (256, 256)
    assert sent.getpixel((128, 20))[2] > 200 and sent.getpixel((128, 235))[0] > 200
    broken = {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"}
    page.set_input_files("#file", broken)
    expect(page.locator("#picker-error")).to_contain_text("cannot read that file")


def test_a_run_that_was_not_tuned(browser):
    with visit(browser, FakeService(can=BASE)) as guest:
        labels = guest.page.locator("[role=tab]").all_inner_texts()
        assert labels == ["Draw", "Teach", "Describe", "Vary", "Infill"]
        expect(guest.page.locator("#foot-run")).to_contain_text("Edit, Structure, Boxes, Write")
        guest.page.click("#tab-describe")
        expect(guest.page.locator("#question")).to_be_hidden()
