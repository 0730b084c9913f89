"""Fine-grained image retrieval from a sketch plus a short text (STBIR, arXiv 2604.15735)."""
