"""Paint flowers: a small data set for when no photographs were downloaded.

There is one kind of stroke, the petal: leaves, stems, flower centres and the blurred lights behind
them are petals too. `diffusion.data.species` describes the species. Points and directions are
complex numbers: x to the right, y up, the frame from -1-1j to 1+1j whatever its size in pixels.
"""

from functools import cache, partial

import numpy as np
from tqdm.auto import tqdm

from diffusion.data.species import FLOWERS, GOLDEN_ANGLE, SPECIES, Whorl
from diffusion.support.validation import whole_number

SMALLEST, LARGEST = 16, 128
PAINTED_AT = 64  # smaller images are painted at this size or above, and averaged down
SHADOW = 0.5  # the share of light that a petal takes from what is under it
DOME = Whorl(1, 0.5, taper=0.5, veins=0.0)


@cache
def gradient(colours: str) -> np.ndarray:
    """Return a table (3, 256) of colours in [0, 1] for a row of hexadecimal stops."""
    stops = np.array([list(bytes.fromhex(stop)) for stop in str(colours).split()]) / 255
    places = np.linspace(0, len(stops) - 1, 256)
    table = [np.interp(places, np.arange(len(stops)), channel) for channel in stops.T]
    return np.array(table, "f4")


class Canvas:
    """An image being painted: `pixels` (3, size, size) in [0, 1], lit from one direction."""

    def __init__(self, size, light):
        self.pixels = np.zeros((3, size, size), "f4")
        self.light = complex(light)  # a complex number of length 1 that points to the light
        self.size = size
        self.across = ((np.arange(size) + 0.5) * 2 / size - 1).astype("f4")

    def window(self, points, margin):
        """Return the part of the frame around points: a slice of rows and one of columns."""
        across, down = [point.real for point in points], [-point.imag for point in points]
        edges = []
        for places in (down, across):
            first = int((min(places) - margin + 1) * self.size / 2)
            last = int((max(places) + margin + 1) * self.size / 2) + 1
            edges.append(slice(min(max(first, 0), self.size), min(max(last, 0), self.size)))
        return edges

    def petal(self, origin, axis, side, shape, colours, bend=0.0, phase=0.0, tone=1.0, blur=0.0):
        """Paint a petal and its shadow from `origin` along `axis`; `side` is its unit crosswise."""
        origin, axis, side = complex(origin), complex(axis), complex(side)
        edge = side * shape.width
        spine = origin, origin + (axis + bend * side / 2) / 2, origin + axis + bend * side
        around = [point + sign * edge for point in spine for sign in (-1, 1)]
        rows, columns = self.window(around, 0.065 + blur)
        x, y = self.across[columns] - origin.real, -self.across[rows, None] - origin.imag
        if x.size < 3 or y.size < 3:
            return
        area = axis.real * side.imag - axis.imag * side.real
        along = x * (side.imag / area) - y * (side.real / area)
        across = y * (axis.real / area) - x * (axis.imag / area)
        if bend:
            across -= bend * along * along
        field, inside, half_width = outline_field(along, across, shape, phase)

        # field / steepness is the distance to the outline in pixels: edges are one pixel soft
        down, right = slopes(field)
        steepness = np.sqrt(down * down + right * right) * 0.5 + 1e-7
        softness = 1 + blur * self.size
        cover = fraction(0.5 + field / (steepness * softness))
        reach = softness + 0.03 * self.size
        field += (0.006 * self.size) * (self.light.real * right - self.light.imag * down)
        shadow = fraction(0.5 + field / (steepness * reach))

        position = np.maximum(np.minimum(across / (half_width + 0.02), 1), -1)
        lit = petal_shading(inside, position, shape, axis, side, self.light)
        colour = colours.take((inside * 255).astype(np.intp), axis=1)
        patch = self.pixels[:, rows, columns]
        patch *= (1 - SHADOW * shadow * shadow) * (1 - cover)
        colour *= lit * cover * tone
        patch += colour

    def dots(self, points, radius, colour, opacity=1.0):
        """Paint a soft round dot around each of `points`, all in one colour."""
        width = float(np.hypot(radius, 0.6 / self.size))  # no dot is smaller than a pixel
        column, row = points.real.astype("f4")[:, None], points.imag.astype("f4")[:, None]
        by_column = np.exp(-(((self.across - column) / width) ** 2))
        by_row = np.exp(-(((-self.across - row) / width) ** 2))
        strength = 1.6 * float(radius / width) ** 2
        cover = np.minimum(strength * (by_row.T @ by_column), 1) * opacity
        self.pixels += cover * (colour[:, None, None] - self.pixels)


def fraction(values):
    """Clip values to [0, 1] (for small arrays, twice as fast as np.clip)."""
    return np.minimum(np.maximum(values, 0), 1)


