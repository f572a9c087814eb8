"""recipes/sample.py and recipes/generate.py: whose texts, the same however cut up, killed or served; real server on loopback."""

import hashlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_adapters import make_adapters
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from palm.artifacts import ArtifactError, write_json
from palm.data.planted import write_corpus
from palm.lm.load import LanguageModel, digest_weights, load_language_model
from palm.lm.pretrain import train_from_scratch
from palm.lm.tokens import encode_prompt
from palm.lm.writers import Row, ServerWriter, Written
from palm.locks import locked
from palm.policies.adapters import Members
from palm.policies.mixed import MixedWriter
from palm.policies.write_texts import plan_rows, write_texts
from palm.portfolio import Portfolio

RECIPES = Path(__file__).parents[2] / "recipes"
PROMPTS = ["How do I boil an egg?", "Why?", "Which plants grow in the shade of a large old tree?"]


@pytest.fixture(scope="module")
def base(base_folder: Path) -> LanguageModel:
    return load_language_model(base_folder)


@pytest.fixture(scope="module")
def portfolio(base: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two members with random adapters."""
    folder = tmp_path_factory.mktemp("served")
    made = make_adapters(base, folder / "made", ("a", "b"))
    Portfolio(np.eye(2), np.eye(2), np.zeros(2), np.full(2, 0.3), 0.1, ("a", "b"), base_model="tiny-base").save_pretrained(folder)
    for name, path in made.items():
        (folder / "policies").mkdir(exist_ok=True)
        path.rename(folder / "policies" / name)
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return path


def recipe(name: str, *arguments: object) -> int:
    """A recipe in this process: its exit status."""
    before, sys.argv = sys.argv, [name, *map(str, arguments)]
    try:
        runpy.run_path(str(RECIPES / name), run_name="__main__")
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = before
    return 0


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def adapters_of(portfolio: Path) -> dict[str, Path]:
    return {name: portfolio / "policies" / name for name in ("a", "b")}


def test_each_row_of_a_mixed_batch_is_drawn_from_its_own_policy(base: LanguageModel, portfolio: Path) -> None:
    """By hand, one row at a time: the token where the policy's distribution function passes the next uniform number of the seed."""
    rows = [Row(prompt, policy, 11 * place) for place, prompt in enumerate(PROMPTS) for policy in ("a", None, "b")]
    writer = MixedWriter(base, adapters_of(portfolio), max_new_tokens=6)
    mixed = writer.write(rows)
    alone = [writer.write([row])[0] for row in rows]
    writer.close()
    assert mixed == alone, "what else is in the batch changes nothing"
    members = Members(base, adapters_of(portfolio))
    for row, written in zip(rows, mixed, strict=True):
        ids = encode_prompt(base.tokenizer, row.prompt)
        drawn: list[int] = []
        for number in np.random.default_rng(row.seed).random(6):
            with members.reference() if row.policy is None else members.policy(row.policy) as policy, torch.inference_mode():
                logits = policy.model(torch.tensor([ids + drawn])).logits[0, -1].double()
            below = np.cumsum(torch.softmax(logits, dim=0).numpy())
            drawn.append(int((below <= number).sum()))
            if drawn[-1] in base.end_ids:
                break
        assert written == Written(base.tokenizer.decode(drawn, skip_special_tokens=True).strip() or " ", len(ids), len(drawn))
    members.close()
    assert len({written.text for written in mixed[:3]}) == 3, "policies differ on the same draws"


def test_draws_follow_the_policys_distribution(base: LanguageModel) -> None:
    """2000 first tokens of one prompt against the model's probabilities: no token is off by more than five standard errors."""
    writer = MixedWriter(base, {}, max_new_tokens=1)
    rows = [Row(PROMPTS[0], None, seed) for seed in range(2000)]
    texts = [written.text for start in range(0, 2000, 500) for written in writer.write(rows[start : start + 500])]
    with torch.inference_mode():
        logits = base.model(torch.tensor([encode_prompt(base.tokenizer, PROMPTS[0])])).logits[0, -1]
    likely = torch.softmax(logits.double(), dim=0).numpy()
    words = [base.tokenizer.decode([token], skip_special_tokens=True).strip() or " " for token in range(len(likely))]
    for word in set(words):
        share = likely[[place for place, other in enumerate(words) if other == word]].sum()
        assert abs(texts.count(word) / 2000 - share) <= 5 * np.sqrt(share * (1 - share) / 2000) + 1e-9


def test_generate_writes_every_member_in_order(portfolio: Path, prompts: Path, base_folder: Path, tmp_path: Path) -> None:
    options = ["--portfolio", portfolio, "--prompts", prompts, "--model", base_folder, "--max-new-tokens", 6]
    output = tmp_path / "texts.jsonl"
    assert recipe("generate.py", *options, "--output", output, "--count", 2, "--batch-size", 5) == 0
    found = read(output)
    assert [(row["prompt"], row["policy"]) for row in found] == [(p, m) for p in PROMPTS for m in ("a", "a", "b", "b")]
    assert set(found[0]) == {"prompt", "policy", "text", "prompt_tokens", "tokens", "seed"}
    for start in range(0, 12, 4):
        seeds = [row["seed"] for row in found[start : start + 4]]
        assert seeds[:2] == seeds[2:], "policies are compared on the same draws"
        assert seeds[0] != seeds[1]
    assert recipe("generate.py", *options, "--output", tmp_path / "one.jsonl", "--count", 2, "--batch-size", 1) == 0
    assert read(tmp_path / "one.jsonl") == found, "how it is cut up changes nothing"
    assert recipe("generate.py", *options, "--output", tmp_path / "b.jsonl", "--policies", "b, reference") == 0
    assert [row["text"] for row in read(tmp_path / "b.jsonl") if row["policy"] == "b"] == [row["text"] for row in found[2::4]]
    assert not list(tmp_path.glob("*.parts"))


def test_a_base_with_other_weights_is_warned_of(
    portfolio: Path, prompts: Path, base_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served, other = shutil.copytree(portfolio, tmp_path / "served"), shutil.copytree(base_folder, tmp_path / "other")
    write_json(served / "base.json", {"name": "tiny-base", "weights": digest_weights(base_folder)})
    options = ["--portfolio", served, "--prompts", prompts, "--max-new-tokens", 2]
    assert recipe("generate.py", *options, "--model", other, "--output", tmp_path / "copy.jsonl") == 0
    assert not caplog.records
    weights = load_file(other / "model.safetensors")
    save_file({name: value * 1.01 for name, value in weights.items()}, other / "model.safetensors", metadata={"format": "pt"})
    assert recipe("generate.py", *options, "--model", other, "--output", tmp_path / "changed.jsonl") == 0
    assert f"--model: {other} has other weights than the adapters were trained on" in caplog.text


def test_a_base_of_another_shape_is_one_line(
    portfolio: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    train_from_scratch(
        write_corpus(20, np.random.default_rng(0)), tmp_path / "wide", work=tmp_path / "work", vocabulary=400, architecture=wide,
        sft={"max_steps": 1}, max_length=64, seed=0,
    )  # fmt: skip
    options = ["--portfolio", portfolio, "--prompts", prompts, "--model", tmp_path / "wide", "--output", tmp_path / "t.jsonl"]
    capsys.readouterr()
    assert recipe("generate.py", *options) == 1
    said = capsys.readouterr().err
    assert f"policies/a: expected an adapter that fits the model {tmp_path / 'wide'}: " in said
    assert said.count("\n") == 1


def test_texts_of_a_model_that_was_replaced_are_not_taken_for_the_new_ones(
    prompts: Path, base_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(base_folder, tmp_path / "model")
    options = ["--prompts", prompts, "--model", model, "--max-new-tokens", 2, "--output", tmp_path / "texts.jsonl"]
    assert recipe("sample.py", *options) == 0
    assert recipe("sample.py", *options) == 0
    weights = load_file(model / "model.safetensors")
    save_file({name: value * 1.01 for name, value in weights.items()}, model / "model.safetensors", metadata={"format": "pt"})
    assert recipe("sample.py", *options) == 1
    assert "texts.jsonl: there already, made with other settings" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_write_what_one_writes(portfolio: Path, prompts: Path, base_folder: Path, tmp_path: Path) -> None:
    options = ["--prompts", prompts, "--model", base_folder, "--max-new-tokens", 6, "--count", 3, "--batch-size", 4]
    assert recipe("sample.py", *options, "--output", tmp_path / "one.jsonl") == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", RECIPES / "sample.py"]
    command = [*map(str, launch), *map(str, options), "--output", str(tmp_path / "two.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()


class Killed(BaseException):
    pass


def test_killed_between_batches_it_goes_on(base: LanguageModel, tmp_path: Path) -> None:
    """Finished batches are not written again, and no file is there before all is; afterwards nothing is done again."""
    output, rows = tmp_path / "texts.jsonl", plan_rows(PROMPTS, [None], count=2, seed=0)
    whole = tmp_path / "whole.jsonl"
    inner = MixedWriter(base, {}, max_new_tokens=4)

    class Writer:
        asked = 0
        ends_after = 1

        def write(self, batch: Any) -> Any:
            if self.asked == self.ends_after:
                raise Killed
            self.asked += 1
            return inner.write(batch)

    options: dict[str, Any] = {"batch_size": 2, "settings": {"model": "m"}}
    write_texts(inner, rows, whole, **options)
    with pytest.raises(Killed):
        write_texts(Writer(), rows, output, **options)
    assert not output.exists()
    second = Writer()
    second.ends_after = 2
    assert write_texts(second, rows, output, **options) == 4
    assert output.read_bytes() == whole.read_bytes()
    assert write_texts(Writer(), rows, output, **options) == 0
    with pytest.raises(Killed):
        write_texts(Writer(), rows, tmp_path / "new.jsonl", **options)
    with pytest.raises(ArtifactError, match=r"new\.jsonl\.parts: begun with other settings; remove it, or give another --output"):
        write_texts(inner, rows, tmp_path / "new.jsonl", batch_size=3, settings={"model": "m"})
    with pytest.raises(ArtifactError, match=r"texts\.jsonl: there already, made with other settings; remove it, or give another"):
        write_texts(inner, rows, output, batch_size=2, settings={"model": "another"})


def test_what_is_damaged_or_being_written_is_not_taken_for_done(base: LanguageModel, tmp_path: Path) -> None:
    output, rows = tmp_path / "texts.jsonl", plan_rows(PROMPTS, [None], count=2, seed=0)
    inner = MixedWriter(base, {}, max_new_tokens=4)
    options: dict[str, Any] = {"batch_size": 2, "settings": {"model": "m"}}

    class Writer:
        def __init__(self, most: int) -> None:
            self.left = most

        def write(self, batch: Any) -> Any:
            if not self.left:
                raise Killed
            self.left -= 1
            return inner.write(batch)

    with pytest.raises(Killed):
        write_texts(Writer(2), rows, output, **options)
    parts = tmp_path / "texts.jsonl.parts"
    (parts / "batch-000000.json").write_text('[["a", 1, 2], [1, null, "q"]]')
    (parts / "batch-000001.json").write_text('[["cut sh')
    assert write_texts(Writer(9), rows, output, **options) == len(rows)
    whole = output.read_bytes()
    output.write_bytes(whole[:40])
    with pytest.raises(ArtifactError, match=r"texts\.jsonl: not what was written there; it was cut short or changed: remove it"):
        write_texts(inner, rows, output, **options)
    output.unlink()
    with (
        locked(tmp_path / ".texts.jsonl.lock", folder=output),
        pytest.raises(ArtifactError, match=r"texts\.jsonl: another palm process is working"),
    ):
        write_texts(inner, rows, output, **options)
    write_texts(inner, rows, output, **options)
    assert output.read_bytes() == whole


def test_a_prompts_seeds_are_its_own() -> None:
    """Other prompts, their order and other policies change nothing; the same prompt twice is answered twice, differently."""
    rows = plan_rows(PROMPTS, [None, "a"], count=2, seed=3)
    turned = plan_rows(PROMPTS[::-1], ["b"], count=2, seed=3)
    for prompt in PROMPTS:
        seeds = {policy: [row.seed for row in rows if (row.prompt, row.policy) == (prompt, policy)] for policy in (None, "a")}
        assert seeds[None] == seeds["a"] == [row.seed for row in turned if row.prompt == prompt]
    assert len({row.seed for row in plan_rows([PROMPTS[0]] * 2, [None], count=2, seed=3)}) == 4
    assert plan_rows(PROMPTS, [None], count=1, seed=4)[0].seed != rows[0].seed
    with pytest.raises(ValueError, match="policies: expected different ids, got 'a' twice"):
        plan_rows(PROMPTS, ["a", "a"], count=1, seed=0)
    with pytest.raises(ValueError, match="prompts: expected at least one, got none"):
        plan_rows([], [None], count=1, seed=0)


@pytest.fixture
def server() -> Iterator[Any]:
    """OpenAI's two endpoints on loopback: the text is a digest of model, prompt and seed; every third request is told to wait."""
    asked: list[tuple[str, dict[str, Any], str | None]] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                asked.append((self.path, body, self.headers.get("Authorization")))
                busy = len(asked) % 3 == 0
            known = body["model"] in ("tiny", "a", "b")
            said = body.get("prompt") or body["messages"][-1]["content"]
            text = hashlib.sha256(f"{body['model']}|{said}|{body['seed']}".encode()).hexdigest()[:8]
            choice = {"text": text} if self.path == "/v1/completions" else {"message": {"role": "assistant", "content": text}}
            answer: Any = {"choices": [choice], "usage": {"prompt_tokens": len(said), "completion_tokens": 8}}
            status = 429 if busy else 200 if known else 404
            data = json.dumps(answer if status == 200 else {"error": "no such model" if status == 404 else "busy"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/v1", asked
    running.shutdown()
    running.server_close()


def test_a_server_writes_by_the_members_names(
    server: Any, portfolio: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = server
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    output = tmp_path / "texts.jsonl"
    options = ["--portfolio", portfolio, "--prompts", prompts, "--model", "tiny", "--server", url]
    assert recipe("generate.py", *options, "--policies", "b,reference", "--output", output, "--batch-size", 3) == 0
    for row in read(output):
        name = "tiny" if row["policy"] == "reference" else row["policy"]
        expected = hashlib.sha256(f"{name}|{row['prompt']}\n|{row['seed']}".encode()).hexdigest()[:8]
        assert (row["text"], row["prompt_tokens"], row["tokens"]) == (expected, len(row["prompt"]) + 1, 8)
    assert {path for path, _, _ in asked} == {"/v1/completions"}
    assert {key for _, _, key in asked} == {"Bearer secret"}
    assert all((body["temperature"], body["top_p"], body["max_tokens"]) == (1.0, 1.0, 128) for _, body, _ in asked)
    assert len(asked) > 6, "busy answers were asked again"


def test_conversations_go_to_the_chat_endpoint(server: Any) -> None:
    url, asked = server
    written = ServerWriter(url, "tiny", wait=0.0).write([Row([{"role": "user", "content": "Hello"}], "a", 5)])
    assert written == [Written(hashlib.sha256(b"a|Hello|5").hexdigest()[:8], 5, 8)]
    assert asked[0][0] == "/v1/chat/completions"


def test_a_server_that_refuses_or_is_not_there(server: Any) -> None:
    url, _ = server
    with pytest.raises(ArtifactError, match=r"refused model 'nobody' with status 404: .*no such model"):
        ServerWriter(url, "tiny", wait=0.0).write([Row("Why?", "nobody", 0)])
    with pytest.raises(ArtifactError, match=r"no response in 2 tries; last URLError"):
        ServerWriter("http://127.0.0.1:9/v1", "tiny", wait=0.0, tries=2, timeout=2.0).write([Row("Why?", None, 0)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policies", "a,c"], "palm: --policies: expected ids out of a, b, reference, got 'c'"),
        (["--count", "0"], "palm: --count: expected at least 1, got 0"),
        (["--backend", "tgi"], "palm: --backend: expected one of transformers, vllm, got 'tgi'"),
        (["--backend", "vllm"], "palm: backend: 'vllm' needs the package: pip install vllm"),
        (["--server", "localhost"], "palm: server: expected an address such as http://localhost:8000/v1, got 'localhost'"),
        (["--prompts", "EMPTY"], "palm: --prompts: expected at least one prompt in"),
        (["--prompts", "BAD"], "line 1: expected an object with the key 'prompt', got {\"text\": 1}"),
        (["--prompts", "NULL"], "line 1: expected a message's content to be text, got None"),
        (["--prompts", "none.txt"], "palm: --prompts: expected a file of text or JSON lines, got none.txt"),
        (
            ["--model", "./nowhere"],
            "palm: model: expected the folder or Hub id of a causal language model, got './nowhere': no such",
        ),
    ],
)
def test_bad_arguments_are_one_line(
    portfolio: Path, prompts: Path, base_folder: Path, tmp_path: Path, arguments: list[str], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "bad.jsonl").write_text('{"text": 1}\n')
    (tmp_path / "null.jsonl").write_text('{"prompt": [{"role": "user", "content": null}]}\n')
    if "vllm" in arguments and find_spec("vllm"):
        pytest.skip("vLLM is installed")
    names = {"EMPTY": tmp_path / "empty.jsonl", "BAD": tmp_path / "bad.jsonl", "NULL": tmp_path / "null.jsonl"}
    options = {"--portfolio": portfolio, "--prompts": prompts, "--model": base_folder, "--output": tmp_path / "out.jsonl"}
    options[arguments[0]] = names.get(arguments[1], arguments[1])  # type: ignore[call-overload]
    status = recipe("generate.py", *(word for pair in options.items() for word in pair))
    err = capsys.readouterr().err
    assert status == 1
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("name", ["sample.py", "generate.py"])
def test_help_teaches(name: str) -> None:
    app = runpy.run_path(str(RECIPES / name))["app"]
    result = CliRunner().invoke(app, ["--help"], env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    text = " ".join(result.output.split())
    assert result.exit_code == 0
    for part in ("prompt_tokens, tokens, seed", "--generation-config vllm", "goes on after its finished batches"):
        assert part in text
