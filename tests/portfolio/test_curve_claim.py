"""A curve of gap against size agrees with itself and with the portfolio beside it, or fails."""

import json

import pytest

from palm.artifacts import write_json
from palm.pipeline.plan_stages import curve_record
from palm.portfolio import GibbsOracle, plan_curve, plan_portfolio
from palm.portfolio.verify import FAILS, OPEN, verify


@pytest.fixture(scope="module")
def curved(tmp_path_factory, random_tensor):
    folder = tmp_path_factory.mktemp("curved")
    oracle = GibbsOracle(random_tensor(0, 3), 0.1)
    planned = plan_portfolio(oracle, size=2, refine=True)
    planned.save_pretrained(folder)
    write_json(folder / "plan.json", {"curve": curve_record(plan_curve(oracle, sizes=range(4)), planned)})
    return folder


def lines_of(folder):
    return [line for line in verify(folder) if line.what.startswith("curve: ")]


def test_as_it_was_written_it_holds_as_far_as_can_be_told(curved):
    assert [line.verdict for line in lines_of(curved)] == ["holds", "holds", "holds", OPEN]


def put(point, **numbers):
    return lambda record: record["curve"][point].update(numbers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(1, epsilon=0.0), "more policies leave no larger gap"),
        (put(3, epsilon=None), "more policies leave no larger gap"),
        (put(1, size=2), "sizes increase"),
        (put(3, epsilon=0.0), "no gap is below what is proven"),
        (put(2, epsilon_at_least=9.0), "no gap is below what is proven"),
        (put(2, epsilon=0.9), "no larger gap is said than the portfolio's, but of 2"),
        (put(2, epsilon="small"), "has points of gap against size: ValueError"),
        (put(2, captured_gain=1.2), "has points of gap against size: ValueError"),
        (put(2, size=2.5), "has points of gap against size: ValueError"),
        (lambda record: record["curve"][0].pop("epsilon"), "has points of gap against size: KeyError"),
        (lambda record: record.update(curve=5), "has points of gap against size: TypeError"),
    ],
)
def test_a_changed_curve_fails(curved, tmp_path, change, message):
    record = json.loads((curved / "plan.json").read_text())
    change(record)
    (tmp_path / "portfolio.json").write_bytes((curved / "portfolio.json").read_bytes())
    (tmp_path / "plan.json").write_text(json.dumps(record))
    assert any(message in line.what for line in lines_of(tmp_path) if line.verdict == FAILS)


@pytest.mark.parametrize("content", ["[]", "{", '"none"', "\xff"])
def test_a_file_without_a_curve_is_no_curve(curved, tmp_path, content):
    (tmp_path / "portfolio.json").write_bytes((curved / "portfolio.json").read_bytes())
    (tmp_path / "plan.json").write_bytes(content.encode("latin-1"))
    assert [line.verdict for line in lines_of(tmp_path)] == [FAILS]


def test_no_curve_is_nothing_to_check(curved, tmp_path):
    (tmp_path / "portfolio.json").write_bytes((curved / "portfolio.json").read_bytes())
    assert lines_of(tmp_path) == []
    write_json(tmp_path / "plan.json", {"curve": []})
    assert lines_of(tmp_path) == []


def test_a_gap_beside_a_given_delta_is_another_gap(curved, tmp_path, random_tensor):
    planned = plan_portfolio(GibbsOracle(random_tensor(0, 3), 0.1), size=2, delta=0.02)
    assert planned.certificate.epsilon < json.loads((curved / "plan.json").read_text())["curve"][2]["epsilon"] - 1e-6
    planned.save_pretrained(tmp_path)
    (tmp_path / "plan.json").write_bytes((curved / "plan.json").read_bytes())
    assert [line.verdict for line in lines_of(tmp_path)] == ["holds", "holds", OPEN]
