"""Out-of-distribution detection: scores, conformal calibration, detection figures."""
