#!/usr/bin/env python3
"""Would users prefer what they are served? A language model judges, told each user's profile, in both orders.

    vllm serve Qwen/Qwen3-8B                       # or any other OpenAI-compatible endpoint
    python scripts/evaluate_judge.py runs/planted --url http://localhost:8000/v1 --model Qwen/Qwen3-8B \\
        --against reference single-mean --comparisons 200 --describe "basis-0=brief answers" "basis-1=a warm tone"

Users and held-out prompts are drawn at random; a user's response is one that the policy they are routed to wrote when it was
measured, against one by the policy of --against. The judge reads the user's weight in words (bases by their names unless --describe
says what they reward). A win is a win in both orders; where the judge changes its mind with the order, nobody wins.

    win_rate       wins and half of the undecided, mean over prompts, with a 95 % interval over prompts
    ties           share in which neither wins
    consistent     share of comparisons judged the same in both orders
    position_bias  how much more often the first place wins than the second: 0 for a judge that reads, 1 for one that says A
    failed         comparisons without two verdicts after all tries; they are in none of the numbers

Judgements are kept in RUN/evaluation/judgements: a second call, or one after a kill, asks only what is missing. A key is read from
the environment (--key-env). A judge is a model with a taste of its own: read some of its answers, which the files hold. Prints a
table and one JSON line.
"""

import argparse
import os
from pathlib import Path

from palm.artifacts import ArtifactError, json_line
from palm.evaluation.judge import judge
from palm.evaluation.judge_client import ChatClient, JudgeError
from palm.evaluation.judged_users import user_comparisons
from palm.evaluation.tables import markdown_table
from palm.progress import bars


def main() -> None:
    """Draw, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--url", required=True, help="of the endpoint, such as http://localhost:8000/v1")
    parser.add_argument("--model", required=True, help="name that the endpoint knows")
    parser.add_argument("--key-env", default="OPENAI_API_KEY", help="environment variable of the key (default: OPENAI_API_KEY)")
    parser.add_argument("--against", nargs="+", default=["reference"], help="policies to compare with (default: reference)")
    parser.add_argument("--comparisons", type=int, default=100, help="for each of them (default: 100)")
    parser.add_argument("--describe", nargs="*", default=[], metavar="BASIS=WORDS", help="what a basis rewards")
    parser.add_argument("--workers", type=int, default=4, help="requests at a time (default: 4)")
    parser.add_argument("--tries", type=int, default=4, help="for one request (default: 4)")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for one request (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    options = parser.parse_args()
    described = dict(text.split("=", 1) if "=" in text else (text, "") for text in options.describe)
    try:
        from palm.pipeline.finished import FinishedRun

        key = os.environ.get(options.key_env)
        client = ChatClient(options.url, options.model, key=key, tries=options.tries, timeout=options.timeout)
        run = FinishedRun.read(options.run)
        for name, words in described.items():
            if name not in run.portfolio.bases or not words:
                parser.error(f"--describe: expected BASIS=WORDS with a basis out of {', '.join(run.portfolio.bases)}, got {name!r}")
        texts = {**run.texts, "reference": run.candidates.responses}
        drawn = {
            against: user_comparisons(
                run.portfolio,
                run.users,
                run.candidates.prompts,
                texts,
                against=run.policy_for(against),
                count=options.comparisons,
                descriptions=described,
                seed=options.seed,
            )
            for against in options.against
        }
        rows = []
        for against, comparisons in drawn.items():
            cache = options.run / "evaluation" / "judgements"
            with bars(f"judging against {against}", len(comparisons)) as advance:
                found = judge(client, comparisons, cache, workers=options.workers, advance=advance)
            rows.append({"against": against, **found.record()})
    except (ArtifactError, JudgeError, OSError, ValueError) as error:
        parser.error(str(error))
    print("\n".join(markdown_table(rows)))
    print(json_line({"run": str(options.run), "model": options.model, "rows": rows}))


if __name__ == "__main__":
    main()
