"""How far a mean over pictures can be trusted, and whether two models differ.

A test set is a sample. The standard error says by how much the mean would change with another one. Two models that are
measured on the same pictures are compared picture by picture: most of what makes a picture hard is common to both.
"""

import numpy as np

from support.checks import LabError


def standard_error(values, clusters=None):
    """The standard error of the mean of values (count,): by how much it would differ with other pictures.

    clusters: of each value what it belongs to, (count,), where values of one cluster are alike (forms of one letter):
        then clusters are the sample, not values (Liang and Zeger 1986).
    Raises LabError where there are fewer than two values or clusters, or not a cluster for each value.
    """
    values = np.asarray(values, dtype=float)
    groups = np.arange(len(values)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    if values.ndim != 1 or groups.shape != values.shape or groups.size == 0 or groups.max() == 0:
        raise LabError("A standard error is of two values or more, (count,), or of two clusters, one named for each.")
    count = groups.max() + 1
    sums = np.bincount(groups, values - values.mean())  # of each cluster
    return float(np.sqrt(count / (count - 1) * (sums**2).sum()) / len(values))


def difference(first, second, clusters=None):
    """By how much the mean of first exceeds that of second, measured on the same pictures, and its standard error."""
    apart = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    return float(apart.mean()), standard_error(apart, clusters)
