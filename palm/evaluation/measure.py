"""What trained policies really give: values and KL costs from their own text, or from a fixed pool of responses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from palm.evaluation.intervals import Estimate, bootstrap_mean, resampled_interval
from palm.portfolio.certify import certify
from palm.portfolio.gibbs import GibbsOracle
from palm.portfolio.on_prompts import OnPrompts, resampled_gaps
from palm.portfolio.portfolio import Portfolio
from palm.rewards.tensor import RewardTensor


@dataclass(frozen=True)
class Measured:
    """One policy on held-out prompts.

    Attributes:
        value: (P, K) J on each prompt.
        kl: (P,) KL divergence from the reference on each prompt, in nats.
    """

    value: np.ndarray
    kl: np.ndarray

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: shapes disagree or a number is not finite.
        """
        if self.value.ndim != 2 or self.kl.shape != (len(self.value),) or len(self.value) == 0:
            raise ValueError(f"value, kl: expected (P, K) and (P,) with P at least 1, got {self.value.shape} and {self.kl.shape}")
        bad = ~(np.isfinite(self.value).all(axis=1) & np.isfinite(self.kl))
        if bad.any():
            prompt = int(bad.argmax())
            raise ValueError(
                f"value, kl: expected finite numbers, got {self.value[prompt].tolist()} and {self.kl[prompt]} at prompt {prompt}; "
                "the policy's text there could not be scored"
            )

    def record(self) -> dict[str, object]:
        """J of each basis reward and the KL divergence with 95 % intervals over prompts, in JSON form."""
        value = [bootstrap_mean(column).record() for column in self.value.T]
        return {"value": value, "kl": bootstrap_mean(self.kl).record()}

    def utility(self, weight: np.ndarray, kl: float, *, seed: int = 0) -> Estimate:
        """w.J - kl KL with a 95 % interval over prompts."""
        return bootstrap_mean(self.value @ weight - kl * self.kl, seed=seed)


def from_samples(basis: np.ndarray, kl: np.ndarray, samples: int, *, log_ratio: np.ndarray | None = None) -> Measured:
    """From text that a policy generated.

    The nearer a policy is to the best one for some weight, the nearer w.phi is to kl x log-ratio plus a constant of the prompt. The
    log-ratio less its conditional mean `kl` averages to nothing, so what a basis reward shares with it can be taken off without
    bias: J_k is the mean of phi_k - c_k (log-ratio - kl), with c_k fitted on the other prompts.

    Args:
        basis: (P x samples, K) rewards of its responses, prompt after prompt.
        kl: (P x samples,) `palm.lm.logprobs.response_kl` of the same responses.
        samples: responses per prompt.
        log_ratio: (P x samples,) also of `response_kl`; None for plain means, as it must be unless the responses were sampled at
            temperature 1.

    Raises:
        ValueError: the numbers of rows do not fit.
    """
    if samples < 1 or len(kl) % samples:
        raise ValueError(f"samples: expected {len(kl)} responses to be a multiple of {samples}, for {samples} per prompt")
    if len(basis) != len(kl):
        raise ValueError(f"basis: expected {len(kl)} rows, one per response, got {len(basis)}")
    prompts = len(kl) // samples
    value = basis.reshape(prompts, samples, -1).mean(axis=1)
    if log_ratio is not None:
        if log_ratio.shape != kl.shape:
            raise ValueError(f"log_ratio: expected {len(kl)} rows as in kl, got {log_ratio.shape}")
        value = value - _shared_with(basis.reshape(prompts, samples, -1), (log_ratio - kl).reshape(prompts, samples))
    return Measured(value, kl.reshape(prompts, samples).mean(axis=1))


def _shared_with(basis: np.ndarray, variate: np.ndarray) -> np.ndarray:
    """(P, K) each prompt's mean of a (P, S) variate of mean 0, times the slopes of (P, S, K) rewards on it at the other prompts."""
    within = variate - variate.mean(axis=1, keepdims=True)
    products = np.einsum("ps,psk->pk", within, basis)
    squares = (within**2).sum(axis=1)
    others = squares.sum() - squares
    slopes = (products.sum(axis=0) - products) / np.where(others > 0, others, np.inf)[:, None]
    return slopes * variate.mean(axis=1)[:, None]


