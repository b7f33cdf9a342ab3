"""Words of a caption, for the measures that compare words.

The published figures of CIDEr, BLEU and ROUGE-L are of captions that went through Stanford's
PTBTokenizer, a Java program, and then lost eleven marks. This is the same without Java for what
captions hold: contractions, hyphens, numbers, times, abbreviations, quotes, brackets. It differs
from it for URLs, e-mail addresses, smileys and rare abbreviations, and in that letters with accents
are composed first (NFC). Compare figures only where captions were split by the same function.
"""

from __future__ import annotations

import re
import unicodedata

# A letter, digit, mark of any script, or underscore: no space, no punctuation, no symbol.
_W = (
    r"[^\s!-/:-@\[-^`{-~\u00a1-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7"
    r"\u060c\u061b\u061f\u0964\u0965\u2000-\u200b\u200e-\u206f\u20a0-\u20cf\u2190-\u2bff"
    r"\u3000-\u3004\u3008-\u3020\u3030\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
    r"\U0001f000-\U0001faff]"
)
_TOKENS = re.compile(
    rf"""
    (?<!{_W}) [a-z](?:\.[a-z])+(?:\.|(?!{_W}))                        # u.s.  p.m.
    | (?<!{_W}) (?:mr|mrs|ms|dr|prof|st|jr|sr|mt|vs|etc)\.            # mr.
    | '(?:s|m|d|ll|re|ve|[2-9]0s|em|til)(?!{_W})                      # what stands alone: '80s
    | -[lr][rsc]b-                                                    # a bracket, already replaced
    | (?<!{_W}) \d{{1,2}}:\d\d                                        # 5:30, without its pm
    | \d+(?:[.,]\d+)+                                                 # 1,000  5.00
    | {_W}+(?:['&/-]{_W}+)*                                           # red-brown  o'clock  at&t
    | [?!]+ | \.+ | -+ | \S                                           # marks
    """,
    re.VERBOSE,
)
_CLITIC = re.compile(r"(.+?)(n't|'(?:s|m|d|ll|re|ve))")
_TWO_WORDS = {
    "cannot": ("can", "not"), "gonna": ("gon", "na"), "gotta": ("got", "ta"),
    "wanna": ("wan", "na"), "gimme": ("gim", "me"), "lemme": ("lem", "me"),
}  # fmt: skip
_BRACKETS = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
}  # fmt: skip
_APOSTROPHES = str.maketrans("\u2018\u2019\u201b", "'''")
_REMOVED = frozenset("'\"`\u201c\u201d\u201e\u00ab\u00bb?!,:;\u2013\u2014\u2015\u2026")


def caption_words(text: str) -> list[str]:
    """Return the words of a caption, in lower case, without marks.

    >>> caption_words("The man's red-brown dog can't sit (it's 5:30pm).")
    ['the', 'man', "'s", 'red-brown', 'dog', 'ca', "n't", 'sit', '-lrb-', 'it', "'s", '5:30', 'pm',
    '-rrb-']
    """
    plain = unicodedata.normalize("NFC", text).lower().translate(_APOSTROPHES)
    found: list[str] = []
    for token in _TOKENS.findall(plain):
        if token in _REMOVED or token[0] in ".-" and not token.strip(".-"):
            continue
        if token in _TWO_WORDS:
            found += _TWO_WORDS[token]
        elif token in _BRACKETS:
            found.append(_BRACKETS[token])
        else:
            found += _without_clitics(token)
    return found


def _without_clitics(token: str) -> list[str]:
    """Split `shouldn't've` into `should`, `n't` and `'ve`."""
    ends: list[str] = []
    while match := _CLITIC.fullmatch(token):
        token, end = match.groups()
        ends.append(end)
    return [token, *reversed(ends)]
