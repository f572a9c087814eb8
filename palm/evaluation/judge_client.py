"""Ask a chat model at an OpenAI-compatible endpoint, with bounded retries: the standard library's HTTP and nothing else."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

Message = dict[str, str]


class JudgeError(RuntimeError):
    """The endpoint gave no usable answer within the allowed tries; the message says what it gave last."""


@dataclass(frozen=True)
class ChatClient:
    """One model at one endpoint: vLLM, llama.cpp, Ollama, a hosted service.

    Attributes:
        url: of the API, such as http://localhost:8000/v1; /chat/completions is added.
        model: name that the endpoint knows.
        key: sent as bearer token if given.
        tries: requests for one answer, at least 1.
        timeout: seconds that a request may take.
        wait: seconds before the second try, doubled before each further one, and at most 30.
        max_tokens: longest answer.
    """

    url: str
    model: str
    key: str | None = None
    tries: int = 4
    timeout: float = 60.0
    wait: float = 1.0
    max_tokens: int = 400

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: the address is not one of HTTP, or a number is out of range.
        """
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url: expected an address such as http://localhost:8000/v1, got {self.url!r}")
        if not self.model:
            raise ValueError("model: expected the name of a model that the endpoint knows, got nothing")
        for name, least in (("tries", 1), ("max_tokens", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if not self.timeout > 0 or not self.wait >= 0:
            raise ValueError(f"timeout, wait: expected seconds above 0 and of at least 0, got {self.timeout} and {self.wait}")

    def ask(self, messages: Sequence[Message]) -> str:
        """The model's answer at temperature 0.

        Connection errors, timeouts, status 408, 409, 425, 429 and 5xx, and answers that are no chat completion are tried again.

        Raises:
            JudgeError: no answer came in `tries` requests, or the endpoint refuses this one (another 4xx).
        """
        body = {"model": self.model, "messages": list(messages), "temperature": 0, "max_tokens": self.max_tokens}
        last = ""
        for attempt in range(self.tries):
            if attempt:
                time.sleep(min(self.wait * 2 ** (attempt - 1), 30.0))
            try:
                return self._once(body)
            except urllib.error.HTTPError as error:
                last = f"status {error.code}: {_start(error)}"
                if error.code < 500 and error.code not in (408, 409, 425, 429):
                    raise JudgeError(f"{self.url}: refused the request with {last}") from error
            except (OSError, HTTPException, ValueError, KeyError, IndexError, TypeError) as error:  # URLError, timeouts: OSErrors
                last = f"{type(error).__name__}: {error}"
        raise JudgeError(f"{self.url}: no answer in {self.tries} tries; last {last}")

    def _once(self, body: dict[str, Any]) -> str:
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {}),
        )
        with urllib.request.urlopen(request, timeout=self.timeout) as response:
            answer = json.loads(response.read())["choices"][0]["message"]["content"]
        if not isinstance(answer, str):
            raise TypeError(f"expected text as content, got {answer!r:.60}")
        return answer


def _start(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(200).decode("utf-8", "replace").strip()
    except OSError:
        return ""
