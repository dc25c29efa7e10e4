"""Small data sets made on the spot, so that no scenario downloads anything."""

import random

import torch

SEGMENTS = ["abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcfgd"]
WHERE = {  # segment -> (rows, columns) of a 12 x 12 image
    "a": (slice(1, 3), slice(3, 9)),
    "b": (slice(2, 6), slice(8, 10)),
    "c": (slice(6, 10), slice(8, 10)),
    "d": (slice(9, 11), slice(3, 9)),
    "e": (slice(6, 10), slice(2, 4)),
    "f": (slice(2, 6), slice(2, 4)),
    "g": (slice(5, 7), slice(3, 9)),
}


def digits(n, seed=0, noise=0.4):
    """Seven-segment digits, shifted by up to one pixel, of varying brightness, with noise."""
    g = torch.Generator().manual_seed(seed)
    glyphs = torch.zeros(10, 12, 12)
    for digit, segments in enumerate(SEGMENTS):
        for s in segments:
            glyphs[digit][WHERE[s]] = 1.0
    y = torch.randint(10, (n,), generator=g)
    shift = torch.randint(-1, 2, (n, 2), generator=g).tolist()
    x = torch.stack(
        [glyphs[c].roll(tuple(s), (0, 1)) for c, s in zip(y.tolist(), shift, strict=True)]
    )
    brightness = 0.6 + 0.8 * torch.rand(n, 1, 1, generator=g)
    x = x * brightness + noise * torch.randn(n, 12, 12, generator=g)
    return ((x - 0.35) / 0.6).unsqueeze(1), y


def houses(n, seed=0):
    """Five columns in natural units (m2, year, rooms, m to the station, income) and a price."""
    g = torch.Generator().manual_seed(seed)
    area = 40 + 160 * torch.rand(n, generator=g)
    year = 1900 + 120 * torch.rand(n, generator=g)
    rooms = (area / 30 + torch.randn(n, generator=g)).round().clamp(1, 9)
    station = 100 + 4000 * torch.rand(n, generator=g)
    income = 20_000 + 60_000 * torch.rand(n, generator=g)
    price = (2500 * area + 800 * (year - 1900) + 9000 * rooms - 40 * station + 2.5 * income) * (
        1 + 0.3 * torch.sin(station / 700)
    ) + 15_000 * torch.randn(n, generator=g)
    return torch.stack([area, year, rooms, station, income], 1), price.unsqueeze(1)


def sentences(n, seed=0):
    """English-like text of `n` sentences from a small grammar."""
    r = random.Random(seed)
    nouns = ["cat", "dog", "bird", "teacher", "river", "garden", "window", "child", "letter"]
    verbs = ["sees", "finds", "follows", "paints", "carries", "leaves", "hears", "opens"]
    adjectives = ["old", "small", "bright", "quiet", "heavy", "green"]
    places = ["near the house", "by the sea", "at night", "in the morning", "under a tree"]

    def phrase():
        adjective = r.choice(adjectives) + " " if r.random() < 0.5 else ""
        return f"{r.choice(['the', 'a'])} {adjective}{r.choice(nouns)}"

    return " ".join(
        f"{phrase()} {r.choice(verbs)} {phrase()}"
        + (f" {r.choice(places)}." if r.random() < 0.6 else ".")
        for _ in range(n)
    )


def reviews(n, seed=0, words=2000, length=20):
    """Bags of word ids, Zipf distributed; some words lean towards one of two classes."""
    g = torch.Generator().manual_seed(seed)
    base = 1.0 / torch.arange(1, words + 1)
    lean = torch.zeros(words)
    lean[50:] = torch.randn(words - 50, generator=torch.Generator().manual_seed(99))
    y = torch.randint(2, (n,), generator=g)
    p = base * torch.exp(lean * (2.0 * y.unsqueeze(1) - 1.0))
    return torch.multinomial(p, length, replacement=True, generator=g), y
