"""The extension modules; everything else about the package is in pyproject.toml.

``ext/<family>.pyx`` becomes ``nnx._ext.<family>``. The C kernels under ``ext/simd`` are compiled
once per family and instruction-set level and linked into ``nnx._ext.simd``, which chooses a level
when it is imported.

Environment switches:
  NNX_NO_OPENMP=1           build without OpenMP (kernels run serially)
  NNX_DEBUG=1               Cython's checks and all assertions on, -O1 -g
  NNX_SANITIZE=address      (or undefined, or both) build with the compiler's sanitizers
  NNX_ONLY=activation,conv  build only these modules and their C kernels, in the source tree
"""

import logging
import os
import platform
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError
from setuptools.modified import newer_group

ROOT = Path(__file__).resolve().parent
os.chdir(ROOT)  # sources are named relative to this file, as sdist and wheel want them

DEBUG = os.environ.get("NNX_DEBUG", "0") not in ("", "0")
NO_OPENMP = os.environ.get("NNX_NO_OPENMP", "0") not in ("", "0")
SANITIZE = os.environ.get("NNX_SANITIZE", "")
ONLY = os.environ.get("NNX_ONLY", "")

JOBS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
LEVELS = ("base", "v2", "v3", "v4")
HEADERS = sorted(str(p) for p in Path("ext/simd").glob("*.h"))
FAMILIES = [Path(h).name.removesuffix("_table.h") for h in HEADERS if h.endswith("_table.h")]

OPENMP_PROGRAM = """
#include <omp.h>
int main(void)
{
    int threads = 0;
#pragma omp parallel num_threads(2) reduction(+ : threads)
    threads += omp_get_num_threads() > 0;
    return threads > 0 ? 0 : 1;
}
"""
CPU_PROGRAM = """
int main(void) { __builtin_cpu_init(); return __builtin_cpu_supports("x86-64-v3") < 0; }
"""
EMPTY_PROGRAM = "int main(void) { return 0; }\n"


def included(sources: list[str]) -> list[str]:
    """Return these C files and the headers of ext/simd that they include, directly or not."""
    found: list[str] = []
    waiting = list(sources)
    while waiting:
        path = waiting.pop()
        if path in found or not os.path.exists(path):
            continue
        found.append(path)
        names = re.findall(r'^\s*#\s*include\s+"(\w+\.h)"', Path(path).read_text(), re.MULTILINE)
        waiting += [f"ext/simd/{name}" for name in names]
    return found


def extensions() -> list[Extension]:
    """Return one Extension per ``ext/*.pyx``, with the flags that need no compiler to be known."""
    names = sorted(p.stem for p in Path("ext").glob("*.pyx"))
    if ONLY:
        wanted = [name for name in ONLY.split(",") if name]
        unknown = sorted(set(wanted) - set(names))
        if unknown:
            raise SystemExit(f"NNX_ONLY: expected names among {names}, got {unknown}")
        names = sorted({*wanted, "simd"})  # where the families' C kernels live
    return [Extension(f"nnx._ext.{name}", [f"ext/{name}.pyx"]) for name in names]


def table_headers(name: str) -> list[str]:
    """Return the headers that fix the layout of structs that a module names."""
    module = name.rpartition(".")[2]
    texts = [Path(p).read_text() for p in (f"ext/{module}.pyx", f"nnx/_ext/{module}.pxd") if os.path.exists(p)]
    families = sorted(set(re.findall(r"\bnnx_(\w+)", " ".join(texts))) & set(FAMILIES))
    shared = ["ext/simd/share.h"] if any("nnx._ext.share" in text for text in texts) else []
    return ["ext/simd/table.h", *(f"ext/simd/{family}_table.h" for family in families), *shared]


