"""What is asked of a language model: one record for every protocol, bounded before it travels.

The surface turns its protocol into a `TextRequest`; gateway, upstream worker and runtime read the
same JSON. Texts stay texts: only the runtime knows the tokens of its model.
"""

from __future__ import annotations

from enum import StrEnum

from modelkeep.core.record import Record, from_json, to_json

# Past these no model that we know makes sense of a call; bytes are bounded by the body anyway.
MESSAGES_MAX = 4096
PROMPTS_MAX = 256
STOPS_MAX = 16
STOP_CHARS_MAX = 256
CHOICES_MAX = 16
# The longest context that is sold today, ten times over.
TOKENS_MAX = 10_000_000


class TextKind(StrEnum):
    """What is wanted."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"


class Message(Record, frozen=True):
    """One turn of a conversation.

    Attributes:
        role: `system`, `user` or `assistant`.
    """

    role: str
    content: str


class TextRequest(Record, frozen=True):
    """One call of a language model.

    Attributes:
        messages: of a chat; empty otherwise.
        prompts: of a completion or an embedding, each answered by itself.
        max_tokens: of each choice; 0 for as many as the model's context has room for.
        temperature: 0 takes the likeliest token each time.
        top_p: tokens are drawn from the likeliest that have this probability together.
        top_k: tokens are drawn from the likeliest k; 0 for all.
        stop: texts that end a choice; none of them is part of the answer.
        seed: makes the drawing repeatable as far as the runtime can; None for none.
        choices: answers to each prompt.
        presence_penalty: as OpenAI's protocol has it, -2 to 2.
        frequency_penalty: the same.
    """

    kind: TextKind
    messages: tuple[Message, ...] = ()
    prompts: tuple[str, ...] = ()
    max_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    choices: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    @property
    def answers(self) -> int:
        """How many texts or vectors answer it; they are numbered prompt by prompt."""
        return max(len(self.prompts), 1) * self.choices


def encoded_request(request: TextRequest) -> bytes:
    """The form in which it travels to a replica."""
    return to_json(request)


def decoded_request(raw: bytes | memoryview) -> TextRequest:
    """Read what a gateway sent.

    Raises:
        IntegrityError: `record.json`.
    """
    return from_json(TextRequest, raw, what="a text call")
