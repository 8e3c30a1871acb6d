from composer.grounding import grounded
from experts_registry.passages import Passage
from experts_registry.types import Message, Prompt

PASSAGES = [Passage(id=f"p{i}", text=f"text {i} " * 20, title=f"title {i}") for i in range(3)]


def test_the_last_user_turn_begins_with_the_passages_and_ends_with_the_question():
    prompt = Prompt((Message("user", "hi"), Message("assistant", "yes?"), Message("user", "why?")))
    asked, kept = grounded(prompt, PASSAGES)
    assert asked.messages[:2] == prompt.messages[:2]
    turn = asked.messages[2].content
    assert turn.endswith("Question: why?")
    assert [turn.index(f"[{n}] title {n - 1}\ntext {n - 1}") for n in (1, 2, 3)] == sorted(
        turn.index(p.text.strip()) - len(f"[1] {p.title}\n") for p in PASSAGES
    )
    assert kept == tuple(PASSAGES)


def test_passages_without_room_are_left_out_from_the_last_on():
    room = len(grounded(Prompt.of("why?"), PASSAGES[:2])[0].query) // 4 + 1
    asked, kept = grounded(Prompt.of("why?"), PASSAGES, tokens=room)
    assert kept == tuple(PASSAGES[:2])
    assert asked == grounded(Prompt.of("why?"), PASSAGES[:2])[0]


def test_the_question_is_never_cut():
    prompt = Prompt.of("why? " * 1000)
    assert grounded(prompt, PASSAGES, tokens=10) == (prompt, ())


def test_a_turn_in_parts_gets_the_passages_as_its_first_part():
    parts = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {}}]
    asked, _ = grounded(Prompt.of([{"role": "user", "content": parts}]), PASSAGES)
    first, *rest = asked.messages[0].extra["content"]
    assert rest == parts
    assert first["text"] + "what is it?" == asked.messages[0].content
