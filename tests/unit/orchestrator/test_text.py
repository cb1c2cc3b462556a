from __future__ import annotations

from types import SimpleNamespace

import pytest

from orchestrator.tasks import view as task_view
from orchestrator.unicode import is_valid_unicode, replace_invalid_unicode


@pytest.mark.parametrize("text", ["\ud800", "a\udc00", "\x00", "x\udfff\x00"])
def test_replace_invalid_unicode_makes_invalid_text_valid_at_the_same_length(text: str):
    assert not is_valid_unicode(text)
    assert is_valid_unicode(replace_invalid_unicode(text))
    assert len(replace_invalid_unicode(text)) == len(text)


@pytest.mark.parametrize("text", ["", "plain", "tab\tline\n", "\U0001f426", "\ufffd\ue000"])
def test_replace_invalid_unicode_keeps_valid_text(text: str):
    assert is_valid_unicode(text)
    assert replace_invalid_unicode(text) == text


def test_detail_of_a_task_stored_with_a_lone_surrogate_is_readable():
    """Earlier versions accepted tasks with lone surrogates, so a database may contain them."""
    status = SimpleNamespace(
        workflow_id="t",
        input={"args": [{"goal": "a\ud800", "agents": ["lead"]}]},
        status="SUCCESS",
        output={"answer": "b\ud800"},
        executor_id="here",
        created_at=1,
        dequeued_at=2,
        completed_at=3,
        attributes=None,
    )
    view = task_view.detail(status, [], None)
    assert (view["goal"], view["answer"]) == ("a\ufffd", "b\ufffd")
