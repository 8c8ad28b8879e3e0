"""The graphics cards of this machine: which there are, and which of them a study may use."""

from __future__ import annotations

import os


def list_cards(device: str) -> list[str]:
    """Return the cards that models may be spread over, as ``CUDA_VISIBLE_DEVICES`` names them.

    All that this process sees for ``auto`` and ``cuda``; none for a device of one name.
    """
    if device not in ("auto", "cuda"):
        return []
    import torch

    count = torch.cuda.device_count()
    named = [card.strip() for card in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if card.strip()]
    # CUDA ends the list at the first name that is no card, and counts those before it.
    return named[:count] or [str(number) for number in range(count)]
