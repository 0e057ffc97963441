"""The things that a prompt names, found by its articles and conjunctions.

Chunking by function words (Abney, Parsing by Chunks, 1991), for the English of prompts. It is a help, not a grammar: what it finds is
shown to the user, who may write the phrases instead.
"""

import itertools
import re

ARTICLES = frozenset(
    (
        "a", "an", "the", "one", "two", "three", "four", "some", "another", "this", "these", "those", "his", "her", "their", "its",
        "my", "your", "our", "several", "many", "both", "each", "every",
    )
)  # fmt: skip
SINGULAR = frozenset(("a", "an", "one", "another", "this", "each", "every"))  # what follows has no -s at its end, unless it is a verb
CONJUNCTIONS = frozenset(("and", "&", "plus"))
JOINTS = CONJUNCTIONS | {"with"}
GROUNDS = frozenset(("on", "in", "at", "under", "against", "during", "inside", "within"))  # what follows is where things are
ENDS = frozenset(
    (
        "of", "with", "without", "beside", "besides", "near", "next", "by", "behind", "above", "below", "over", "before", "from",
        "to", "into", "onto", "across", "through", "along", "around", "between", "beneath", "left", "right", "for", "as", "while",
        "that", "which", "who", "whose", "where", "when", "is", "are", "was", "were", "be", "being", "has", "have", "had", "does",
        "do", "wearing", "holding", "or", "but", "then", "very",
    )
)  # fmt: skip
FUNCTION_WORDS = ARTICLES | CONJUNCTIONS | GROUNDS | ENDS
PICTURES = frozenset(
    (
        "photo", "photograph", "picture", "image", "painting", "drawing", "illustration", "portrait", "render", "rendering",
        "sketch", "shot", "view", "scene",
    )
)  # fmt: skip
PLURALS = frozenset(  # and what has no place of its own
    (
        "people", "men", "women", "children", "feet", "teeth", "mice", "geese", "cattle", "grass", "water", "snow", "smoke", "fire",
        "hair", "clothing", "furniture",
    )
)  # fmt: skip
PLURAL = re.compile(r"[^suiao'\u2019]s$")  # also a verb's ending
WEIGHT = re.compile(r":\s*-?[\d.]+\s*(?=\))")
WORD = re.compile(r"[^\W_]+(?:['\u2019\-][^\W_]+)*|&|[^\s\w]")
BRACKETS = str.maketrans(dict.fromkeys("()[]{}", " "))


def noun_phrases(prompt: str) -> list[str]:
    """The things named in a prompt, in order, without their articles and each once: "a red cube and a blue ball on grass" gives "red
    cube" and "blue ball". Words after "on", "in" and the like say where things are, and are left out. Weights, (cat:1.3), are no words."""
    words = WORD.findall(WEIGHT.sub("", prompt).replace("\\", "").translate(BRACKETS))
    found = _after_articles(words) or _between_conjunctions(words)
    return list(dict.fromkeys(found))


def head(phrase: str) -> str:
    """The word that says what the thing is: "ball" of "a big red ball", "bowl" of "bowl of soup"."""
    words = WORD.findall(phrase)
    stop = next((i for i, word in enumerate(words) if i and word.lower() in FUNCTION_WORDS), len(words))
    return words[stop - 1] if words else phrase


def is_single(phrase: str) -> bool:
    """Whether it is one thing at one place, by the ending of its noun: not "two cats", nor "grass"."""
    noun = head(phrase).lower()
    return noun not in PLURALS and PLURAL.search(noun) is None


def with_article(phrase: str) -> str:
    return f"{'an' if phrase[:1].lower() in 'aeiou' else 'a'} {phrase}"


def without_article(phrase: str) -> str:
    first, _, rest = phrase.partition(" ")
    return rest.strip() if first.lower() in ARTICLES and rest.strip() else phrase


def _after_articles(words: list[str]) -> list[str]:
    found: list[str] = []
    phrase: list[str] | None = None  # open, unless None
    article = previous = ""
    for word, following in itertools.pairwise([*words, ".", "."]):
        low = word.lower()
        if phrase is not None and _ends(low, phrase, article, following.lower()):
            if phrase and not (low == "of" and phrase[-1].lower() in PICTURES):
                found.append(" ".join(phrase))
            follows = low in CONJUNCTIONS and bool(phrase)
            phrase, article = ([], "") if follows else (None, "")
        if low in ARTICLES:
            phrase, article = (None if previous in GROUNDS else []), low
        elif phrase is not None and _is_word(low) and low not in CONJUNCTIONS:
            phrase.append(word)
        previous = low
    return found


def _ends(low: str, phrase: list[str], article: str, following: str) -> bool:
    """Whether a phrase is over before this word: "left shoe", "flying saucer" are things, "cat left of", "cat sitting on" are not."""
    if low in ARTICLES or low in CONJUNCTIONS or low in GROUNDS or not _is_word(low):
        return True
    if not phrase:
        return low in ENDS and not article
    verb = article in SINGULAR and PLURAL.search(low) is not None
    return low in ENDS or verb or (low.endswith("ing") and len(low) > 5 and (following in FUNCTION_WORDS or not _is_word(following)))


def _is_word(low: str) -> bool:
    return low[0].isalnum()


def _between_conjunctions(words: list[str]) -> list[str]:
    """Of a prompt without articles, up to where things are, or to the comma after the last conjunction: "cat, dog and bird on grass, 4k".
    Without any conjunction it is one thing, or a list of tags, of which nobody can tell what they are."""
    lows = [word.lower() for word in words]
    stop = next((i for i, low in enumerate(lows) if low in GROUNDS or low in ENDS - {"with"}), len(lows))
    joints = [i for i, low in enumerate(lows[:stop]) if low in JOINTS]
    stop = next((i for i in range(joints[-1] if joints else 0, stop) if not _is_word(lows[i]) and lows[i] != "&"), stop)
    found: list[list[str]] = [[]]
    for word, low in zip(words[:stop], lows[:stop], strict=True):
        if low in JOINTS or not _is_word(low):
            found.append([])
        elif low not in ARTICLES:
            found[-1].append(word)
    return [" ".join(phrase) for phrase in found if phrase] if joints or stop == len(words) else []
