"""How well two colours can be told apart, as WCAG 2.2 measures it. Pure."""

BLACK = "#000000"
WHITE = "#ffffff"


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two `#rrggbb` colours, 1 to 21; small text needs 4.5."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def ink(background: str) -> str:
    """Black or white, whichever reads better on `background`. One of them always has at least 4.58:1, because their
    ratios on the same background multiply to 21."""
    return max((WHITE, BLACK), key=lambda text: contrast(text, background))


def _luminance(colour: str) -> float:
    red, green, blue = (_linear(int(colour[i : i + 2], 16) / 255) for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(share: float) -> float:
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
