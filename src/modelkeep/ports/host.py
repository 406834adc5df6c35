"""What there is to know about the machine that a model is to run on.

A number is -1, a text empty and an answer None where nobody could find out: what is not known is
never taken for what is well.
"""

from __future__ import annotations

from typing import Protocol

from modelkeep.core.record import Record
from modelkeep.ports.sandbox import Measure


class Asked(Record, frozen=True):
    """What is worth finding out, as it costs time.

    Attributes:
        folders: whose free space counts.
        private: files and folders that are their owner's only, such as keys.
        packages: names of distributions whose installed version counts.
        accelerators: kinds whose devices are looked for: `cuda`, `rocm`.
        reachable: places to be reached; see `assess.settings.Demands`.
        reach_timeout_s: for each of them; all are tried at once.
        ports: TCP ports to be listened on, with the address.
        listeners: whether to look who listens on all addresses.
        isolation: whether to try out a sandbox; starts a process.
    """

    folders: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()
    reachable: tuple[str, ...] = ()
    reach_timeout_s: float = 2.0
    ports: tuple[tuple[str, int], ...] = ()
    listeners: bool = False
    isolation: bool = False


class Memory(Record, frozen=True):
    """Memory that can be had now, within what this process' control groups allow."""

    available_bytes: int = -1
    total_bytes: int = -1
    swap_bytes: int = -1
    bound_by: str = ""


class Space(Record, frozen=True):
    """Room on the file system of a folder, for whoever asks."""

    folder: str
    free_bytes: int = -1
    free_files: int = -1


class Mode(Record, frozen=True):
    """Who may do what with a file; -1 for one that is not there."""

    path: str
    mode: int = -1
    owner: int = -1
    is_folder: bool = False


class Accelerator(Record, frozen=True):
    """Devices of one kind.

    Attributes:
        why_none: what was looked at, where there is none.
    """

    kind: str
    devices: tuple[str, ...] = ()
    why_none: str = ""


class Reached(Record, frozen=True):
    """What came of a try to reach a place; no reason where it was reached."""

    place: str
    why_not: str = ""


class PortState(Record, frozen=True):
    """Whether one could listen there; no reason where one could."""

    address: str
    port: int
    why_not: str = ""


class Clock(Record, frozen=True):
    """The system's clock.

    Attributes:
        is_synchronised: whether the kernel says that something keeps it right.
        error_us_max: how wrong it may be by the kernel's own estimate.
    """

    now_ns: int = -1
    is_synchronised: bool | None = None
    error_us_max: int = -1


class Bounds(Record, frozen=True):
    """What the kernel allows this process; -1 for unlimited, -2 where nobody could find out."""

    open_files: int = -2
    locked_bytes: int = -2
    processes: int = -2
    core_bytes: int = -2
    address_bytes: int = -2
    overcommit: int = -2
    mappings: int = -2


class Host(Record, frozen=True):
    """A machine, as one process sees it.

    Attributes:
        system: `linux`, `darwin`, `windows`.
        distribution: such as `debian` and `12`; empty where there is none.
        processor: `x86_64`, `aarch64`, ...
        cpu_flags: as the kernel names them; None where it does not say.
        packages: version by name; empty for what is not installed.
        has_entropy: whether the kernel's generator of random bytes is initialised.
        listeners: ports that are open on all addresses; None where nobody could find out.
        isolation: what a sandbox brings here; None where nobody asked.
    """

    system: str = ""
    distribution: tuple[str, str] = ("", "")
    kernel: str = ""
    libc: str = ""
    python: str = ""
    processor: str = ""
    cpus: int = -1
    cpu_flags: tuple[str, ...] | None = None
    user: int = -1
    memory: Memory = Memory()
    spaces: tuple[Space, ...] = ()
    private: tuple[Mode, ...] = ()
    packages: dict[str, str] = {}
    accelerators: tuple[Accelerator, ...] = ()
    reached: tuple[Reached, ...] = ()
    ports: tuple[PortState, ...] = ()
    listeners: tuple[int, ...] | None = None
    clock: Clock = Clock()
    has_entropy: bool | None = None
    bounds: Bounds = Bounds()
    isolation: tuple[Measure, ...] | None = None


class HostFacts(Protocol):
    """Looks at the machine; changes nothing on it."""

    def gathered(self, asked: Asked) -> Host:
        """What is there now. Never fails: what cannot be found out is said to be unknown.

        Takes milliseconds, and longer only for what `asked` names: tries to reach a place take up
        to their timeout, asking a driver for its devices up to a second.
        """
        ...
