import base64
import hmac
import sys

import pytest

from core.serve.config import ServeConfig
from core.serve.errors import Overloaded, Unauthorized
from core.serve.security import Guard, Tokens, WrongHost
from tests.core.serve.small_engine import SmallEngine, app_of, get, post

ANN, BOB = "a" * 32, "b" * 32
X = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
LOCAL = {b"host": b"localhost:8080"}


def bearer(token):
    return {**LOCAL, b"authorization": f"Bearer {token}".encode()}


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"# who may ask\nann {ANN}\n\nbob {BOB}\n")
    return path


@pytest.fixture
def config(tokens):
    return ServeConfig(tokens=tokens, access_log=False)


def test_the_tokens_name_is_whose_request_it_is(config):
    engine = SmallEngine()
    reply = post(
        app_of(engine, config), "/v2/models/double/infer", {"inputs": [X]}, headers=bearer(BOB)
    )
    assert reply.status == 200
    assert engine.calls[0].tenant == "bob"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {ANN}x",
        f"Basic {ANN}",
        ANN,
        "Bearer \xff",
        "bearer " + ANN[1:],
    ],
)
def test_any_other_token_is_refused(config, value):
    headers = {b"authorization": value.encode("latin-1")}
    reply = post(app_of(config=config), "/v2/models/double/infer", {"inputs": [X]}, headers=headers)
    assert reply.status == 401
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert "Authorization: Bearer" in reply.json["error"]


def test_all_but_health_needs_the_token(config):
    app = app_of(config=config)
    paths = [
        "/",
        "/docs",
        "/metrics",
        "/openapi.json",
        "/page.js",
        "/v2",
        "/v2/models/double",
        "/else",
    ]
    assert [get(app, path).status for path in paths] == [401] * len(paths)
    assert [get(app, path, headers=bearer(ANN)).status for path in paths] == [200] * 7 + [404]
    for path in ("/live", "/ready", "/startup", "/v2/health/live", "/v2/health/ready"):
        assert get(app, path).status == 200


def test_a_browser_opens_pages_with_the_token_as_password_but_sends_nothing_with_it(config):
    app = app_of(config=config)
    basic = {b"authorization": b"Basic " + base64.b64encode(f"any:{ANN}".encode())}
    assert get(app, "/").headers["www-authenticate"].startswith("Basic")
    assert get(app, "/", headers=basic).status == 200
    assert get(app, "/v2/models/double", headers=basic).status == 200
    assert post(app, "/v2/models/double/infer", {"inputs": [X]}, headers=basic).status == 401
    assert post(app, "/v2/repository/models/double/load", headers=basic).status == 401


def test_a_broken_password_is_refused(config):
    for value in (b"Basic !!!", b"Basic", b"Basic " + base64.b64encode(b"no colon")):
        assert get(app_of(config=config), "/", headers={b"authorization": value}).status == 401


def test_a_token_is_compared_with_all_tokens_and_in_constant_time(tokens, monkeypatch):
    compared = []
    real = hmac.compare_digest

    def compare(a, b):
        compared.append((len(a), len(b)))
        return real(a, b)

    monkeypatch.setattr("core.serve.security.hmac.compare_digest", compare)
    found = Tokens.read(tokens)
    assert [found.find(token) for token in (ANN.encode(), BOB.encode(), b"", b"x" * 99)] == [
        *("ann", "bob", None, None),
    ]
    assert compared == [(32, 32)] * 8


def test_tokens_are_kept_and_told_nowhere(tokens, config, caplog, capfd):
    app = app_of(config=ServeConfig(tokens=tokens))
    get(app, "/", headers=bearer(ANN))
    get(app, "/", headers=bearer("c" * 32))
    app.close()
    logged = caplog.text + "".join(capfd.readouterr())
    assert '"tenant":"ann"' in logged
    for token in (ANN, "c" * 32):
        assert token not in logged
        assert token not in repr(Guard.of(config))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ann\n", "line 1"),
        (f"ann {ANN} more\n", "line 1"),
        ("# x\nann short\n", "line 2"),
        (f"ann {'ä' * 32}\n", "line 1"),
        (f"ann {ANN}\nbob {ANN}\n", "line 2"),
        (f"ann {ANN}\nann {BOB}\n", "line 2"),
        ("\n# nothing\n", "no line"),
    ],
)
def test_a_wrong_line_is_told_by_its_number_alone(tmp_path, text, words):
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        Tokens.read(path)
    assert ANN not in str(error.value)


