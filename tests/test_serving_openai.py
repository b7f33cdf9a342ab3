"""OpenAI's own Python client, pointed at the loopback, draws with the service."""

import base64
import io

import numpy as np
import openai
import pytest
from fake_service import FakeService, file_of, listening, serving
from PIL import Image

from cm3leon.serving import asked
from cm3leon.serving.limits import Limits

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def service():
    return FakeService()


@pytest.fixture(scope="module")
def client(service):
    with listening(service, token=TOKEN) as port:
        address = f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(base_url=address, api_key=TOKEN, max_retries=0) as client:
            yield client


def pixels_of(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text, validate=True))))


def picture(width=32, height=32):
    return ("fox.png", file_of(Image.new("RGB", (width, height), "orange")), "image/png")


def mask(width=32, height=32):
    hidden = np.full((height, width, 4), 255, np.uint8)
    hidden[2:9, 3:7, 3] = 0
    return ("mask.png", file_of(Image.fromarray(hidden)), "image/png")


def test_it_draws(client, service):
    answer = client.images.generate(prompt="a fox", model="fake", n=3, extra_body={"seed": 5})
    assert answer.created > 1e9 and answer.output_format == "png" and answer.size == "32x32"
    assert [pixels_of(one.b64_json)[0, 0, 0] for one in answer.data] == [5, 6, 7]
    assert service.asked[-1] == asked.Draw(prompt="a fox", candidates=3, seed=5)


def test_it_draws_one_of_any_seed_if_not_told_otherwise(client, service):
    seeds = set()
    for _ in range(2):
        assert len(client.images.generate(prompt="a fox").data) == 1
        seeds.add(service.asked[-1].seed)
    assert len(seeds) == 2 and all(0 <= seed < 2**63 for seed in seeds)


def test_what_changes_nothing_here_is_accepted(client):
    answer = client.images.generate(
        prompt="a fox", model="fake", n=1, size="32x32", response_format="b64_json",
        output_format="png", background="auto", quality="high", moderation="low",
        output_compression=100, style="vivid", user="me", safety_identifier="me",
    )  # fmt: skip
    assert len(answer.data) == 1
    assert client.images.generate(prompt="a fox", size="auto", n=None, model=None).data


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"response_format": "url"}, "response_format"),
        ({"size": "1024x1024"}, "size"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 1001}, "prompt"),
        ({"background": "transparent"}, "background"),
        ({"output_format": "gif"}, "output_format"),
        ({"svg": {"model": "x"}}, "svg"),
        ({"extra_body": {"seed": -1}}, "seed"),
        ({"extra_body": {"seed": "7"}}, "seed"),
        ({"extra_body": {"surprise": 1}}, "surprise"),
        ({"partial_images": 4, "stream": True}, "partial_images"),
    ],
)
def test_what_it_cannot_do_is_a_bad_request(client, options, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(**{"prompt": "a fox", **options})
    assert caught.value.status_code == 400
    assert caught.value.body["param"] == param
    assert caught.value.body["message"].startswith(f"{param}: ")


def test_another_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.images.generate(prompt="a fox", model="dall-e-3")
    assert caught.value.body["code"] == "model_not_found"
    assert [model.id for model in client.models.list()] == ["fake"]
    assert client.models.retrieve("fake").owned_by == "cm3leon"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-image-2")


def test_it_streams(client):
    events = list(
        client.images.generate(
            prompt="a fox", stream=True, partial_images=3, n=2, extra_body={"seed": 9}
        )
    )
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 3 + ["image_generation.completed"] * 2
    for number, event in enumerate(events[:3]):
        assert event.partial_image_index == number
        pixels = pixels_of(event.b64_json)
        assert pixels.shape == (32, 32, 3)
        rows = 8 * (number + 1)
        assert (pixels[:rows] == 9).all() and (pixels[rows:] == 255).all()
    assert [pixels_of(event.b64_json)[0, 0, 0] for event in events[3:]] == [9, 10]
    assert all(event.size == "32x32" and event.output_format == "png" for event in events)


@pytest.mark.parametrize("parts", [None, 0, 1, 2])
def test_it_streams_as_many_parts_as_are_wanted(client, parts):
    options = {} if parts is None else {"partial_images": parts}
    events = list(client.images.generate(prompt="a fox", stream=True, **options))
    assert len(events) == (parts or 0) + 1


def test_a_mask_says_what_is_drawn_anew(client, service):
    answer = client.images.edit(image=picture(), mask=mask(), prompt="a fox in a hat", n=2)
    assert len(answer.data) == 2
    got = service.asked[-1]
    assert isinstance(got, asked.Infill) and got.prompt == "a fox in a hat"
    assert got.mask.sum() == 7 * 4 and got.picture.size == (32, 32)


def test_without_a_mask_it_edits(client, service):
    for images in (picture(), [picture()]):
        assert client.images.edit(image=images, prompt="make it blue").data
        got = service.asked[-1]
        assert isinstance(got, asked.Edit) and got.instruction == "make it blue"


def test_edits_stream(client):
    events = list(client.images.edit(image=picture(), prompt="blue", stream=True, partial_images=1))
    kinds = [event.type for event in events]
    assert kinds == ["image_edit.partial_image", "image_edit.completed"]


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"image": [picture(), picture()]}, "image"),
        ({"image": ("a.png", b"no picture", "image/png")}, "image"),
        ({"image": ("a.png", b"", "image/png")}, "image"),
        ({"mask": mask(31)}, "mask"),
        ({"mask": picture()}, "mask"),
        ({"prompt": " "}, "prompt"),
        ({"n": 99}, "n"),
        ({"size": "64x64"}, "size"),
        ({"extra_body": {"surprise": "x"}}, "surprise"),
    ],
)
def test_edits_that_cannot_be_are_bad_requests(client, options, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.edit(**{"image": picture(), "prompt": "a fox", **options})
    assert caught.value.body["param"].split(".")[0].removesuffix("[]") == param


def test_a_run_that_was_not_tuned_wants_a_mask():
    with serving(FakeService(can=["draw", "infill"])) as client:
        files = {"image": picture()}
        answer = client.post("/v1/images/edits", files=files, data={"prompt": "blue"})
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "mask"
        files["mask"] = mask()
        answer = client.post("/v1/images/edits", files=files, data={"prompt": "blue"})
        assert answer.status_code == 200


def test_it_varies(client, service):
    with pytest.deprecated_call():  # OpenAI no longer has them
        answer = client.images.create_variation(image=picture(40, 20), n=2)
    assert len(answer.data) == 2
    got = service.asked[-1]
    assert isinstance(got, asked.Vary) and got.picture.size == (40, 20) and got.prompt is None


def test_a_session_teaches_what_openai_draws_with(client, service):
    session = service.sessions.of(None)
    with_it = client.with_options(default_headers={"X-Session": session.token})
    assert with_it.images.generate(prompt="a zorp").data


def test_a_wrong_token_is_an_authentication_error(client):
    for wrong in ("x" * len(TOKEN), ""):
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key=wrong or "-").images.generate(prompt="a fox")


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (asked.Full(1), openai.RateLimitError, 429),
        (asked.Stopped(), openai.InternalServerError, 503),
        (asked.Late(), openai.InternalServerError, 504),
        (RuntimeError("secret"), openai.InternalServerError, 500),
    ],
)
def test_errors_are_those_of_the_client(error, kind, status):
    with listening(FakeService(fails=error)) as port:
        address = f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(base_url=address, api_key="none", max_retries=0) as client:
            for options in ({}, {"stream": True}):
                with pytest.raises(kind) as caught:
                    client.images.generate(prompt="a fox", **options)
                assert caught.value.status_code == status
                assert "secret" not in str(caught.value)


