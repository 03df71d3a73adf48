"""How an environment is made: which flags a build needs, when a wheel or an environment is used again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import llama_wheel
import setup_env
import toolchain
from llama_wheel import AMX_FLAGS, SetupError
from toolchain import Compiler, Compilers

ROOT = Path(__file__).resolve().parent.parent

SAPPHIRE_RAPIDS = """\
processor	: 0
vendor_id	: GenuineIntel
cpu family	: 6
model		: 143
model name	: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags		: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse \
sse2 ss ht syscall nx pdpe1gb rdtscp lm constant_tsc rep_good nopl xtopology nonstop_tsc cpuid \
tsc_known_freq pni pclmulqdq ssse3 fma cx16 pcid sse4_1 sse4_2 x2apic movbe popcnt aes xsave avx f16c \
rdrand hypervisor lahf_lm abm fsgsbase bmi1 avx2 smep bmi2 erms invpcid avx512f avx512dq rdseed adx smap \
avx512ifma clflushopt clwb avx512cd sha_ni avx512bw avx512vl avx_vnni avx512_bf16 wbnoinvd arat \
avx512vbmi umip avx512_vbmi2 gfni vaes vpclmulqdq avx512_vnni avx512_bitalg avx512_vpopcntdq la57 rdpid \
fsrm md_clear serialize amx_bf16 avx512_fp16 amx_tile amx_int8 flush_l1d arch_capabilities
bugs		: spectre_v1 spectre_v2 spec_store_bypass swapgs eibrs_pbrsb

