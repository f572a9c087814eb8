"""Features that need no language model: words and characters of a text (TF-IDF and singular value decomposition), and its surface.

`tfidf_features` is a generic representation to compare hidden states with. `length_features` and `format_features` are for finding
leaks: a classifier on them that does well says that the data tells its labels by form.
"""

import re
from collections.abc import Sequence

import numpy as np
from scipy.sparse import hstack

from palm.data.schema import Text, plain_text

_MARKS = (r"^#+ ", r"^\s*[-*] ", r"^\s*\d+[.)] ", r"\*\*", r"`", r"\|", r"\n", r"\?", r"!", r":", r"https?://", r"[^\x00-\x7f]")


def tfidf_features(texts: Sequence[tuple[Text, Text]], *, dim: int = 128, seed: int = 0) -> np.ndarray:
    """Responses as their words and character sequences, reduced.

    Args:
        texts: n prompts with responses; only responses are read, since both sides of a pair have the same prompt.
        dim: numbers kept at most, at least 1. There are never more than texts, nor than words and sequences together.
        seed: of the decomposition.

    Returns:
        (n, at most dim) float32. Every response has unit length before the reduction, but for one that has nothing in common
        with others and is 0; where nothing is reduced, lengths and angles are as before.

    Raises:
        ImportError: scikit-learn is missing; the message names the extra.
        ValueError: there are fewer than two texts, none has a word or any other character, or `dim` is below 1.
    """
    try:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
        from sklearn.preprocessing import normalize
    except ImportError as error:
        raise ImportError("TF-IDF features need scikit-learn: pip install 'palm-align[text]'") from error
    if len(texts) < 2:
        raise ValueError(f"texts: expected at least two, got {len(texts)}")
    if not dim >= 1:
        raise ValueError(f"dim: expected at least 1, got {dim}")
    plain = [plain_text(response) for _, response in texts]
    words = CountVectorizer(token_pattern=r"(?u)\b\w+\b")
    characters = CountVectorizer(analyzer="char_wb", ngram_range=(3, 4))
    weighed = []
    for vectorizer, common in ((words, 2), (characters, 3)):
        if any(map(vectorizer.build_analyzer(), plain)):  # an empty vocabulary is an error
            counts = vectorizer.fit_transform(plain)
            texts_with = np.bincount(counts.indices, minlength=counts.shape[1])
            least = min(common, len(texts) - 1, texts_with.max())  # where nothing is common, what is rare has to do
            weighed.append(TfidfTransformer(sublinear_tf=True).fit_transform(counts[:, texts_with >= least]))
    if not weighed:
        raise ValueError(f"texts: expected words or other characters in some response, got none in {len(texts)}")
    matrix = normalize(hstack(weighed))
    with np.errstate(invalid="ignore", divide="ignore"):  # its shares of variance, where there is none
        reduced: np.ndarray = TruncatedSVD(min(dim, *matrix.shape), random_state=seed).fit_transform(matrix)
    return reduced.astype(np.float32)


def length_features(texts: Sequence[tuple[Text, Text]]) -> np.ndarray:
    """(n, 3) float32: logarithms of the numbers of characters, words and lines of each response."""
    plain = [plain_text(response) for _, response in texts]
    counts = [(len(text), len(text.split()), text.count("\n") + 1) for text in plain]
    return np.log1p(np.array(counts, dtype=np.float32).reshape(-1, 3))


def format_features(texts: Sequence[tuple[Text, Text]]) -> np.ndarray:
    """(n, 16) float32: how often marks of layout and punctuation occur, and how the data holds a response; never its words.

    The last four say what a careless preparation may get wrong on one side only: a list instead of text, the number of messages,
    white space at the ends, and a first letter that is not a capital.
    """
    rows = []
    for _, response in texts:
        text = plain_text(response)
        marks = [len(re.findall(mark, text, flags=re.MULTILINE)) for mark in _MARKS]
        messages = len(response) if isinstance(response, list) else 0
        rows.append([*marks, float(messages > 0), messages, float(text != text.strip()), float(not text[:1].isupper())])
    return np.log1p(np.array(rows, dtype=np.float32).reshape(-1, len(_MARKS) + 4))
