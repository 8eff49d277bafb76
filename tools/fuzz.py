"""Coverage-guided fuzzing of one entry point, by atheris: python tools/fuzz.py TARGET [libFuzzer's options].

What reaches new code is kept in build/corpus/TARGET. An input that breaks the target is written there as crash-*; put
it into tests/corpus/TARGET, where the tests replay it, before you mend what it found.
"""

import pathlib
import sys

import atheris  # pyright: ignore[reportMissingImports]

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

# Numba compiles these, and cannot compile what atheris makes of them.
FILES = [ROOT / "amos_ref" / name for name in ("spec.py", "closed_form.py")]
FILES += [path for room in ("kernels", "optimizers") for path in (ROOT / "amos_ref" / room).rglob("*.py")]
COMPILED = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES]

with atheris.instrument_imports(include=["amos_ref"], exclude=COMPILED):
    from helpers import fuzzing


def main() -> None:
    """Fuzz until an option says to stop, as -max_total_time=60 does, or until a fault is found."""
    name, *options = sys.argv[1:]
    found, kept = ROOT / "build" / "corpus" / name, ROOT / "tests" / "corpus" / name
    found.mkdir(parents=True, exist_ok=True)
    argv = [sys.argv[0], *options, f"-artifact_prefix={found}/", str(found), str(kept)]
    atheris.Setup(argv, lambda data: fuzzing.feed(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
