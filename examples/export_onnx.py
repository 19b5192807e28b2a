"""Train on a table, write an ONNX file, and answer by onnxruntime alone.

Needs `pip install "easyclf[onnx]"`.
"""

import json

import numpy as np
import onnxruntime
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

from easyclf import Estimator

X, y = load_wine(return_X_y=True)
names = np.array(["Barolo", "Grignolino", "Barbera"])[y]
X_train, X_test, names_train, names_test = train_test_split(
    X, names, stratify=names, random_state=0
)

clf = Estimator(epochs=100, random_state=0).fit(X_train, names_train)
clf.export("wine.onnx")

# From here on without easyclf and torch: the file has the standardization and the softmax too.
session = onnxruntime.InferenceSession("wine.onnx")
(given,) = session.get_inputs()
labels = np.array(json.loads(session.get_modelmeta().custom_metadata_map["classes"]))
(probabilities,) = session.run(["probabilities"], {given.name: X_test.astype(np.float32)})
answers = labels[probabilities.argmax(1)]

print(f"wine.onnx takes {given.name} {given.shape} and knows {', '.join(labels)}")
print(
    f"accuracy {np.mean(answers == names_test):.3f}; by easyclf {clf.score(X_test, names_test):.3f}"
)
print(f"largest difference {abs(probabilities - clf.predict_proba(X_test)).max():.1e}")
