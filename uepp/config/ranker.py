"""The final ranker."""

from pydantic import Field

from uepp.config.base import Stage


class RankerConfig(Stage):
    """LambdaMART over the first products that were found (BHNS 4.3)."""

    # Upper bounds are LightGBM's own.
    top: int = Field(50, ge=2, le=10_000, description="products of a list that are ranked again")
    learning_rate: float = Field(0.05, gt=0, le=1)
    num_leaves: int = Field(15, ge=2, le=131_072, description="of a tree, at most")
    min_products_in_leaf: int = Field(50, ge=1, description="products of the training lists in each leaf, at least")
    l2: float = Field(5.0, ge=0, description="L2 regularisation of the leaves")
    max_trees: int = Field(600, ge=1)
    patience: int = Field(50, ge=1, description="trees without a better NDCG@10 on held-out queries, then it stops")
    threads: int = Field(1, ge=1, description="of training; the model does not depend on it")
