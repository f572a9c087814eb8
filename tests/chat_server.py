"""An OpenAI-compatible server on loopback whose behaviour a test decides; it keeps what it was asked."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from palm.evaluation.judge_client import ChatClient

Reply = Callable[[dict[str, Any], int], tuple[int, Any]]
"""Takes a request's body and its number from 0, gives a status and the body of the answer."""


@dataclass
class Endpoint:
    """A server that keeps what it was asked."""

    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def client(self, **options: Any) -> ChatClient:
        return ChatClient(self.url, "judge-1", **{"wait": 0.0, "timeout": 5.0, **options})


@pytest.fixture
def serve() -> Iterator[Callable[[Reply], Endpoint]]:
    """Starts an OpenAI-compatible server with a given behaviour; all are stopped at the end."""
    running = []

    def start(reply: Reply) -> Endpoint:
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(endpoint.asked)
                    endpoint.asked.append(body)
                    endpoint.headers.append(dict(self.headers))
                status, answer = reply(body, number) if self.path == "/v1/chat/completions" else (404, {"error": self.path})
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # the client has gone

            def log_message(self, *arguments: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}/v1")
        return endpoint

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def chat(content: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"choices": [{"message": {"role": "assistant", "content": content}}]}


def parts(body: dict[str, Any]) -> tuple[str, str, str]:
    """Profile and the two responses, as the judge reads them."""
    text = body["messages"][1]["content"]
    return tuple(text.split(f"<{tag}>\n")[1].split(f"\n</{tag}>")[0] for tag in ("user", "response_A", "response_B"))


def by_length(body: dict[str, Any], number: int) -> tuple[int, Any]:
    """A judge that does what the profile says: it likes what is short, or what is long; equal lengths tie."""
    profile, first, second = parts(body)
    difference = len(first) - len(second) if "long" in profile else len(second) - len(first)
    return chat(f"Because of its length.\nVERDICT: {'TIE' if difference == 0 else 'A' if difference > 0 else 'B'}")
