"""The embedded world: prompts, styled responses, rewards that conflict, users whose weights are known.

A small grammar writes advice. Every response has a style; seven attributes of it are *measured on the text*
(never read from the generator), so they are equally defined for what a language model writes. Basis rewards
are means of attributes and pull in opposite directions. A user is a weight on the simplex over the bases
and judges a pair by the Bradley-Terry model. Because the truth is planted, tests can check what no real
data can: recovered weights, true regret, whether a certificate holds.

Everything is drawn from an explicit `numpy.random.Generator`; nothing is downloaded.
"""

import re
from dataclasses import dataclass
from functools import partial

import numpy as np

# Each topic: what is asked, then steps as (casual, formal, quantity).
_TOPICS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "bake a loaf of bread",
        (
            ("mix the flour and water", "combine the flour with the water", "for 5 minutes"),
            ("toss in the salt", "incorporate the salt", "about 10 grams"),
            ("squish the dough", "knead the dough", "for 12 minutes"),
            ("let it sit", "allow it to rest", "for 90 minutes"),
            ("stick it in the oven", "place it in the oven", "at 220 degrees"),
            ("cool it off", "permit it to cool", "for 30 minutes"),
        ),
    ),
    (
        "grow tomatoes on a balcony",
        (
            ("get a big pot", "obtain a large container", "of 20 liters"),
            ("dump in some soil", "fill it with soil", "to 30 centimeters"),
            ("stick the seeds in", "sow the seeds", "at 2 centimeters"),
            ("give it water", "irrigate the plant", "every 2 days"),
            ("tie it to a stick", "secure it to a stake", "at 40 centimeters"),
            ("pick the red ones", "harvest the ripe fruit", "after 70 days"),
        ),
    ),
    (
        "fix a flat bicycle tire",
        (
            ("pop the wheel off", "remove the wheel", "in 2 minutes"),
            ("yank out the tube", "extract the inner tube", "with 2 levers"),
            ("find the hole", "locate the puncture", "within 5 minutes"),
            ("slap on a patch", "apply a patch", "of 3 centimeters"),
            ("pump it up", "inflate the tire", "to 4 bars"),
            ("check it again", "inspect it once more", "after 10 minutes"),
        ),
    ),
    (
        "learn a new language",
        (
            ("grab some flash cards", "acquire vocabulary cards", "about 20 cards"),
            ("listen to songs", "attend to recordings", "for 30 minutes"),
            ("chat with folks", "converse with speakers", "for 2 hours"),
            ("jot stuff down", "maintain a notebook", "of 50 pages"),
            ("watch some shows", "view television programs", "every 3 days"),
            ("go over it again", "review the material", "for 15 minutes"),
        ),
    ),
    (
        "prepare for a job interview",
        (
            ("look up the company", "research the organization", "for 2 hours"),
            ("think of some questions", "formulate several questions", "about 5 questions"),
            ("pick out clothes", "select suitable attire", "by 20 hours"),
            ("talk to a mirror", "rehearse the answers", "for 30 minutes"),
            ("show up early", "arrive in advance", "by 15 minutes"),
            ("send them a note", "transmit a letter of thanks", "within 24 hours"),
        ),
    ),
    (
        "train for a long run",
        (
            ("get good shoes", "purchase adequate footwear", "after 600 miles"),
            ("jog a bit", "commence with light running", "for 20 minutes"),
            ("chug some water", "consume sufficient water", "about 2 liters"),
            ("take a day off", "schedule a day of rest", "every 3 days"),
            ("go a bit longer", "increase the distance", "by 2 miles"),
            ("stretch it out", "perform stretching exercises", "for 10 minutes"),
        ),
    ),
    (
        "paint a small room",
        (
            ("shove the stuff out", "clear the furniture", "by 2 meters"),
            ("tape the edges", "protect the borders", "with 3 rolls"),
            ("wipe the walls", "clean the surfaces", "for 40 minutes"),
            ("slap on primer", "apply a primer", "about 2 liters"),
            ("roll on the color", "distribute the paint", "in 2 layers"),
            ("let it dry", "permit it to dry", "for 6 hours"),
        ),
    ),
    (
        "save money every month",
        (
            ("see what you spend", "examine the expenses", "for 30 days"),
            ("ditch some apps", "cancel unused subscriptions", "about 4 contracts"),
            ("cook at home", "prepare meals at home", "for 5 days"),
            ("stash some cash", "deposit a reserve", "of 100 dollars"),
            ("hunt for deals", "compare the prices", "in 3 stores"),
            ("check it later", "evaluate the progress", "after 4 weeks"),
        ),
    ),
)
_FRAMES = (
    "How do I {task}?",
    "What is the best way to {task}?",
    "Tell me how to {task}.",
    "I want to {task}. Where do I start?",
    "Can you explain how to {task}?",
    "My friend asked me how to {task}.",
    "Is it hard to {task}?",
    "Any advice to {task}?",
)
_CONTEXTS = (
    "",
    " I am a beginner.",
    " I have little time.",
    " I tried once before.",
    " It is for my family.",
    " I live in a small town.",
    " I am seventy years old.",
    " It has to be cheap.",
    " I do not like rules.",
    " Please help.",
)

