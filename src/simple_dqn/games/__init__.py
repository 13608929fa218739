"""Games: the emulator with its ROMs, Gymnasium, and several games side by side."""
