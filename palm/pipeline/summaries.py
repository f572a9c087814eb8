"""What each stage does, in a line: for `--help`, which must not wait for the stages to be imported, and for the pipeline."""

SUMMARIES = {
    "data": "read the pairs, split users into seen and unseen",
    "base": "train the small base model from scratch, or check the one given",
    "embed": "turn every text into features",
    "fit": "learn basis rewards and every user's weight",
    "sample": "collect candidate responses to plan on",
    "score": "score the candidates by every basis reward",
    "plan": "choose the few weights to train for, and certify them for every weight",
    "train": "train one LoRA policy per weight",
    "measure": "measure the trained policies on held-out prompts",
    "route": "assemble the portfolio to serve, and route every user",
    "report": "write the report",
}