def outline_field(along, across, shape, phase):
    """Return a field above 0 inside a petal, the place along it (0 to 1), the half width there."""
    if shape.notch:
        along = along + shape.notch * np.exp(across * across * -((0.3 * shape.width) ** -2))
    if shape.ruffle:
        along = along * (1 + shape.ruffle * np.sin(across * (6 / shape.width) + phase))
    inside = fraction(along)
    widest = shape.belly / (shape.belly + shape.taper)
    peak = widest**shape.belly * (1 - widest) ** shape.taper
    profile = inside**shape.belly * (1 - inside) ** shape.taper * (1 / peak)
    # raised to a power at which the outline of blunt tips has a slope that pixels can follow
    power = min(max(1 / shape.taper, 2.0), 3.0)
    gap = np.abs(across * (1 / shape.width)) ** power
    # beyond the tip, the field falls as it rose inside, so that sharp tips do not fork
    overshoot = np.abs((along - inside) * (1.5 / shape.width)) ** max(1.0, shape.taper * power)
    return profile**power - gap - overshoot, inside, profile * shape.width


def slopes(field):
    """Return the change of a field over two pixels, down its rows and along its columns."""
    down, right = np.empty_like(field), np.empty_like(field)
    np.subtract(field[2:], field[:-2], out=down[1:-1])
    np.subtract(field[:, 2:], field[:, :-2], out=right[:, 1:-1])
    down[0], down[-1] = down[1], down[-2]
    right[:, 0], right[:, -1] = right[:, 1], right[:, -2]
    return down, right


def petal_shading(inside, position, shape, axis, side, light):
    """Return the brightness over a petal: hollow across, arched along, veined, dark at its foot."""
    facing_side = (light * side.conjugate()).real / abs(side)
    facing_axis = (light * axis.conjugate()).real / abs(axis)
    shading = 0.8 - 0.08 * facing_axis + inside * (0.2 + 0.2 * facing_axis)
    shading += position * (0.13 * facing_side)
    if shape.veins:
        shading -= shape.veins * np.cos(position * 10) * (1 - inside)
    return shading


def paint_ground(canvas, rng, colours):
    """Fill the canvas with an out-of-focus background and a few round lights."""
    height = np.linspace(210, 56, canvas.size).astype(int)
    canvas.pixels[:] = colours[:, height][:, :, None]
    for place, shade in zip(rng.uniform(-1.1, 1.1, (3, 2)), rng.integers(0, 256, 3), strict=True):
        canvas.dots(complex(*place) * np.ones(1), rng.uniform(0.3, 0.7), colours[:, shade])
    across, down, width, strength = rng.uniform(-1, 1, (4, 7, 1, 1)).astype("f4")
    gap = np.sqrt((canvas.across - across) ** 2 + (canvas.across[:, None] - down) ** 2)
    lights = fraction((2.2 + width) - 10 * gap) * (0.28 + 0.18 * strength)
    light = colours[:, -1, None, None] * 0.7 + 0.3
    canvas.pixels += lights.max(0) * (light - canvas.pixels)


def paint_leaves(canvas, rng, species, heart, radius):
    """Paint the stem and the leaves behind a flower whose centre is `heart`."""
    colours = gradient(species.leaf.colours)
    top, foot = heart + 1j * radius * (species.stem or 0), complex(heart.real * 0.5, -1.3)
    for _ in range(species.leaves):
        if species.stem is None:
            origin, angle = heart, rng.uniform(0, 2 * np.pi)
        else:
            origin = heart + (foot - heart) * rng.uniform(0.6, 1.0)
            angle = np.pi / 2 + rng.choice([-1, 1]) * rng.uniform(0.2, 0.9)
        axis = radius * rng.uniform(1.0, 1.35) * np.exp(1j * angle)
        canvas.petal(origin, axis, axis * 1j, species.leaf, colours, rng.uniform(-0.3, 0.3),
                     tone=rng.uniform(0.7, 1.0), blur=rng.choice([0.0, 0.02]))  # fmt: skip
    if species.stem is not None:
        axis = foot - top
        bend = rng.uniform(-0.08, 0.08) if len(species.florets) == 1 else 0.0
        canvas.petal(top, axis, axis * 1j, line(0.04, axis), colours, bend)
    for place, _ in species.florets if len(species.florets) > 1 else ():
        joint = heart + 1j * radius * min(species.stem, place.imag + 0.2)
        axis = heart + radius * place - joint
        canvas.petal(joint, axis, axis * 1j, line(0.025, axis), colours)


def line(half_width, axis):
    """Return the shape of a thin stroke along `axis`."""
    return Whorl(1, half_width / (abs(axis) + 0.01), belly=0.01, taper=0.01, veins=0.0)


def paint_whorl(canvas, rng, whorl, heart, pose, start, colours):
    """Paint one whorl's petals around `heart`; `pose` maps the flower to the frame."""
    turn = 360 / whorl.petals if whorl.turn is None else whorl.turn
    angles = np.array(whorl.angles or np.arange(whorl.petals) * turn)
    lengths = whorl.length * np.linspace(1, whorl.shrink, whorl.petals)
    jitter = rng.normal(0, 1, (whorl.petals, 4)).clip(-2, 2)
    sway = min(3.5, 40 / whorl.petals)
    for angle, length, petal in zip(angles, lengths, jitter.tolist(), strict=True):
        direction = np.exp(1j * (start + np.deg2rad(angle + sway * petal[0])))
        axis = direction * (length * (1 + 0.04 * petal[1]) - whorl.foot)
        canvas.petal(heart + pose(direction * whorl.foot, whorl.lift), pose(axis, whorl.lift),
                     pose(axis * 1j, whorl.lift), whorl, colours,
                     bend=float(whorl.curl * direction.real) + 0.04 * petal[2],
                     phase=2 * petal[3], tone=1 + 0.04 * petal[3])  # fmt: skip