processor	: 1
vendor_id	: GenuineIntel
"""

EPYC_TURIN = """\
processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 26
model		: 2
model name	: AMD EPYC
flags		: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse \
sse2 ht syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm constant_tsc nonstop_tsc cpuid pni pclmulqdq ssse3 \
fma cx16 pcid sse4_1 sse4_2 x2apic movbe popcnt aes xsave avx f16c rdrand hypervisor lahf_lm svm abm \
sse4a fsgsbase bmi1 avx2 smep bmi2 erms invpcid avx512f avx512dq rdseed adx smap avx512ifma clflushopt \
clwb avx512cd sha_ni avx512bw avx512vl avx_vnni avx512_bf16 avx512vbmi umip avx512_vbmi2 gfni vaes \
vpclmulqdq avx512_vnni avx512_bitalg avx512_vpopcntdq rdpid fsrm
"""

GRAVITON = """\
processor	: 0
BogoMIPS	: 243.75
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop \
asimddp ssbs
CPU implementer	: 0x41
CPU architecture: 8
CPU part	: 0xd0c
"""

APPLE_M2 = "Apple M2"

# The line that matters in what `c++ -E -mamx-tile` prints for immintrin.h.
HEADER = """\
extern __inline void
__attribute__((__gnu_inline__, __always_inline__, __artificial__))
_tile_loadconfig (const void *__config)
{{
  {body}
}}
"""
GCC_12_2_HEADER = HEADER.format(
    body='__asm__ volatile ("ldtilecfg\\t%X0" :: "m" (*((const void **)__config)));'
)
GCC_14_HEADER = HEADER.format(body="__builtin_ia32_ldtilecfg (__config);")
CLANG_HEADER = """\
static __inline__ void __attribute__((__always_inline__, __nodebug__, __target__("amx-tile")))
_tile_loadconfig(const void *__config) {
  __builtin_ia32_tile_loadconfig(__config);
}
"""
NO_AMX_HEADER = ""  # GCC 10 does not know -mamx-tile, Arm compilers have no immintrin.h

GCC_12 = Compiler(
    ("cc",), "cc (Debian 12.2.0-14+deb12u1) 12.2.0\nCopyright (C) 2022 Free Software Foundation"
)
GCC_13 = Compiler(
    ("cc",), "cc (Ubuntu 13.3.0-6ubuntu2~24.04) 13.3.0\nCopyright (C) 2023 Free Software Foundation"
)


@pytest.mark.parametrize(
    ("cpuinfo", "header", "needed"),
    [
        (SAPPHIRE_RAPIDS, GCC_12_2_HEADER, True),
        (SAPPHIRE_RAPIDS, GCC_14_HEADER, False),
        (SAPPHIRE_RAPIDS, CLANG_HEADER, False),
        (SAPPHIRE_RAPIDS, NO_AMX_HEADER, False),
        (EPYC_TURIN, GCC_12_2_HEADER, False),
        (GRAVITON, NO_AMX_HEADER, False),
        (APPLE_M2, NO_AMX_HEADER, False),
    ],
)
def test_only_a_gcc_with_the_fault_on_a_cpu_with_amx_needs_flags(
    cpuinfo: str, header: str, needed: bool
) -> None:
    assert toolchain.needs_amx_flags(cpuinfo, header) is needed


@pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler here")
def test_the_compiler_that_is_here_is_asked_and_answers() -> None:
    compilers = toolchain.find_compilers()
    assert compilers.cxx is not None
    assert compilers.cxx.version
    header = toolchain.read_amx_header(compilers.cxx)
    assert header == "" or "_tile_loadconfig" in header


TILE_CONFIG = """
#include <immintrin.h>
struct Config {
  unsigned char palette, start, reserved[14]; unsigned short columns[16]; unsigned char rows[16];
};
void configure() {
  Config config = {};
  config.palette = 1;
  for (int i = 0; i < 8; ++i) { config.rows[i] = 16; config.columns[i] = 64; }
  _tile_loadconfig(&config);
}
"""


@pytest.mark.skipif(
    not toolchain.has_amx_fault(toolchain.read_amx_header(toolchain.find_compilers().cxx)),
    reason="this compiler has no AMX, or not the fault",
)
def test_the_flags_keep_the_stores_that_the_fault_removes(tmp_path: Path) -> None:
    source = tmp_path / "config.cpp"
    source.write_text(TILE_CONFIG)
    assert instructions_until_ldtilecfg(source) < instructions_until_ldtilecfg(source, *AMX_FLAGS.split())


def instructions_until_ldtilecfg(source: Path, *flags: str) -> int:
    compiler = toolchain.find_compilers().cxx
    assert compiler is not None
    command = [*compiler.command, "-O3", "-mamx-tile", *flags, "-S", str(source), "-o", "-"]
    assembly = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return assembly.partition("ldtilecfg")[0].count("\n\t")


def test_a_build_that_needs_no_flags_gets_exactly_what_the_caller_gave() -> None:
    assert llama_wheel.cmake_args("", amx_flags=False) == ""
    assert llama_wheel.cmake_args("-DGGML_CUDA=on", amx_flags=False) == "-DGGML_CUDA=on"


def test_the_callers_own_arguments_come_last_and_so_win() -> None:
    given = "-DCMAKE_C_FLAGS=-O1"
    arguments = llama_wheel.cmake_args(given, amx_flags=True)
    assert arguments.startswith("-DCMAKE_C_FLAGS='-fno-tree-dse -fno-dse' ")
    assert arguments.endswith(given)


LOCK_TEXT = "llama-cpp-python==0.3.36 \\\n    --hash=sha256:83"


def key(
    lock_text: str = LOCK_TEXT,
    *,
    arguments: str = "",
    cpuinfo: str = EPYC_TURIN,
    compilers: Compilers = Compilers(GCC_12, GCC_12),  # noqa: B008  # frozen
    platform_tag: str = "linux-x86_64-glibc-2.36",
    variables: dict[str, str] | None = None,
) -> str:
    return llama_wheel.cache_key(
        lock_text, arguments=arguments, cpuinfo=cpuinfo, compilers=compilers,
        platform_tag=platform_tag, variables=variables or {},
    )  # fmt: skip


def test_a_wheel_is_found_again_under_the_same_circumstances() -> None:
    assert key() == key()
    assert key().startswith("0.3.36-")


@pytest.mark.parametrize(
    "other",
    [
        key(LOCK_TEXT.replace("36", "37")),
        key(arguments="-DGGML_CUDA=on"),
        key(cpuinfo=SAPPHIRE_RAPIDS),
        key(compilers=Compilers(GCC_13, GCC_12)),
        key(platform_tag="linux-x86_64-glibc-2.39"),
        key(variables={"CXXFLAGS": "-O1"}),
    ],
    ids=["version", "arguments", "cpu", "compiler", "platform", "variable"],
)
def test_whatever_shapes_the_library_makes_another_wheel(other: str) -> None:
    assert other != key()


def test_what_does_not_shape_the_library_makes_no_other_wheel() -> None:
    colder = EPYC_TURIN.replace("AMD EPYC", "AMD EPYC 9755") + "cpu MHz\t\t: 1500.000\n"
    assert key(cpuinfo=colder, variables={"HOME": "/somewhere"}) == key()


def test_the_lock_pins_one_llama_cpp_python_new_enough() -> None:
    version = llama_wheel.locked_version(llama_wheel.LOCK.read_text("utf-8"))
    assert tuple(map(int, version.split("."))) >= (0, 3, 36)


def test_a_kept_wheel_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "wheels" / "key"
    llama_wheel.keep(a_wheel(tmp_path), folder)
    kept = llama_wheel.find_kept(folder)
    assert kept is not None
    assert kept.read_bytes() == a_wheel(tmp_path).read_bytes()


def test_a_damaged_kept_wheel_is_not_used_and_the_next_one_takes_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "wheels" / "key"
    llama_wheel.keep(a_wheel(tmp_path), folder)
    kept = llama_wheel.find_kept(folder)
    assert kept is not None
    kept.write_bytes(kept.read_bytes()[:-1])
    assert llama_wheel.find_kept(folder) is None
    llama_wheel.keep(a_wheel(tmp_path), folder)
    assert llama_wheel.find_kept(folder) == kept


def test_nothing_kept_is_no_wheel(tmp_path: Path) -> None:
    assert llama_wheel.find_kept(tmp_path / "nowhere") is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    llama_wheel.keep(a_wheel(tmp_path), blocked / "wheels" / "key")


def a_wheel(folder: Path) -> Path:
    wheel = folder / "llama_cpp_python-0.3.36-py3-none-any.whl"
    wheel.write_bytes(b"PK\x05\x06" + bytes(18))  # the shortest zip archive, an empty one
    return wheel


def test_a_wheel_of_the_callers_own_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CPP_WHEEL", str(tmp_path / "missing.whl"))
    with pytest.raises(SetupError, match=r"missing\.whl"):
        llama_wheel.get_wheel(no_pip, scratch=tmp_path, say=print)


def test_without_a_compiler_the_message_offers_prebuilt_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LLAMA_CPP_WHEEL", "LLAMA_CPP_PIP_ARGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(SetupError, match="make demo LLAMA_CPP_PIP_ARGS="):
        llama_wheel.check_obtainable(target="demo")


def no_pip(arguments: object, variables: object) -> None:
    raise AssertionError("pip is not needed here")


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The stamp of an environment for `make demo`, made a moment ago with nothing chosen."""
    for name in setup_env.CHOICES:
        monkeypatch.delenv(name, raising=False)
    stamp = {"base": setup_env.base_identity(), "choices": {}, "sets": ["run"]}
    return {**stamp, "project": setup_env.project_identity()}


