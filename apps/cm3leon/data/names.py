"""What people call a thing: from a Unicode name to a plain name, its article and its plural."""

from __future__ import annotations

import re

from cm3leon.data.palette import FAMILIES

# What people say where Unicode says something else; one name for drawings that differ in a detail.
_SAID = {
    "adhesive bandage": "bandage", "american football": "football", "articulated lorry": "truck",
    "artist palette": "paint palette", "auto rickshaw": "rickshaw", "automobile": "car",
    "baguette bread": "baguette", "ballet shoes": "ballet shoe", "beverage box": "juice box",
    "billed cap": "cap", "bowling": "bowling pins", "bug": "caterpillar", "carpentry saw": "saw",
    "cheese wedge": "cheese", "clinking beer mugs": "beer mugs",
    "clinking glasses": "champagne glasses", "cooked rice": "rice", "cooking": "frying pan",
    "crescent moon": "moon", "cricket game": "cricket bat", "deciduous tree": "tree",
    "delivery truck": "van", "dvd": "DVD", "electric plug": "plug", "empty nest": "nest",
    "evergreen tree": "fir tree", "ewe": "sheep", "field hockey": "hockey stick",
    "film frames": "film strip", "flying disc": "frisbee", "folding hand fan": "fan",
    "fuel pump": "gas pump", "game die": "dice", "gem stone": "gem", "goal net": "goal",
    "headphone": "headphones", "high voltage": "lightning bolt", "hot beverage": "cup",
    "hot pepper": "chili pepper", "ice hockey": "ice hockey stick",
    "identification card": "ID card", "jack-o-lantern": "pumpkin", "kiwi fruit": "kiwi",
    "label": "tag", "lady beetle": "ladybug", "leafy green": "lettuce", "locked": "padlock",
    "long drum": "conga drum", "luggage": "suitcase", "mobile phone": "phone",
    "musical keyboard": "piano keys", "one-piece swimsuit": "swimsuit", "package": "box",
    "ping pong": "ping pong paddle", "police car light": "siren", "poultry leg": "chicken leg",
    "rescue worker's helmet": "helmet", "ribbon": "bow", "roasted sweet potato": "sweet potato",
    "rugby football": "rugby ball", "running shirt": "tank top", "running shoe": "sneaker",
    "sauropod": "dinosaur", "shopping bags": "shopping bag", "shortcake": "cake slice",
    "small airplane": "propeller plane", "speaker low volume": "speaker",
    "spiral shell": "seashell", "sports medal": "medal", "steaming bowl": "noodles",
    "straight ruler": "ruler", "studio microphone": "microphone", "tennis": "tennis ball",
    "thong sandal": "flip-flop", "tumbler glass": "glass",
    "vertical traffic light": "traffic light", "video game": "game controller",
    "videocassette": "cassette", "woman's clothes": "blouse", "wood": "log",
}  # fmt: skip
_LEFT_OUT = {
    # the water, shell, spokes, tree or catch is what would be recoloured
    "bicycle", "camping", "fishing pole", "fountain", "hatching chick", "manual wheelchair",
    "motor boat", "sailboat", "ship", "speedboat", "water wave",
    # nobody would name it, or not from this drawing
    "admission tickets", "alembic", "amphora", "bellhop bell", "bookmark tabs", "card file box",
    "card index", "card index dividers", "chart decreasing", "chart increasing",
    "classical building", "confetti ball", "control knobs", "derelict house", "diya lamp",
    "e-mail", "falafel", "file cabinet", "flatbread", "flower", "foggy", "full moon",
    "full moon face", "funeral urn", "hair pick", "hamsa", "hindu temple", "hot springs",
    "inbox tray", "incoming envelope", "Japanese post office", "kaaba", "ledger", "level slider",
    "link", "love hotel", "mahjong dragon", "martial arts uniform", "mate", "memo", "milky way",
    "moai", "moon cake", "moon viewing ceremony", "mountain railway", "nazar amulet",
    "outbox tray", "page facing up", "pager", "petri dish", "pine decoration", "placard",
    "post office", "pouring liquid", "reminder ribbon", "rice cracker", "roller coaster",
    "rosette", "sake", "sari", "station", "stuffed flatbread", "tamale", "tanabata tree",
    "timer clock", "trackball", "wedding", "wind chime", "wind face",
    # looks like another one, but for a detail
    "department store", "glowing star", "guide dog", "light rail", "low battery", "metro",
    "mount fuji", "muted speaker", "open file folder", "optical disk", "rolled-up newspaper",
    "round pushpin", "service dog", "sparkler", "speaker high volume", "speaker medium volume",
    "spiral calendar", "spouting whale", "tear-off calendar", "two-hump camel", "unlocked",
}  # fmt: skip
_COLOUR_WORDS = re.compile(rf"\b({'|'.join(FAMILIES)}) ")
_RELATION = re.compile(r"\b(with|without|of|and|on|in|at|over|behind|not|showing|tilted)\b")
_NUMBERED = re.compile(r"(o'clock|-thirty|[0-9](st|nd|rd) place medal)$")
_MOON_PHASE = re.compile(r"\b(waxing|waning|quarter|new) .*moon\b|\bnew moon\b")
# No article, no number: "bread left of a grey cat".
_MASS = {
    "bacon", "bread", "broccoli", "bubble tea", "butter", "cheese", "coral", "curry",
    "fire", "fondue", "fried shrimp", "garlic", "ginger root", "ice", "ice cream", "lettuce",
    "popcorn", "rice", "salad", "salt", "soap", "spaghetti", "sushi", "thread", "yarn",
}  # fmt: skip
_SINGULAR_IN_S = ("ss", "us", "os")
_IRREGULAR = {
    "bison": "bison", "buffalo": "buffaloes", "deer": "deer", "goose": "geese", "leaf": "leaves",
    "moose": "moose", "mouse": "mice", "ox": "oxen", "scarf": "scarves", "sheep": "sheep",
    "shrimp": "shrimp", "snowman": "snowmen",
}  # fmt: skip


