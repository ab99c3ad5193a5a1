import io
import json
import re
from types import MappingProxyType

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from core.serve.config import ServeConfig
from core.serve.connection import server_settings
from edge.manifest import Tensor
from tests.core.serve.small_engine import SmallEngine, app_of, running, served

TOKEN = "t" * 32
SIDE = 8


def colours(inputs):
    """How much red, green and blue is in a picture, and in which half of it."""
    pixels = inputs["image"].astype(np.float32)
    halves = np.stack(
        [pixels[:, 0, :, : SIDE // 2].mean((1, 2)), pixels[:, 0, :, SIDE // 2 :].mean((1, 2))], 1
    )
    return {"logits": pixels.mean((2, 3)), "red_halves": halves}


class Payments:
    request_schema = MappingProxyType(
        {"type": "object", "examples": [{"payments": [{"amount": 12.5, "country": "NL"}]}]}
    )
    response_schema = MappingProxyType({"type": "object"})

    def decode(self, request):
        return {"x": np.array([[each["amount"]] for each in request["payments"]], np.float32)}

    def encode(self, outputs):
        rows = outputs["score"].tolist()
        return {"payments": [{"probability": row[0], "alert": row[0] > 0.5} for row in rows]}


@pytest.fixture
def engine():
    image = (Tensor("image", "float32", ("batch", 3, SIDE, SIDE)),)
    logits = (
        Tensor("logits", "float32", ("batch", 3)),
        Tensor("red_halves", "float32", ("batch", 2)),
    )
    small = (Tensor("image", "uint8", ("batch", SIDE, SIDE, 3)),)
    table = (Tensor("table", "float32", ("batch", 4)), Tensor("weight", "float16", (1,)))
    models = [
        served("colours", image, logits, "1.4.0", description="Says which colour a picture has."),
        served("colours", image, logits, "1.5.0", description="Says which colour a picture has."),
        served("bytes", small, (Tensor("pixels", "uint8", ("batch", SIDE, SIDE, 3)),)),
        served("table", table, (Tensor("sums", "float64", ("batch", 1)),)),
        served(
            "fraud",
            (Tensor("x", "float32", ("batch", 1)),),
            (Tensor("score", "float32", ("batch", 1)),),
        ),
    ]
    functions = {
        "colours": colours,
        "bytes": lambda inputs: {"pixels": inputs["image"]},
        "table": lambda inputs: {
            "sums": inputs["table"].sum(1, keepdims=True).astype(np.float64)
            * float(inputs["weight"][0])
        },
        "fraud": lambda inputs: {"score": 1 / (1 + np.exp(2 - inputs["x"] / 10))},
    }
    return SmallEngine(models=models, functions=functions)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, engine):
    """Opens the page of a service; fails on any error in its console."""
    contexts, errors = [], []
    with running(app_of(engine, services={"fraud": Payments()}), **server_settings()) as port:

        def open_page(path="/", **options):
            context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
            contexts.append(context)
            page = context.new_page()
            page.set_default_timeout(10_000)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on(
                "console", lambda line: errors.append(line.text) if line.type == "error" else None
            )
            page.goto(f"http://127.0.0.1:{port}{path}")
            return page

        yield open_page
        for context in contexts:
            context.close()
    assert errors == []


def picture(colour, kind="PNG"):
    file = io.BytesIO()
    image = Image.new("RGB", (40, 20), colour)
    image.paste((0, 0, 0), (20, 0, 40, 20))
    image.save(file, kind)
    return file.getvalue()


def drop(page, name, content, kind=""):
    """Drops a file as a person does."""
    page.evaluate(
        """([name, content, kind]) => {
            const data = new DataTransfer();
            data.items.add(new File([Uint8Array.from(content)], name, { type: kind }));
            document.getElementById("drop").dispatchEvent(
                new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        [name, list(content), kind],
    )


def choose(page, model):
    page.locator("#model").select_option(model)
    expect(page.locator("body")).to_have_attribute("data-shown", f"/v2/models/{model}")


def outputs(page):
    expect(page.locator("#answer .output").first).to_be_visible()
    return page.locator("#answer").inner_text()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_a_dropped_picture_is_answered_with_bars(visit, engine, tmp_path):
    page = visit()
    expect(page.locator("#state")).to_have_text("ready")
    expect(page.get_by_text("Says which colour a picture has.")).to_be_visible()
    expect(page.locator("#signature")).to_contain_text("any × 3 × 8 × 8")
    drop(page, "red.png", picture((255, 0, 0)), "image/png")
    expect(page.locator("#given")).to_contain_text("image ← red.png")
    page.get_by_role("button", name="Send", exact=True).click()
    text = outputs(page)
    assert "logits" in text
    assert "red_halves" in text
    assert page.locator("#answer .fill").count() == 5
    sent = engine.calls[-1].inputs["image"]
    assert (sent.shape, sent.dtype) == ((1, 3, SIDE, SIDE), np.float32)
    assert sent[0, 0, :, :3] == pytest.approx(1, abs=0.02)
    assert sent[0, 0, :, 5:] == pytest.approx(0, abs=0.02)
    assert sent[0, 1:] == pytest.approx(0, abs=0.02)
    page.get_by_label("ImageNet mean and deviation").check()
    page.get_by_role("button", name="Send 50 times").click()
    expect(page.locator("#count")).to_have_text("51")
    assert engine.calls[-1].inputs["image"][0, 0, 0, 0] == pytest.approx(
        (1 - 0.485) / 0.229, abs=0.05
    )
    assert engine.calls[-1].inputs["image"][0, 2, 0, 0] == pytest.approx(-0.406 / 0.225, abs=0.05)
    page.get_by_label("as probabilities").first.check()
    expect(page.locator("#answer")).to_contain_text("%")
    page.screenshot(path=tmp_path / "picture.png", full_page=True)
    assert (tmp_path / "picture.png").stat().st_size > 10_000


@pytest.mark.slow
def test_an_older_version_can_be_picked(visit, engine):
    page = visit()
    page.locator("#version").select_option("1.4.0")
    drop(page, "red.png", picture((255, 0, 0)), "image/png")
    page.get_by_role("button", name="Send", exact=True).click()
    outputs(page)
    assert engine.calls[-1].version == "1.4.0"


@pytest.mark.slow
def test_a_picture_for_bytes_keeps_its_bytes(visit, engine):
    page = visit()
    choose(page, "bytes")
    drop(page, "green.png", picture((0, 200, 10)), "image/png")
    page.get_by_role("button", name="Send", exact=True).click()
    outputs(page)
    sent = engine.calls[-1].inputs["image"]
    assert (sent.shape, sent.dtype) == ((1, SIDE, SIDE, 3), np.uint8)
    assert sent[0, 0, 0].tolist() == [0, 200, 10]
    expect(page.get_by_label("ImageNet mean and deviation")).to_be_hidden()


def test_the_example_is_sent_as_it_stands_and_json_as_written(visit, engine):
    page = visit()
    choose(page, "table")
    page.get_by_role("button", name="Send", exact=True).click()
    assert "sums" in outputs(page)
    page.get_by_label("Request as JSON").fill(
        '{"table": [[1, 2, 3, 4], [5, 6, 7, 8]], "weight": [0.5]}'
    )
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator("#answer tbody tr")).to_have_count(2)
    expect(page.locator("#answer")).to_contain_text("13")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", b"a,b,c,d\n1,2,3,4\n5,6,7,8\n"),
        ("rows.npy", npy(np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.int64))),
        ("rows.json", b"[[1,2,3,4],[5,6,7,8]]"),
    ],
)
def test_numbers_come_from_files_beside_json(visit, engine, name, content):
    page = visit()
    choose(page, "table")
    page.get_by_label("Request as JSON").fill('{"weight": [2.5]}')
    drop(page, name, content)
    if name.endswith(".json"):
        page.get_by_label("Request as JSON").fill(
            json.dumps(
                {**json.loads(page.get_by_label("Request as JSON").input_value()), "weight": [2.5]}
            )
        )
    else:
        expect(page.locator("#given")).to_contain_text(name)
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator("#answer")).to_contain_text("65")
    sent = engine.calls[-1].inputs
    assert sent["table"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert (sent["weight"].dtype, sent["weight"].tolist()) == (np.float16, [2.5])


@pytest.mark.slow
def test_halves_are_rounded_as_numpy_rounds_them(visit):
    page = visit()
    values = np.array(
        [0, -0.0, 1, 0.1, 65504, 65520, 1e-7, 6e-8, 2.0**-14, 1 / 3, -2.7, 2049, 1e-5], np.float32
    )
    found = page.evaluate(
        """async (values) => {
            const { tensor } = await import("/tensors.js");
            const input = { name: "x", datatype: "FP16" };
            return Array.from(new Uint16Array(tensor(input, values, [values.length]).bytes.buffer));
        }""",
        values.tolist(),
    )
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).view(np.uint16).tolist()
    found[1] |= 0x8000  # JSON has lost the sign of -0
    assert found == expected


def test_a_kits_own_shape_is_a_table(visit, tmp_path):
    page = visit()
    choose(page, "fraud")
    expect(page.locator("#drop")).to_be_hidden()
    expect(page.get_by_label("Request as JSON")).to_have_value(
        '{\n  "payments": [\n    {\n      "amount": 12.5,\n      "country": "NL"\n    }\n  ]\n}'
    )
    page.get_by_role("button", name="Send", exact=True).click()
    assert "probability" in outputs(page)
    page.screenshot(path=tmp_path / "service.png", full_page=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "kind", "words"),
    [
        ("a.txt", b"hello", "text/plain", "is not an image"),
        ("a.png", b"hello", "image/png", "cannot be read"),
        ("a.npy", npy(np.zeros((2, 3, 4, 4), np.float32)), "", "the model takes any × 3 × 8 × 8"),
        ("a.npy", b"hello, this is no npy", "", "no .npy file"),
    ],
)
def test_a_wrong_file_is_told(visit, name, content, kind, words):
    page = visit()
    expect(page.locator("body")).to_have_attribute("data-shown", re.compile("."))
    drop(page, name, content, kind)
    expect(page.get_by_role("alert")).to_contain_text(words)


@pytest.mark.slow
def test_a_refusal_is_shown_in_the_services_words(visit, engine):
    page = visit()
    choose(page, "table")
    page.get_by_label("Request as JSON").fill("{")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("not JSON")


@pytest.mark.slow
def test_the_token_is_asked_for_and_kept_nowhere(browser, engine, tmp_path):
    (tmp_path / "tokens").write_text(f"ann {TOKEN}\n")
    config = ServeConfig(tokens=tmp_path / "tokens", access_log=False)
    with running(app_of(engine, config), **server_settings()) as port:
        credentials = {"username": "ann", "password": TOKEN}
        context = browser.new_context(http_credentials=credentials)
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.get_by_role("alert")).to_contain_text("asks for a token")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_label("Token").blur()
        expect(page.locator("body")).to_have_attribute("data-shown", re.compile("."))
        drop(page, "red.png", picture((255, 0, 0)), "image/png")
        page.get_by_role("button", name="Send", exact=True).click()
        outputs(page)
        assert engine.calls[-1].tenant == "ann"
        stored = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]")
        assert stored == [0, 0, ""]
        context.close()


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("dark", 1280), ("light", 390)])
def test_the_page_fits_dark_and_small_screens(visit, tmp_path, scheme, width):
    page = visit(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 850})
    drop(page, "red.png", picture((255, 0, 0)), "image/png")
    page.get_by_role("button", name="Send", exact=True).click()
    outputs(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)


@pytest.mark.slow
def test_the_docs_page_opens(visit, tmp_path):
    page = visit("/docs")
    page.get_by_text("/models/fraud/predict", exact=True).click()
    expect(page.locator("details[open]").get_by_text("curl -s http://127.0.0.1")).to_be_visible()
    page.screenshot(path=tmp_path / "docs.png")
