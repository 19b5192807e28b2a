"""Curves that are drawn while the training goes on, into a file that a viewer may reload.

Without a path the picture is in the notebook, or in a window. The thin line is the mean of each
five steps.
"""

import sys

from sklearn.datasets import load_digits

from easyclf import Estimator, LivePlot

X, y = load_digits(return_X_y=True)
live = LivePlot("live_plot.png", every=5)
clf = Estimator(lr=0.01, epochs=8, validation_split=0.2, callbacks=[live], random_state=0)
try:
    clf.fit(X, y)
except ImportError as error:
    sys.exit(f"no picture: {error}")
print(f"validation accuracy {clf.history_['val_accuracy'][-1]:.4f}")
print("live curves in live_plot.png")
