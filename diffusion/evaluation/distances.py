"""How far apart two sets of features, or of pictures, are: plain functions in NumPy, in float64.

Features are rows, one for each picture, as an encoder gives them (`diffusion.evaluation.encoder`).
"""

import numpy as np
from scipy.spatial.distance import cdist


def kernel_distance(real, generated, groups=10):
    """Estimate the squared maximum mean discrepancy (MMD^2) of two sets of features, without bias.

    real, generated: (M, D) and (N, D), 2 rows or more each. In float64, with the kernel
    (x.y / D + 1)^3. groups: how many random parts, left out in turn, give the standard error
    (delete-a-group jackknife; NaN where that leaves fewer than 2 rows).

    Returns (estimate, standard_error). The estimate may be negative: its mean over all samples of
    one distribution is 0. Binkowski et al. 2018 (arXiv:1801.01401), eq. 4.
    Raises ValueError for fewer rows, or features of different lengths.
    """
    real, generated = _checked(real, generated, "KID")
    groups = min(groups, len(real), len(generated))
    rng = np.random.default_rng(0)  # pictures lie by species: a part must not be one of them
    real, generated = (np.array_split(rng.permutation(rows), groups) for rows in (real, generated))
    within_real, within_generated = _kernel_sums(real, real), _kernel_sums(generated, generated)
    between = _kernel_sums(real, generated)

    def estimate(parts):
        count, other = (sum(len(rows[part]) for part in parts) for rows in (real, generated))
        if min(count, other) < 2:
            return np.nan
        pairs = np.ix_(parts, parts)
        return (
            within_real[pairs].sum() / (count * (count - 1))
            + within_generated[pairs].sum() / (other * (other - 1))
            - 2 * between[pairs].sum() / (count * other)
        )

    parts = list(range(groups))
    without = [estimate([part for part in parts if part != left_out]) for left_out in parts]
    return float(estimate(parts)), float(np.sqrt((groups - 1) * np.var(without)))


def _kernel_sums(a, b):
    """Sum the kernel over each pair of parts; of a part with itself, over pairs of two rows."""
    sums = np.zeros((len(a), len(b)))
    for row, rows in enumerate(a):
        for column, others in enumerate(b):
            kernel = (rows @ others.T / rows.shape[1] + 1) ** 3
            sums[row, column] = kernel.sum() - (np.trace(kernel) if rows is others else 0)
    return sums


def frechet_distance(real, generated):
    """Return the Frechet distance of the Gaussians that fit two sets of features best.

    real, generated: (M, D) and (N, D), 2 rows or more each; covariances have M - 1 and N - 1 below.
    Biased: small samples look too far apart, by about 1 / M + 1 / N times a number that the
    distribution decides, so that only distances from as many pictures can be compared.
    Heusel et al. 2017 (arXiv:1706.08500), eq. 6. Raises ValueError as `kernel_distance` does.
    """
    real, generated = _checked(real, generated, "FID")
    return gaussian_distance(*_moments(real), *_moments(generated))


def gaussian_distance(mean, covariance, other_mean, other_covariance):
    """Return |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), in float64; means (D,), covariances (D, D).

    The trace of the root is the sum of the singular values of C^(1/2) C'^(1/2). Each root comes
    from eigenvalues, those below 0 by rounding set to 0: so a covariance of fewer pictures than
    features, which has no inverse and for which a general matrix root may fail, is no exception.
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


def precision_and_recall(real, generated, neighbours=3):
    """Return which shares of two sets of features (M, D) and (N, D) lie within each other's reach.

    A set's reach is balls around its rows, each as far as its `neighbours`-th nearest other row.
    Precision is the share of generated rows within the real ones' reach: how many are right.
    Recall is the share of real rows within the generated ones': how much of what is real is drawn.
    Kynkaanniemi et al. 2019 (arXiv:1904.06991), eq. 1 and 2.
    Raises ValueError unless each side has more rows than `neighbours`.
    """
    real, generated = _checked(real, generated, "precision and recall")
    if not 1 <= neighbours < min(len(real), len(generated)):
        raise ValueError(
            f"neighbours must be 1 or more, and fewer than the pictures of each side "
            f"({len(real)} and {len(generated)}), got {neighbours}"
        )
    return _share_within(real, generated, neighbours), _share_within(generated, real, neighbours)


def _share_within(centres, rows, neighbours):
    between = cdist(centres, centres)
    # Each row is its own nearest, at 0, and so the first of the sorted.
    radii = np.partition(between, neighbours, axis=1)[:, neighbours]
    return float((cdist(rows, centres) <= radii).any(axis=1).mean())


def nearest(queries, references, block=1000):
    """Find for each of `queries` the nearest of `references`, by Euclidean distance.

    Both: features (N, D), or pictures (N, S, S, 3), uint8 or float in [0, 1]; of pictures, pixels
    in [0, 1] are compared. References are read `block` at a time: they need not fit into memory.
    Returns (rows of the nearest, distances), each (N,).
    Raises ValueError if they differ in shape, or there are no references.
    """
    if queries.shape[1:] != references.shape[1:] or not len(references):
        raise ValueError(
            f"cannot look for {queries.shape[1:]} among {len(references)} of "
            f"{references.shape[1:]}: give both one shape, and one reference or more"
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


def memorisation(generated, training, withheld):
    """Compare how near generated and withheld pictures come to those that a model learnt from.

    All three: as for `nearest`. Returns (rows, ratios), each (N,): the training picture nearest to
    each generated one, and the distance to it, by the median distance of a withheld real picture
    to its own nearest. About 1: as new as a real picture; near 0: a copy.
    """
    rows, distances = nearest(generated, training)
    return rows, distances / np.median(nearest(withheld, training)[1])


def _flat(rows):
    scale = 255 if rows.dtype == np.uint8 else 1
    return np.asarray(rows, "float64").reshape(len(rows), -1) / scale


def _checked(real, generated, name):
    real, generated = np.asarray(real, "float64"), np.asarray(generated, "float64")
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"{name} compares features (M, D) with (N, D), got {real.shape} and {generated.shape}"
        )
    if min(len(real), len(generated)) < 2:
        raise ValueError(
            f"{name} needs 2 pictures or more on each side, got {len(real)} and {len(generated)}"
        )
    return real, generated
