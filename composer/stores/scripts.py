"""Which scripts put no spaces between words, as parts of a regular expression."""

__all__ = ["UNSPACED"]

# Thai and Lao, Burmese, Khmer, kana, Han with its compatibility forms and supplements.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af"
)
