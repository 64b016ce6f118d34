"""Run by tests/test_squad_scorer.py with a Python of its own: the figures of SQuAD as transformers 4 counts them.

Answers, right answers and probabilities of none, by question, come in as JSON; the figures go out as JSON.
"""

import json
import sys
from types import SimpleNamespace

import transformers
from transformers.data.metrics.squad_metrics import squad_evaluate

assert transformers.__version__.startswith("4.")
told = json.load(sys.stdin)
examples = [SimpleNamespace(qas_id=name, answers=[{"text": text} for text in golds]) for name, golds in told["golds"].items()]
print(json.dumps(squad_evaluate(examples, told["answers"], told["na_prob"])))
