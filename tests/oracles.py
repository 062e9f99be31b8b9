"""Slow and readable definitions to compare the code with, written from the papers' formulas.

Plain Python loops; nothing here is imported from uepp.
"""

import itertools
import math
import unicodedata
from collections.abc import Sequence

import numpy as np

Floats = np.ndarray


# Text (UEPPR III-B-1)


def words(text: str) -> list[str]:
    """Case-folded, compatibility-normalised words without Latin accents."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = unicodedata.normalize("NFKD", text).casefold()
    text = unicodedata.normalize("NFKC", "".join(c for c in text if not 0x0300 <= ord(c) <= 0x036F))
    return "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in text).split()


def text_tokens(text: str, *, max_words: int = 100) -> list[str]:
    """Unigrams, then bigrams, then character trigrams of `#word#`."""
    kept = words(text)[:max_words]
    bigrams = [f"{left} {right}" for left, right in itertools.pairwise(kept)]
    trigrams = []
    for word in kept:
        marked = f"#{word}#"
        trigrams += ["~" + marked[begin : begin + 3] for begin in range(len(marked) - 2)]
    return kept + bigrams + trigrams


def category_tokens(category: str) -> list[str]:
    """#category_a, #category_a.b, … for the first eight levels."""
    levels = ["_".join(words(level)) for level in category.split(">")]
    levels = [level for level in levels if level][:8]
    return ["#category_" + ".".join(levels[: depth + 1]) for depth in range(len(levels))]


def attribute_tokens(attributes: str) -> list[str]:
    """For each `key: value` line #attr_key_value and the n-grams of the value."""
    tokens = []
    for line in attributes.split("\n"):
        key, colon, value = line.partition(":")
        if colon:
            tokens.append(f"#attr_{'_'.join(words(key))}_{'_'.join(words(value))}")
            tokens += text_tokens(value)
    return tokens


# Token encoder (UEPPR Eq. 2)


def bag_average(table: Floats, bags: Sequence[Sequence[int]]) -> Floats:
    """avg(F) = 1 / N_t(F) · Σ_t E[t]; zeros for a bag without tokens."""
    result = np.zeros((len(bags), table.shape[1]))
    for row, bag in enumerate(bags):
        for token in bag:
            for column in range(table.shape[1]):
                result[row, column] += table[token, column] / len(bag)
    return result


def bag_average_gradient(table: Floats, bags: Sequence[Sequence[int]], upstream: Floats) -> Floats:
    """∂ Σ upstream · avg / ∂E: every occurrence of token t in bag F adds upstream(F) / N_t(F) to row t."""
    gradient = np.zeros(table.shape)
    for row, bag in enumerate(bags):
        for token in bag:
            gradient[token] += upstream[row] / len(bag)
    return gradient


def unit(vector: Floats) -> Floats:
    """The vector at length 1; a zero vector stays zero."""
    length = math.sqrt(sum(float(number) ** 2 for number in vector))
    return np.array([float(number) / length if length else 0.0 for number in vector])


def token_representation(table: Floats, groups: Sequence[Sequence[Sequence[int]]], *, normalize: bool) -> Floats:
    """token_rep(p) = concat([avg(F¹); avg(F²); …]); `groups[g][r]` are the tokens of row r in group g."""
    averages = [bag_average(table, bags) for bags in groups]
    if normalize:
        averages = [np.stack([unit(row) for row in average]) for average in averages]
    return np.stack([np.concatenate([average[row] for average in averages]) for row in range(len(groups[0]))])


# Multi-part hinge (UEPPR III-E)


def positive_hinge(similarity: Floats, type_ids: Sequence[int], thresholds: Sequence[float], power: int) -> Floats:
    """Σᵢ 1[ŷ = i] · (−min(0, y − εᵢ)), raised to `power`."""
    losses = []
    for y, label in zip(similarity, type_ids, strict=True):
        loss = 0.0
        for i, threshold in enumerate(thresholds):
            if label == i:
                loss += (-min(0.0, float(y) - threshold)) ** power
        losses.append(loss)
    return np.array(losses)


def negative_hinge(similarity: Floats, is_negative: np.ndarray, threshold: float, power: int) -> Floats:
    """Σ over a query's negatives of max(0, y − ε), raised to `power`."""
    losses = []
    for row, mask in zip(similarity, is_negative, strict=True):
        losses.append(
            sum(max(0.0, float(y) - threshold) ** power for y, is_one in zip(row, mask, strict=True) if is_one)
        )
    return np.array(losses)


# Which candidates are negatives (UEPPR III-D)


def known_positive_mask(
    query_rows: Sequence[int | None],
    own_products: Sequence[int],
    candidates: Sequence[int],
    answers: dict[int, set[int]],
) -> np.ndarray:
    """[B, C]: candidate c is, by id, query b's own positive or a product that answered the query before.

    Args:
        query_rows: of each batch row; None for a query that is no training query.
        own_products: the positive of each batch row.
        candidates: product of each column.
        answers: products known to answer each training query.
    """
    mask = np.zeros((len(own_products), len(candidates)), bool)
    for row, (query, own) in enumerate(zip(query_rows, own_products, strict=True)):
        for column, candidate in enumerate(candidates):
            mask[row, column] = candidate == own or (query is not None and candidate in answers[query])
    return mask


