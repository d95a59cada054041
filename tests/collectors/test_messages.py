"""Messages in one buffer are the sequence of them."""

import pytest

from collectors.serialisation.messages import Messages

LISTS = ([], [b""], [b"one"], [b"one", b"", b"three", b"\0\1"])


@pytest.mark.parametrize("listed", LISTS)
def test_they_are_the_sequence_of_them(listed):
    messages = Messages.of(listed)
    assert len(messages) == len(listed)
    assert list(messages) == listed
    assert messages == listed
    assert messages == Messages.of(iter(listed))
    assert [messages[i] for i in range(len(listed))] == listed
    assert [messages[i - len(listed)] for i in range(len(listed))] == listed
    assert messages[1:3] == listed[1:3]
    assert eval(repr(messages)) == messages


def test_others_are_not_equal():
    messages = Messages.of([b"ab", b"c"])
    assert messages != [b"a", b"bc"]
    assert messages != Messages.of([b"a", b"bc"])
    assert messages != 5
    with pytest.raises(IndexError):
        messages[2]
    with pytest.raises(TypeError, match="unhashable"):
        hash(messages)