def from_pool(tensor: RewardTensor, log_ratio: np.ndarray) -> Measured:
    """From a fixed pool of responses, by self-normalised weights softmax(log pi - log pi_ref) over each prompt's pool.

    The policy is the pool's reference, uniform, tilted by the policy's log-ratio: what a policy would be that may only give
    responses of the pool. Exact for that policy; no claim on what the model generates freely.

    Args:
        tensor: (P, N, K) rewards of the pool.
        log_ratio: (P, N) log pi(y|x) - log pi_ref(y|x); ignored where there is no candidate.
    """
    logits = np.where(tensor.mask, log_ratio, -np.inf)
    logits -= logits.max(axis=1, keepdims=True)
    probability = np.exp(logits)
    probability /= probability.sum(axis=1, keepdims=True)
    counts = tensor.mask.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(probability > 0, probability * np.log(probability * counts[:, None]), 0.0)
    value = np.einsum("pn,pnk->pk", probability, tensor.rewards)
    return Measured(value, np.maximum(terms.sum(axis=1), 0.0))


def measured_portfolio(planned: Portfolio, policies: Sequence[Measured], oracle: GibbsOracle) -> Portfolio:
    """The planned portfolio with the values and KL costs that its trained policies have, and a certificate.

    Args:
        planned: weights, ids and the rest.
        policies: of its members, in order, on the oracle's prompts.
        oracle: the optimum on the same prompts; also gives the reference's value.

    Raises:
        ValueError: another number of policies than members.
    """
    if len(policies) != len(planned):
        raise ValueError(f"policies: expected {len(planned)}, one per member, got {len(policies)}")
    bases = len(planned.reference)
    measured = replace(
        planned,
        value=np.array([policy.value.mean(axis=0) for policy in policies]).reshape(-1, bases),
        cost=np.array([oracle.kl * policy.kl.mean() for policy in policies]),
        reference=oracle.reference,
        origin="measured",
        certificate=None,
        confidence=None,
    )
    return replace(measured, certificate=certify(measured, oracle))


def on_prompts(tensor: RewardTensor, policies: Sequence[Measured], kl: float) -> OnPrompts:
    """Candidates and measured policies, prompt by prompt.

    Args:
        tensor: candidates of the held-out prompts.
        policies: on the same prompts.
        kl: coefficient of the KL cost.
    """
    prompts, bases = len(tensor.rewards), tensor.rewards.shape[2]
    value = np.array([policy.value for policy in policies]).reshape(-1, prompts, bases)
    cost = np.array([kl * policy.kl for policy in policies]).reshape(-1, prompts)
    return OnPrompts(tensor.rewards, tensor.mask, kl, value, cost)


def gap_interval(prompts: OnPrompts, *, draws: int = 200, seed: int = 0) -> dict[str, Estimate]:
    """Bootstrap intervals (95 %) of measured policies' worst gaps over prompts.

    Prompts are resampled; the optimum, the reference and every policy on them go together, and each draw is certified over
    the whole simplex. Resampling moves a worst case over weights upwards, which the intervals allow for (`resampled_interval`).

    Args:
        prompts: candidates and policies; the reference is served beside them.
        draws: bootstrap samples.
        seed: of the draws.

    Returns:
        epsilon, delta and captured_gain.
    """
    centre, samples = resampled_gaps(prompts, draws=draws, seed=seed)
    ends = {"epsilon": (0.0, np.inf), "delta": (0.0, np.inf), "captured_gain": (0.0, 1.0)}
    return {
        name: resampled_interval(getattr(centre, name), samples[:, place], len(prompts.rewards), least=least, most=most)
        for place, (name, (least, most)) in enumerate(ends.items())
    }
