"""Export a trained run: query and product SavedModels, vectors, Faiss index, manifest.

    python export.py RUN [--index SPEC] [--data DIR] [--json]

Only the index is built anew when the run has an export already and `--index` is given.
"""

import sys

from uepp.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "export")
    main()
