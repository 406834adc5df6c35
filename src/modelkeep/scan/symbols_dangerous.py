"""Names that are known to run code, reach the system, or reach other names.

Rules.
- Of Python's own library, what is not known to be quiet is dangerous: a model has no business
  there, and gadgets are found in it every month.
- Of other packages, whole packages that start programs, load code or read the network, and the
  functions of model libraries that load a second file, evaluate text or call what they are given.
- Whatever the module: a name that walks through modules (`core.os.system`), through one of
  Python's own attributes (`__globals__`), or that says what it does (`run_code`, `read_pickle`).

What is unknown and not here is held; this list only tells what is denied.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from functools import cache

from modelkeep.scan.symbols_values import Symbol


def is_dangerous(symbol: Symbol) -> bool:
    """Whether the name is known to run code, reach the system or reach other names."""
    parts = symbol.name.split(".")
    if any(_is_dunder(part) for part in parts) and (
        len(parts) > 1 or symbol.module != "builtins" or parts[0] in _BUILTIN_DUNDERS
    ):
        return True
    names = _NAMES.get(symbol.module)
    if names is not None and ("*" in names or parts[0] in names):
        return True
    if symbol.module.partition(".")[0] in _CLASSES_ONLY and not symbol.name[:1].isupper():
        return True
    if _is_package_of_danger(symbol.module) or _SAYS_SO.fullmatch(parts[-1]) is not None:
        return True
    walks = parts if symbol.module != "builtins" else parts[:-1]
    return any(
        part.lstrip("_") in _modules() or part in _modules()
        for part in walks
        if part not in _ALSO_NAMES
    )


def _is_dunder(part: str) -> bool:
    return part.startswith("__") and part.endswith("__")


@cache
def _is_package_of_danger(module: str) -> bool:
    """Whether every name of the module is dangerous."""
    top = module.partition(".")[0]
    if top in _QUIET or top in ("builtins", "__future__"):
        return False
    if top in _modules():
        return True
    path = module
    while path:
        if path in _SUBPACKAGES:
            return True
        path = path.rpartition(".")[0]
    return False


@cache
def _modules() -> frozenset[str]:
    """Top-level modules whose every name is dangerous."""
    ours = frozenset(sys.stdlib_module_names) | _STDLIB_GONE | _PACKAGES
    return ours - _QUIET - {"builtins"}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Modules of Python's library that compute and hold data. What in them calls, loads or opens is
# listed under its name.
_QUIET = _words(
    "__future__ _collections_abc _decimal _datetime _random _statistics _struct _uuid abc argparse "
    "array base64 binascii bisect calendar cmath collections colorsys contextvars copy copyreg csv "
    "datetime dataclasses decimal difflib enum fractions functools graphlib hashlib heapq hmac "
    "html ipaddress itertools json keyword locale math numbers operator pathlib pprint random re "
    "sched sre_compile stat statistics string struct textwrap time token traceback typing "
    "unicodedata uuid warnings zoneinfo _codecs codecs _collections _functools _operator _heapq"
)
# Gone from Python's library, only in that of Python 2, or new in one that is not running here.
_STDLIB_GONE = _words(
    "distutils imp asyncore asynchat smtpd lib2to3 telnetlib pipes crypt nis cgi cgitb uu xdrlib "
    "nntplib imghdr sndhdr mailcap msilib ossaudiodev spwd aifc sunau chunk commands popen2 "
    "urllib2 urlparse httplib os2 dl new ihooks imputil rexec Bastion user compiler __main__.os "
    "macurl2path posixfile dircache mimetools anydbm dumbdbm gdbm whichdb _winreg Tkinter "
    "tkMessageBox SocketServer SimpleHTTPServer BaseHTTPServer CGIHTTPServer xmlrpclib "
    "SimpleXMLRPCServer DocXMLRPCServer cookielib robotparser thread dummy_thread Queue hotshot "
    "_pyrepl _osx_support _aix_support _android_support _apple_support _ios_support _colorize "
    "compression annotationlib string.templatelib this antigravity test _testcapi "
    "_xxsubinterpreters _interpreters _winapi binhex"
)
# Of others: what starts programs, loads code, or reads the network.
_PACKAGES = _words(
    "pip setuptools pkg_resources wheel _distutils_hack dill cloudpickle jsonpickle joblibspark "
    "pickle5 klepto pathos multiprocess ppft jinja2 mako chameleon IPython ipykernel ipywidgets "
    "jupyter_client jupyter_core nbformat nbconvert invoke fabric sh plumbum pexpect ptyprocess "
    "psutil cffi pycparser Cython pyximport numexpr sympy nltk hydra fire click "
    "requests urllib3 aiohttp httpx httpcore paramiko asyncssh twisted tornado gevent eventlet "
    "execnet rpyc Pyro4 Pyro5 zmq redis celery kombu billiard rq huey dramatiq boto boto3 botocore "
    "fsspec s3fs gcsfs adlfs smart_open docker kubernetes selenium playwright pyautogui pynput "
    "win32com win32api win32process pythoncom pywintypes xonsh django flask werkzeug bottle "
    "cherrypy pyramid sanic quart starlette uvicorn gunicorn mlflow wandb comet_ml neptune "
    "clearml ray dask distributed pyspark luigi airflow prefect kedro cupy pycuda pyopencl "
    "theano pytensor aesara mxnet tensorflow tensorflow_core jax.experimental "
    "pytest _pytest nose hypothesis tox virtualenv conda mercurial git dulwich svn "
    "huggingface_hub cryptography keyring pexpect rlcompleter readline apport bson.json_util "
    "peewee sqlalchemy psycopg2 psycopg pymysql MySQLdb pymongo openpyxl xlrd lxml yaml ruamel "
    "codeop sre_parse xdist coverage line_profiler memory_profiler pyinstrument py_spy objgraph "
    "guppy pympler faulthandler magic mmap wget pycurl curl_cffi httplib2"
)
# Of these a pickled model names its class and no function.
_CLASSES_ONLY = ("keras", "tf_keras")
# Parts of model libraries.
_SUBPACKAGES = _words(
    "numpy.f2py numpy.testing numpy.distutils numpy.ctypeslib numpy.lib.npyio numpy._pyinstaller "
    "numpy.lib._npyio_impl numpy.lib.utils numpy.lib._utils_impl numpy.core._ufunc_reconstruct "
    "numpy._core._ufunc_reconstruct numpy.compat.py3k numpy.lib._datasource numpy.lib.format "
    "scipy.io scipy.datasets scipy.misc scipy.weave "
    "torch._dynamo torch._inductor torch._export torch._functorch torch._higher_order_ops "
    "torch._lazy torch._library torch._ops torch._C._jit torch.compiler torch.contrib "
    "torch.distributed torch.export torch.fx torch.hub torch.jit torch.library "
    "torch.multiprocessing "
    "torch.onnx torch.ops torch.package torch.profiler torch.autograd.profiler torch.testing "
    "torch.utils._config_module torch.utils.benchmark torch.utils.bottleneck "
    "torch.utils.collect_env torch.utils.cpp_extension torch.utils.data.datapipes "
    "torch.utils.dlpack torch.utils.file_baton torch.utils.hipify torch.utils.model_dump "
    "torch.utils.model_zoo torch.utils.tensorboard torch.utils.viz torch._appdirs torch._classes "
    "torch._sources torch._weights_only_unpickler torch._tensor_str torch._vendor "
    "torch._streambase "
    "pandas.io pandas.core.computation pandas.util._tester pandas.compat.pickle_compat "
    "pandas._testing pandas.testing sklearn.datasets sklearn.utils._testing sklearn.externals "
    "sklearn.utils.estimator_checks sklearn.utils._mocking sklearn._build_utils "
    "joblib.externals joblib.parallel joblib.memory joblib.func_inspect joblib._store_backends "
    "joblib.pool joblib.executor joblib.disk joblib.test joblib._dask transformers.utils.hub "
    "transformers.dynamic_module_utils transformers.commands transformers.pipelines "
    "keras.src.utils keras.utils keras.src.saving keras.saving keras.src.legacy keras.legacy "
    "keras.src.backend keras.backend keras.src.applications keras.applications keras.src.datasets "
    "keras.datasets keras.src.callbacks keras.callbacks keras.src.export keras.export keras.config "
    "keras.src.wrappers keras.src.layers.core.lambda_layer keras.src.testing keras.src.ops.numpy "
    "tf_keras.src tf_keras.utils tf_keras.saving tf_keras.models tf_keras.layers "
    "xgboost.dask xgboost.spark xgboost.rabit xgboost.tracker lightgbm.dask catboost.dev_tools"
)
# These names of these modules; "*" is every one of exactly this module.
_NAMES: Mapping[str, frozenset[str]] = {
    "builtins": _words(
        "eval exec execfile compile open file getattr setattr delattr hasattr input raw_input "
        "breakpoint globals locals vars dir help reload apply exit quit map filter zip iter next "
        "type super memoryview property classmethod staticmethod reduce print license credits "
        "copyright callable sorted min max any all sum enumerate aiter anext delattr __import__"
    ),
    "operator": _words(
        "attrgetter methodcaller itemgetter call setitem delitem getitem iadd iconcat length_hint"
    ),
    "functools": _words(
        "partial partialmethod reduce singledispatch singledispatchmethod wraps update_wrapper "
        "lru_cache cache cached_property cmp_to_key total_ordering"
    ),
    "itertools": _words(
        "starmap accumulate filterfalse takewhile dropwhile groupby repeat count cycle tee product "
        "permutations combinations"
    ),
    "copyreg": _words(
        "add_extension remove_extension pickle constructor __newobj__ __newobj_ex__ dispatch_table "
        "_extension_registry _inverted_registry _extension_cache clear_extension_cache pickle_union"
    ),
    "copy": _words("copy deepcopy _reconstruct _deepcopy_dispatch _copy_dispatch"),
    "_codecs": _words("register lookup decode register_error unregister lookup_error"),
    "codecs": _words(
        "open register lookup decode encode getreader getwriter getdecoder getencoder "
        "getincrementaldecoder getincrementalencoder EncodedFile StreamReaderWriter StreamRecoder "
        "StreamReader StreamWriter register_error"
    ),
    "dataclasses": _words("make_dataclass field _create_fn _set_new_attribute"),
    "collections": _words("namedtuple UserString"),
    "enum": _words("_make_class_unpicklable EnumMeta EnumType _decompose property global_enum"),
    "typing": _words("get_type_hints ForwardRef _eval_type NamedTuple NewType TypedDict cast"),
    "pathlib": _words(
        "Path.open Path.read_text Path.read_bytes Path.write_text Path.write_bytes Path.unlink "
        "Path.rename Path.replace Path.rmdir Path.mkdir Path.touch Path.chmod Path.symlink_to "
        "Path.hardlink_to Path.iterdir Path.glob Path.home Path.cwd"
    ),
    "re": _words("sub subn Scanner template _compile_repl _subx _cache enum copyreg"),
    "random": _words("_os _exit _urandom SystemRandom"),
    "uuid": _words(
        "_get_command_stdout _popen _ip_getnode _ifconfig_getnode _arp_getnode _netstat_getnode "
        "_lanscan_getnode getnode uuid1 main"
    ),
    "hashlib": _words("file_digest"),
    "json": _words("load loads dump"),
    "csv": _words("reader writer Sniffer"),
    "argparse": _words("FileType ArgumentParser"),
    "locale": _words("setlocale _parse_localename"),
    "warnings": _words("_getaction showwarning _setoption _getcategory"),
    "traceback": _words("print_exc print_tb walk_tb walk_stack extract_stack StackSummary"),
    "time": _words("sleep"),
    "sched": frozenset({"*"}),
    "pprint": _words("pp pprint PrettyPrinter"),
    "string": _words("Formatter"),
    "numpy": _words(
        "load loads loadtxt genfromtxt fromfile fromregex fromstring save savez savez_compressed "
        "savetxt memmap DataSource apply_along_axis apply_over_axes vectorize frompyfunc fromiter "
        "fromfunction piecewise safe_eval source lookfor info get_include deprecate "
        "_get_builtin_ufunc test set_numeric_ops seterrcall distutils f2py testing ctypeslib "
        "ndarray.tofile ndarray.dump mafromtxt recfromcsv recfromtxt core lib compat os sys "
    ),
    "numpy._core": _words("_ufunc_reconstruct _ufunc_reduce _methods"),
    "numpy.core": _words("_ufunc_reconstruct _ufunc_reduce _methods"),
    "numpy._core.multiarray": _words("fromfile fromstring set_typeDict fromiter"),
    "numpy._core._multiarray_umath": _words("fromfile _load_from_filelike set_string_function"),
    "numpy._core.records": _words("fromfile fromstring"),
    "numpy._core.memmap": frozenset({"memmap"}),
    "numpy.lib.shape_base": _words("apply_along_axis apply_over_axes"),
    "numpy.lib._shape_base_impl": _words("apply_along_axis apply_over_axes"),
    "numpy.ma.core": _words("fromfile fromfunction _convert2ma _frommethod"),
    "numpy.ma": _words("loads dump load apply_along_axis"),
    "scipy.stats._distn_infrastructure": _words("rv_continuous rv_discrete rv_generic"),
    "scipy.sparse": _words("load_npz save_npz"),
    "scipy.sparse._matrix_io": frozenset({"*"}),
    "scipy": _words("LowLevelCallable"),
    "torch": _words(
        "load save compile from_file import_ir_module load_library ops classes hub jit package "
        "fx utils distributed multiprocessing serialization _C _dynamo _inductor vmap "
        "set_default_device library export _import_dotted_name"
    ),
    "torch.serialization": _words(
        "load save _load _legacy_load _get_restore_location register_package _open_file "
        "add_safe_globals StorageType _check_seekable os sys source_mod"
    ),
    "torch.storage": _words("_load_from_bytes _share_memory_lock_protected"),
    "torch._utils": _words("_import_dotted_name _rebuild_xla_tensor classproperty"),
    "torch._tensor": _words("_rebuild_from_type"),
    "torch._C": _words(
        "PyTorchFileReader PyTorchFileWriter ScriptModule _jit_pass import_ir_module "
        "_import_ir_module_from_package CompilationUnit _create_function_from_graph"
    ),
    "torch.nn": _words("DataParallel Module.apply Module.register_forward_hook"),
    "torch.overrides": frozenset({"*"}),
    "torch.utils": _words("cpp_extension hub checkpoint collect_env bottleneck"),
    "torch.utils.data": _words("_utils datapipes"),
    "torch.utils.checkpoint": frozenset({"*"}),
    "torch.nn.modules.module": _words("register_module_forward_hook _global_forward_hooks"),
    "joblib": _words("load dump Parallel delayed Memory hash wrap_non_picklable_objects"),
    "joblib.numpy_pickle": _words("load dump _unpickle NumpyUnpickler NumpyPickler"),
    "joblib.numpy_pickle_compat": _words("load_compatibility read_zfile ZipNumpyUnpickler"),
    "joblib.numpy_pickle_utils": frozenset({"*"}),
    "pandas": _words(
        "eval read_pickle to_pickle read_csv read_table read_json read_html read_xml read_hdf "
        "read_sql read_excel read_parquet read_feather read_orc read_sas read_spss read_stata "
        "read_clipboard read_fwf read_gbq ExcelFile HDFStore DataFrame.eval DataFrame.query io test"
    ),
    "keras.layers": _words("Lambda TFSMLayer TorchModuleWrapper"),
    "pandas.core.frame": _words("DataFrame.eval DataFrame.query DataFrame.apply"),
    "sklearn.preprocessing": _words("os"),
    "sklearn.utils": _words("deprecated _joblib"),
    "xgboost.core": _words("_load_lib _py_version ctypes os"),
    "lightgbm.basic": _words("_load_lib ctypes os"),
    "catboost.core": _words("_load_lib os subprocess"),
    "transformers": _words("pipeline AutoModel.from_pretrained AutoTokenizer.from_pretrained"),
}
# Functions that run what they are given, wherever they are found.
_SAYS_SO = re.compile(
    r"_*(?:exec|eval|run|call|load|import|resolve|spawn|shell)?_?(?:(?:safe_?)?exec(?:_?(?:cmd|"
    r"code|command|file|str|string|wrapper))?|(?:literal_?)?eval(?:_?(?:code|expr|expression|str"
    r"|string|length|scalar))?|system|popen[234]?|spawn[lv]?[pe]*|fork(?:pty|server)?|exec[lv]p?e?"
    r"|run_?(?:code|cmd|command|script|string|source|path|module|file|shell|python|line_magic|pip"
    r"|process|commandline)|import_?(?:module|string|file|from|name|object|dotted_name|class)"
    r"|load_?(?:module|object|pickle|source|dynamic|library|entry_point|config_from_file|class)"
    r"|read_pickle|unpickle_?(?:object|file)?|from_pickle|load_joblib|check_(?:output|call)"
    r"|subprocess|getstatusoutput|getoutput|attrgetter|methodcaller|getattr|setattr|delattr"
    r"|locate|resolve_name|get_entity|urlopen|urlretrieve|rmtree|runctx|debug_script"
    r"|compile_file|createfunction|make_function|__import__|open_url|download_url(?:_to_file)?)",
    re.IGNORECASE,
)
_BUILTIN_DUNDERS = _words("__import__ __loader__ __spec__ __build_class__ __dict__ __builtins__")
# Last parts of honest names that a module bears too.
_ALSO_NAMES = _words(
    "array calendar select token code profile queue test secrets types symbol string new thread "
    "signal statistics trace parser stat cmd resource this user graph chunk formatter dl click "
    "fire git magic redis wheel ray sh conda Queue coverage compiler mmap distributed keras"
)
