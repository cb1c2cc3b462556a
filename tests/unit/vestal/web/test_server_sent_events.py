from __future__ import annotations

from vestal.web.server_sent_events import frame


def test_server_sent_event_has_its_id_and_type_before_its_data_and_ends_with_an_empty_line():
    assert frame(b"{}") == b"data: {}\n\n"
    assert frame(b"{}", "task") == b"event: task\ndata: {}\n\n"
    assert frame(b"{}", "journal", 7) == b"id: 7\nevent: journal\ndata: {}\n\n"
