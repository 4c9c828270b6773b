"""Room codes and generated nicknames."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from random import Random

CODE_LETTERS = "BCDFGHJKMNPRTVWXZ"  # no vowels, no letter that looks like another
CODE_LENGTH = 4
_UNWANTED = ("CNT", "DCK", "FCK", "FGT", "KKK", "NGR", "PRN", "TWT", "WTF")
NICKNAME_MAX = 24

_FIRST = (
    "Amber Ample Apricot Azure Blithe Bold Brave Breezy Bright Brisk Calm Candid Cheery Clever Coral Cosmic Crisp "
    "Curious Dapper Daring Deft Eager Early Easy Fair Fancy Fleet Fresh Gentle Glad Golden Grand Happy Hardy "
    "Hazel Honest Humble Indigo Ivory Jade Jolly Keen Kind Lilac Lively Lucky Lunar Mellow Merry Mighty Mint "
    "Misty Modest Neat Nimble Noble Olive Patient Peachy Pearly Plucky Polite Prime Proud Quick Quiet Rapid Ruby "
    "Rustic Sandy Scarlet Silver Smart Snappy Solar Spry Steady Stellar Sunny Swift Tidy Topaz Tranquil Trusty "
    "Upbeat Velvet Violet Vivid Warm Wise Witty Zesty"
).split()
_SECOND = (
    "Albatross Alpaca Badger Beaver Bison Bobcat Camel Caribou Cheetah Cobra Condor Coyote Crane Curlew Dingo "
    "Dolphin Dragonfly Eagle Egret Falcon Ferret Finch Firefly Flamingo Fox Gazelle Gecko Gibbon Goose Hare Hawk "
    "Hedgehog Heron Ibis Iguana Jackal Jaguar Kestrel Kingfisher Kiwi Koala Kudu Lark Lemur Leopard Lynx Magpie "
    "Manatee Marmot Marten Meerkat Mole Moose Narwhal Newt Ocelot Orca Osprey Otter Owl Panda Panther Parrot "
    "Pelican Penguin Pika Plover Puffin Quail Quokka Raccoon Raven Robin Salmon Seal Sparrow Squid Starling Stork "
    "Swan Tapir Tern Tiger Toucan Turtle Viper Walrus Weasel Wombat Wren Yak"
).split()


def room_code(random: Random) -> str:
    """Four letters that can be read aloud and typed without doubt."""
    while True:
        code = "".join(random.choices(CODE_LETTERS, k=CODE_LENGTH))
        if not any(word in code for word in _UNWANTED):
            return code


def normal_code(text: str) -> str | None:
    """What a person typed as a room code, in its one spelling; None when it can't be one."""
    code = "".join(text.split()).replace("-", "").upper()
    return code if len(code) == CODE_LENGTH and set(code) <= set(CODE_LETTERS) else None


def nickname(random: Random, taken: Collection[str] = ()) -> str:
    """A friendly name such as `Brave Otter`; with a number when a few tries were all taken."""
    name = ""
    for _ in range(8):
        name = f"{random.choice(_FIRST)} {random.choice(_SECOND)}"
        if name not in taken:
            return name
    return f"{name} {random.randrange(2, 1000)}"


def clean_line(text: str) -> str:
    """One line of a person's text: normalised (NFC), control, format and unassigned characters removed, spaces folded.

    Directional and zero-width characters go too: they could make a name on the stage read as another. The joiner inside
    an emoji, or after a sign as some Indic words need it, stays.
    """
    text = unicodedata.normalize("NFC", text)
    kept = (c if unicodedata.category(c)[0] != "C" or _joins(text, i) else " " for i, c in enumerate(text))
    return " ".join("".join(kept).split())


def _joins(text: str, i: int) -> bool:
    """Whether `text[i]` is a joiner that changes how its neighbours look, not one that hides between letters."""
    if text[i] != "\u200d" or not 0 < i < len(text) - 1:
        return False
    before, behind = unicodedata.category(text[i - 1]), unicodedata.category(text[i + 1])
    return before in ("So", "Sk", "Mn", "Mc") and behind[0] not in "CZ"
