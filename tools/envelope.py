"""Write the files envelope.json of amos_ref/conformance: the errors of right evaluations in float16 and bfloat16."""

import json
import pathlib

from amos_ref.conformance.algorithms import ALGORITHMS, Algorithm
from amos_ref.conformance.judging import envelope
from amos_ref.conformance.judging.reading import Reading
from amos_ref.storage.files import write_file


def text_of_all(algorithm: Algorithm) -> str:
    """Return the file's text: by case, for each step, the errors of theta and each part of the state."""
    rows = []
    for case in envelope.low_cases(algorithm):
        for end, etas in envelope.stored_etas(case).items():
            found = [list(worst.values()) for worst in envelope.measure(case, etas, Reading())]
            rows.append(f"{json.dumps(envelope.key_of(case) + end)}: {json.dumps(found)}")
    return "{\n" + ",\n".join(rows) + "\n}\n"


if __name__ == "__main__":
    for algorithm in ALGORITHMS.values():
        write_file(pathlib.Path(envelope.path_of(algorithm)), text_of_all(algorithm))
