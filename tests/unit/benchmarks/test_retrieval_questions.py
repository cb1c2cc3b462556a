"""The questions of the benchmark `retrieval`."""

from __future__ import annotations

from benchmarks.knowledge.retrieval import read_questions


def test_every_question_of_the_retrieval_benchmark_has_its_answer_in_the_documentation():
    """Answers had been reworded in the documentation, and the benchmark ended after minutes of work."""
    counts = {name: len(questions) for name, questions in read_questions().items()}
    assert counts == {"chosen_on": 30, "held_out": 20}
