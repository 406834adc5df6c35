"""What a file does when its natural loader loads it, found out by letting that happen.

`truth.py pickles|keras`: a line of JSON in (`path`), a line of JSON out: `outcome` and `what`.

    acts      it was about to start a program, reach the network, run code of its own, or read or
              write a file that is not its own; it was stopped there
    absent    it asks for something that is not installed here: elsewhere it may act
    fails     its loader ends with an error before anything of that happened
    quiet     it was loaded, and nothing of that happened

Order: this process gives up the network (a namespace of its own) and imports what loaders need;
for each file it forks a child with bounds, in an empty folder, without input, whose audit hook
ends it at the first event that matters. Without a namespace nothing is loaded: `unknown`.
"""

import bz2
import contextlib
import ctypes
import gzip
import io
import json
import lzma
import os
import pickle
import resource
import select
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
FILE_S_MAX = 60
MEMORY_BYTES_MAX = 4 << 30
SECRET = "only-in-the-environment"  # noqa: S105  # nobody's
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"),
    *("subprocess.Popen", "socket.", "ctypes.", "code.__new__", "function.__new__", "marshal."),
    *("builtins.input", "ftplib.", "imaplib.", "poplib.", "smtplib.", "telnetlib.", "nntplib."),
    *("http.client.", "urllib.Request", "webbrowser.", "os.remove", "os.rename", "os.rmdir"),
    *("os.mkdir", "os.chmod", "os.chown", "os.link", "os.symlink", "os.truncate", "os.putenv"),
    *(
        "os.kill",
        "shutil.",
        "sqlite3.",
        "cpython.run_",
        "cpython.PyInterpreterState_New",
        "sys.set",
    ),
    *("resource.", "syslog.", "signal."),
)
# They make code out of names that they have checked: classes of tuples, and templates.
MAKERS = ("collections/__init__.py", "dataclasses.py", "jinja2/environment.py", "jinja2/debug.py")
PICKLES = (
    "numpy",
    "scipy",
    "torch",
    "joblib",
    "sklearn.linear_model",
    "jinja2",
    "yaml",
    "skops.io",
)
KERAS = ("numpy", "h5py", "tensorflow", "keras", "tf_keras")