def test_an_error_within_a_stream_ends_it():
    with listening(FakeService(fails=asked.Late(), after=5)) as port:
        address = f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(base_url=address, api_key="none", max_retries=0) as client:
            stream = client.images.generate(prompt="a fox", stream=True, partial_images=3)
            with pytest.raises(openai.APIError, match="longer than the service allows"):
                list(stream)


def test_the_client_comes_again_when_told_to():
    service = FakeService(Limits(candidates=1, rows=1, waiting=1), fails=asked.Full(0.1))
    with listening(service) as port:
        address = f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(base_url=address, api_key="none", max_retries=1) as client:
            with pytest.raises(openai.RateLimitError):
                client.images.generate(prompt="a fox")
    assert len(service.asked) == 2


def test_uploads_make_no_file(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a file was made")

    with serving() as client:
        monkeypatch.setattr("tempfile._TemporaryFileWrapper", refuse)
        monkeypatch.setattr("tempfile.TemporaryFile", refuse)
        noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
        content = file_of(Image.fromarray(noise))
        assert len(content) > 2**21
        answer = client.post("/v1/images/variations", files={"image": ("a.png", content)})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b",
        b"--b\r\n\r\n\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="/etc/passwd"\r\n\r\n',
        b"--b\r\n" + b"X: " + b"x" * 100_000 + b"\r\n\r\n--b--",
        b"".join(
            b'--b\r\nContent-Disposition: form-data; name="n%d"\r\n\r\n\r\n' % n
            for n in range(2000)
        )
        + b"--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\xff\xfe\x00\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="\xed\xa0\x80"\r\n\r\nx\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="n"\r\n\r\n' + b"9" * 5000 + b"\r\n--b--\r\n",
    ],
    ids=range(10),
)
# a file that is cut off is left to the garbage collection, which complains
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("path", ["edits", "variations"])
@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=b", "multipart/form-data"])
def test_no_form_is_more_than_a_bad_request(path, kind, body):
    with serving() as client:
        headers = {"Content-Type": kind}
        answer = client.post(f"/v1/images/{path}", content=body, headers=headers)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["message"]