# Openings of a sentence of advice by (formal, hedged); {} is the step.
_OPENINGS: dict[tuple[bool, bool], tuple[str, ...]] = {
    (True, True): ("It may be advisable to {}", "Perhaps one should {}", "One could possibly {}"),
    (True, False): ("One should {}", "It is necessary to {}", "Kindly {}"),
    (False, True): ("Maybe you could {}", "You might wanna {}", "I guess you can {}"),
    (False, False): ("Just {}", "You gotta {}", "Go ahead and {}"),
}
_WARM_OPENINGS = ("What a lovely idea!", "I am so happy you asked!", "Great question, my friend!")
_WARM_CLOSINGS = ("You are doing great!", "I believe in you!", "Have a wonderful time, dear!")

_SUMMARIES = ("In short, this is all you need.", "To sum up, that is the whole plan.", "Overall, this covers everything.")

_FORMAL = re.compile(
    r"\b(one (?:should|could)|it may be advisable|it is necessary|kindly|combine|incorporate|knead|allow|permit|obtain|"
    r"sow|irrigate|secure|harvest|remove|extract|locate|apply|inflate|inspect|acquire|attend|converse|maintain|view|"
    r"review|research|formulate|select|rehearse|arrive|transmit|purchase|commence|consume|schedule|increase|perform|"
    r"clear|protect|clean|distribute|examine|cancel|prepare|deposit|compare|evaluate)\b"
)
_CASUAL = re.compile(
    r"\b(just|gotta|wanna|go ahead|i guess|maybe|mix|toss|squish|let it|stick|cool it|get|dump|give|tie|pick|pop|yank|"
    r"find|slap|pump|check|grab|listen|chat|jot|watch|go over|look up|think of|talk|show up|send|jog|chug|take|go a|"
    r"stretch|shove|tape|wipe|roll|see|ditch|cook|stash|hunt)\b"
)
_HEDGE = re.compile(r"\b(perhaps|possibly|maybe|might|may be|i guess|could)\b")
_WARM = re.compile(r"\b(lovely|happy|great|friend|believe in you|wonderful|dear)\b")
_SUMMARY = re.compile(r"\b(in short|to sum up|overall)\b")
_NUMBERED = re.compile(r"^\s*\d+\)")
_QUANTITY = re.compile(r"\b\d+ [a-z]+")
_SENTENCE = re.compile(r"[^.!?]+[.!?]?")

_MOST_STEPS = 3  # of a topic's six in one response
_LONG = 36  # words: responses of that length and above count as equally long

ATTRIBUTES = ("length", "formality", "warmth", "hedging", "structure", "detail", "closure")
"""Names of the measured attributes, in the order of `attributes`' columns; each in [0, 1]."""

# What each basis asks of the attributes: 1 wants it high, 0 wants it low; attributes not named do not matter.
# Everyone wants closure: real people also agree on something, and a single policy can serve that much.
_WANTS: dict[str, dict[str, float]] = {
    "expert": {"formality": 1, "detail": 1, "structure": 1, "warmth": 0, "closure": 1},
    "friend": {"warmth": 1, "formality": 0, "structure": 0, "closure": 1},
    "brief": {"length": 0, "hedging": 0, "detail": 0, "closure": 1},
    "careful": {"hedging": 1, "formality": 1, "length": 1, "closure": 1},
    "coach": {"structure": 1, "warmth": 1, "hedging": 0, "closure": 1},
}
BASES = tuple(_WANTS)
"""Names of the programmatic basis rewards; a world of K bases uses the first K."""


