# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A table as it is
#
# Customers of a shop: words, integers, amounts, dates and gaps. A density takes the frame as it is, and its samples are
# a frame of the same columns.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from twostep import DensityModel

rng = np.random.default_rng(0)
count = 3000
plan = rng.choice(["basic", "plus", "pro"], count, p=[0.5, 0.3, 0.2])
level = np.select([plan == "basic", plan == "plus"], [0, 1], 2)
joined = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1800, count), "D")
orders = rng.poisson(2 + 4 * level)
spend = pd.Series(np.exp(2 + 0.8 * level + 0.15 * orders + 0.4 * rng.normal(size=count)))
spend[rng.random(count) < 0.1 + 0.2 * (plan == "basic")] = np.nan  # more often unknown for one plan
table = pd.DataFrame({"plan": plan, "joined": joined, "orders": orders, "spend": spend})
train, test = table[:2500], table[2500:]
train.head()

# %% [markdown]
# A normalizing flow sees each column as one coordinate: numbers by their quantiles, words and integers dequantised. The
# log-probability of a row is then a lower bound, of a density in the amounts and a probability in the other columns.

# %%
model = DensityModel("flow", de_config={"max_epochs": 60}, random_state=0).fit(train)
print(f"log-probability of a new row: {model.score(test):.2f} nats on average ({model.likelihood_})")
samples = model.sample(2500, random_state=0)
samples.head()

# %% [markdown]
# ## Are the samples like the data?
#
# Each column by itself, and what the columns say about each other:

# %%
figure, axes = plt.subplots(1, 4, figsize=(13, 3), layout="constrained")
for name, panel in zip(table.columns, axes, strict=True):
    both = {"data": train[name], "samples": samples[name]}
    if name == "plan":
        shares = {key: values.value_counts(normalize=True) for key, values in both.items()}
        pd.DataFrame(shares).plot.bar(ax=panel, rot=0)
    else:
        bins = np.arange(20) if name == "orders" else 30
        shown = {key: np.log(values.dropna()) if name == "spend" else values for key, values in both.items()}
        panel.hist(list(shown.values()), bins=bins, density=True, label=list(shown))
    panel.set_title("log spend" if name == "spend" else name)
    panel.tick_params("x", labelrotation=30 if name == "joined" else 0)
_ = axes[0].legend()

# %%
said = {
    key: values.groupby("plan").agg(orders=("orders", "mean"), spend=("spend", "median"), known=("spend", "count"))
    for key, values in {"data": train, "samples": samples}.items()
}
pd.concat(said, axis=1).round(1)

# %% [markdown]
# ## Unlikely rows
#
# A basic customer with twenty orders is not impossible, only improbable:

# %%
strange = test.head(3).assign(plan="basic", orders=[2, 8, 20])
strange.assign(log_probability=model.score_samples(strange).round(1))

# %% [markdown]
# On the command line: `twostep train-single --dataset customers.csv --model flow`, then
# `twostep sample RUN -n 100 --to samples.csv`.
