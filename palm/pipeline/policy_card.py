"""The card of one adapter: whom it is for, what it was measured to give, and how to load it."""

from pathlib import Path

from palm.artifacts import read_json
from palm.evaluation.intervals import Estimate, bootstrap_mean
from palm.evaluation.measure import Measured
from palm.policies.adapters import CONFIG
from palm.portfolio import Portfolio


def policy_card(
    portfolio: Portfolio,
    name: str,
    adapter: Path,
    *,
    base: str,
    measured: Measured | None,
    planned: float | None = None,
    seed: int = 0,
) -> str:
    """Markdown for the adapter's folder within a portfolio's.

    Args:
        portfolio: that the policy is a member of.
        name: id of the policy.
        adapter: its folder.
        base: what to load the base model from: a Hub id or a folder, as seen from the portfolio's folder.
        measured: what the policy gave on each held-out prompt; None if it was not measured.
        planned: the utility that was planned for its weight.
        seed: of the intervals.

    Raises:
        ValueError: there is no such policy.
    """
    if name not in portfolio.ids:
        raise ValueError(f"name: expected one of {', '.join(portfolio.ids)}, got {name!r}")
    place, config = portfolio.ids.index(name), read_json(adapter / CONFIG)
    weight = portfolio.weights[place]
    return f"""---
library_name: peft
base_model: {portfolio.base_model or "unknown"}
tags: [lora, pluralistic-alignment, personalization, palm]
---
# {name}

A plain LoRA adapter (rank {config["r"]}, alpha {config["lora_alpha"]}) on `{portfolio.base_model}`, one of {len(portfolio)}
policies of a portfolio: the one for users whose weight over {len(weight)} basis rewards is near
{_numbers(weight)}. It was trained towards the policy with the most w.J - {portfolio.kl:g} x KL from the base model, for that w.

{_table(portfolio, place, measured, seed)}

{_utility(portfolio, place, measured, planned, seed)}

{_calibration(portfolio)}
## Use

From the portfolio's folder. A prompt that is text ends with a new line; a conversation goes through the tokenizer's chat template.

With PEFT:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

tokenizer = AutoTokenizer.from_pretrained("{base}")
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "policies/{name}")
own = model.generation_config.eos_token_id
ends = {{tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}} - {{None}}
model.generation_config = GenerationConfig(eos_token_id=sorted(ends))  # the base's may sample otherwise than was measured
inputs = tokenizer("How do I boil an egg?\\n", return_tensors="pt")
text = model.generate(**inputs, do_sample=True, top_k=0, max_new_tokens=64)[0]
print(tokenizer.decode(text, skip_special_tokens=True))
```

With vLLM, where requests name `{name}` as their model:

```
vllm serve {base} --enable-lora --max-lora-rank {config["r"]} --lora-modules {name}=policies/{name} --generation-config vllm
```

With palm, which says for which users it is the best:

```python
from palm.routing import Router

print(Router.from_pretrained(".").route([{", ".join(f"{entry:.6g}" for entry in weight)}]).policy)
```

The adapter fits `{portfolio.base_model}` and no other weights. Values are of text that the policy wrote itself at temperature 1,
with no top-k or top-p; other sampling gives others.
"""


def _numbers(values: object) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"  # type: ignore[attr-defined]


def _table(portfolio: Portfolio, place: int, measured: Measured | None, seed: int) -> str:
    rows = ["| basis reward | weight | value J | reference |", "|---|---|---|---|"]
    for k, basis in enumerate(portfolio.bases):
        value = f"{portfolio.value[place, k]:.3f}" if measured is None else str(bootstrap_mean(measured.value[:, k], seed=seed))
        rows.append(f"| {basis} | {portfolio.weights[place, k]:.3f} | {value} | {portfolio.reference[k]:.3f} |")
    return "\n".join(rows)


def _utility(portfolio: Portfolio, place: int, measured: Measured | None, planned: float | None, seed: int) -> str:
    weight = portfolio.weights[place]
    base = float(weight @ portfolio.reference)
    plan = "" if planned is None else f"; the plan's, the best possible on the candidates, is {planned:.3f}"
    if measured is None:
        utility = float(weight @ portfolio.value[place] - portfolio.cost[place])
        return f"Planned, not measured: utility at its own weight {utility:.3f}, the base model's {base:.3f}."
    divergence: Estimate = bootstrap_mean(measured.kl, seed=seed)
    return (
        f"Measured on {len(measured.kl)} held-out prompts, 95 % intervals over prompts: utility at its own weight "
        f"{measured.utility(weight, portfolio.kl, seed=seed)}, the base model's {base:.3f}{plan}. "
        f"KL from the base model: {divergence} nats."
    )


def _calibration(portfolio: Portfolio) -> str:
    if portfolio.calibration is None:
        return ""
    rows = (
        f"* {name}: raw {low:.6g} becomes 0, {high:.6g} becomes 1 (clipped)"
        for name, (low, high) in zip(portfolio.bases, portfolio.calibration, strict=True)
    )
    return "Rewards are calibrated:\n\n" + "\n".join(rows) + "\n"
