"""`make lock`: write requirements.lock, the exact version of everything that .venv holds."""

from importlib.metadata import distributions
from pathlib import Path

LEFT_OUT = {"mizzen", "pip", "setuptools", "wheel"}


def main() -> None:
    # A local label (2.13.0+cpu) names one build of a version; the lock is for any machine.
    pins = {d.metadata["Name"].lower().replace("_", "-"): d.version.partition("+")[0] for d in distributions()}
    lines = [f"{name}=={version}" for name, version in sorted(pins.items()) if name not in LEFT_OUT]
    header = "# Written by `make lock`; used as constraints, so that every machine gets the same versions.\n"
    Path("requirements.lock").write_text(header + "\n".join(lines) + "\n")
    print(f"requirements.lock: {len(lines)} packages")


if __name__ == "__main__":
    main()
