"""The vectors of many texts, and the answers that hold them."""

from __future__ import annotations

import json
import math

import pytest

from mlx_server import protocol
from mlx_server.gateway.dialects.embeddings import MAX_NUMBERS, Embeddings, check_size
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.json_text import json_bytes

ROWS = [[3.0, 4.0, 0.0], [0.0, 1.0, 2.0], [0.5, 0.25, 0.125]]
EMBEDDINGS = Embeddings((protocol.pack_vectors(ROWS[:2]), protocol.pack_vectors(ROWS[2:])), 3, 7, 0.0)


def test_embedding_rows_packed_in_several_blocks_are_returned_in_order():
    assert list(EMBEDDINGS.rows()) == ROWS
    assert json.loads(json_bytes({"rows": EMBEDDINGS.json_rows()})) == {"rows": ROWS}


def test_embedding_rows_reduced_to_fewer_dimensions_are_normalized_again():
    first, *_ = EMBEDDINGS.rows(2)
    assert first == [0.6, 0.8]
    assert all(math.hypot(*row) == pytest.approx(1) for row in EMBEDDINGS.rows(2))


def test_embedding_rows_of_more_dimensions_than_the_model_has_are_refused():
    with pytest.raises(BadRequest, match="have 3, not 4"):
        list(EMBEDDINGS.rows(4))
    assert list(Embeddings((), 0, 0, 0.0).rows(4)) == []


async def test_large_embedding_response_written_in_a_thread_has_the_same_form_as_a_small_one():
    large = Embeddings(EMBEDDINGS.blocks * 2000, 3, 7, 0.0)
    for embeddings, times in ((EMBEDDINGS, 1), (large, 2000)):
        response = await embeddings.response(lambda made=embeddings: {"rows": made.json_rows()})  # type: ignore[misc]
        assert json.loads(bytes(response.body)) == {"rows": ROWS * times}
        assert response.headers["content-type"] == "application/json"


async def test_too_many_embedding_dimensions_are_refused_also_in_a_large_response_written_in_a_thread():
    large = Embeddings(EMBEDDINGS.blocks * 2000, 3, 7, 0.0)
    with pytest.raises(BadRequest):
        await large.response(lambda: {"rows": large.json_rows(4)})


def test_embeddings_too_large_for_one_response_are_refused_with_the_number_of_texts_that_would_fit():
    check_size(MAX_NUMBERS // 384, 384)
    with pytest.raises(BadRequest, match="10922 at most"):
        check_size(MAX_NUMBERS // 384 + 1, 384)