def known_positives(candidates: Sequence[int], known: Sequence[Sequence[int]]) -> np.ndarray:
    """[B, C]: candidate c is one of the products `known[b]` that answer query b."""
    return np.array([[candidate in answers for candidate in candidates] for answers in known], bool).reshape(
        len(known), len(candidates)
    )


def highest(score: Floats, is_negative: np.ndarray, number: int) -> np.ndarray:
    """[B, C]: the `number` negatives of each row with the highest score; of equal ones the first columns."""
    chosen = np.zeros(is_negative.shape, bool)
    for row in range(len(score)):
        columns = [column for column in range(score.shape[1]) if is_negative[row, column]]
        for column in sorted(columns, key=lambda column: (-score[row, column], column))[:number]:
            chosen[row, column] = True
    return chosen


def hardest_of_pool(
    queries: Floats, embeddings: dict[int, Floats], known: Sequence[Sequence[int]], number: int
) -> list[list[int]]:
    """For each query the `number` most similar products it does not know; of equal ones the lower ids."""
    chosen = []
    for query, answers in zip(queries, known, strict=True):
        similarity = {product: float(query @ embedding) for product, embedding in embeddings.items()}
        allowed = [product for product in embeddings if product not in answers]
        chosen.append(sorted(allowed, key=lambda product: (-similarity[product], product))[:number])
    return chosen


# False negatives (BHNS 3.1, 3.2)


def false_negative_estimate(query_similarity: Floats, relevance: Floats) -> Floats:
    """θᵢⱼ = 1/Tⱼ · Σₜ rₜⱼ · sim(qᵢ, qₜ) over the Tⱼ queries with rₜⱼ > 0; 0 without one; clamped to [0, 1]."""
    theta = np.zeros((len(query_similarity), relevance.shape[1]))
    for i in range(theta.shape[0]):
        for j in range(theta.shape[1]):
            related = [t for t in range(len(relevance)) if relevance[t, j] > 0]
            if related:
                mean = sum(relevance[t, j] * query_similarity[i, t] for t in related) / len(related)
                theta[i, j] = min(max(mean, 0.0), 1.0)
    return theta


def regularized_similarity(similarity: Floats, theta: Floats, temperature: float) -> Floats:
    """(1 − θ)^τ · sim, both factors at least 0."""
    result = np.zeros(similarity.shape)
    for place in np.ndindex(*similarity.shape):
        result[place] = max(1.0 - float(theta[place]), 0.0) ** temperature * max(float(similarity[place]), 0.0)
    return result


# Schedules (UEPPR III-D)


def linear_weight(step: int, start: float, end: float, warmup_steps: int, ramp_steps: int) -> float:
    """`start` for the warm-up, a line to `end` over the ramp, then `end`."""
    if step < warmup_steps:
        return start
    if step >= warmup_steps + ramp_steps:
        return end
    return start + (end - start) * (step - warmup_steps) / ramp_steps


# Sampled softmax (Yi et al. 2019)


def sampled_softmax(
    similarity: Floats,
    positive_column: Sequence[int],
    is_negative: np.ndarray,
    log_expected_count: Floats,
    weight: Floats,
    temperature: float,
) -> Floats:
    """−log(exp sᶜ₊ / (exp sᶜ₊ + Σ_negatives w · exp sᶜ)), sᶜ = s / τ − log Q."""
    losses = []
    for row, positive in enumerate(positive_column):
        corrected = [
            float(similarity[row, column]) / temperature - float(log_expected_count[column])
            for column in range(similarity.shape[1])
        ]
        shift = max(corrected)
        total = math.exp(corrected[positive] - shift)
        for column in range(similarity.shape[1]):
            if column != positive and is_negative[row, column]:
                total += float(weight[column]) * math.exp(corrected[column] - shift)
        losses.append(math.log(total) - (corrected[positive] - shift))
    return np.array(losses)


# Adagrad (Duchi et al. 2011)


def adagrad_rows(rows: Floats, accumulator: Floats, gradient: Floats, learning_rate: float) -> tuple[Floats, Floats]:
    """G ← G + g²; w ← w − η · g / √G, number by number."""
    rows, accumulator = rows.astype(float).copy(), accumulator.astype(float).copy()
    for place in np.ndindex(*rows.shape):
        accumulator[place] += gradient[place] ** 2
        if gradient[place]:
            rows[place] -= learning_rate * gradient[place] / math.sqrt(accumulator[place])
    return rows, accumulator


def learning_rate_share(step: int, warmup_steps: int, max_steps: int) -> float:
    """Share of the peak in step `step` (0 is the first): up a line for `warmup_steps`, then down a line to 0."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return (max_steps - step) / (max_steps - warmup_steps)
