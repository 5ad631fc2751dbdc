"""The compiled modules: one per family of ``ext/``, plus ``simd`` (instruction-set level) and ``threads``."""
