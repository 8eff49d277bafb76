"""The site's search, which finds Chinese words as well: Chinese has no blanks between words.

Sphinx takes the text between two marks of punctuation for one word, so that only whole clauses find a Chinese page.
Here each Chinese character is a word, and so is each pair of neighbours. A longer query finds the pages that have all
of its pairs. The dictionary of jieba would cut in better places, but it would be one more thing to install.
"""

import itertools
import re

from sphinx.search.en import SearchEnglish

HAN = "\u3400-\u4dbf\u4e00-\u9fff"
RUNS = re.compile(f"[{HAN}]+|[^{HAN}]+")


class EnglishAndChinese(SearchEnglish):
    """English words by their stems, and Chinese by its characters and pairs of characters."""

    js_splitter_code = """
var splitQuery = (query) => query
  .split(/[^\\p{Letter}\\p{Number}_\\p{Emoji_Presentation}]+/gu)
  .flatMap((word) => word.match(/[HAN]+|[^HAN]+/gu) ?? [])
  .flatMap((run) => /^[HAN]{2}/u.test(run)
    ? Array.from(run.slice(1), (character, i) => run[i] + character)
    : [run]);
""".replace("HAN", HAN)

    def split(self, input: str) -> list[str]:
        """Return the words of a text.

        Examples
        --------
        >>> EnglishAndChinese({}).split("Amos 的时钟 b, half-life")
        ['Amos', '的', '时', '钟', '的时', '时钟', 'b', 'half', 'life']
        """
        words = []
        for run in (run for word in super().split(input) for run in RUNS.findall(word)):
            chinese = re.match(f"[{HAN}]", run)
            words += [*run, *map("".join, itertools.pairwise(run))] if chinese else [run]
        return words
