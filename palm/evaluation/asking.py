"""What chosen questions are worth: unseen users' accuracy after few of them, against as many random ones."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from palm.evaluation.accuracy import Accuracy, accuracy, compare, pooled
from palm.evaluation.methods import estimator
from palm.evaluation.tasks import Task
from palm.progress import Track, silent
from palm.rewards.questions import RULES, Asking, ask

BASELINE = "random"


def question_curve(
    make: Callable[[int], Task],
    method: str,
    *,
    budgets: Sequence[int],
    seeds: Sequence[int],
    rules: Sequence[str] = RULES,
    track: Track = silent,
) -> list[dict[str, Any]]:
    """A row per number of questions: accuracy by every rule, what it gains over random, and over random at twice the budget.

    Unseen users are asked pairs out of their context and judged on their test pairs. Rules differ in the questions alone.

    Args:
        make: the task of a seed.
        method: as `palm.evaluation.methods.estimator` takes it; one whose models have scores of pairs.
        budgets: numbers of questions; 0 for what is known of nobody in particular.
        seeds: of splits, fits and random questions.
        rules: see `palm.rewards.questions`; "random" is added.
        track: for a progress bar of rules and splits.

    Returns:
        rows of JSON values: means and 95 % intervals over users, each user's figures averaged over the splits that they are in.

    Raises:
        TypeError: the method's models have no scores of pairs.
        ValueError: a budget is negative, or a rule or method unknown.
    """
    if not budgets or min(budgets) < 0:
        raise ValueError(f"budgets: expected numbers of at least 0, got {list(budgets)}")
    names = [BASELINE, *(rule for rule in rules if rule != BASELINE)]
    sizes = sorted({size for budget in budgets for size in (budget, 2 * budget)})
    found: dict[tuple[str, int], list[Accuracy]] = {(rule, size): [] for rule in names for size in sizes}
    with track("rules", len(names) * len(seeds)) as advance:
        for seed in seeds:
            task = make(seed)
            model = estimator(method).fit(task.train, seed=seed)
            for rule in names:
                asked = ask(cast(Asking, model), task.context, budget=max(1, sizes[-1]), rule=rule, seed=seed)
                for size in sizes:
                    users = model.infer(task.context.select(asked.first(size)), ids=task.unseen_test.ids)
                    found[rule, size].append(accuracy(model, task.unseen_test, users, seed=seed))
                advance(1)
    whole = {key: pooled(parts) for key, parts in found.items()}
    rows = []
    for budget in sorted(set(budgets)):
        row: dict[str, Any] = {"questions": budget}
        for rule in names:
            row[rule] = whole[rule, budget].overall.record()
            if rule != BASELINE:
                row[f"{rule} - {BASELINE}"] = compare(whole[rule, budget], whole[BASELINE, budget]).record()
                row[f"{rule} - {BASELINE} of twice as many"] = compare(whole[rule, budget], whole[BASELINE, 2 * budget]).record()
        rows.append(row)
    return rows
