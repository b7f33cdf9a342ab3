"""lmms-eval asks a tuned run by a task file of its own form; counted as skipped where it is not
installed (`uv sync --extra lmms-eval`)."""

import json

import pytest
from PIL import Image

lmms_eval = pytest.importorskip("lmms_eval")

TASK = """
task: colours
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function colours.visual
doc_to_text: question
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 8, until: ["."]}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
VISUAL = """
from PIL import Image


def visual(doc):
    return [Image.open(doc["image"])]
"""


@pytest.mark.slow
@pytest.mark.apps
def test_lmms_eval_asks_a_tuned_run(smoke_tuned, tmp_path, monkeypatch):
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.models import get_model
    from lmms_eval.tasks import TaskManager

    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    docs = []
    for number, colour in enumerate(("red", "blue", "green")):
        picture = tmp_path / f"{number}.png"
        Image.new("RGB", (40, 30), colour).save(picture)
        docs.append({"image": str(picture), "question": "what colour is it?", "answer": colour})
    data = tmp_path / "data.json"
    data.write_text("\n".join(map(json.dumps, docs)))
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "colours.yaml").write_text(TASK.format(data=data))
    (tasks / "colours.py").write_text(VISUAL)
    model = get_model("cm3leon")(run=str(smoke_tuned), device="cpu", batch_size=2)
    asked = []
    answer = model.generate_until
    monkeypatch.setattr(model, "generate_until", lambda got: asked.extend(got) or answer(got))
    found = simple_evaluate(
        model=model,
        tasks=["colours"],
        task_manager=TaskManager(include_path=str(tasks)),
        log_samples=True,
        device="cpu",
    )
    assert [one.args[0] for one in asked] == ["what colour is it?"] * 3
    assert 0 <= found["results"]["colours"]["exact_match,none"] <= 1
    for name in ("loglikelihood", "generate_until_multi_round"):
        with pytest.raises(NotImplementedError, match="cm3leon: wanted"):
            getattr(model, name)([])
