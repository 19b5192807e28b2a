"""A textbook's Classifier base class, as one Estimator and one callback.

The callback draws every batch into a live figure; averages are exact, although the last batch is
short; and answers weigh what a mistake costs, or say "uncertain".
"""

import sys

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import train_test_split

from easyclf import Callback, Estimator

try:
    import matplotlib.pyplot as plt
except ImportError:
    sys.exit("The live figure needs matplotlib: run `pip install matplotlib`.")


class LiveCurves(Callback):
    def on_train_begin(self, state):
        self.figure_, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
        self.curves_ = {}
        for ax, name in zip(axes, ("loss", "accuracy"), strict=True):
            (self.curves_[name],) = ax.plot([], [], label="each training batch")
            (self.curves_[f"val_{name}"],) = ax.plot([], [], "o-", label="validation")
            ax.set(xlabel="epoch", ylabel=name)
            ax.legend()

    def on_batch_end(self, state):
        self.draw(state, state.epoch - 1 + state.batch / state.steps_per_epoch, "loss", "accuracy")

    def on_epoch_end(self, state):
        self.draw(state, state.epoch, "val_loss", "val_accuracy")

    def draw(self, state, epoch, *names):
        for name in names:
            x, y = self.curves_[name].get_data()
            self.curves_[name].set_data([*x, epoch], [*y, float(state.logs[name])])
            self.curves_[name].axes.relim()
            self.curves_[name].axes.autoscale_view()
        if self.figure_.canvas.required_interactive_framework:  # somebody sees it
            plt.pause(0.001)


X, y = load_breast_cancer(return_X_y=True)
y = np.where(y == 0, "malignant", "benign")
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.4, random_state=0)

live = LiveCurves()
clf = Estimator(optimizer="sgd", lr=0.1, epochs=10, batch_size=32, callbacks=[live], random_state=0)
clf.fit(X_train, y_train, validation_data=(X_test, y_test))
live.figure_.savefig("textbook_classifier.png")
print("live curves in textbook_classifier.png")

means = np.reshape(live.curves_["loss"].get_ydata(), (10, -1)).mean(axis=1)
print(f"last loss {clf.history_['loss'][-1]:.4f}; the mean of its batches is {means[-1]:.4f}")
print(f"test accuracy {clf.score(X_test, y_test):.4f}")

costs = np.array([[0, 1], [10, 0]])  # rows: truly benign, malignant; columns: the answers
for name, table in ("likeliest", None), ("cheapest", costs):
    counts = confusion_matrix(y_test, clf.predict(X_test, costs=table))
    print(f"{name} answers: {counts[1, 0]} missed, {counts[0, 1]} false alarms,", end=" ")
    print(f"cost {(costs * counts).sum()}")

answers = clf.predict(X_test, min_proba=0.9, uncertain="uncertain")
sure = answers != "uncertain"
print(f"{sum(~sure)} of {len(sure)} answers are uncertain;", end=" ")
print(f"accuracy of the others {np.mean(answers[sure] == y_test[sure]):.4f}")
