"""The model card of a portfolio."""

import numpy as np

from palm.portfolio import Portfolio


def portfolio_card(portfolio: Portfolio) -> str:
    """Markdown that says what the policies are, how good, and how to use them."""
    numbers = [
        "| policy | "
        + " | ".join(f"w({name})" for name in portfolio.bases)
        + " | "
        + " | ".join(f"J({name})" for name in portfolio.bases)
        + " | KL cost |",
        "|" + "---|" * (2 + 2 * len(portfolio.bases)),
    ]
    for name, weight, value, cost in zip(portfolio.ids, portfolio.weights, portfolio.value, portfolio.cost, strict=True):
        cells = [name, *(f"{entry:.3f}" for entry in weight), *(f"{entry:.3f}" for entry in value), f"{cost:.3f}"]
        numbers.append("| " + " | ".join(cells) + " |")
    cells = ["reference", *["" for _ in portfolio.bases], *(f"{entry:.3f}" for entry in portfolio.reference), "0"]
    numbers.append("| " + " | ".join(cells) + " |")
    calibration = ""
    if portfolio.calibration is not None:
        rows = (
            f"* {name}: raw {low:.6g} becomes 0, {high:.6g} becomes 1 (clipped)"
            for name, (low, high) in zip(portfolio.bases, portfolio.calibration, strict=True)
        )
        calibration = "\n## Calibration of the rewards\n\n" + "\n".join(rows) + "\n"
    return f"""---
library_name: palm
base_model: {portfolio.base_model or "unknown"}
tags: [lora, pluralistic-alignment, personalization]
---
# A portfolio of {len(portfolio)} policies

Plain LoRA adapters on `{portfolio.base_model}`, one for each of {len(portfolio)} weights over {len(portfolio.bases)} basis
rewards; utility of a policy for a user with weight w is w.J - C, with C = {portfolio.kl:g} x KL from the base model.
Values and KL costs below are {portfolio.origin}.

{chr(10).join(numbers)}

## Certificate

{_certificate_in_words(portfolio)}
{calibration}
## Use

With palm:

```python
from palm.routing import Router

router = Router.from_pretrained("THIS_FOLDER")
router.route([{", ".join(["0.0"] * (len(portfolio.bases) - 1) + ["1.0"])}]).policy  # id of a folder below policies/
```

With PEFT: `PeftModel.from_pretrained(base_model, "policies/{portfolio.ids[0] if len(portfolio) else "ID"}")`. With vLLM:
`--enable-lora --lora-modules ID=policies/ID ...`.
"""


def _certificate_in_words(portfolio: Portfolio) -> str:
    certificate = portfolio.certificate
    if certificate is None:
        return "None was made."
    worst = np.array2string(certificate.worst_weight, precision=4, separator=", ")
    return "\n".join(
        [
            f"For every weight on the simplex, the best member's utility times {1 + certificate.epsilon:.4f} is at least the",
            f"optimum (worst weight {worst}); plus {certificate.delta:.4f} it is, too. Whatever the weight,",
            f"{100 * certificate.captured_gain:.1f} % or more of what personalisation could gain over the base model is gained.",
            f"Any portfolio with this gap has at least {certificate.size_at_least} of its own policies. Measured numbers are",
            "estimates from held-out prompts; the run's report has their intervals. Assumed:",
            "",
            *(f"* {assumption}" for assumption in certificate.assumptions),
        ]
    )