def attributes(response: str) -> np.ndarray:
    """Measure the style of one response on its text.

    Args:
        response: any text, also one that no grammar wrote.

    Returns:
        (7,) float in [0, 1], in the order of `ATTRIBUTES`. Text without a sentence of advice has
        hedging, structure and detail 0; text with no marker of register has formality 0.5.
    """
    text = response.lower()
    formal, casual = len(_FORMAL.findall(text)), len(_CASUAL.findall(text))
    sentences = [s for s in _SENTENCE.findall(text) if s.strip()]
    advice = [s for s in sentences if not s.endswith("!") and not _SUMMARY.search(s)]
    per_advice = 1.0 / max(len(advice), 1)
    return np.array(
        [
            min(len(text.split()) / _LONG, 1.0),
            formal / (formal + casual) if formal + casual else 0.5,
            min(len(_WARM.findall(text)) / 3.0, 1.0),
            per_advice * sum(bool(_HEDGE.search(s)) for s in advice),
            per_advice * sum(bool(_NUMBERED.search(s)) for s in advice),
            per_advice * sum(bool(_QUANTITY.search(s)) for s in advice),
            float(bool(_SUMMARY.search(text))),
        ]
    )


def basis_rewards(responses: list[str], bases: tuple[str, ...] = BASES) -> np.ndarray:
    """Programmatic rewards of responses: the mean agreement of their attributes with what each basis wants.

    Args:
        responses: n texts.
        bases: K names out of `BASES`.

    Returns:
        (n, K) float in [0, 1].

    Raises:
        ValueError: a name is not in `BASES`.
    """
    unknown = [name for name in bases if name not in _WANTS]
    if unknown:
        raise ValueError(f"bases: expected names out of {', '.join(BASES)}, got {unknown[0]!r}")
    measured = np.array([attributes(response) for response in responses]).reshape(len(responses), len(ATTRIBUTES))
    rewards = np.empty((len(responses), len(bases)))
    for k, name in enumerate(bases):
        wants = _WANTS[name]
        columns = [ATTRIBUTES.index(attribute) for attribute in wants]
        rewards[:, k] = 1.0 - np.abs(measured[:, columns] - np.array(list(wants.values()))).mean(axis=1)
    return rewards


def prompt_texts() -> list[str]:
    """Every prompt of the world, in a fixed order: tasks x frames x contexts, 640 of them."""
    return [frame.format(task=task) + context for task, _ in _TOPICS for frame in _FRAMES for context in _CONTEXTS]


def write_response(prompt: str, rng: np.random.Generator) -> str:
    """Write one response to a prompt of the world, in a style drawn from `rng`.

    Raises:
        ValueError: `prompt` is not about one of the world's tasks.
    """
    steps = next((steps for task, steps in _TOPICS if task in prompt), None)
    if steps is None:
        raise ValueError(f"prompt: expected one of the world's prompts (see prompt_texts), got {prompt!r}")
    # A style: how many steps, and how often a sentence is formal, hedged, numbered, detailed, or warm.
    count = int(rng.integers(1, _MOST_STEPS + 1))
    formal, hedged, numbered, detailed, warm = rng.choice([0.03, 0.5, 0.97], size=5, p=[0.4, 0.2, 0.4])
    sentences = []
    if rng.random() < warm:
        sentences.append(str(rng.choice(_WARM_OPENINGS)))
    for number, index in enumerate(np.sort(rng.choice(len(steps), size=count, replace=False)), start=1):
        casual_step, formal_step, quantity = steps[index]
        is_formal = bool(rng.random() < formal)
        step = formal_step if is_formal else casual_step
        if rng.random() < detailed:
            step = f"{step} {quantity}"
        sentence = str(rng.choice(_OPENINGS[is_formal, bool(rng.random() < hedged)])).format(step) + "."
        sentences.append(f"{number}) {sentence}" if rng.random() < numbered else sentence)
    if rng.random() < 0.5:
        sentences.append(str(rng.choice(_SUMMARIES)))
    if rng.random() < warm:
        sentences.append(str(rng.choice(_WARM_CLOSINGS)))
    return " ".join(sentences)


def _distinct_responses(prompt: str, count: int, rng: np.random.Generator) -> list[str]:
    responses: dict[str, None] = {}
    while len(responses) < count:  # short responses come twice now and then; a pair of equals would be no pair
        responses[write_response(prompt, rng)] = None
    return list(responses)


