"""The named numbers in a printed line, whatever the style: "loss=0.1", "{'loss': 0.5}", tqdm, ...

Numbers are found first; what stands between two of them names the second. Such gaps (" loss: ")
come again on every line of a log, so what one means is worked out once and remembered.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from nndiag.vocabulary.names import (
    OWNERS,
    SPOILING,
    TEST,
    TRAIN,
    VALIDATION,
    describe,
    words_of,
)

MAX_LINE = 4096  # characters of a line that are looked at
MAX_GAP = 160  # characters before a number that can name it
LONGEST_NAME = 4  # words

_DIGIT = re.compile("[0-9]")
_NONFINITE = ("nan", "NaN", "inf", "Inf")  # "INF" would find every INFO
_ANSI = re.compile(r"\x1b(?:\[[0-9;?]{0,32}[A-Za-z]|\][^\x07\x1b]{0,256}(?:\x07|\x1b\\))")
# Every quantifier is bounded and no two of them can share a character: the time is linear. It
# starts with a character class, which lets `re` skip what cannot be a number. Groups: the first
# character, the others (None for a clock or a date), "/10".
_NUMBER = re.compile(
    r"""
    ([-+.0-9nNiI])(?<![\w.@].)                 # "layer1", "1.2.3", "acc@1" hold no number
    (?: (?<=[0-9])[0-9]{0,3}(?::[0-9]{2}){1,2}(?![0-9:])              # 12:33:01
    |   (?<=[0-9])[0-9]{3}(?:[-/][0-9]{2}){2}(?![0-9])                # 2024-10-29
    |   (
          (?: (?<=[0-9])[0-9]{0,2}(?:,[0-9]{3}){1,4}(?![0-9,])        # 1,000
            | (?<=[0-9])[0-9]{0,19}
            | (?<=[-+])[0-9]{1,20}
            | (?<=[-+])(?=\.[0-9])
            | (?<=\.)(?=[0-9])
          ) (?:(?<=\.)[0-9]{1,24}|\.[0-9]{0,24})? (?:[eE][-+]?[0-9]{1,3})?
        | (?:(?<=[-+])[nN]|(?<=[nN]))[aA][nN]
        | (?:(?<=[-+])[iI]|(?<=[iI]))[nN][fF](?:inity)?
        )
        ([ ]?/[ ]?[0-9]{1,12}(?![\w./]|[ ][0-9]{1,2}:))?              # "3/10": the third of ten
        (?:%|ms|sec|s|us|h|min|it/s|x)?
        (?![\w%]|\.[\w])
    )
    """,
    re.VERBOSE,
)
# What may stand between a name and its number: "loss: ", "loss': '", "loss = tensor(", "[", "->"
_JOINT = " \t:=\"'`[(>~-→≈*"
_WRAPPER = re.compile(r"(?:tensor|float[0-9]{0,3}|array|Array)\($")
# "loss (batch)", "Loss (val)"
_REMARK = re.compile(r"([A-Za-z_]) ?\(([A-Za-z][A-Za-z_ ]{0,24})\)$")
_FILLERS = words_of("is of was at equals about now")
_CLAUSE = re.compile(
    r"[,;|(){}\[\]<>:=\"'`\t\n*!?#]| {2}| - "
    r"|(?<![Vv]al)(?<!alid)(?<![Tt]est)(?<!rain)(?<![Aa]vg)\. "
)
_WORDS = re.compile(r"[^\s,;|(){}\[\]<>:=\"'`]{1,64}")
_WORD = re.compile(r"[^\W\d][\w./@%+-]{0,63}|_[\w./@%+-]{0,63}")
_NORMED = words_of("param params parameter parameters update")  # "params norm" is no gradient's
# "| value_loss | 0.5 |": a table of a name and a number on each line, as RL libraries print it
_CELLS = re.compile(
    r"[|│] {1,24}([A-Za-z_][\w/.@-]{0,60}(?: [A-Za-z(][\w/.@)-]{0,30}){0,4}) {0,60}[|│] {1,24}"
    r"([-+.0-9nNiI][-+.\w]{0,30}) {0,60}[|│]$"
)
# Darknet: " 12: 5.1, 4.9 avg loss, 0.001 rate, 3.1 seconds, 768 images"
_DARKNET = re.compile(
    r"(?:.{0,80}\) )? ?([0-9]{1,9}): ([-.\w]{1,20}), ([-.\w]{1,20}) avg(?: loss)?, "
    r"([-.\w]{1,20}) rate"
)
_AT = words_of("at after in for on @ iteration epoch step")
_HELD_OUT = VALIDATION | TEST
_SPLITS = _HELD_OUT | {"train", "training"}


_METRIC = "metric"  # a loss or an accuracy that does not name its split
_BARE = "bare"  # "valid": a split and nothing else


class _Gap(NamedTuple):
    """What the text before a number says."""

    name: str  # as printed; "" for none
    kind: str = ""  # `_METRIC`, `_BARE`, or "" for all others
    split: str | None = None  # the split that what follows stands under; None: unchanged
    announced: str = ""  # the metric of "cost after iteration 100: 0.64"
    goes_on: bool = False  # nothing but a joint: ": "
    longer: str = ""  # the name of a loss with the word before it: "box loss"


def without_colours(line: str) -> str:
    """The line without a terminal's control sequences."""
    return _ANSI.sub("", line)


