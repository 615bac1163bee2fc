"""Distances between two sets of features or images: plain NumPy functions in float64.

Features are rows, one per image, as an encoder returns them (`diffusion.evaluation.encoder`).
"""

import numpy as np
from scipy.spatial.distance import cdist


def kernel_distance(
    real: np.ndarray, generated: np.ndarray, groups: int = 10
) -> tuple[float, float]:
    """Estimate the squared maximum mean discrepancy (MMD^2) of two sets of features, without bias.

    real, generated: (M, D) and (N, D), at least 2 rows each. The kernel is (x.y / D + 1)^3.
    groups: number of random groups, left out in turn, that give the standard error (delete-a-group
        jackknife; NaN where that leaves fewer than 2 rows).

    Returns (estimate, standard_error). The estimate may be negative: between samples of one
    distribution its expectation is 0. Binkowski et al. 2018 (arXiv:1801.01401), eq. 4.
    Raises ValueError for fewer rows, or features of different lengths.
    """
    real, generated = _validated(real, generated, "KID")
    groups = min(groups, len(real), len(generated))
    rng = np.random.default_rng(0)  # images are sorted by species: a group must not be one of them
    a, b = (np.array_split(rng.permutation(rows), groups) for rows in (real, generated))
    within_a, within_b, between = _kernel_sums(a, a), _kernel_sums(b, b), _kernel_sums(a, b)

    def estimate(parts):
        count, other = (sum(len(rows[part]) for part in parts) for rows in (a, b))
        if min(count, other) < 2:
            return np.nan
        pairs = np.ix_(parts, parts)
        return (
            within_a[pairs].sum() / (count * (count - 1))
            + within_b[pairs].sum() / (other * (other - 1))
            - 2 * between[pairs].sum() / (count * other)
        )

    parts = list(range(groups))
    without = [estimate([part for part in parts if part != left_out]) for left_out in parts]
    return float(estimate(parts)), float(np.sqrt((groups - 1) * np.var(without)))


def _kernel_sums(a, b):
    """Sum the kernel over each pair of groups; a group with itself, over pairs of distinct rows."""
    sums = np.zeros((len(a), len(b)))
    for row, rows in enumerate(a):
        for column, others in enumerate(b):
            kernel = (rows @ others.T / rows.shape[1] + 1) ** 3
            sums[row, column] = kernel.sum() - (np.trace(kernel) if rows is others else 0)
    return sums


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Return the Frechet distance between the Gaussians fitted to two sets of features.

    real, generated: (M, D) and (N, D), at least 2 rows each; the covariances divide by M - 1 and
    N - 1. The estimate is biased upwards, by about 1 / M + 1 / N times a constant of the
    distribution: compare only distances from equally many images.
    Heusel et al. 2017 (arXiv:1706.08500), eq. 6. Raises ValueError as `kernel_distance` does.
    """
    real, generated = _validated(real, generated, "FID")
    return gaussian_distance(*_moments(real), *_moments(generated))


def gaussian_distance(
    mean: np.ndarray,
    covariance: np.ndarray,
    other_mean: np.ndarray,
    other_covariance: np.ndarray,
) -> float:
    """Return |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), in float64; means (D,), covariances (D, D).

    The trace of the root is the sum of the singular values of C^(1/2) C'^(1/2). Each root comes
    from eigenvalues, with those below 0 by rounding set to 0. This also holds with fewer images
    than features, where a covariance is singular and a general matrix root may fail.
    """
    shift = np.asarray(mean, "float64") - np.asarray(other_mean, "float64")
    roots = _root(covariance) @ _root(other_covariance)
    overlap = np.linalg.svd(roots, compute_uv=False).sum()
    distance = shift @ shift + np.trace(covariance) + np.trace(other_covariance) - 2 * overlap
    return float(max(distance, 0.0))


def _root(covariance):
    values, vectors = np.linalg.eigh(np.float64(covariance))
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _moments(features):
    return features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))


def precision_and_recall(
    real: np.ndarray, generated: np.ndarray, neighbours: int = 3
) -> tuple[float, float]:
    """Return (precision, recall) of generated features (N, D) against real ones (M, D).

    A set covers the balls around its rows that reach to each row's `neighbours`-th nearest other
    row. Precision is the share of generated rows that the real ones cover: how many look real.
    Recall is the share of real rows that the generated ones cover: how much variety they have.
    Kynkaanniemi et al. 2019 (arXiv:1904.06991), eq. 1 and 2.
    Raises ValueError unless each set has more rows than `neighbours`.
    """
    real, generated = _validated(real, generated, "precision and recall")
    if not 1 <= neighbours < min(len(real), len(generated)):
        raise ValueError(
            f"neighbours must be at least 1 and below the number of images in each set "
            f"({len(real)} and {len(generated)}), got {neighbours}"
        )
    return _share_within(real, generated, neighbours), _share_within(generated, real, neighbours)


def _share_within(centres, rows, neighbours):
    between = cdist(centres, centres)
    # Each row is its own nearest, at distance 0, and so comes first.
    radii = np.partition(between, neighbours, axis=1)[:, neighbours]
    return float((cdist(rows, centres) <= radii).any(axis=1).mean())


def nearest(
    queries: np.ndarray, references: np.ndarray, block: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest of `references` to each of `queries`, by Euclidean distance.

    Both are features (N, D) or images (N, S, S, 3), uint8 or float in [0, 1]; images are compared
    by pixels in [0, 1]. References are read `block` at a time, so they need not fit into memory.
    Returns (indices into references, distances), each (N,).
    Raises ValueError where the shapes differ, or there are no references.
    """
    if queries.shape[1:] != references.shape[1:] or not len(references):
        raise ValueError(
            f"cannot compare {queries.shape[1:]} with {len(references)} of {references.shape[1:]}: "
            "give both the same shape, and at least one reference"
        )
    queries = _flat(queries)
    best, rows = np.full(len(queries), np.inf), np.zeros(len(queries), dtype=int)
    for start in range(0, len(references), block):
        others = _flat(references[start : start + block])
        # |q - r|^2 less |q|^2, which is the same for all r
        squares = (others**2).sum(axis=1) - 2 * queries @ others.T
        nearer = squares.min(axis=1) < best
        rows[nearer] = start + squares.argmin(axis=1)[nearer]
        best = np.minimum(best, squares.min(axis=1))
    return rows, np.linalg.norm(queries - _flat(references[rows]), axis=1)


def memorisation(
    generated: np.ndarray, training: np.ndarray, withheld: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compare how close generated and held-out images come to the training images.

    All three: as for `nearest`. Returns (indices, ratios), each (N,): the training image nearest to
    each generated one, and its distance divided by the median distance from a held-out image to its
    own nearest. A ratio of about 1 means as new as a real image; near 0, a copy.
    """
    rows, distances = nearest(generated, training)
    return rows, distances / np.median(nearest(withheld, training)[1])


def _flat(rows):
    scale = 255 if rows.dtype == np.uint8 else 1
    return np.asarray(rows, "float64").reshape(len(rows), -1) / scale


def _validated(real, generated, name):
    real, generated = np.asarray(real, "float64"), np.asarray(generated, "float64")
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"{name} compares features (M, D) with (N, D), got {real.shape} and {generated.shape}"
        )
    if min(len(real), len(generated)) < 2:
        raise ValueError(
            f"{name} needs at least 2 images in each set, got {len(real)} and {len(generated)}"
        )
    return real, generated