PYTHON = Path(sys.executable)


def test_an_environment_that_holds_what_is_asked_for_needs_no_work(ready: dict[str, object]) -> None:
    assert setup_env.holds(ready, "run", python=PYTHON)


def test_another_set_is_added_to_it(ready: dict[str, object]) -> None:
    assert not setup_env.holds(ready, "test", python=PYTHON)
    assert setup_env.is_current(ready, python=PYTHON)


@pytest.mark.parametrize("change", [{"base": "other"}, {"project": "other"}])
def test_changed_locks_or_metadata_are_seen(ready: dict[str, object], change: dict[str, str]) -> None:
    assert not setup_env.holds({**ready, **change}, "run", python=PYTHON)


def test_without_a_stamp_or_its_python_an_environment_is_not_believed(
    ready: dict[str, object], tmp_path: Path
) -> None:
    assert not setup_env.is_current(setup_env.read_stamp(tmp_path), python=PYTHON)
    assert not setup_env.is_current(ready, python=tmp_path / "python")


def test_a_choice_that_is_made_must_be_the_one_made_before(
    ready: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "clang")
    assert not setup_env.is_current(ready, python=PYTHON)
    assert setup_env.is_current({**ready, "choices": {"CC": "clang"}}, python=PYTHON)


def test_a_choice_that_is_not_repeated_still_holds(ready: dict[str, object]) -> None:
    assert setup_env.is_current({**ready, "choices": {"LLAMA_CPP_WHEEL": "a.whl"}}, python=PYTHON)


def test_a_stamp_is_read_as_it_was_written(ready: dict[str, object], tmp_path: Path) -> None:
    setup_env.write_stamp(tmp_path, ready)
    assert setup_env.read_stamp(tmp_path) == ready


def test_a_folder_that_setup_did_not_make_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("two years of work")
    with pytest.raises(SetupError, match="was not made by make"):
        setup_env.create(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_a_python_without_ensurepip_is_told_which_package_brings_it() -> None:
    output = "The virtual environment was not created successfully because ensurepip is not\navailable."
    assert f"apt install python3.{sys.version_info[1]}-venv" in setup_env.explain_no_venv(output)


def test_setup_needs_nothing_but_the_standard_library() -> None:
    command = [sys.executable, "-E", "-s", "-S", str(ROOT / "scripts" / "setup_env.py")]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 2
    assert answer.stderr.startswith("usage: setup_env.py VENV {run|test|integrations|parity|bench}")
