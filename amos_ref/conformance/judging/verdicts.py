"""The words with which a check answers."""

#: What a case can come to, in the order of reports.
VERDICTS = {
    "conforms": "every step lies within the derived bound",
    "departs": "a step does not; the first quantity that is off is named",
    "wrong shape": "the parameters after a step have another shape than before",
    "not finite": "NaN or infinity where the page has a number",
    "overwrites its input": "the numbers are right, but the port writes to the gradients it is given",
    "raises": "the port raised",
    "hangs": "no answer in time",
    "ended": "the port's process ended",
    "killed": "the port's process was killed by a signal, as by a segmentation fault",
    "crashes": "the port can answer no more",
    "garbage": "what the port answered cannot be understood",
    "no longer departs": "a departure that was listed as expected did not happen",
    "not supported": "the port lacks what the case needs",
}

#: Those that fail a check, unless they are expected.
FAILING = tuple(verdict for verdict in VERDICTS if verdict not in ("conforms", "not supported"))

#: Those of them in which the port gave no numbers to judge.
UNANSWERED = ("raises", "hangs", "ended", "killed", "crashes", "garbage")

#: Those of them in which the port said nothing at all.
SILENT = ("hangs", "ended", "killed", "crashes")