def main() -> None:
    """Answer each line until there is none."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    is_alone = gave_up_network()
    warnings.simplefilter("ignore")
    for name in PICKLES if sys.argv[1] == "pickles" else KERAS:
        __import__(name)
    for line in sys.stdin:
        path = json.loads(line)["path"]
        said = found(path) if is_alone else {"outcome": "unknown", "what": "no namespace here"}
        print(json.dumps(said), file=answers, flush=True)


def gave_up_network() -> bool:
    """Whether this process has a network of its own now, in which there is nothing."""
    library = ctypes.CDLL(None, use_errno=True)
    return any(
        library.unshare(each) == 0
        for each in (CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC, CLONE_NEWNET)
    )


def found(path: str) -> dict[str, str]:
    """Let a child load a file; what came of it."""
    folder = Path(tempfile.mkdtemp(prefix="truth-"))
    for name in ("here", "tmp"):
        (folder / name).mkdir()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            loaded(path, folder, writing)
        finally:
            os._exit(1)
    os.close(writing)
    said, until = b"", time.monotonic() + FILE_S_MAX
    while select.select([reading], [], [], max(0.0, until - time.monotonic()))[0]:
        part = os.read(reading, 65536)
        if not part:
            break
        said += part
    os.close(reading)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    left = [each.name for each in (folder / "here").rglob("*")]
    shutil.rmtree(folder, ignore_errors=True)
    if left:
        return {"outcome": "acts", "what": f"wrote {left[0]}"}
    if said:
        return json.loads(said.partition(b"\n")[0])
    if time.monotonic() >= until:
        return {"outcome": "acts", "what": f"takes over {FILE_S_MAX} s"}
    return {"outcome": "acts", "what": f"ends its process ({os.waitstatus_to_exitcode(status)})"}


def loaded(path: str, folder: Path, writing: int) -> None:
    """The child: bounds, an empty folder, the hook, the loader."""
    os.setpgid(0, 0)
    os.chdir(folder / "here")
    tempfile.tempdir = str(folder / "tmp")
    for key in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
        os.environ[key] = str(folder / "tmp")
    os.environ["SECRET"] = SECRET
    bound()
    nothing = os.open(os.devnull, os.O_RDWR)
    for each in (0, 2):
        os.dup2(nothing, each)

    def say(outcome: str, what: str) -> None:
        if outcome != "acts" and has_children():
            outcome, what = "acts", "starts a program past every hook"
        os.write(writing, json.dumps({"outcome": outcome, "what": what[:160]}).encode() + b"\n")
        os._exit(0)

    own = (path, str(folder / "tmp"), sys.prefix, sys.base_prefix, "/proc/", "/sys/", "/dev/")
    sys.addaudithook(lambda event, args: heard(event, args, own, say))
    try:
        load(Path(path))
    except LeakError as error:
        say("acts", str(error))
    except (ImportError, AttributeError) as error:
        text = str(error)
        is_absent = isinstance(error, ImportError) or "Can't get attribute" in text
        is_absent = is_absent or ("has no attribute" in text and text.startswith("module"))
        say("absent" if is_absent else "fails", f"{type(error).__name__}: {text}")
    except (MemoryError, RecursionError) as error:
        say("acts", f"uses up what there is: {type(error).__name__}")
    except SystemExit:
        say("acts", "ends the process that loads it")
    except BaseException as error:  # noqa: BLE001  # whatever a loader says
        say("fails", f"{type(error).__name__}: {error}".splitlines()[0])
    say("quiet", "")


def bound() -> None:
    """So much of everything, and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for what, most in (
        (resource.RLIMIT_CPU, FILE_S_MAX),
        (resource.RLIMIT_AS, pages + MEMORY_BYTES_MAX),
        (resource.RLIMIT_FSIZE, 1 << 24),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def has_children() -> bool:
    """Whether this process started another one."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def heard(event, args, own, say) -> None:  # noqa: ANN001  # an audit hook
    """End the child when an event says that the file acts."""
    if event == "open":
        what = opened(args, own)
    elif event == "exec":
        what = f"runs code ({getattr(args[0], 'co_filename', '')})"
    elif event.startswith(EVENTS):
        inside = any(isinstance(each, str) and each.startswith(own[1]) for each in args)
        what = "" if inside else f"{event} {args!r}"
    else:
        return
    if not what:
        return
    caller = sys._getframe(2).f_code.co_filename  # noqa: SLF001  # the only way to ask
    if (caller.endswith(MAKERS) and event in ("exec", "code.__new__")) or is_import():
        return
    say("acts", what)


def opened(args, own) -> str:  # noqa: ANN001  # of an audit hook
    """What is wrong with opening a file, if anything."""
    path, mode, flags = args
    if isinstance(path, int):
        return ""
    name = os.fsdecode(path)
    is_written = (isinstance(mode, str) and any(each in mode for each in "wax+")) or (
        isinstance(flags, int) and flags & WRITES
    )
    if is_written:
        return "" if name.startswith((own[1], "/dev/null")) else f"writes {name}"
    return "" if name.startswith(own) else f"reads {name}"


def is_import() -> bool:
    """Whether this happens because a module is being imported."""
    frame = sys._getframe()  # noqa: SLF001  # the only way to ask
    while frame is not None:
        if "importlib" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


# ---- loaders ---------------------------------------------------------------------------------


def load(path: Path) -> None:
    """Load a file as the program does that it is made for."""
    ends = path.suffix.lower()
    if path.is_dir() or path.name == "saved_model.pb":
        graph(path if path.is_dir() else path.parent)
    elif ends in LOADERS:
        LOADERS[ends](path)
    else:
        pickles(path)


class LeakError(Exception):
    """What should stay in this process came out of it."""


class Unpickler(pickle.Unpickler):
    """As torch's: what is persistent is somewhere else."""

    def persistent_load(self, pid: object) -> object:
        """A stand-in."""
        return pid


def pickles(path: Path) -> None:
    """One pickle after the other, until there is none; through a compressor where there is one."""
    streams(unpacked(path.read_bytes()))


def streams(raw: bytes) -> None:
    """All pickles of some bytes."""
    source, count = io.BytesIO(raw), 0
    while source.tell() < len(raw):
        try:
            Unpickler(source).load()
        except Exception:
            if count and not raw[source.tell() - 1 : source.tell() + 1].strip(b"\0\n\t "):
                return
            raise
        count += 1


def unpacked(raw: bytes) -> bytes:
    """What a compressor holds, as joblib sees it."""
    for magic, opener in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ", lzma), (b"x", zlib)):
        if raw.startswith(magic):
            try:
                return opener.decompress(raw)
            except (OSError, EOFError, zlib.error, lzma.LZMAError):
                break
    return raw


def torched(path: Path) -> None:
    """torch.load; what it does not take is a row of pickles."""
    import torch  # noqa: PLC0415

    try:
        torch.load(path, weights_only=False, map_location="cpu")
    except Exception:  # noqa: BLE001  # whatever it says
        streams(path.read_bytes()) if not zipfile.is_zipfile(path) else archived(path)


def arrays(path: Path) -> None:
    """numpy.load, and each array in it."""
    import numpy as np  # noqa: PLC0415

    made = np.load(path, allow_pickle=True, encoding="latin1")
    for name in getattr(made, "files", ()):
        made[name]


def archived(path: Path) -> None:
    """Each member as what it is, read as leniently as torch and picklescan read."""
    with zipfile.ZipFile(path) as archive:
        encrypted = {each.filename for each in archive.infolist() if each.flag_bits & 1}
    for name, raw in members(path.read_bytes()):
        if name in encrypted and raw[:1] not in b"\x80c(}]":
            raise ValueError(f"{name} cannot be read without a password")
        place = Path(tempfile.gettempdir(), "member" + Path(name).suffix)
        place.write_bytes(raw)
        pickles(place) if raw[:1] in b"\x80c(}]" or name.endswith(".pkl") else load_known(place)


def load_known(path: Path) -> None:
    """Load what has a loader."""
    if path.suffix.lower() in LOADERS:
        LOADERS[path.suffix.lower()](path)


def tarred(path: Path) -> None:
    """Each member of a tar archive as what it is."""
    with tarfile.open(path) as archive:
        archive.extractall(tempfile.gettempdir(), filter="data")  # filtered
    for each in Path(tempfile.gettempdir()).iterdir():
        load_known(each)


def members(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Members of a zip archive, whatever its flags, names and sums say."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        entries = archive.infolist()
    for each in entries:
        head = raw[each.header_offset : each.header_offset + 30]
        start = each.header_offset + 30 + int.from_bytes(head[26:28], "little")
        start += int.from_bytes(head[28:30], "little")
        body = raw[start : start + each.compress_size]
        yield each.filename, zlib.decompress(body, -15) if each.compress_type == 8 else body


def seven(path: Path) -> None:
    """Each member of a 7z archive."""
    import py7zr  # noqa: PLC0415

    with py7zr.SevenZipFile(path) as archive:
        archive.extractall(tempfile.gettempdir())  # noqa: S202  # it keeps inside by itself
    for each in Path(tempfile.gettempdir()).iterdir():
        pickles(each)


def rendered(path: Path) -> None:
    """Templates, as a program renders them that does not lock them in (CVE-2024-34359)."""
    text = path.read_text()
    if path.suffix == ".json":
        held = json.loads(text)
    elif path.suffix in (".yaml", ".yml"):
        import yaml  # noqa: PLC0415

        held = yaml.unsafe_load(text)
    else:
        held = {"template": text}
    templates = list(texts(held))
    errors = []
    for each in templates:
        try:
            if SECRET in render(each):
                raise LeakError("it writes the environment into what it makes")
        except LeakError:
            raise
        except Exception as error:  # noqa: BLE001  # of one of several
            errors.append(error)
    if errors:
        raise errors[0]


def texts(value: object) -> Iterator[str]:
    """Each text that may be a template."""
    if isinstance(value, str) and ("{{" in value or "{%" in value):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts(each)


def render(template: str) -> str:
    """One template."""
    import jinja2  # noqa: PLC0415

    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])  # noqa: S701  # the hole
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello"}]
    return environment.from_string(template).render(
        messages=messages, bos_token="<s>", eos_token="</s>",  # noqa: S106  # words add_generation_prompt=True
    )  # fmt: skip


