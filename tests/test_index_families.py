"""Specs of indexes: read, written, refused, and what is filled in."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uepp.errors import InputError
from uepp.index_families import FAMILIES, IndexSpec, choose_family, faiss_defaults, parse_spec, resolve


@pytest.mark.parametrize(
    "text",
    ["flat", "auto", "hnsw:neighbors=16,ef_search=300", "ivf-pq-fastscan-rerank:nlist=64,residual=false,rerank=2.5"],
)
def test_a_spec_is_written_as_it_was_read(text: str) -> None:
    assert str(parse_spec(text)) == text


def test_order_and_spaces_do_not_matter() -> None:
    assert str(parse_spec("hnsw: ef_search = 300 ,neighbors=16")) == "hnsw:neighbors=16,ef_search=300"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("annoy", "unknown family; known are flat, hnsw, ivf-flat"),
        ("", "unknown family"),
        ("auto:nlist=4", "unknown family; .*auto, the last without parameters"),
        ("flat:nlist=4", "flat has no parameters, got nlist"),
        ("hnsw:neighbours=4", r"hnsw has no parameter neighbours; did you mean neighbors\?"),
        ("hnsw:neighbors", "expected hnsw:name=value,… and got 'neighbors'"),
        ("hnsw:", "expected hnsw:name=value"),
        ("hnsw:neighbors=1", "neighbors=1: must be a whole number from 2 to 512"),
        ("hnsw:neighbors=4.5", "neighbors=4.5: must be a whole number"),
        ("hnsw:neighbors=4,neighbors=5", "neighbors: given twice"),
        ("ivf-flat:nlist=nan", "nlist=nan: must be a whole number"),
        ("ivf-pq-fastscan:residual=yes", "residual=yes: must be true or false"),
        ("ivf-pq-fastscan-rerank:rerank=nan", "rerank=nan: must be a number from 1 to 1,000"),
        ("ivf-pq-fastscan-rerank:store=int8", "store=int8: must be fp16 or flat"),
    ],
)
def test_a_wrong_spec_says_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_spec(text)


@given(st.sampled_from(sorted(FAMILIES)), st.integers(16, 10**8), st.integers(2, 1_024))
def test_every_default_fits_the_data(family: str, num_products: int, dim: int) -> None:
    for spec in (resolve(IndexSpec(family, {}), num_products, dim), faiss_defaults(family, num_products, dim)):
        assert set(spec.values) == {parameter.name for parameter in FAMILIES[family].parameters}
        assert parse_spec(str(spec)) == spec
        assert resolve(spec, num_products, dim) == spec
        assert spec.values.get("nprobe", 1) <= spec.values.get("nlist", 1) <= num_products
        assert spec.values.get("subquantizers", 2) <= dim


@pytest.mark.parametrize(
    ("text", "num_products", "dim", "message"),
    [
        ("ivf-flat:nlist=101", 100, 8, "nlist=101: must be at most the 100 products"),
        ("ivf-flat:nlist=10,nprobe=11", 100, 8, "nprobe=11: must be at most nlist, 10"),
        ("ivf-pq-fastscan:subquantizers=9", 100, 8, "subquantizers=9: must be at most the 8 dimensions"),
        ("ivf-pq-fastscan", 15, 8, "needs at least 16 products, there are 15"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(text: str, num_products: int, dim: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(parse_spec(text), num_products, dim)


def test_auto_is_exact_for_few_products_and_reranked_codes_for_many() -> None:
    assert choose_family(50_000) == "flat"
    assert choose_family(50_001) == "ivf-pq-fastscan-rerank"


@given(st.integers(2, 1_024), st.sampled_from(["ivf-pq-fastscan", "ivf-pq-fastscan-rerank"]))
def test_no_part_of_a_code_holds_zeros_only(dim: int, family: str) -> None:
    """Half of 135 dimensions, rounded down, is 67 parts of 3 dimensions: 45 of them hold the vector."""
    parts = resolve(IndexSpec(family, {}), 10_000, dim).number("subquantizers")
    width = math.ceil(dim / parts)
    assert parts == max(2, math.ceil(dim / width))
    assert parts * width - dim < width


def test_stages_part_a_spec() -> None:
    spec = parse_spec("ivf-flat:nlist=8,nprobe=2")
    assert (str(spec.only("build")), str(spec.only("search"))) == ("ivf-flat:nlist=8", "ivf-flat:nprobe=2")