@contextmanager
def quiet():
    """Keep the compiler's commands out of the log."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


class BuildExt(build_ext):
    """build_ext that probes the compiler, runs Cython, and compiles the kernels once per level."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or JOBS

    def run(self):
        with self.alone():
            super().run()
            if not self.inplace:
                # `python -m nnx` in a clone imports the clone's nnx: let it find the modules.
                self.copy_extensions_to_source()

    @contextmanager
    def alone(self):
        """Wait until no other build runs in this tree: two would write the same objects."""
        try:
            import fcntl
        except ImportError:
            yield
            return
        Path("build").mkdir(exist_ok=True)
        with open("build/.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def build_extensions(self):
        Path(self.build_temp).mkdir(parents=True, exist_ok=True)
        self.msvc = self.compiler.compiler_type == "msvc"
        self.configure()
        self.force = self.force or self.changed()
        self.run_cython()
        self.compile_kernels()
        super().build_extensions()
        self.remember()

    # What the compiler can do

    def configure(self):
        """Find the flags, and set them on every extension."""
        import numpy

        openmp = self.probe_openmp()
        self.levels = self.probe_levels()
        self.macros = [("NDEBUG", None), ("CYTHON_WITHOUT_ASSERTIONS", "1")]
        link = []
        if self.msvc:
            common, self.kernel_flags = ["/O2"], ["/fp:contract"]
            if DEBUG:
                common, self.macros = ["/Od", "/Zi"], []
        else:
            common = ["-O3", "-g0", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math"]
            self.kernel_flags = ["-ffp-contract=fast", "-Wall", "-Wno-unused-function"]
            if DEBUG or SANITIZE:
                common[:2] = ["-O1", "-g1" if SANITIZE else "-g", "-fno-omit-frame-pointer"]
            if DEBUG:
                common, self.macros = [*common, "-UNDEBUG"], []
            common = [flag for flag in common if self.compiles([flag])]
            self.kernel_flags = [flag for flag in self.kernel_flags if self.compiles([flag])]
            if SANITIZE:
                common.append(f"-fsanitize={SANITIZE}")
                link.append(f"-fsanitize={SANITIZE}")
        self.common_flags = common
        for ext in self.extensions:
            ext.include_dirs += [numpy.get_include(), "ext/simd"]
            ext.define_macros += [("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"), *self.macros]
            ext.extra_compile_args += [*common, *openmp[0]]
            ext.extra_link_args += [*link, *openmp[1]]
        self.configuration = "\n".join(
            f"{name} = {value}"
            for name, value in {
                "compiler": getattr(self.compiler, "compiler", self.compiler.compiler_type),
                "python": sys.version,
                "numpy": numpy.__version__,
                "flags": common,
                "kernel flags": self.kernel_flags,
                "link flags": link,
                "macros": self.macros,
                "openmp": openmp,
                "levels": self.levels,
                "debug": DEBUG,
            }.items()
        )

    def probe_openmp(self):
        """Return OpenMP's (compile, link) flags; empty ones if a program with them does not run."""
        if NO_OPENMP:
            print("nnx: OpenMP is switched off (NNX_NO_OPENMP): kernels will run serially")
            return [], []
        if self.msvc:
            candidates = [(["/openmp"], [])]
        elif sys.platform == "darwin":
            candidates = [(["-Xpreprocessor", "-fopenmp"], ["-lomp"]), (["-fopenmp"], ["-fopenmp"])]
        else:
            candidates = [(["-fopenmp"], ["-fopenmp"])]
        for compile_flags, link_flags in candidates:
            if self.runs(OPENMP_PROGRAM, compile_flags, link_flags):
                print(f"nnx: OpenMP works with {' '.join(compile_flags)}")
                return compile_flags, link_flags
        print("nnx: WARNING: no OpenMP program could be built and run: kernels will run serially")
        return [], []

    def probe_levels(self):
        """Return {level: compiler flags} for every instruction-set level that compiles."""
        levels = {"base": []}
        if platform.machine().lower() in ("x86_64", "amd64"):
            if self.msvc:
                levels["v3"] = ["/arch:AVX2"]
            else:
                # v2 has base's vectors and C code; with sanitizers, which take minutes, once is enough
                for level in [name for name in LEVELS[1:] if not (SANITIZE and name == "v2")]:
                    flags = [f"-march=x86-64-{level}"]
                    if self.compiles(flags):
                        levels[level] = flags
        print(f"nnx: instruction-set levels: {', '.join(levels)}")
        return levels

    def compiles(self, flags):
        """Tell whether an empty program compiles with these flags."""
        return self.attempt(EMPTY_PROGRAM, [*flags, "-Werror"], link=None)

    def runs(self, program, compile_flags=(), link_flags=()):
        """Tell whether this C program compiles, links, runs and returns 0."""
        return self.attempt(program, compile_flags, link=link_flags)

    def attempt(self, program, flags, link):
        with tempfile.TemporaryDirectory() as folder, quiet():
            source = Path(folder, "probe.c")
            source.write_text(program)
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=list(flags))
                if link is None:
                    return True
                self.compiler.link_executable(objects, "probe", output_dir=folder, extra_postargs=list(link))
                executable = self.compiler.executable_filename("probe", output_dir=folder)
                return subprocess.run([executable], timeout=60).returncode == 0
            except (CompileError, LinkError, OSError, subprocess.SubprocessError):
                return False

    # Other flags than last time: nothing that was built can be kept

    def stamp(self):
        return Path(self.build_temp, "configuration.txt")

    def changed(self):
        return not self.stamp().exists() or self.stamp().read_text() != self.configuration

    def remember(self):
        if not ONLY:
            self.stamp().write_text(self.configuration)

    # Compilation

    def run_cython(self):
        from Cython.Build import cythonize

        folder = Path(self.build_temp, "cython")
        for ext in self.extensions:
            # Cython looks for a module's own .pxd beside its .pyx only.
            name = ext.name.rpartition(".")[2]
            interface, target = f"nnx/_ext/{name}.pxd", folder / "ext" / f"{name}.c"
            if os.path.exists(interface) and newer_group([interface], str(target), "newer"):
                target.unlink(missing_ok=True)
        generated = cythonize(
            [Extension(ext.name, ext.sources) for ext in self.extensions],
            build_dir=str(folder),
            include_path=["."],
            nthreads=min(JOBS, len(self.extensions)) if JOBS > 1 else 0,
            force=self.force,
            compiler_directives={
                "language_level": "3",
                "boundscheck": DEBUG,
                "wraparound": False,
                "initializedcheck": DEBUG,
                "nonecheck": DEBUG,
                "cdivision": True,
                "embedsignature": True,
                "freethreading_compatible": True,
            },
        )
        sources = {ext.name: ext for ext in generated}
        for ext in self.extensions:
            ext.sources = sources[ext.name].sources
            ext.depends = [*sources[ext.name].depends, *table_headers(ext.name)]
            if ext.name == "nnx._ext.simd":
                ext.depends = [*ext.depends, *HEADERS, "ext/simd/kernels.c", "ext/simd/table.c"]

    def compile_kernels(self):
        """Compile the C kernels for every family and level; nnx._ext.simd gets the objects."""
        owners = [ext for ext in self.extensions if ext.name == "nnx._ext.simd"]
        if not owners:
            return
        kernels = "ext/simd/kernels.c"
        jobs = [
            (
                kernels,
                [kernels, *included([f"ext/simd/{family}.h", f"ext/simd/{family}_table.h"])],
                f"{family}-{level}",
                flags,
                [("NNX_FAMILY", family), ("NNX_LEVEL", level)],
            )
            for family in FAMILIES
            for level, flags in self.levels.items()
        ]
        listed = "".join(f"L({level})" for level in self.levels)
        macros = [("NNX_LEVELS(L)", listed)]
        if not self.msvc and self.runs(CPU_PROGRAM):
            macros.append(("NNX_CPU_SUPPORTS_LEVELS", "1"))
        table = "ext/simd/table.c"
        jobs.append((table, included([table]), "table", [], macros))
        with ThreadPoolExecutor(JOBS) as pool:
            objects = list(pool.map(lambda job: self.compile_one(*job), jobs))
        owners[0].extra_objects = objects
        owners[0].depends = [*owners[0].depends, *objects]  # link again when one is new

    def compile_one(self, source, depends, label, flags, macros):
        folder = Path(self.build_temp, "simd", label)
        target = self.compiler.object_filenames([source], output_dir=str(folder))[0]
        asked = [*ONLY.split(","), "table"] if ONLY else []
        kept = asked and label.partition("-")[0] not in asked and os.path.exists(target)
        if self.force or (not kept and newer_group(depends, target, missing="newer")):
            print(f"compiling {source} ({label})")
            with quiet():
                self.compiler.compile(
                    [source],
                    output_dir=str(folder),
                    include_dirs=["ext/simd"],
                    macros=[*self.macros, *macros],
                    extra_postargs=[*self.common_flags, *self.kernel_flags, *flags],
                )
        return target


if __name__ == "__main__":  # cythonize starts worker processes, which may import this file
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
