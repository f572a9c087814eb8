#!/usr/bin/env python3
"""How different are policies? In whom they serve, in what they write, and in their distributions, with intervals.

    python scripts/evaluate_diversity.py runs/planted
    python scripts/evaluate_diversity.py runs/planted --features sentence-transformers/all-MiniLM-L6-v2 --plots pictures
    python scripts/evaluate_diversity.py --policy short=short.jsonl --policy warm=warm.jsonl --reference base.jsonl

Of a finished run every policy writes --samples new responses to --prompts held-out prompts, with seeds of its own: the run's own
measured texts were drawn with the same seeds for all policies and resemble each other. Files are JSON lines with `prompt` and
`responses` (scripts/evaluate_coverage.py --help says more); for them divergences are left out, which need the models.

    members used   exp of the entropy of which policy serves best, over the simplex and over users: 1 (one serves all) to m + 1
    distinct_n     share of different n-grams of words: falls with the number of texts
    self_bleu      BLEU-4 of a text against its policy's others: 1 where a policy repeats itself
    vendi          effective number of different texts, exp of the entropy of the eigenvalues of their similarity
    policies       effective number of policies that write differently: 1 (all the same) to m; `if_same`: what chance alone gives
    bleu           BLEU-4 of a policy's text against the other policies': low where they differ
    KL             KL(row || column) of distributions over responses, in nats, with its standard error

Texts are compared on as many responses of every policy to the same prompts: of the first prompts, at most 120 of each. Intervals
over prompts: bootstrap for whom policies serve, jackknife for texts, of no width where leaving any prompts out changes nothing.
Prints tables and one JSON line.
"""

import argparse

from benchmarks.policy_files import Evaluation, parse_policies, policy_parser, print_evaluation, refuse

from palm.data.schema import plain_text
from palm.evaluation.files import check_same_prompts, read_samples
from palm.evaluation.tables import markdown_table, rounded
from palm.evaluation.vendi import word_kernel
from palm.evaluation.writing import writing
from palm.pipeline.evaluate import TFIDF, diversity_lines, diversity_of_run, model_kernel
from palm.progress import bars


def main() -> None:
    """Read or sample, compare, print."""
    parser = policy_parser(__doc__)
    parser.add_argument("--samples", type=int, default=4, help="new responses to each prompt (default: 4); 0: the run's own texts")
    parser.add_argument("--prompts", type=int, default=40, help="held-out prompts, at most (default: 40)")
    parser.add_argument("--features", default=TFIDF, help="of the Vendi score: tfidf (default), or a language model's folder or id")

    def evaluate(options: argparse.Namespace) -> Evaluation:
        record, lines = _of_run(parser, options) if options.run is not None else _of_files(parser, options)
        if options.plots is not None:
            from palm.evaluation.evaluation_pictures import write_pictures

            write_pictures(options.plots, diversity=record)
        return record, lines

    print_evaluation(parser, evaluate)


def _of_run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Evaluation:
    from palm.pipeline.finished import FinishedRun

    refuse(parser, options, "reference", form="a run")
    settings = {name: getattr(options, name) for name in ("draws", "level", "samples", "prompts", "features", "seed")}
    record = diversity_of_run(FinishedRun.read(options.run), track=bars, **settings)
    return record, diversity_lines(record)


def _of_files(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Evaluation:
    refuse(parser, options, "samples prompts draws plots", form="files")
    files = parse_policies(parser, options.policy) | ({"reference": options.reference} if options.reference else {})
    samples = {name: read_samples(path) for name, path in files.items()}
    check_same_prompts(samples)
    texts = {name: [[plain_text(text) for text in row] for row in found.responses] for name, found in samples.items()}
    kernel = word_kernel if options.features == TFIDF else model_kernel(options.features)
    record = {"writing": writing(texts, kernel=kernel, level=options.level, seed=options.seed).record(), "level": options.level}
    between = record["writing"]["between"]
    return record, markdown_table(record["writing"]["policies"]) + (["", *markdown_table([rounded(between)])] if between else [])


if __name__ == "__main__":
    main()
