"""Write amos_ref/conformance/judging/envelope.json: the errors of right evaluations in float16 and bfloat16."""

import json
import pathlib

from amos_ref.conformance.cases import table
from amos_ref.conformance.judging import envelope
from amos_ref.conformance.judging.reading import STATE, Reading
from amos_ref.storage.files import write_file

PATH = pathlib.Path(envelope.__file__).with_suffix(".json")


def text_of_all() -> str:
    """Return the file's text: by case, for each step, the errors of theta, v, b and m."""
    rows = []
    for case in table():
        if case.dtype in envelope.ENVELOPE_DTYPES:
            found = [[worst[what] for what in STATE] for worst in envelope.measure(case, case.eta, Reading())]
            rows.append(f"{json.dumps(envelope.key_of(case))}: {json.dumps(found)}")
    return "{\n" + ",\n".join(rows) + "\n}\n"


if __name__ == "__main__":
    write_file(PATH, text_of_all())
