"""Run by tests/test_export.py with a Python of its own: an export, loaded by transformers 4, says what transformers 5 has said.

python tests/in_transformers_4.py EXPORT EXPORT_IN_BF16 FOLDER, where the folder holds expected.json and expected.safetensors.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

exported, halved, folder = map(Path, sys.argv[1:])
print("transformers", transformers.__version__)
assert transformers.__version__.startswith("4.")
expected, numbers = json.loads((folder / "expected.json").read_text()), load_file(folder / "expected.safetensors")

for kind in (transformers.AutoTokenizer, transformers.AlbertTokenizerFast):
    tokenizer = kind.from_pretrained(exported)
    assert [dict(tokenizer(line, line[:20])) for line in expected["lines"]] == expected["encoded"], kind

for name, head in expected["heads"].items():
    model, info = getattr(transformers, f"Albert{name}").from_pretrained(exported, output_loading_info=True)
    assert {key.partition(".")[0] for key in info["missing_keys"]} == ({head} if head else set()), (name, info)
    left = [key for key in info["unexpected_keys"] if not key.startswith(("predictions.", "sop_classifier.", "albert.pooler."))]
    assert not left + list(info["mismatched_keys"]), (name, info)

inputs = {key: numbers[key][None] for key in ("input_ids", "token_type_ids")}
model, info = transformers.AlbertForPreTraining.from_pretrained(exported, output_loading_info=True)
assert not any(info.values()), info
with torch.no_grad():
    output = model.eval()(**inputs)
torch.testing.assert_close(output.prediction_logits[0], numbers["mlm_logits"], atol=1e-5, rtol=1e-5)
torch.testing.assert_close(output.sop_logits, numbers["sop_logits"], atol=1e-5, rtol=1e-5)

rounded = transformers.AlbertForPreTraining.from_pretrained(halved, dtype="auto").state_dict()
assert all(torch.equal(tensor.bfloat16(), rounded[name]) for name, tensor in model.state_dict().items())
assert len(transformers.pipeline("fill-mask", str(exported))("The state of the [MASK] is strong.")) == 5
