"""Rewards of plain texts that need no model: length, sentences, dialogue, cheer; to try a portfolio with on any base.

Each takes n prompts and n responses and returns n numbers from 0 to 1, as `palm.rewards.functions` wants them:
`features.functions: ["palm.rewards.traits:length", "palm.rewards.traits:dialogue"]`.
"""

import re
from collections.abc import Sequence

from palm.data.schema import Text, plain_text

_LONG = 120  # words at which a text is as long as `length` can tell
_SPOKEN = re.compile(r"\"[^\"]*(?:\"|$)|“[^”]*(?:”|$)")
_WORD = re.compile(r"[^\W\d_]+")
_SENTENCE = re.compile(r"[.!?…]+[\"”’)]*\s|\n")
_WIDE = 30  # words a sentence at which `sentence_length` is 1
_FULL = 0.12  # share of cheerful or gloomy words at which `cheer` is 1 or 0

_CHEERFUL = """
beautiful best brave bright celebrate cheer cheerful clap cozy cuddle dance danced delicious delight enjoy enjoyed
excited fun funny game gift giggle giggled glad good great grin grinned happily happy hero hooray hope hug hugged joy
joyful kind kiss laugh laughed laughing lively love loved lovely loves loving lucky merry music nice party peaceful
perfect play played playful playing please pleased pretty proud rainbow safe shiny sing smile smiled smiles smiling song
special sunny surprise sweet thank thanked thankful thanks treat warm welcome win winner wonderful yay yummy
"""
_GLOOMY = """
afraid alone angry annoyed awful bad bite bitter bleed blood boring broke broken bruise cold cried cries cruel cry
crying danger dangerous dark dead die died dirty disappointed enemy evil fail failed fear fell fight fought frightened
frown frowned gloomy grief grumpy guilty hate hated hit horrible hurt ill jealous lied lonely lose lost mad mean mess
miserable miss missed monster mourn nasty naughty pain poor regret rude sad sadly scare scared scary scream screamed
selfish shout shouted sick sorry stole storm stuck tear tears terrible thief tired trouble ugly unfair unhappy upset
wept worried worry wrong yell yelled
"""
CHEERFUL, GLOOMY = frozenset(_CHEERFUL.split()), frozenset(_GLOOMY.split())


def length(prompts: Sequence[Text], responses: Sequence[Text]) -> list[float]:
    """Words of the response, as a share of 120, at most 1."""
    return [min(1.0, len(_words(response)) / _LONG) for response in responses]


def sentence_length(prompts: Sequence[Text], responses: Sequence[Text]) -> list[float]:
    """Mean words of the response's sentences, as a share of 30, at most 1."""
    means = []
    for response in responses:
        counts = [len(words) for part in _SENTENCE.split(plain_text(response)) if (words := _WORD.findall(part))]
        means.append(min(1.0, sum(counts) / max(1, len(counts)) / _WIDE))
    return means


def dialogue(prompts: Sequence[Text], responses: Sequence[Text]) -> list[float]:
    """Share of the response's words that stand between double quotes; a quote that is never closed goes on to the end."""
    shares = []
    for response in responses:
        text = plain_text(response)
        spoken = sum(len(_WORD.findall(part)) for part in _SPOKEN.findall(text))
        shares.append(spoken / max(1, len(_words(text))))
    return shares


def cheer(prompts: Sequence[Text], responses: Sequence[Text]) -> list[float]:
    """One half plus the cheerful words less the gloomy ones, as a share of all words: 1 and 0 at 12 % more of one kind."""
    found = []
    for response in responses:
        words = _words(response)
        balance = sum((word in CHEERFUL) - (word in GLOOMY) for word in words) / max(1, len(words))
        found.append(min(1.0, max(0.0, 0.5 + balance / (2 * _FULL))))
    return found


def _words(text: Text) -> list[str]:
    return _WORD.findall(plain_text(text).lower())
