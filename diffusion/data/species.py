"""Describe the species of painted flowers: each is data, not code.

A species lists the whorls of petals to paint, from back to front, then the discs and dots of the
centre. Colours are rows of hexadecimal stops; points and directions are complex numbers, x to the
right, y up, in flower radii. `diffusion.data.painting` does the painting.
"""

from dataclasses import dataclass

GOLDEN_ANGLE = 137.508


@dataclass(frozen=True)
class Whorl:
    """Petals around one point; lengths are in flower radii, angles in degrees.

    The outline of a petal is `half_width = width * u**belly * (1 - u)**taper`, scaled to peak at
    `width`, where u runs from 0 at the foot to 1 at the tip.
    """

    petals: int
    width: float  # half the petal's breadth, as a share of its length
    length: float = 1.0  # from the flower's centre to the petal's tip
    shrink: float = 1.0  # length of the last petal, as a share of the first
    belly: float = 0.5
    taper: float = 0.3
    foot: float = 0.0  # distance from the flower's centre to the petal's foot
    notch: float = 0.0
    ruffle: float = 0.0
    curl: float = 0.0  # bends petals upwards (positive) or lets them hang
    veins: float = 0.1
    lift: float = 0.0  # 1 faces the viewer however far the flower is tilted
    turn: float | None = None  # angle from petal to petal; evenly spread if None
    angles: tuple[float, ...] = ()  # explicit directions, for flowers with an up and a down
    colours: str = ""  # from foot to tip; the species' palette if empty


@dataclass(frozen=True)
class Dots:
    """Stamens or seeds, spread between two radii."""

    count: int
    inner: float
    outer: float
    radius: float
    colour: str
    threads: str = ""  # colour of the filaments below them, if any


@dataclass(frozen=True)
class Species:
    """One kind of flower; of several palettes or grounds, each image uses one at random."""

    name: str
    palettes: tuple[str, ...]
    whorls: tuple[Whorl, ...]  # from the back to the front
    discs: tuple[tuple[float, str], ...] = ()  # radius, colours from the shaded to the lit side
    dots: tuple[Dots, ...] = ()
    grounds: tuple[str, ...] = (
        *("16301c 2f5a2c 7fae52", "122b2a 27564a 6aa886"),
        *("2a3414 5a6e28 c0bc5e", "1a2a3c 345a66 8ab8a0"),
    )
    leaf: Whorl = Whorl(1, 0.22, taper=0.8, veins=0.12, colours="1d4a22 3a7a34 74ad55")
    leaves: int = 3
    stem: float | None = None  # how far above the flower's centre it begins, in flower radii
    upright: bool = False  # seen from the side, or with an up and a down
    squash: float = 0.72  # breadth of the flower at its greatest tilt
    florets: tuple[tuple[complex, float], ...] = ((0, 1.0),)  # where, and how large


