"""Scored attributes as basis rewards: what people said of each response, calibrated, in the form that a plan is made on.

This is the portfolio's setting with nothing learned: the bases are the attributes, and a user is a weight over them.
"""

from typing import TYPE_CHECKING

from palm.rewards.base import Calibration
from palm.rewards.tensor import RewardTensor, reward_tensor

if TYPE_CHECKING:  # reading tables needs `datasets`, planning does not
    from palm.data.attributes import ScoredCandidates


def attribute_rewards(scored: "ScoredCandidates", *, calibration: Calibration | None = None) -> tuple[RewardTensor, Calibration]:
    """The reward tensor of scored candidates: `palm.GibbsOracle(rewards.rewards, kl=0.1, mask=rewards.mask)` plans on it.

    Args:
        scored: P prompts with n responses in all, and scores of K attributes; see `palm.data.attributes.load_scores`.
        calibration: of a table that these scores are to be compared with, other prompts of the same study, say; by default each
            attribute's least score becomes 0 and its largest 1, whatever its scale.

    Returns:
        rewards (P, N, K) in [0, 1] with a mask (P, N) for prompts of fewer responses than the most, N; and the calibration.

    Raises:
        ValueError: `calibration` is of another number of attributes.
    """
    calibration = calibration or Calibration.own_width(scored.scores)
    if len(calibration.low) != len(scored.names):
        raise ValueError(f"calibration: expected {len(scored.names)} attributes as in the scores, got {len(calibration.low)}")
    return reward_tensor(calibration.apply(scored.scores), scored.candidates.counts), calibration
