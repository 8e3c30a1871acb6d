r"""Read the answer out of a response: its normalised text, number, chosen label, or code.

Every pattern here is linear in the response, which may be long and may be in any script.
"""

import re
import textwrap
import unicodedata
from collections.abc import Sequence

__all__ = ["choice_of", "code_of", "fold", "holds", "last_number", "normal", "tokens"]

# Scripts that put no spaces between words, and Hangul, which glues particles to them.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNSPACED_CHAR = re.compile(f"[{_UNSPACED}]")
_QUOTES_AND_DASHES = str.maketrans(
    "\u2018\u2019\u201c\u201d\u2010\u2011\u2012\u2013\u2014\u2212", "''\"\"------"
)


def fold(text: str) -> str:
    """Remove differences of case, width, composition, spacing and typographic marks."""
    text = unicodedata.normalize("NFKC", text).casefold().translate(_QUOTES_AND_DASHES)
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", text).split())


# -- words ------------------------------------------------------------------------------------

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_KEPT_MARKS = re.compile(r"(?<=\d)[.,](?=\d)|(?<!\w)[-.](?=\.?\d)|(?<=\w)#")  # 3.5, -2, C#
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normal(text: str) -> str:
    """Fold, and drop punctuation and English articles, but never everything."""
    folded = _THOUSANDS.sub("", fold(text))
    kept = {match.start() for match in _KEPT_MARKS.finditer(folded)}
    bare = "".join(
        c for i, c in enumerate(folded) if i in kept or not unicodedata.category(c).startswith("P")
    )
    shortest = " ".join(_ARTICLES.sub(" ", bare).split())
    return shortest or " ".join(bare.split()) or folded


def tokens(text: str) -> list[str]:
    """Split normalised text into words, and scripts without spaces into characters."""
    return _UNSPACED_CHAR.sub(r" \g<0> ", normal(text)).split()


def holds(text: str, part: str) -> bool:
    """Tell whether a folded text holds a folded part as whole words."""
    start = text.find(part)
    while start >= 0:
        if _is_edge(text, start) and _is_edge(text, start + len(part)):
            return True
        start = text.find(part, start + 1)
    return False


def _is_edge(text: str, at: int) -> bool:
    """Tell whether a word may begin or end before this character."""
    if at in (0, len(text)):
        return True
    if re.search(r"\d[.,]\d", text[max(0, at - 2) : at + 2]):  # 5 is no word of 3.5
        return False
    return not (_joins(text[at - 1]) and _joins(text[at]))


def _joins(char: str) -> bool:
    return unicodedata.category(char)[0] in "LMN" and not _UNSPACED_CHAR.match(char)


# -- numbers ----------------------------------------------------------------------------------

_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_POWER = r"\s?\^\s?\{?([-+]?\d+)\}?"
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (
            r"(?<=\d)(?:\{,\}|\\[,;!]|[\u00a0\u2009\u202f\u2019\u066c'_])(?=\d{3}(?!\d))",
            "",
        ),  # 1'000
        (r"[⁰¹²³⁴-⁹⁻⁺]+", lambda m: f"^{m[0].translate(_SUPERSCRIPT)}"),
        (r"(?<=\d)\s?(?:[\u00d7x*]|\\times|\\cdot)\s?10" + _POWER, r"e\1"),
        (r"(?<![\d.])10" + _POWER, r"1e\1"),
        (_POWER, ""),  # the 2 of m² is not the answer
        (r"\\[dt]?frac\s*\{(-?\d+)\}\s*\{(\d+)\}", r"\1/\2"),
        (r"\u066b", "."),  # the Arabic decimal mark
    )
)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_HASHED = re.compile(r"####([^\n]*)")
_NUMBER = re.compile(
    r"""
    (?P<sign>(?<![A-Za-z0-9_)\]}])-)?
    (?:[$€£¥₹]\s?)?
    (?<![A-Za-z0-9_])
    (?:
      (?<!/)(?P<numerator>\d+)\s?/\s?(?P<denominator>\d+)(?!\s?[/\d])  # 3/4, and no date
    | (?P<western>(?!0)\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)(?:\.\d+)?)      # 1,234.5 and 1,23,456
    | (?P<european>(?!0)\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}(?!\d))  # 1.234,5
    | (?P<simple>\d+(?:[.,]\d+)?|\.\d+)                                # 3.5 and 3,5
    )
    (?P<exponent>[eE][-+]?\d+)?
    """,
    re.VERBOSE,
)


