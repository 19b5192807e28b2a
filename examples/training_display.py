"""The curves of several trainings over one another: three learning rates on the digits.

Training and validation of a run are of one colour; the legend says in which epoch it was best.
"""

from sklearn.datasets import load_digits

from easyclf import Estimator, TrainingDisplay

X, y = load_digits(return_X_y=True)
runs = [
    Estimator(lr=lr, epochs=25, batch_size=128, validation_split=0.2, random_state=0).fit(X, y)
    for lr in (1e-3, 1e-2, 5e-2)
]
for clf in runs:
    best = clf.history_.best("val_loss")
    print(f"lr {clf.lr:g}: validation accuracy {best['val_accuracy']:.4f} in epoch {best['epoch']}")

try:
    display = TrainingDisplay.from_estimator(*runs)
except ImportError as error:
    print(f"no picture: {error}")
else:
    display.figure_.savefig("training_display.png")
    print("curves in training_display.png")
