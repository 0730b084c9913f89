"""A chat endpoint on 127.0.0.1 with vLLM's interface, which fails as planned.

It identifies an image by its content: number n is a plain image of the colour `colour_of(n)`.
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
from typing import Any

from PIL import Image

from tests.data.image_files import png
from tests.http_server import Handler, Server

KEY = "sk-very-secret-93b1"
MODEL = "test/vision-7b"
RETRY_AFTER_S = 1
TOKENS = (100, 20)  # input and output tokens of each answer
_STEP = 5  # red difference of consecutive images: more than the JPEG error


def colour_of(number: int) -> tuple[int, int, int]:
    return number * _STEP, 90, 160


def photo(number: int, size: tuple[int, int] = (32, 48)) -> bytes:
    return png(colour_of(number), size)


def valid_answer(number: int) -> dict[str, object]:
    return {"item": "lamp", "colours": ["Grey"], "materials": ["metal"], "details": [f"mark {number}"]}


def caption_text(number: int) -> str:
    return f"gray metal lamp, mark {number}"


@dataclass
class ChatServer:
    """Server state. `plan[number]` lists the steps of the calls about an image; then calls succeed.

    `delivered` counts the answers that reached their caller, by image and number of messages.
    """

    plan: dict[int, list[str]] = field(default_factory=dict)
    delivered: Counter[tuple[int, int]] = field(default_factory=Counter)
    calls: Counter[int] = field(default_factory=Counter)
    requests: dict[int, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    call_times: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    violations: list[str] = field(default_factory=list)
    delay_s: float = 0.0
    api_key: str | None = KEY
    url: str = ""
    gate: threading.Event = field(default_factory=threading.Event)  # clear: no call is answered
    active_calls: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator["ChatServer"]:
        server = Server(_Handler)
        server.state = self
        self.gate.set()
        with server.running() as url:
            self.url = f"{url}/v1"
            yield self

    @contextmanager
    def track_call(self, body: dict[str, Any]) -> Iterator[tuple[int, str]]:
        """Record a call; yields its image number and step."""
        number = image_number(body)
        with self._lock:
            steps = self.plan.get(number, [])
            step = steps[self.calls[number]] if self.calls[number] < len(steps) else "good"
            self.calls[number] += 1
            self.requests[number].append(body)
            self.call_times[number].append(time.monotonic())
            self.active_calls += 1
        try:
            yield number, step
        finally:
            with self._lock:
                self.active_calls -= 1

    def uncount_call(self, number: int) -> None:
        """Undo a call whose caller has disconnected: the next one gets its step."""
        with self._lock:
            self.calls[number] -= 1

    def count_delivered(self, number: int, body: dict[str, Any]) -> None:
        with self._lock:
            self.delivered[number, len(body["messages"])] += 1


def image_number(body: dict[str, Any]) -> int:
    data = body["messages"][1]["content"][0]["image_url"]["url"].removeprefix("data:image/jpeg;base64,")
    red = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").getpixel((5, 5))[0]
    return round(red / _STEP)


# Content of an answer by step.
CONTENTS: dict[str, Callable[[int], str]] = {
    "good": lambda number: json.dumps(valid_answer(number)),
    "fenced": lambda number: f"```json\n{json.dumps(valid_answer(number))}\n```",
    "cut": lambda number: json.dumps(valid_answer(number))[:40],
    "prose": lambda number: "What a nice lamp!",
    "background": lambda number: json.dumps({**valid_answer(number), "details": ["on a white background"]}),
    "long": lambda number: json.dumps(
        {**valid_answer(number), "details": ["one two three four", "five six seven eight"]}
    ),
}
STATUS = {"400": 400, "429": 429, "500": 500, "503": 503}


class _Handler(Handler):
    protocol_version = "HTTP/1.1"

    @property
    def state(self) -> ChatServer:
        return self.server.state

    def do_GET(self) -> None:
        self._send(200 if self._has_key() else 401, {"data": []})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._has_key():
            self._send(401, {"error": {"message": f"wrong key: {self.headers['Authorization']}"}})
            return
        self.state.violations += _violations(body)
        with self.state.track_call(body) as (number, step):
            self._respond(step, number, body)

    def _has_key(self) -> bool:
        return self.state.api_key is None or self.headers["Authorization"] == f"Bearer {self.state.api_key}"

    def _respond(self, step: str, number: int, body: dict[str, Any]) -> None:
        time.sleep(1.0 if step == "slow" else self.state.delay_s)
        self.state.gate.wait()
        if step in STATUS:
            headers = {"Retry-After": str(RETRY_AFTER_S)} if step == "429" else {}
            self._send(STATUS[step], {"error": {"message": f"{step} for {KEY}"}}, headers)
        elif step == "half":
            self._send(200, self._answer("good", number), cut=30)
        elif step == "nonsense":
            self._send(200, {"choices": []})
        elif self._is_connected():
            self._send(200, self._answer("good" if step == "slow" else step, number))
            self.state.count_delivered(number, body)
        else:
            self.state.uncount_call(number)

    def _is_connected(self) -> bool:
        """Whether the caller is still connected; vLLM also aborts requests of disconnected callers."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return not readable or self.connection.recv(1, socket.MSG_PEEK) != b""

    def _answer(self, step: str, number: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": CONTENTS[step](number)}
        usage = dict(zip(("prompt_tokens", "completion_tokens"), TOKENS, strict=True))
        return {"object": "chat.completion", "choices": [{"index": 0, "message": message}], "usage": usage}

    def _send(self, status: int, body: object, headers: dict[str, str] | None = None, cut: int = 0) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:-cut] if cut else data)
        self.close_connection = bool(cut)


def _violations(body: dict[str, Any]) -> Iterator[str]:
    """Fields that a strict endpoint would reject."""
    if body["stream"] is not False or body["model"] != MODEL:
        yield f"stream {body['stream']}, model {body['model']}"
    form = body.get("response_format", {})
    if (
        form.get("type") != "json_schema"
        or form["json_schema"]["schema"]["additionalProperties"] is not False
    ):
        yield f"response_format {form}"