def last_number(text: str) -> float | None:
    r"""Return the number in the last ``\boxed{}`` or after the last ``####``, or else the last."""
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES_AND_DASHES).replace("\u2044", "/")
    for part in (*_BOXED.findall(text)[-1:], *_HASHED.findall(text)[-1:], text):
        if numbers := list(_NUMBER.finditer(part)):
            return _value(numbers[-1])
    return None


def _value(match: re.Match[str]) -> float:
    if match["numerator"]:
        divisor = float(match["denominator"])
        number = float(match["numerator"]) / divisor if divisor else float("nan")
    elif match["western"]:
        number = float(match["western"].replace(",", "") + (match["exponent"] or ""))
    elif match["european"]:
        number = float(match["european"].replace(".", "").replace(",", "."))
    else:
        number = float(match["simple"].replace(",", ".") + (match["exponent"] or ""))
    return -number if match["sign"] else number


# -- labels -----------------------------------------------------------------------------------

_ANSWER_IS = (
    r"(?i:answer|correct\s+(?:option|choice|one)|respuesta|réponse|antwort|risposta|resposta|ответ|"
    r"答案|答え|정답)(?i:\W{0,5}(?:is|es|est|ist|è|é|是|为|は))?[\W_]{0,8}"
)
_NO_WORD_BEFORE = rf"(?<![^\W{_UNSPACED}])"
_NO_WORD_AFTER = rf"(?![^\W{_UNSPACED}])"


def choice_of(response: str, choices: Sequence[str]) -> str | None:
    """Return the label that a response picks, or ``None``.

    In this order: the whole response; after "answer is" or "answer:"; boxed or in parentheses;
    at the start, as in "b) ..."; the first one that stands alone and is no word, as in "A dog".
    """
    named = {fold(choice): choice for choice in choices}
    text = unicodedata.normalize("NFKC", response)
    if (whole := fold(text).strip(" .,:;!*_()[]{}\"'`")) in named:
        return named[whole]
    for pattern in _choice_patterns(choices):
        # A dotless or dotted i matches "I" in any case, but folds to another letter.
        if (match := pattern.search(text)) and (label := named.get(fold(match[1]))) is not None:
            return label
    return None


def _choice_patterns(choices: Sequence[str]) -> list[re.Pattern[str]]:
    longest_first = sorted(choices, key=len, reverse=True)
    any_case = "(?i:" + "|".join(map(re.escape, longest_first)) + ")"
    # A lone letter counts as it is written: "a" is a word, and so are "A dog" and "I think", but
    # not "A because".
    exact = "|".join(re.escape(c) if len(c) == 1 else f"(?i:{re.escape(c)})" for c in longest_first)
    article = (
        r"(?!(?<=[AI])(?:\s+(?!(?:because|since|as|for|is\s+(?:correct|right|true|the))\b)[a-z]|'))"
    )
    alone = rf"{_NO_WORD_BEFORE}({exact}){_NO_WORD_AFTER}"
    return [
        re.compile(pattern)
        for pattern in (
            rf"{_ANSWER_IS}{_NO_WORD_BEFORE}({exact}){_NO_WORD_AFTER}",
            rf"{_ANSWER_IS}{_NO_WORD_BEFORE}({any_case})(?=\s*(?:[^\w\s]|\Z))",
            rf"\\boxed\{{\s*(?:\\text\{{)?\s*\(?({any_case})\)?\s*\}}",
            rf"\(\s?({any_case})\s?\)",
            rf"\A\W{{0,8}}({any_case})[).:]",
            alone + article,
        )
    ]


# -- code -------------------------------------------------------------------------------------

_FENCED = re.compile(r"^[ \t]*```[ \t]*([\w+.-]*)[^\n]*\n(.*?)(?:```|\Z)", re.MULTILINE | re.DOTALL)
_PYTHON = {"", "python", "py", "python3"}


def code_of(response: str, entry: str | None = None) -> str:
    """Return the first Python block, of several the first that defines ``entry``; or everything."""
    found = _FENCED.findall(response)
    blocks = [textwrap.dedent(body) for language, body in found if language.lower() in _PYTHON]
    if entry:
        name = re.escape(entry)
        defines = re.compile(rf"^\s*(?:async\s+)?(?:def|class)\s+{name}\b|^{name}\s*[:=]", re.M)
        blocks.sort(key=lambda block: defines.search(block) is None)
    return blocks[0] if blocks else response