def numbers_in(line: str) -> list[tuple[str, float]]:
    """(name, value) of each named number in one printed line, in its order.

    Names are as printed, with the split they stand under put before them: "val: loss 0.3" gives
    ("val loss", 0.3). "3/10" counts as 3, and as "it" where nothing names it, as in a progress bar;
    of a count of hits, "accuracy: 98/100", it is the ratio. Of a line that was redrawn with
    carriage returns the last drawing counts. Only the first `MAX_LINE` characters are looked at;
    the time is linear in them.
    """
    if not _DIGIT.search(line, 0, MAX_LINE) and not any(word in line for word in _NONFINITE):
        return []
    if "\r" in line:
        line = line.rstrip("\r\n").rpartition("\r")[2]
    line = line[:MAX_LINE]
    if "\x1b" in line:
        line = _ANSI.sub("", line)
    known = _of_known_program(line)
    if known is not None:
        return known
    parts = _NUMBER.split(line)  # gap, first character, others, of; gap, ...; rest
    pairs = _place_in_brackets(parts) if line.startswith("[") else []
    split = announced = ""
    longer: list[tuple[int, str]] = []  # (place in `pairs`, name with the word before it)
    for i in range(4 * len(pairs), len(parts) - 1, 4):
        before, first, others, of = parts[i : i + 4]
        name, kind, sets_split, announces, goes_on, whole = _read_gap(before[-MAX_GAP:])
        if sets_split is not None:
            split = sets_split
        if others is None:  # a clock or a date
            continue
        text = first + others
        if not name:
            if announced and goes_on:
                pairs.append((announced, _value(text)))
            elif of and not split:
                pairs.append(("it", _value(text)))
            announced = ""
            continue
        announced = announces
        if kind == _METRIC and split:
            name = f"{split} {name}"
        if kind in (_METRIC, _BARE) and text.isdigit():
            if parts[i + 4].startswith(":"):  # "Loss 1: 0.5": the number belongs to the name
                announced = f"{name} {text}"
                continue
            if kind == _BARE:  # "train 50000 valid 10000": sizes, not losses
                if (
                    parts[i + 4].strip(" ") == "[" and name.lower() in TRAIN
                ):  # timm: "Train: 3 [  50/5004"
                    pairs.append(("epoch", _value(text)))
                continue
        value = _value(text)
        if of and describe(name).family == "accuracy":
            value /= float(of.lstrip(" /")) or 1.0
        if whole:
            longer.append((len(pairs), f"{split} {whole}" if kind == _METRIC and split else whole))
        pairs.append((name, value))
    return _told_apart(pairs, longer) if longer else pairs


def _told_apart(
    pairs: list[tuple[str, float]], longer: list[tuple[int, str]]
) -> list[tuple[str, float]]:
    """Losses of one name get a word more: "box loss 0.1, class loss 0.2" are two losses."""
    names = [pairs[place][0] for place, _ in longer]
    beside_networks = any(describe(name).owner for name, _ in pairs)
    for (place, whole), own in zip(longer, names, strict=True):
        if beside_networks or names.count(own) > 1:
            pairs[place] = (whole, pairs[place][1])
    return pairs


def _of_known_program(line: str) -> list[tuple[str, float]] | None:
    """Lines that the rules would take wrongly; None for all others."""
    if line.startswith(("| ", "│ ")):
        found = _CELLS.match(line.rstrip())
        value = _float(found[2]) if found else None
        return [(found[1].strip(), value)] if found and value is not None else None
    if "Train net output #" in line:  # Caffe repeats the terms of the loss it has just printed
        return []
    if " avg" in line and " rate" in line:
        found = _DARKNET.match(line)
        values = [_float(text) for text in found.groups()] if found else [None]
        if None not in values:
            names = ("iteration", "loss", "avg loss", "learning rate")
            return [(n, v) for n, v in zip(names, values, strict=True) if v is not None]
    return None


