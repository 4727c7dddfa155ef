"""The model card of a shared model: what it is, what it was trained on, its results, how to load it."""

from __future__ import annotations

from huggingface_hub import ModelCardData

from twostep.runs.directory import Run

TEMPLATE = """---
{front}
---

# {title}

{summary}

{images}## Use

```python
import twostep

model = twostep.from_pretrained("{where}"{own})
{use}
```

`pip install twostep`. On the command line, a folder with these files is used as a run: `twostep {commands} FOLDER`.
It holds weights as safetensors and configs as JSON; nothing in it is executed.

## Results

{results}

On the test split of its data. The log-density of a two-step model is one on the learned manifold, at the projection of
a point: how far the point is from the manifold says `reconstruction_error`. Numbers of different kind or measure can't
be compared.
"""
DENSITY = "samples = model.sample(16)      # in units of the data\nlog_prob = model.log_prob(x)    # nats{kind}"
AUTOENCODER = "z = model.encode(x)\ndistance = model.reconstruction_error(x)"
TAGS = ["density-estimation", "generative-model", "manifold-learning", "out-of-distribution-detection"]


def model_card(run: Run, where: str) -> str:
    """Return the text of `README.md` for the folder of a shared model, which is at `where`."""
    models = [config.name for config in run.settings.models.values()]
    spec, name, tested = run.spec, " + ".join(models), run.read_metrics("test")
    kind = next((f"; {one.kind}" for found in tested.values() for one in found.values() if one.kind), "")
    what = "A two-step model: an autoencoder and a density on its embeddings" if len(models) > 1 else f"A single {name}"
    shown = (("samples/samples.png", "Samples"), ("samples/reconstructions.png", "Reconstructions"))
    rows = [
        f"| {part} | {metric} | {f'{one.shown} {one.uncertainty}'.strip()} | {one.unit} | {one.kind} {one.measure} |"
        for part, found in tested.items()
        for metric, one in found.items()
    ]
    head = "| model | metric | value | unit | kind and measure |\n|---|---|---|---|---|\n"
    return TEMPLATE.format(
        front=ModelCardData(library_name="twostep", tags=[*TAGS, *models]).to_yaml(),
        title=f"{name} on {spec.name}",
        summary=f"{what}, trained on {spec.size:,} rows of shape {'x'.join(map(str, spec.shape))} ({spec.name}).",
        images="".join(f"![{caption}]({path})\n\n" for path, caption in shown if (run.path / path).is_file()),
        where=where,
        own=", gae=(encode, decode)" if "external" in models else "",
        use=AUTOENCODER if run.settings.is_gae else DENSITY.format(kind=kind),
        commands="encode" if run.settings.is_gae else "sample|score|encode",
        results=head + "\n".join(rows) if rows else "Not tested.",
    )
