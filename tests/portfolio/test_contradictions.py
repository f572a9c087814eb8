"""What a file says of itself is compared without the rewards."""

import numpy as np
import pytest


def more_witnesses(record):
    """As many witnesses as there are policies, and one more, all on the simplex."""
    count = len(record["policies"]) + 1
    rows = np.random.default_rng(0).dirichlet(np.ones(3), size=count)
    record["certificate"]["incompatible"], record["certificate"]["size_at_least"] = rows.tolist(), count


def more_captured_witnesses(record):
    more_witnesses(record)
    for name in ("incompatible", "size_at_least"):
        record["certificate"][f"captured_{name}"] = record["certificate"][name]
    record["certificate"]["incompatible"], record["certificate"]["size_at_least"] = [], 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (more_witnesses, "and the portfolio is that good with"),
        (more_captured_witnesses, "and the portfolio captures as much with"),
        (lambda record: record["certificate"].__setitem__("captured_size_at_least", 2), "and 0 weights are there to show it"),
    ],
)
def test_a_portfolio_is_its_own_counterexample_to_a_bound_above_its_size(tampered, change, message):
    for few in tampered(change):
        assert any(message in what for what in few), few
