"""Who writes: a server with OpenAI's interface, or vLLM in this process; `palm.policies.mixed` has transformers' own.

All sample from the policy's own distribution (temperature 1, no top-k or top-p) and take a seed per response. Two writers, and two
versions of one, draw differently from the same seed.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from palm.artifacts import ArtifactError
from palm.data.schema import Text

_AGAIN = (408, 409, 425, 429)


@dataclass(frozen=True)
class Row:
    """One response to write.

    Attributes:
        prompt: text or conversation.
        policy: id of the policy; None for the reference.
        seed: of its draws.
    """

    prompt: Text
    policy: str | None
    seed: int


@dataclass(frozen=True)
class Written:
    """A response.

    Attributes:
        text: without special tokens.
        prompt_tokens, tokens: how many the prompt has, and the response with the token that ended it; None if the writer did not
            tell.
    """

    text: str
    prompt_tokens: int | None
    tokens: int | None


class Writer(Protocol):
    """Writes some responses together."""

    def write(self, rows: Sequence[Row]) -> list[Written]:
        """One response per row, in order."""


@dataclass(frozen=True)
class ServerWriter:
    """A server with OpenAI's interface.

    Such as `vllm serve BASE --enable-lora --lora-modules ID=FOLDER ... --generation-config vllm`; without that last option vLLM
    changes the distribution by the model's own generation settings.
    Text goes to /completions, ended with a new line as everywhere in palm; a conversation to /chat/completions.

    Attributes:
        url: of the API, such as http://localhost:8000/v1.
        model: what the server calls the reference.
        names: what it calls a policy, where that is not the policy's id.
        max_new_tokens: longest response.
        key: sent as bearer token if given.
        tries: requests for one response, at least 1.
        timeout: seconds that a request may take.
        wait: seconds before the second try, doubled before each further one, and at most 30.
    """

    url: str
    model: str
    names: Mapping[str, str] = field(default_factory=dict)
    max_new_tokens: int = 128
    key: str | None = None
    tries: int = 4
    timeout: float = 300.0
    wait: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: the address is not one of HTTP, a name is missing, or a number is out of range.
        """
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"server: expected an address such as http://localhost:8000/v1, got {self.url!r}")
        if not self.model:
            raise ValueError("model: expected what the server calls the base model, got nothing")
        for name in ("tries", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")

    def write(self, rows: Sequence[Row]) -> list[Written]:
        """All rows at a time, each a request of its own.

        Raises:
            ArtifactError: the server refuses a request, or gives no usable answer in `tries`.
        """
        with ThreadPoolExecutor(max(1, len(rows))) as pool:
            return list(pool.map(self._ask, rows))

    def _ask(self, row: Row) -> Written:
        body: dict[str, Any] = {
            "model": self.model if row.policy is None else self.names.get(row.policy, row.policy),
            "max_tokens": self.max_new_tokens,
            "temperature": 1.0,
            "top_p": 1.0,
            "seed": row.seed,
        }
        if isinstance(row.prompt, str):
            path, body["prompt"] = "completions", row.prompt if row.prompt[-1:].isspace() else row.prompt + "\n"
        else:
            path, body["messages"] = "chat/completions", row.prompt
        last = ""
        for attempt in range(self.tries):
            if attempt:
                time.sleep(min(self.wait * 2 ** (attempt - 1), 30.0))
            try:
                return self._once(path, body)
            except urllib.error.HTTPError as error:
                last = f"status {error.code}: {error.read(200).decode('utf-8', 'replace').strip()}"
                if error.code < 500 and error.code not in _AGAIN:
                    raise ArtifactError(f"server: {self.url}: refused model {body['model']!r} with {last}") from error
            except (OSError, HTTPException, ValueError, KeyError, IndexError, TypeError) as error:  # URLError, timeouts: OSErrors
                last = f"{type(error).__name__}: {error}"
        raise ArtifactError(f"server: {self.url}: no response in {self.tries} tries; last {last}")

    def _once(self, path: str, body: dict[str, Any]) -> Written:
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {}),
        )
        with urllib.request.urlopen(request, timeout=self.timeout) as response:
            answer = json.loads(response.read())
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        text = choice["text"] if "prompt" in body else choice["message"]["content"]
        if not isinstance(text, str):
            raise TypeError(f"expected text, got {text!r:.60}")
        return Written(text.strip() or " ", usage.get("prompt_tokens"), usage.get("completion_tokens"))


def check_vllm() -> None:
    """See that vLLM is installed.

    Raises:
        ImportError: it is not; the message says what to install.
    """
    if find_spec("vllm") is None:
        raise ImportError(
            "backend: 'vllm' needs the package: pip install vllm (or start `vllm serve` elsewhere and give --server URL)"
        )


class VllmWriter:
    """vLLM in this process, with the policies' adapters."""

    def __init__(self, model: str, adapters: Mapping[str, Path], *, max_new_tokens: int, rank: int) -> None:
        """Load the base.

        Args:
            model: folder or Hub id.
            adapters: folder of each policy's adapter.
            max_new_tokens: longest response.
            rank: largest rank of the adapters.

        Raises:
            ImportError: the package is not installed; the message says what to install.
        """
        check_vllm()
        from vllm import LLM, SamplingParams
        from vllm.lora.request import LoRARequest

        options = {"enable_lora": True, "max_lora_rank": rank, "max_loras": min(len(adapters), 8)} if adapters else {}
        self._model, self._parameters, self._longest = (
            LLM(model, generation_config="vllm", **options),
            SamplingParams,
            max_new_tokens,
        )
        self._lora = {name: LoRARequest(name, number + 1, str(path)) for number, (name, path) in enumerate(adapters.items())}

    def write(self, rows: Sequence[Row]) -> list[Written]:
        """All rows in one call."""
        from palm.lm.tokens import encode_prompt

        tokenizer = self._model.get_tokenizer()
        outputs = self._model.generate(
            [{"prompt_token_ids": encode_prompt(tokenizer, row.prompt)} for row in rows],
            [self._parameters(temperature=1.0, top_p=1.0, max_tokens=self._longest, seed=row.seed) for row in rows],
            lora_request=[None if row.policy is None else self._lora[row.policy] for row in rows],
            use_tqdm=False,
        )
        return [
            Written(output.outputs[0].text.strip() or " ", len(output.prompt_token_ids), len(output.outputs[0].token_ids))
            for output in outputs
        ]
