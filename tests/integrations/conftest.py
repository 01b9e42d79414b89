from __future__ import annotations

import os

# Nothing here may ask the network for anything; the library looks at this when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
