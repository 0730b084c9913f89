"""An endpoint on 127.0.0.1 that answers like vLLM, and as badly as it is told to.

It knows the pictures by what they show: number n is a plain one of the colour `shade(n)`.
"""

import base64
import io
import json
import select
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from tests.data.pictures import png

KEY = "sk-very-secret-93b1"
MODEL = "test/vision-7b"
TOKENS = (100, 20)  # in and out of every answer
_STEP = 5  # of red, from one picture to the next: more than JPEG changes


def shade(number: int) -> tuple[int, int, int]:
    return number * _STEP, 90, 160


def photo(number: int, size: tuple[int, int] = (32, 48)) -> bytes:
    return png(shade(number), size)


def good(number: int) -> dict[str, object]:
    return {"item": "lamp", "colours": ["Grey"], "materials": ["metal"], "details": [f"mark {number}"]}


def caption_of(number: int) -> str:
    return f"gray metal lamp, mark {number}"


@dataclass
class ChatServer:
    """What it was asked, and what it should do: `plan[number]` is what becomes of the calls about a picture.

    Without a plan a call is answered well. `paid` counts the answers that reached their caller.
    """

    plan: dict[int, list[str]] = field(default_factory=dict)
    paid: Counter[tuple[int, int]] = field(default_factory=Counter)
    calls: Counter[int] = field(default_factory=Counter)
    asked: dict[int, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    moments: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    wrong: list[str] = field(default_factory=list)
    most_at_once: int = 0
    delay: float = 0.0
    key: str | None = KEY
    url: str = ""
    gate: threading.Event = field(default_factory=threading.Event)  # closed: no call is answered
    at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator["ChatServer"]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        server.daemon_threads, server.state = True, self
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self.gate.set()
        self.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    @contextmanager
    def call(self, body: dict[str, Any]) -> Iterator[tuple[int, str]]:
        """Which picture a call is about, and what to do with it."""
        number = picture_of(body)
        with self._lock:
            steps = self.plan.get(number, [])
            step = steps[self.calls[number]] if self.calls[number] < len(steps) else "good"
            self.calls[number] += 1
            self.asked[number].append(body)
            self.moments[number].append(time.monotonic())
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield number, step
        finally:
            with self._lock:
                self.at_once -= 1

    def left(self, number: int) -> None:
        """A call whose caller is gone was none: the next one is answered in its place."""
        with self._lock:
            self.calls[number] -= 1

    def delivered(self, number: int, body: dict[str, Any]) -> None:
        with self._lock:
            self.paid[number, len(body["messages"])] += 1


def picture_of(body: dict[str, Any]) -> int:
    data = body["messages"][1]["content"][0]["image_url"]["url"].removeprefix("data:image/jpeg;base64,")
    red = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").getpixel((5, 5))[0]
    return round(red / _STEP)


# What the content of an answer is, by the step of a plan that asks for it.
CONTENTS: dict[str, Callable[[int], str]] = {
    "good": lambda number: json.dumps(good(number)),
    "fenced": lambda number: f"```json\n{json.dumps(good(number))}\n```",
    "cut": lambda number: json.dumps(good(number))[:40],
    "prose": lambda number: "What a nice lamp!",
    "empty": lambda number: "",
    "background": lambda number: json.dumps({**good(number), "details": ["on a white background"]}),
    "long": lambda number: json.dumps(
        {**good(number), "details": ["one two three four", "five six seven eight"]}
    ),
}
STATUS = {"400": 400, "429": 429, "500": 500, "503": 503}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def state(self) -> ChatServer:
        return self.server.state

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self._send(200 if self._has_key() else 401, {"data": []})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._has_key():
            self._send(401, {"error": {"message": f"wrong key: {self.headers['Authorization']}"}})
            return
        self.state.wrong += _wrong(body)
        with self.state.call(body) as (number, step):
            self._do(step, number, body)

    def _has_key(self) -> bool:
        return self.state.key is None or self.headers["Authorization"] == f"Bearer {self.state.key}"

    def _do(self, step: str, number: int, body: dict[str, Any]) -> None:
        time.sleep(1.0 if step == "slow" else self.state.delay)
        self.state.gate.wait()
        if step in STATUS:
            more = {"Retry-After": "1"} if step == "429" else {}
            self._send(STATUS[step], {"error": {"message": f"{step} for {KEY}"}}, more)
        elif step == "half":
            self._send(200, self._answer("good", number), cut=30)
        elif step == "nonsense":
            self._send(200, {"choices": []})
        elif self._is_there():
            self._send(200, self._answer("good" if step == "slow" else step, number))
            self.state.delivered(number, body)
        else:
            self.state.left(number)

    def _is_there(self) -> bool:
        """A caller that was killed is answered nothing, as vLLM ends what nobody waits for."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return not readable or self.connection.recv(1, socket.MSG_PEEK) != b""

    def _answer(self, step: str, number: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": CONTENTS[step](number)}
        usage = dict(zip(("prompt_tokens", "completion_tokens"), TOKENS, strict=True))
        return {
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message}],
            "usage": usage,
        }

    def _send(self, status: int, body: object, more: dict[str, str] | None = None, cut: int = 0) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(more or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:-cut] if cut else data)
        self.close_connection = bool(cut)


def _wrong(body: dict[str, Any]) -> Iterator[str]:
    """What a strict endpoint would not take."""
    if body["stream"] is not False or body["model"] != MODEL:
        yield f"stream {body['stream']}, model {body['model']}"
    form = body.get("response_format", {})
    if (
        form.get("type") != "json_schema"
        or form["json_schema"]["schema"]["additionalProperties"] is not False
    ):
        yield f"response_format {form}"
