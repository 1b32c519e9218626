"""The registry of the built-in feature families."""

from __future__ import annotations

from feedrank.features.families.activity import recency, user
from feedrank.features.families.family import FamilyFunction
from feedrank.features.families.history import categories, dislikes, item_item, item_stats
from feedrank.features.families.listwise import listwise
from feedrank.features.families.rates import custom_counters, rates
from feedrank.features.families.recall import recall
from feedrank.features.families.similarity import similarity
from feedrank.features.families.text_relevance import bm25, cross_encoder, late_interaction

FAMILIES: dict[str, FamilyFunction] = {
    "recall": recall,
    "bm25": bm25,
    "similarity": similarity,
    "late_interaction": late_interaction,
    "cross_encoder": cross_encoder,
    "item_item": item_item,
    "rates": rates,
    "recency": recency,
    "categories": categories,
    "item_stats": item_stats,
    "custom_counters": custom_counters,
    "user": user,
    "dislikes": dislikes,
    "listwise": listwise,
}
"""Family name -> the function that computes its columns."""
