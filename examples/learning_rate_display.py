"""A learning rate by a range test, in place of guesses: the loss over rising rates.

The estimator stays as it is; the suggestion is where the loss falls fastest.
"""

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from easyclf import Estimator

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

clf = Estimator(epochs=10, random_state=0)
display = clf.find_lr(X_train, y_train)
for lr in (clf.lr, display.suggestion_):
    clf.fit(X_train, y_train, lr=lr)
    print(f"lr {lr:.2g}: test accuracy {clf.score(X_test, y_test):.4f} after 10 epochs")

try:
    display.plot()
except ImportError as error:
    print(f"no picture: {error}")
else:
    display.figure_.savefig("learning_rate_display.png")
    print("loss over rates in learning_rate_display.png")
