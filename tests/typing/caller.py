"""A caller's program, as a user would write it; it is type-checked and never run."""

from pathlib import Path
from typing import assert_type

import numpy as np

from modelkeep import Client, LimitError, UnavailableError


def predicted(rows: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> list[int]:
    with Client(server="https://localhost:8443", api_key="mk_…", ca=Path("ca.pem")) as client:
        assert_type(client.is_ready(), bool)
        model = client.load_model("digits:2")
        answer = model.predict(rows)
        by_name = model.predict({"pixels": rows})
        return [int(label) for label in answer["label"]] + [len(by_name)]


def evaluated(client: Client, labels: list[int]) -> float:
    model = client.load_model("digits")
    found = model.evaluate(np.zeros((len(labels), 64), np.float32), np.array(labels))
    assert_type(found.rows, int)
    assert_type(found.seconds, float)
    return assert_type(found.accuracy, float)


def patient(client: Client) -> bool:
    try:
        client.load_model("digits")
    except (LimitError, UnavailableError) as error:
        return assert_type(error.retryable, bool)
    return True


def misused() -> None:
    Client("https://localhost:8443")  # type: ignore[call-arg]
    Client(server="https://localhost:8443")  # type: ignore[call-arg]
    Client(server="https://localhost:8443", api_key=b"mk_")  # type: ignore[arg-type]