def name_of(unicode_name: str) -> str | None:
    """Return what people call it, or None where that would take a sentence or a calendar.

    "front-facing baby chick" -> "baby chick"; colour words go, since colours change.
    """
    name = unicode_name.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    name = re.sub(r"^(front-facing|oncoming) | suit$", "", name)
    name = _COLOUR_WORDS.sub("", name)
    if _RELATION.search(name) or _NUMBERED.search(name) or _MOON_PHASE.search(name):
        return None
    return None if name in _LEFT_OUT else _SAID.get(name, name)


def plural(name: str) -> str | None:
    """Return the plural, "three " put aside; None where the name has none or is one."""
    if name in _MASS or _is_plural(name):
        return None
    rest, _, last = name.rpartition(" ")
    if last in _IRREGULAR or last.endswith("fish"):
        last = _IRREGULAR.get(last, last)
    elif re.search(r"[^aeiou]y$", last):
        last = f"{last[:-1]}ies"
    else:
        last += "es" if re.search(r"(s|x|z|ch|sh|[td]o|volcano)$", last) else "s"
    return f"{rest} {last}".strip().replace("man's ", "men's ")


def with_article(name: str, words: str) -> str:
    """Return the words for one thing of this name with the article that it takes, if any.

    "apple", "red apple" -> "a red apple"; "socks", "socks" -> "socks".
    """
    if name in _MASS or _is_plural(name):
        return words
    vowel = words[0].lower() in "aeio" or re.match("(um|X-|x-)", words)
    return f"{'an' if vowel else 'a'} {words}"


def _is_plural(name: str) -> bool:
    return name in {"dice"} or (name.endswith("s") and not name.endswith(_SINGULAR_IN_S))
