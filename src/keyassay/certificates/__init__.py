"""From files, archives, text, key stores and servers to items with plain numbers, bounded against hostile input.

``reading`` finds encodings (``RawItem``), ``decoding`` makes items of them (``Item``), ``batches`` groups their keys.
"""

import warnings

# The strict parser warns of what the checks are to look at (serial numbers that are negative, say). Here such things
# become notices of an item; on standard error they would name no certificate.
warnings.filterwarnings("ignore", category=UserWarning, module=r"keyassay\.certificates\b")