def write_corpus(size: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Draw `size` (prompt, response) texts: what the world's language model is trained on."""
    prompts = prompt_texts()
    chosen = rng.integers(len(prompts), size=size)
    return [(prompts[index], write_response(prompts[index], rng)) for index in chosen]


@dataclass(frozen=True)
class World:
    """Many users' judgements together with the truth behind them.

    Attributes:
        rows: one dict per pair, with keys user, prompt, chosen, rejected, group (the prompt's number).
        users: U user ids.
        weights: (U, K) float; each user's planted weight on the simplex.
        bases: K names of the basis rewards.
        sharpness: inverse temperature of the Bradley-Terry labels, in 1 / reward.
    """

    rows: list[dict[str, str]]
    users: list[str]
    weights: np.ndarray
    bases: tuple[str, ...]
    sharpness: float


def check_world(
    *, users: int, bases: int, pairs_per_user: int, responses_per_prompt: int, concentration: float, sharpness: float
) -> None:
    """See that `make_world` can make a world of this size.

    Raises:
        ValueError: a number is out of its range.
    """
    for name, value, low, high in (
        ("users", users, 1, None),
        ("bases", bases, 1, len(BASES)),
        ("pairs_per_user", pairs_per_user, 1, len(prompt_texts())),
        ("responses_per_prompt", responses_per_prompt, 2, None),
    ):
        if value < low or (high is not None and value > high):
            upper = "" if high is None else f" and at most {high}"
            raise ValueError(f"{name}: expected at least {low}{upper}, got {value}")
    for name, number in (("concentration", concentration), ("sharpness", sharpness)):
        if not (np.isfinite(number) and number > 0):
            raise ValueError(f"{name}: expected a positive number, got {number}")


def make_world(
    *,
    users: int = 300,
    bases: int = 3,
    pairs_per_user: int = 40,
    responses_per_prompt: int = 6,
    concentration: float = 0.3,
    sharpness: float = 12.0,
    seed: int = 0,
) -> World:
    """Plant users and let them judge pairs of responses.

    Args:
        users: number of users, at least 1.
        bases: K, 1 to 5: the first K of `BASES`.
        pairs_per_user: judgements of each user, each about another prompt; 1 to 640.
        responses_per_prompt: size of the pool that pairs are drawn from, at least 2.
        concentration: of the symmetric Dirichlet distribution of the weights; small is opinionated.
        sharpness: a pair whose utilities differ by u is judged that way with probability sigmoid(sharpness u).
        seed: the same seed gives the same world.

    Raises:
        ValueError: a number is out of its range.
    """
    check_world(
        users=users,
        bases=bases,
        pairs_per_user=pairs_per_user,
        responses_per_prompt=responses_per_prompt,
        concentration=concentration,
        sharpness=sharpness,
    )
    prompts = prompt_texts()
    rng = np.random.default_rng(seed)
    names = BASES[:bases]
    pool = [_distinct_responses(prompt, responses_per_prompt, rng) for prompt in prompts]
    rewards = np.stack([basis_rewards(responses, names) for responses in pool])  # (prompts, responses, K)
    weights = rng.dirichlet(np.full(bases, concentration), size=users)
    ids = [f"user-{number:04d}" for number in range(users)]
    rows: list[dict[str, str]] = []
    for user, weight in zip(ids, weights, strict=True):
        for index in rng.choice(len(prompts), size=pairs_per_user, replace=False):
            first, second = rng.choice(responses_per_prompt, size=2, replace=False)
            margin = float((rewards[index, first] - rewards[index, second]) @ weight)
            if rng.random() >= 1.0 / (1.0 + np.exp(-sharpness * margin)):
                first, second = second, first
            rows.append(
                {
                    "user": user,
                    "prompt": prompts[index],
                    "chosen": pool[index][first],
                    "rejected": pool[index][second],
                    "group": f"prompt-{index:03d}",
                }
            )
    return World(rows, ids, weights, names, sharpness)


def _given(name: str, prompts: list[str], responses: list[str]) -> np.ndarray:
    return basis_rewards(responses, (name,))[:, 0]


# The bases as given reward functions, such as "palm.data.planted:expert".
expert = partial(_given, "expert")
friend = partial(_given, "friend")
brief = partial(_given, "brief")
careful = partial(_given, "careful")
coach = partial(_given, "coach")
