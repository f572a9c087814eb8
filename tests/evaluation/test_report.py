import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from palm.evaluation import report
from palm.evaluation.cell_pictures import cell_polygons
from palm.evaluation.headlines import cards, interval, number, percent, sentences
from palm.evaluation.intervals import Estimate
from palm.evaluation.pictures import SizePoint, colours, draw
from palm.evaluation.report import ReportData, check_plots, write_report
from palm.evaluation.report_content import AccuracyRow, CheckRow, Example, MemberRow, ServedRow, SingleRow, Truth, WritingRow
from palm.portfolio import GibbsOracle, certify, held_out_confidence, plan_portfolio

VOID = {"meta", "link", "br", "img", "use", "path", "circle", "rect", "line"}


def make_data(bases=3, size=3, users=30, unseen=8, **changes):
    rng = np.random.default_rng(bases)
    oracle = GibbsOracle(rng.random((12, 8, bases)), 0.1)
    names = tuple(f"basis <{k}> & $x$" for k in range(bases))
    if size:
        portfolio = plan_portfolio(oracle, size=size, names=names)
    else:
        portfolio = plan_portfolio(oracle, epsilon=100.0, names=names)
        assert len(portfolio) == 0
    certificate = certify(portfolio, oracle)
    estimate = Estimate(0.5, 0.4, 0.6, 12)
    ids = portfolio.ids
    return ReportData(
        title="A <b>title</b>",
        method="LoRe",
        pairs={"pairs": 1234, "users": users + unseen},
        shots=5,
        portfolio=replace(portfolio, origin="measured"),
        planned=portfolio,
        held_out=portfolio,
        gap={
            "epsilon": Estimate(certificate.epsilon, 0.0, certificate.epsilon * 2, 12),
            "delta": Estimate(certificate.delta, 0.0, 1.0, 12),
            "captured_gain": Estimate(certificate.captured_gain, 0.0, 1.0, 12),
        },
        users={part: rng.dirichlet(np.ones(bases), count) for part, count in (("seen", users), ("unseen", unseen)) if count},
        routes={"seen": {"reference": 2, **dict.fromkeys(ids, 3)}},
        confidence={"seen": 0.9},
        simplex_share=dict.fromkeys([*ids, "reference"], 0.25),
        oracle=oracle,
        members=tuple(MemberRow(name, np.ones(bases) / bases, 0.4, 0.6, estimate, 0.05, 0.04, 0.5) for name in ids),
        **changes,
    )


def full(**changes):
    estimate = Estimate(0.7, 0.6, 0.8, 10)
    extras = {
        "curve": (SizePoint(1, None, 0.2, 1), SizePoint(2, 0.1, 0.5, 2), SizePoint(3, 0.05, 0.8, 2)),
        "singles": (SingleRow("policy-0", False, None, 0.2, 0.0), SingleRow("single-worst", True, 0.2, 0.1, 0.3)),
        "accuracy": (
            AccuracyRow("LoRe", "unseen", estimate, estimate, 10, 100, None),
            AccuracyRow("BradleyTerry", "unseen", estimate, estimate, 10, 100, Estimate(-0.01, -0.02, 0.01, 10)),
        ),
        "served": (ServedRow("learned", "unseen", 0.5, 0.5, "single-worst", Estimate(0.001, -0.01, 0.02, 8), 0.4, 8),),
        "writing": (WritingRow("policy-0", 0.1, 0.3, 0.5),),
        "checks": (CheckRow("policy-0", 5.0, 2.0, -0.004, None),),
        "truth": Truth(("one", "two"), np.zeros(2), {"policy-0": np.ones(2)}, np.array([[1.0, -0.5], [np.nan, 0.2], [0.1, 0.9]])),
        "examples": (Example("<i>prompt</i>", (("reference", "plain"), ("policy-0", "<script>alert('x')</script>"))),),
    }
    return make_data(**{**extras, **changes})


