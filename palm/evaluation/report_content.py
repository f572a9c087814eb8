"""What a report shows: the run's numbers, gathered, without any words around them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from palm.evaluation.intervals import Estimate
from palm.evaluation.pictures import SizePoint
from palm.portfolio.certify import Certificate
from palm.portfolio.oracle import Oracle
from palm.portfolio.portfolio import Portfolio


@dataclass(frozen=True)
class MemberRow:
    """A policy's plan and measurement at its own weight, on held-out prompts.

    Attributes:
        id: of the policy.
        weight: (K,) what it was trained for.
        reference_utility: of the base model at that weight.
        planned_utility: of the optimal policy on the held-out candidates.
        measured_utility: of the trained policy, with its interval over prompts.
        planned_cost, measured_cost: KL costs.
        share_of_planned_gain: measured over planned gain; None if there was nothing to gain.
    """

    id: str
    weight: np.ndarray
    reference_utility: float
    planned_utility: float
    measured_utility: Estimate
    planned_cost: float
    measured_cost: float
    share_of_planned_gain: float | None


@dataclass(frozen=True)
class SingleRow:
    """Measured gaps of one trained policy on its own.

    Attributes:
        id: of the policy.
        baseline: whether it was trained to be the only policy, not as a member of the portfolio.
        epsilon: None if unbounded.
        delta, captured_gain: see `palm.portfolio.certify.Certificate`.
    """

    id: str
    baseline: bool
    epsilon: float | None
    delta: float
    captured_gain: float


@dataclass(frozen=True)
class AccuracyRow:
    """A reward model's agreement with held-out pairs.

    Attributes:
        method: its name.
        part: "seen" or "unseen" users.
        accuracy, log_loss: with intervals over users.
        users, pairs: how many.
        gain_of_main: how much more accurate the run's own method is, paired by user; None for that method itself.
    """

    method: str
    part: str
    accuracy: Estimate
    log_loss: Estimate
    users: int
    pairs: int
    gain_of_main: Estimate | None


@dataclass(frozen=True)
class ServedRow:
    """What routing gives users, against one policy for everyone.

    Attributes:
        judge: "learned" rewards, or "planted": the true ones of an embedded world.
        part: "seen" or "unseen" users.
        routed, single: mean utilities.
        single_policy: the one policy.
        gain: routed minus single, with an interval over users.
        worse_off: share of users whom routing serves worse.
        users: how many.
    """

    judge: str
    part: str
    routed: float
    single: float
    single_policy: str
    gain: Estimate
    worse_off: float
    users: int


@dataclass(frozen=True)
class WritingRow:
    """How varied a policy's responses are: shares of distinct words and word pairs, and BLEU among its own responses."""

    id: str
    distinct_words: float
    distinct_pairs: float
    self_bleu: float


@dataclass(frozen=True)
class CheckRow:
    """What the plan's candidates can be trusted for at one policy's weight; see `palm.portfolio.gibbs.Diagnostics`."""

    id: str
    effective_samples: float
    fewest_samples: float
    bias: float
    prompt_error: float | None


@dataclass(frozen=True)
class Truth:
    """What only an embedded world can tell.

    Attributes:
        bases: names of the planted rewards.
        reference: (B,) the reference's value by them.
        value: (B,) each policy's value by them, by id.
        agreement: (K, B) correlation over users between learned and planted weights; NaN where one does not vary.
    """

    bases: tuple[str, ...]
    reference: np.ndarray
    value: Mapping[str, np.ndarray]
    agreement: np.ndarray


@dataclass(frozen=True)
class Example:
    """One held-out prompt and the first response that the reference and each policy gave to it, as (policy, text)."""

    prompt: str
    responses: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ReportData:
    """A finished run, as the report shows it.

    Attributes:
        title: of the page.
        method: name of the reward model's method.
        pairs: numbers of pairs: "pairs", and those of the four splits.
        shots: pairs that an unseen user's weight was inferred from.
        portfolio: as measured, with its certificate.
        planned: on the prompts that it was chosen on, with its certificate.
        held_out: the plan's weights on the held-out prompts, with its certificate.
        gap: "epsilon" (left out if unbounded), "delta" and "captured_gain" as measured, with intervals over prompts.
        users: by part ("seen", "unseen"), (U, K) weights; U may be 0.
        routes: by part, users sent to each policy id ("reference" among them).
        confidence: by part, the mean probability that a user's route is the best one.
        rule: by which users are routed.
        pool: whether responses come from a fixed pool instead of being generated.
        simplex_share: by policy id, the share of all weights that it is best for.
        curve: planned gap against size; may be empty.
        members: policies of the portfolio, in order.
        singles: trained policies on their own.
        accuracy, served, writing, checks: rows of tables; may be empty.
        between_bleu: mean BLEU of a policy's responses against the other policies'.
        members_used: policies in use in effect, over users; None without users.
        truth: in an embedded world.
        examples: prompts with responses.
        oracle: the optimum that the measured portfolio is certified against, for the picture of its gaps; None for no picture.
    """

    title: str
    method: str
    pairs: Mapping[str, int]
    shots: int
    portfolio: Portfolio
    planned: Portfolio
    held_out: Portfolio
    gap: Mapping[str, Estimate]
    users: Mapping[str, np.ndarray]
    routes: Mapping[str, Mapping[str, int]]
    confidence: Mapping[str, float]
    rule: str = "expected"
    pool: bool = False
    simplex_share: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[SizePoint, ...] = ()
    members: tuple[MemberRow, ...] = ()
    singles: tuple[SingleRow, ...] = ()
    accuracy: tuple[AccuracyRow, ...] = ()
    served: tuple[ServedRow, ...] = ()
    writing: tuple[WritingRow, ...] = ()
    checks: tuple[CheckRow, ...] = ()
    between_bleu: float = 0.0
    members_used: float | None = None
    truth: Truth | None = None
    examples: tuple[Example, ...] = ()
    oracle: Oracle | None = None

    def __post_init__(self) -> None:
        """Check that the three portfolios are certified.

        Raises:
            ValueError: one has no certificate.
        """
        for name in ("portfolio", "planned", "held_out"):
            if getattr(self, name).certificate is None:
                raise ValueError(f"{name}: expected a portfolio with a certificate, got none")

    @property
    def everyone(self) -> np.ndarray:
        """(U, K) weights of all users."""
        return np.vstack([np.zeros((0, len(self.portfolio.bases))), *self.users.values()])

    @property
    def best_single(self) -> SingleRow | None:
        """The trained policy that alone captures most for the weight it serves worst."""
        return max(self.singles, key=lambda row: row.captured_gain, default=None)

    def certificate(self, which: str) -> Certificate:
        """Certificate of "portfolio", "planned" or "held_out"."""
        portfolio: Portfolio = getattr(self, which)
        return portfolio.certified
