"""A textbook's Classifier base class, as one Estimator and one callback.

`LivePlot` draws every batch into a live figure; averages are exact, although the last batch is
short; and answers weigh what a mistake costs, or say "uncertain".
"""

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import train_test_split

from easyclf import Estimator, LambdaCallback, LivePlot

X, y = load_breast_cancer(return_X_y=True)
y = np.where(y == 0, "malignant", "benign")
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.4, random_state=0)

losses = []
note = LambdaCallback(on_batch_end=lambda state: losses.append(state.logs["loss"].item()))
live = LivePlot("textbook_classifier.png", every=1)
clf = Estimator(optimizer="sgd", lr=0.1, epochs=10, batch_size=32, random_state=0)
clf.fit(X_train, y_train, validation_data=(X_test, y_test), callbacks=[live, note])
print("live curves in textbook_classifier.png")

means = np.reshape(losses, (10, -1)).mean(axis=1)
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