def paint_centre(canvas, rng, species, heart, pose):
    """Paint the discs and dots at the heart of a flower."""
    for radius, colours in species.discs:
        axis, side = pose(2 * radius * canvas.light, 0.3), pose(2j * radius * canvas.light, 0.3)
        canvas.petal(heart - axis / 2, axis, side, DOME, gradient(colours))
    for dots in species.dots:
        radii = np.sqrt(np.linspace(dots.inner**2, dots.outer**2, dots.count))
        radii = radii + rng.normal(0, 0.012, dots.count)
        turn = GOLDEN_ANGLE if dots.count > 8 else 360 / dots.count
        angles = np.deg2rad(turn) * np.arange(dots.count) + rng.uniform(0, 6)
        tips = pose(radii * np.exp(1j * angles), 0.2)
        for tip in tips if dots.threads else ():
            canvas.petal(heart, tip, tip * 1j, line(0.016, tip), gradient(dots.threads))
        size, colour = dots.radius * abs(pose(1, 1)), gradient(dots.colour)[:, 0]
        canvas.dots(heart + tips - 0.6 * size * canvas.light, size, colour * 0.4)
        canvas.dots(heart + tips, size, colour)


def paint_flower(rng, species, size):
    """Paint one image (size, size, 3) of 0 to 255; the scene depends on `rng`, not on the size."""
    canvas = Canvas(size, np.exp(1j * rng.normal(2.1, 0.35)))
    heart = complex(*rng.uniform(-0.12, 0.12, 2))
    radius, squash = rng.uniform(0.74, 0.94), rng.uniform(species.squash, 1)
    facing = np.exp(1j * rng.normal(np.pi / 2, 0.2))
    start = rng.normal(0, 0.1) if species.upright else rng.uniform(0, 2 * np.pi)
    colours = gradient(rng.choice(species.palettes)) * rng.normal(1, 0.04, (3, 1))
    colours = fraction(colours).astype("f4")

    def pose(point, lift, scale=radius):
        tilted = point * facing.conjugate()  # leaning back along `facing`, it looks flatter
        tilted = tilted.real * (squash + lift * (1 - squash)) + 1j * tilted.imag
        return scale * tilted * facing

    ground = gradient(rng.choice(species.grounds))
    paint_ground(canvas, rng, ground)
    paint_leaves(canvas, rng, species, heart, radius)
    canvas.dots(np.array([heart]), radius, ground[:, 0] * 0.6, opacity=0.4)
    for place, share in species.florets:
        smaller = partial(pose, scale=radius * share)
        for index, whorl in enumerate(species.whorls):
            turned = start if whorl.angles else start + index * np.pi / whorl.petals
            own = gradient(whorl.colours) if whorl.colours else colours
            paint_whorl(canvas, rng, whorl, heart + radius * place, smaller, turned, own)
        paint_centre(canvas, rng, species, heart + radius * place, smaller)
    return fraction(canvas.pixels).transpose(1, 2, 0) * 255


def paint_flowers(
    count: int,
    image_size: int = 64,
    seed: int = 0,
    progress: bool = False,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Paint a balanced data set of flowers, every image different.

    Image i depends on `seed` and i alone: a larger `count` only adds images, and another
    `image_size` shows the same flowers smaller or larger. Each block of 16 images holds every
    species once, in an order of its own.

    Args:
        count: how many images, at least 1.
        image_size: height and width in pixels, 16 to 128.
        seed: a whole number, at least 0.
        progress: show a progress bar.
        out: the array to paint into, for example one mapped to a file; default a new one.

    Returns images, uint8 (count, image_size, image_size, 3), and labels, int64 (count,), which
    index into `SPECIES`. Raises ValueError if count, image_size or seed is out of range.
    """
    count = whole_number("count", count, least=1)
    seed = whole_number("seed", seed, least=0)
    if not SMALLEST <= image_size <= LARGEST:
        raise ValueError(f"image_size must be {SMALLEST} to {LARGEST} pixels, got {image_size}")
    images = np.empty((count, image_size, image_size, 3), np.uint8) if out is None else out
    labels = np.empty(count, np.int64)
    factor = -(-PAINTED_AT // image_size)
    for index in tqdm(range(count), desc="painting flowers", disable=not progress):
        block, place = divmod(index, len(SPECIES))
        # the third number makes these draws independent of those for the images
        order = np.random.default_rng([seed, block, 1]).permutation(len(SPECIES))
        labels[index] = order[place]
        picture = paint_flower(
            np.random.default_rng([seed, index]), FLOWERS[order[place]], image_size * factor
        )
        pixels = picture.reshape(image_size, factor, image_size, factor, 3).mean((1, 3))
        images[index] = np.round(pixels)
    return images, labels
