"""θ, the estimate that an unlabelled pair is a false negative, from sparse labels (BHNS 3.1, 3.2).

`uepp.training.false_negatives` has the same two formulas inside the TensorFlow graph of the towers, with gradients and
a dense [Q, C] mask that is there anyway. Here pairs are sampled while data are loaded: labels are few and pools are
large, so θ of a query costs as much as there are labels and not Q · C, and nothing needs TensorFlow. A test holds the
two to each other.
"""

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def false_negative_estimate(query_similarity: Floats, relevance: scipy.sparse.csr_array) -> Floats:
    """Estimated probability that each product answers each query, although nobody said so.

    θᵢⱼ = 1/Tⱼ · Σₜ rₜⱼ · sim(qᵢ, qₜ) over the Tⱼ queries that are positively related to product j (BHNS Eq. 6):
    similar queries share answers. Cosines may be negative, so θ is clamped to [0, 1]. Where Tⱼ = 0 the equation is 0/0.
    No query leads to that product then, so nothing speaks against it: θ = 0, a negative as in Eq. 4.

    Args:
        query_similarity: float32 [B, Q], cosine of each query i and each query t.
        relevance: [Q, C], r in [0, 1]; Tⱼ counts r > 0 only, so that a stored 0 is the same as none.

    Returns:
        float32 [B, C] in [0, 1].
    """
    num_related = np.bincount(relevance.indices[relevance.data > 0], minlength=relevance.shape[1])
    total = np.asarray((relevance.T @ query_similarity.T).T, np.float32)
    return np.clip(total / np.maximum(num_related, 1).astype(np.float32), 0, 1)


def regularized_similarity(similarity: Floats, theta: Floats, temperature: float) -> Floats:
    """What the hardest negatives are chosen by, (1 − θ)^τ · sim (BHNS Eq. 7).

    Both factors are at least 0. With a negative cosine a large θ would make a pair *harder*, against what Eq. 7 is for.

    Args:
        similarity: float32 [B, C], cosine of each query and product.
        theta: float32 [B, C], θ.
        temperature: τ ≥ 0; the larger, the more θ counts.

    Returns:
        float32 [B, C], at least 0.
    """
    return np.maximum(1 - theta, 0) ** np.float32(temperature) * np.maximum(similarity, 0)