def _float(text: str) -> float | None:
    found = _NUMBER.fullmatch(text)
    return _value(text) if found and found[2] is not None else None


def _value(text: str) -> float:
    return float(text.replace(",", "") if "," in text else text)


def _place_in_brackets(parts: list[str]) -> list[tuple[str, float]]:
    """Epoch and batch of "[2/25][50/782] ..." and "[2,  2000] ...", as in PyTorch's tutorials."""
    if len(parts) < 9 or parts[0].strip() != "[" or not parts[8].startswith("]"):
        return []
    of_both = parts[3] and parts[7] and parts[4] == "]["
    is_pair = parts[4].strip() == "," and (parts[1] + parts[5]).isdigit()
    if not (of_both or is_pair) or parts[2] is None or parts[6] is None:
        return []
    return [("epoch", _value(parts[1] + parts[2])), ("it", _value(parts[5] + parts[6]))]


@lru_cache(maxsize=2048)
def _read_gap(gap: str) -> _Gap:
    """The name at the end of the text before a number, and the split that the text sets."""
    split = _split_set_by(gap)
    text = _REMARK.sub(r"\1 \2", _WRAPPER.sub("", gap).rstrip(_JOINT))
    words = _WORDS.findall(_CLAUSE.split(text)[-1])
    while words and words[-1].lower() in _FILLERS:
        words.pop()
    words = words[-8:]
    if not words or not _WORD.fullmatch(words[-1]):
        joint = gap.strip(" \t")
        return _Gap("", split=split, goes_on=bool(joint) and not joint.strip(_JOINT))
    name = _longest_known(words)
    meaning = describe(name)
    if meaning.family in ("step", "epoch"):
        return _Gap(name, "", split, announced=_announced(words, name))
    if meaning.family == "loss" and not meaning.split and len(words) > 1:
        before = words[: len(words) - len(name.split())]
        if before and _WORD.fullmatch(before[-1]) and before[-1].lower() not in _AT:
            if before[-1].lower() in OWNERS:  # "D loss: 0.7": of one network
                return _Gap(f"{before[-1]} {name}", _METRIC, split)
            return _Gap(name, _METRIC, split, longer=f"{before[-1]} {name}")
    if meaning.family in ("loss", "accuracy", "error"):
        is_bare = not set(meaning.words) - _SPLITS
        return _Gap(name, _BARE if is_bare else "" if meaning.split else _METRIC, split)
    return _Gap(name, "", split)


def _longest_known(words: list[str]) -> str:
    """The longest tail of `words` that names something we know; else the last words as they are."""
    tails = [" ".join(words[-n:]) for n in range(1, min(len(words), LONGEST_NAME) + 1)]
    spoilt = next((tail for tail in reversed(tails) if _is_spoilt(tail)), None)
    if spoilt:
        return spoilt
    for tail in reversed(tails):
        meaning = describe(tail)
        if meaning.family and not meaning.extra:
            return tail
    return words[-1]


def _is_spoilt(tail: str) -> bool:
    """As in "best val loss": its last words name a loss, but the whole does not."""
    first, _, others = tail.partition(" ")
    plain, family = first.lower(), describe(others).family
    return (plain in SPOILING and bool(family)) or (plain in _NORMED and family == "grad_norm")


def _announced(words: list[str], axis: str) -> str:
    """The metric of "cost after iteration 100: 0.64": the one named before an axis."""
    before = words[: len(words) - len(axis.split())]
    while before and before[-1].lower() in _AT:
        before.pop()
    if len(before) == len(words) - len(axis.split()) or not before:
        return ""
    name = _longest_known(before)
    return name if describe(name).family in ("loss", "accuracy", "error") else ""


def _split_set_by(gap: str) -> str | None:
    """The word "val" after "val Loss: ", "" after "Train: "; None where the gap names no split."""
    if "Saving dict for" in gap:  # TensorFlow's estimators say so when they have evaluated
        return "eval"
    for word in reversed(re.split(r"[\s,;|(){}\[\]<>:=\"']{1,64}", gap)):
        plain = word.lower()
        if plain in _SPLITS:
            return word if plain in _HELD_OUT else ""
    return None