def test_a_token_has_a_rate_of_its_own(tokens):
    now = [0.0]
    guard = Guard(Tokens.read(tokens), rate=2.0, clock=lambda: now[0])
    for _ in range(2):
        guard.admit(bearer(ANN))
    with pytest.raises(Overloaded, match="rate_limit=2") as error:
        guard.admit(bearer(ANN))
    assert error.value.retry_after_s == 0.5
    guard.admit(bearer(BOB))
    now[0] = 0.5
    guard.admit(bearer(ANN))
    with pytest.raises(Overloaded):
        guard.admit(bearer(ANN))
    now[0] = 1e6
    for _ in range(2):
        guard.admit(bearer(ANN))
    with pytest.raises(Overloaded):
        guard.admit(bearer(ANN))


def test_a_rate_below_one_lets_one_through_at_a_time():
    now = [0.0]
    guard = Guard(rate=0.1, clock=lambda: now[0])
    guard.admit(LOCAL)
    with pytest.raises(Overloaded) as error:
        guard.admit(LOCAL)
    assert error.value.retry_after_s == pytest.approx(10)


def test_wrong_tokens_use_up_no_ones_rate(tokens):
    guard = Guard(Tokens.read(tokens), rate=1.0, clock=lambda: 0.0)
    for _ in range(5):
        with pytest.raises(Unauthorized):
            guard.admit(bearer("c" * 32))
    guard.admit(bearer(ANN))


def test_too_many_requests_are_told_when_to_come_back():
    app = app_of(config=ServeConfig(rate_limit=0.01, access_log=False))
    assert get(app, "/v2").status == 200
    reply = get(app, "/v2")
    assert (reply.status, 90 <= int(reply.headers["retry-after"]) <= 100) == (429, True)
    assert get(app, "/ready").status == 200


@pytest.mark.parametrize(
    "host", [b"localhost", b"LOCALHOST:1", b"127.0.0.1:8080", b"[::1]:8080", b"[::1]"]
)
def test_a_private_service_answers_to_its_own_names(host):
    Guard().admit({b"host": host})


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"evil.example",
        b"evil.example:8080",
        b"localhost.evil.example",
        b"127.0.0.1.evil.example",
        b"[::2]",
    ],
)
def test_a_private_service_answers_to_no_other_name(host):
    with pytest.raises(WrongHost, match="Host="):
        Guard().admit({b"host": host})
    reply = get(app_of(), "/ready", headers={b"host": host})
    assert reply.status == 403
    Guard(is_private=False).admit({b"host": host})


def test_pages_of_other_sites_may_not_ask():
    guard = Guard(is_private=False)
    guard.admit({b"host": b"a.example:8080", b"origin": b"https://a.example:8080"})
    for origin in (b"https://b.example", b"null", b"http://a.example", b"http://[", b"\xff"):
        with pytest.raises(WrongHost, match="Origin="):
            guard.admit({b"host": b"a.example:8080", b"origin": origin})


@pytest.mark.parametrize("path", ["/", "/docs", "/page.js", "/page.css", "/icon.svg"])
def test_pages_forbid_all_that_they_do_not_need(path):
    headers = get(app_of(), path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"


EVIL = [
    "/etc/passwd",
    "/../../etc/passwd",
    "/page/../app.py",
    "/page.css/../app.py",
    "//etc/passwd",
]
EVIL += [
    "/%2e%2e/app.py",
    "/..\\app.py",
    "/v2/models/../../../etc/passwd",
    "/icon.svg\0.html",
    "/docs/x",
]


def test_no_path_of_a_request_is_opened():
    opened = []
    app = app_of()
    engine = SmallEngine()
    own = app_of(engine)
    is_watching = [True]

    def watch(event, arguments):
        if is_watching[0] and (event == "open" or event.startswith("os.")):
            opened.append((event, arguments))

    get(app, "/")
    sys.addaudithook(watch)
    try:
        for path in EVIL:
            assert get(app, path).status == 404
            for target in (f"/v2/models{path}/infer", f"/models{path}/predict"):
                assert post(app, target, {"inputs": [X]}).status in (400, 404)
            body = {"parameters": {"config": "{}", "file:1/model.onnx": "AAAA"}}
            assert post(own, f"/v2/repository/models{path}/load", body).status in (400, 404)
        assert post(own, "/v2/repository/models/double/load", body).status == 400
    finally:
        is_watching[0] = False
    assert opened == []
    assert engine.reloaded == []