def written(data, tmp_path, **options):
    write_report(data, tmp_path / "index.html", **options)
    return (tmp_path / "index.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """Collects ids, references and whether tags are balanced."""

    def __init__(self, html):
        super().__init__()
        self.open, self.ids, self.references = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.references += [attrs[name] for name in ("href", "src", "xlink:href", "action") if name in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        while self.open[-1] in {"li"} and self.open[-1] != tag:
            self.open.pop()
        assert self.open.pop() == tag


def test_what_users_and_policies_wrote_is_escaped(tmp_path):
    html = written(full(), tmp_path)

    assert "<script" not in html
    assert "&lt;script&gt;alert" in html
    assert "<i>prompt</i>" not in html
    assert "<b>title</b>" not in html
    assert "basis <0>" not in html
    assert html.count("basis &lt;0&gt; &amp; $x$") > 3  # in tables and, with its dollars, in pictures


def test_what_is_proven_of_a_size_and_stated_for_all_prompts_is_shown(tmp_path):
    curve = (SizePoint(0, 0.4, 0.0, 0, 0.4, 0.1), SizePoint(1, 0.3, 0.2, 1, 0.123, 0.2), SizePoint(2, 0.1, 0.5, 2, None, None))
    plain = full(curve=curve)
    html = written(plain, tmp_path)
    assert "<td>12.3\u202f%</td>" in html
    assert "proven: no portfolio of that size has less" in html
    assert "over all prompts drawn like these" not in html
    rewards = np.random.default_rng(1).random((30, 8, 3))
    stated = held_out_confidence(plain.planned, rewards, np.ones((30, 8), dtype=bool), 0.1)
    html = written(replace(plain, planned=replace(plain.planned, confidence=stated)), tmp_path)
    assert f"over all prompts drawn like these, with {percent(0.95)} confidence" in html
    assert stated.caution  # thirty prompts are few
    assert stated.caution in html
    enough = written(replace(plain, planned=replace(plain.planned, confidence=replace(stated, prompts=100))), tmp_path)
    assert stated.caution not in enough
    assert f"<td>at most {percent(stated.bootstrap.epsilon)}</td>" in html
    assert f"<td>at least {percent(stated.bootstrap.captured_gain)}</td>" in html
    assert "from the\n30 held-out ones alone" in html


@pytest.mark.parametrize("plots", [True, False])
def test_page_is_whole_and_loads_nothing_from_outside(tmp_path, plots):
    html = re.sub(r"data:image/png;base64,[^\"]+", "#", written(full(), tmp_path, plots=plots))  # the map of gaps
    page = Page(html)

    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert all(reference.startswith("#") for reference in page.references)
    assert {reference[1:] for reference in page.references if reference != "#"} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(page.ids)
    assert not re.search(r"https?:|@import|//[a-z]", html)
    assert ("<svg" in html) == plots


def test_equal_data_give_equal_bytes(tmp_path):
    (tmp_path / "again").mkdir()

    assert written(full(), tmp_path) == written(full(), tmp_path / "again")


@pytest.mark.parametrize("bases", [1, 2, 3, 5])
@pytest.mark.parametrize(("size", "users", "unseen"), [(3, 30, 8), (1, 1, 0), (0, 5, 2), (0, 0, 0)])
def test_every_number_of_bases_policies_and_users(tmp_path, bases, size, users, unseen):
    data = make_data(bases=bases, size=size, users=users, unseen=unseen)
    html = written(data, tmp_path)

    assert Page(html).open == []
    trained = len(data.portfolio) > 0
    assert html.count("<svg") == (users > 0) + 1 + 2 * trained + (trained and bases > 2)
    assert ("base model alone is good enough" in html) == (len(data.portfolio) == 0)
    assert "nan" not in re.sub(r"<[^>]*>", "", html)


def test_unbounded_gap_is_said_not_drawn(tmp_path):
    data = full()
    certificate = replace(data.portfolio.certificate, epsilon=np.inf)
    worst = replace(data.portfolio, certificate=certificate)
    gap = {name: value for name, value in data.gap.items() if name != "epsilon"}

    html = written(replace(data, portfolio=worst, planned=worst, held_out=worst, gap=gap), tmp_path)

    assert "unbounded" in html
    assert "times inf" not in html


def test_headlines_say_what_was_measured():
    data = full()
    captured = data.gap["captured_gain"].mean
    text = " ".join(sentences(data))

    assert cards(data)[0].figure == percent(captured)
    assert cards(data)[1].figure == percent(0.3)
    assert f"at least {percent(captured)} of what" in text
    assert "single-worst, the best of the 2 policies trained" in text
    assert "The interval includes 0" in text
    assert f"BradleyTerry {percent(0.7)}" in text


def test_report_without_plots_does_not_import_matplotlib(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(__file__).rpartition("/")[0]!r})
from pathlib import Path
from test_report import full, write_report
write_report(full(), Path({str(tmp_path)!r}) / "index.html", plots=False)
assert not any(name.split(".")[0] == "matplotlib" for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)

    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<details open>" in html
    assert "<details>" not in html


def test_missing_matplotlib_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "find_spec", lambda name: None)

    with pytest.raises(ValueError, match=r"report\.plots: expected matplotlib .*'palm-align\[plot\]'.*report\.plots=false"):
        check_plots()
    with pytest.raises(ValueError, match="matplotlib"):
        written(make_data(), tmp_path)
    assert written(make_data(), tmp_path, plots=False)


def test_portfolios_without_certificates_are_refused():
    data = make_data()

    with pytest.raises(ValueError, match="held_out"):
        replace(data, held_out=replace(data.held_out, certificate=None))


@pytest.mark.parametrize("seed", range(4))
def test_cells_partition_the_triangle(seed):
    rng = np.random.default_rng(seed)
    values = rng.random((5, 3))
    values = np.vstack([values, values[0]])  # a twin has no cell of its own
    cells = cell_polygons(values)

    def area(cell):
        x, y = cell[:, 0], cell[:, 1]
        return 0.5 * abs(x @ np.roll(y, -1) - y @ np.roll(x, -1))

    assert sum(area(cell) for cell in cells if len(cell)) == pytest.approx(0.5)
    assert len(cells[5]) == 0
    for own, cell in enumerate(cells):
        if len(cell):
            middle = cell.mean(axis=0)
            assert (middle @ values.T).argmax() == own


def test_pictures_ignore_a_persons_own_matplotlib_settings():
    import matplotlib

    def paint(figure):
        figure.subplots().plot([0, 1])

    plain = draw("one", (2, 2), paint)
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path"}):
        assert draw("one", (2, 2), paint) == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_colours_are_all_different():
    assert len(set(colours(40))) == 40
    assert colours(40)[:10] == colours(10)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.51612, "0.516"),
        (12.34, "12.3"),
        (123.4, "123"),
        (12345.6, "12,346"),
        (-0.5, "−0.500"),
        (0, "0"),
        (None, "–"),
        (np.inf, "unbounded"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_intervals_are_shown_in_one_unit():
    assert interval(Estimate(0.615, 0.484, 0.68, 64), share=True) == "61.5\u202f% [48.4, 68.0]"
    assert interval(Estimate(0.615, 0.484, 0.68, 64)) == "0.615 [0.484, 0.680]"