def safe(path: Path) -> None:
    """Tensors and their metadata."""
    from safetensors import safe_open  # noqa: PLC0415

    with safe_open(path, "np") as tensors:
        tensors.metadata()


def skops(path: Path) -> None:
    """A skops file of which everything is trusted."""
    import skops.io  # noqa: PLC0415

    skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))


def keras(path: Path) -> None:
    """A Keras model, by whichever Keras can read it."""
    import keras as new  # noqa: PLC0415
    import tf_keras as old  # noqa: PLC0415

    errors = []
    for library in (new, old):
        try:
            library.models.load_model(path, safe_mode=False, compile=True)
        except Exception as error:  # noqa: BLE001  # of one of several
            errors.append(error)
    if len(errors) == 2:
        raise errors[0]


def graph(path: Path) -> None:
    """A TensorFlow model: loaded, then asked."""
    import tensorflow as tf  # noqa: PLC0415

    if not (path / "saved_model.pb").exists():
        return
    try:
        import tf_keras  # noqa: PLC0415

        if (path / "keras_metadata.pb").exists():
            tf_keras.models.load_model(path)
    except ImportError:
        pass
    model = tf.saved_model.load(str(path))
    for each in model.signatures.values():
        shapes = each.structured_input_signature[1]
        each(**{k: tf.zeros([d or 1 for d in s.shape], s.dtype) for k, s in shapes.items()})
    if callable(model):
        model(tf.zeros((1, 32)))


def nothing(_: Path) -> None:
    """No loader executes it."""


LOADERS = {
    **dict.fromkeys((".pt", ".pth", ".ckpt"), torched),
    **dict.fromkeys((".npy", ".npz"), arrays),
    **dict.fromkeys((".json", ".j2", ".jinja", ".template", ".yaml", ".yml"), rendered),
    **dict.fromkeys((".h5", ".keras"), keras),
    **dict.fromkeys((".csv", ".txt", ".py", ".model", ".md"), nothing),
    ".zip": archived,
    ".tar": tarred,
    ".7z": seven,
    ".safetensors": safe,
    ".skops": skops,
}

if __name__ == "__main__":
    try:
        main()
    except Exception:  # noqa: BLE001  # the end of a process
        traceback.print_exc()
        sys.exit(1)
