"""Thousands of models by estimated latency: reading them, answering in packs on several cores, keeping the answers."""

from __future__ import annotations

from costmodel.ranking.run import Ranking, rank
from costmodel.ranking.work import Answer, Settings

__all__ = ["Answer", "Ranking", "Settings", "rank"]
