"""The names of the metrics change on purpose only."""

import twostep.metrics


def test_names_of_metrics():
    assert sorted(twostep.metrics.METRICS) == [
        "c2st",
        "fd",
        "fd_infinity",
        "fid",
        "kid",
        "l2_reconstruction_error",
        "likelihood_ood_acc",
        "likelihood_ood_acc_low_dim",
        "log_likelihood",
        "loss",
        "memorisation",
        "mmd",
        "precision_recall_density_coverage",
        "sliced_wasserstein",
    ]
