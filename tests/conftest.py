"""One thread for every test: results do not depend on the machine's cores, nor times on who else uses them."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # for the programs that tests start, too