# fmt: off
FLOWERS = (
    Species("daisy", ("dfe3d2 ffffff fffdf6", "d8c8e0 f6eefb ffffff", "e080b0 fbe0ec ffffff"),
            (Whorl(15, 0.13, foot=0.16, veins=0.05), Whorl(14, 0.13, 0.95, foot=0.16, veins=0.05)),
            ((0.29, "b86a08 f2b415 ffe25a"),), (Dots(45, 0.0, 0.26, 0.03, "fff09a"),)),
    Species("sunflower", ("d97a06 fbb40c ffd93b", "c45f08 f39a10 ffc62e"),
            (Whorl(17, 0.16, taper=0.8, foot=0.3), Whorl(16, 0.17, 0.9, taper=0.8, foot=0.3)),
            ((0.46, "2a1406 4d290e 7a481c"), (0.2, "241206 3d2a10 5a4a1c")),
            (Dots(90, 0.24, 0.44, 0.024, "b97a26"), Dots(30, 0.0, 0.2, 0.024, "7d7a2c")),
            ("2a4a6a 5b8fb8 b8d8e8", "16301c 2f5a2c 6f9a4a")),
    Species("poppy", ("2a0508 c81a12 ee3a1e f8583a", "3a0a08 e0480e fa7a1e ffa04a"),
            (Whorl(3, 0.62, ruffle=0.05), Whorl(3, 0.6, 0.86, ruffle=0.05)),
            ((0.13, "3a4a1e 7a8a3c b4bc6a"),), (Dots(46, 0.15, 0.3, 0.03, "1c1024"),),
            ("28401c 5f7f34 b0b868", "1a3420 3c6a3c 8cae62")),
    Species("tulip", ("e8c83a d8202e f04a48 fa8a70", "f0e0a0 e0559a f58abf fbc0dc",
                      "d8a020 f2b418 fbd040 ffe88a", "e0d8c0 6a2a8a 9a52b4 c48ad4"),
            (Whorl(3, 0.26, 1.6, taper=0.7, angles=(78, 102, 90)),
             Whorl(3, 0.3, 1.62, belly=0.4, taper=0.6, angles=(60, 120, 90), curl=0.75)),
            stem=0.0, upright=True, squash=0.85, florets=((-0.75j, 1.0),)),
    Species("rose", ("4a0210 9c0a22 d42a3c f07a74", "98304e d8648a f4a8ba fcd8dc",
                     "a85c10 e6a030 f8d070 fdf0bc", "a08468 d8ccb4 faf2e6 ffffff"),
            (Whorl(20, 0.6, shrink=0.2, taper=0.25, turn=GOLDEN_ANGLE, veins=0.03),), leaves=5),
    Species("iris", ("f4c020 f6e6c0 6a4ab8 4a2c98", "f0b818 f4eed8 8a9ae0 5a6ac8",
                     "e8a010 f8e8b0 b070c0 7a3a90"),
            (Whorl(3, 0.34, belly=0.7, angles=(62, 118, 90), curl=0.6, ruffle=0.03),
             Whorl(3, 0.4, belly=0.9, angles=(194, 346, 270), curl=-0.55, ruffle=0.04, veins=0.2)),
            stem=0.0, upright=True, florets=((-0.05j, 0.95),)),
    Species("water lily", ("f6d8e4 f2a0c4 f8c4da fdeaf2", "f4f0d8 fdfaf0 ffffff ffffff",
                           "f0c8e8 c87ac8 dca0dc f0d0f0"),
            (Whorl(10, 0.23, taper=0.6, foot=0.1, veins=0.05),
             Whorl(9, 0.24, 0.82, taper=0.6, foot=0.06, veins=0.05, lift=0.4),
             Whorl(8, 0.25, 0.6, taper=0.6, foot=0.03, veins=0.05, lift=0.8)),
            ((0.15, "d88a0a f8bc1e ffe060"),), (Dots(34, 0.02, 0.2, 0.03, "ffe87a"),),
            ("0c2434 1c4a5a 4a8a92", "0e2a2c 20504a 4f8a78"),
            Whorl(1, 0.5, taper=0.5, colours="1a4630 2f6e44 5aa060"), leaves=4, squash=0.66),
    Species("bluebell", ("3a3a98 5a5ecc 8a94ee", "4a2c90 7450c8 a88cf0", "2c50a0 4a80d4 8ab4f4"),
            (Whorl(3, 0.28, 1.2, belly=0.3, taper=0.6, angles=(252, 288, 270), curl=0.5),
             Whorl(3, 0.26, 1.1, belly=0.25, taper=0.4, angles=(262, 278, 270), veins=0.15)),
            grounds=("1c3420 4a6a34 a8b868", "16302a 35604a 88ac80"), stem=1.0, upright=True,
            florets=((0.3 + 0.9j, 0.5), (-0.42 + 0.68j, 0.58), (0.46 + 0.34j, 0.64),
                     (-0.46 + 0j, 0.68), (0.34 - 0.28j, 0.72))),
    Species("hibiscus", ("6a0420 e03058 f4607a fa98a0", "8a0a2a f47a3a fa9e4e fcc478",
                         "9a0a3a f6d0dc fbe8ee ffffff", "8a0818 f6c01e fad648 fdea90"),
            (Whorl(5, 0.5, ruffle=0.03, veins=0.16),
             Whorl(1, 0.06, 0.75, angles=(36,), colours="c83048 f8d0a0"),
             Whorl(7, 0.4, 0.66, 1.2, foot=0.54, angles=(26, 46, 30, 42, 25, 47, 36),
                   colours="d89010 fce060"))),
    Species("dahlia", ("7a0a4a c81e7a f268b0", "a82a06 ee6218 fcae50", "4a1060 8a2ea0 cc7cd8",
                       "b8860a f4c41e fdee90"),
            (Whorl(32, 0.21, 1.15, 0.22, taper=0.5, foot=0.06, turn=GOLDEN_ANGLE),
             Whorl(5, 0.4, 0.2))),
    Species("pansy", ("f8c810 1c0828 5a2a9a 7644bc 8a5cd0",
                      "f8c810 4a1a0a f4b414 f8c838 fcdc5a", "f8d020 3a0a38 b02a68 cc4c86 e078a8",
                      "f8c810 2a1858 e8e4f6 f4f2fa ffffff"),
            (Whorl(2, 0.58, 0.95, angles=(58, 122), colours="2a1050 4a2290 6a40b8 8862d0"),
             Whorl(2, 0.52, 0.9, angles=(8, 172), ruffle=0.02, veins=0.2),
             Whorl(1, 0.68, 0.92, angles=(270,), ruffle=0.03, veins=0.2)),
            ((0.08, "c8a010 f8d020 fff080"),), upright=True),
    Species("cherry blossom", ("d84a80 f8c4d8 fde4ee ffffff", "c83070 f49cc0 f8bcd4 fde0ea"),
            (Whorl(5, 0.42, notch=0.14, veins=0.06),), ((0.09, "a83a4a d8788a f0b0b0"),),
            (Dots(16, 0.2, 0.42, 0.03, "e8a020", "f8d0dc"),),
            ("4a6a8a 8ab0cc d8e8f0", "5a3a4a 9a6a80 d8a8b8", "203a2a 4a7048 98b878"),
            Whorl(1, 0.2, taper=0.9, colours="4a3a1c 6a7a34 a4b45c"), leaves=2),
    Species("lily", ("b8c050 f6b8cc e04a86 fbe4ec", "c8c040 f48a1e f06a10 fab050",
                     "c8d068 fdf8e8 ffffff ffffff"),
            (Whorl(3, 0.27, taper=0.7), Whorl(3, 0.32, taper=0.7)),
            dots=(Dots(26, 0.16, 0.5, 0.016, "8a1e30"),
                  Dots(6, 0.4, 0.46, 0.05, "7a300a", "dce8a0"))),
    Species("anemone", ("f4f0fa 3a2a9a 5a4ac8 8a80e8", "fbeef4 b81a6a e0489a f088c0",
                        "f8f0f0 c01828 e43a40 f47a70", "d0d0e0 f0f0f8 ffffff ffffff"),
            (Whorl(6, 0.38), Whorl(5, 0.38, 0.88)), ((0.17, "0a0814 1e1a34 4a4670"),),
            (Dots(38, 0.2, 0.34, 0.028, "14102a"),)),
    Species("daffodil", ("d8c010 f8dc20 fdee6a", "e0dca0 fdf8e0 ffffff"),
            (Whorl(3, 0.34, taper=0.5), Whorl(3, 0.34, taper=0.5),
             Whorl(9, 0.5, 0.46, taper=0.12, lift=0.3, ruffle=0.06, veins=0.14,
                   colours="b84a04 e87a0a fa9a14 ffc040")),
            dots=(Dots(6, 0.03, 0.08, 0.03, "fff0a0"),), stem=0.0),
    Species("orchid", ("f0a0d0 c83a9a e070bc f4b4e0", "f8f0d0 f8f0f8 ffffff ffffff",
                       "f4e060 d8d850 ecec8a f8f8c0"),
            (Whorl(3, 0.3, 0.95, taper=0.5, angles=(90, 222, 318)),
             Whorl(2, 0.52, belly=0.7, angles=(14, 166), veins=0.14),
             Whorl(3, 0.4, 0.46, angles=(215, 325, 270), colours="f8d030 b0105a 8a0a4a c83a80")),
            ((0.09, "d8a8b0 f8e8e8 ffffff"),), upright=True, leaves=1,
            grounds=("10241c 24443a 5a8070", "2a1c30 4a3858 80708c")),
)
# fmt: on
SPECIES = tuple(species.name for species in FLOWERS)
