"""What notebooks show of an estimator: scikit-learn's diagram, the module and the training."""

import re
from importlib.metadata import metadata

import pytest
import sklearn
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import easyclf.presenter
from easyclf import Estimator, LambdaCallback
from easyclf.presenter import Presenter

IS_IN_DIAGRAMS = hasattr(BaseEstimator, "_get_fitted_attr_html")


@pytest.fixture
def clf(network, blobs):
    return Estimator(network, lr=0.1, epochs=3, random_state=0).fit(*blobs, validation_data=blobs)


def test_a_fitted_estimator_shows_parameters_module_and_curve(clf):
    html = clf._repr_html_()

    assert "sk-top-container" in html
    assert "0.1" in html
    assert "Module: Sequential, 67 parameters" in html
    assert "Tanh" in html
    assert html.count("<polyline") == 2
    assert ">val_loss</text>" in html
    assert "History of 3 epochs" in html


def test_of_many_layers_the_first_thirty_are_shown(blobs):
    layers = [nn.Identity() for _ in range(40)]

    html = Estimator(nn.Sequential(nn.Linear(4, 3), *layers), epochs=1).fit(*blobs)._repr_html_()

    assert html.count(">Identity<") == 28
    assert "... and 12 more; see <code>summary()</code>" in html


def test_all_is_shown_once(clf):
    assert clf._repr_html_().count("<polyline") == 2
    assert clf._repr_mimebundle_()["text/html"].count("<polyline") == 2
    assert clf._repr_mimebundle_()["text/plain"] == repr(clf)


def test_before_fit_there_is_scikit_learns_diagram_alone():
    html = Estimator(lr=0.1)._repr_html_()

    assert "sk-top-container" in html
    assert "Module:" not in html


@pytest.mark.skipif(not IS_IN_DIAGRAMS, reason="scikit-learn asks for no fitted attributes")
def test_pipelines_show_it_in_their_diagrams(network, blobs):
    pipeline = make_pipeline(StandardScaler(), Estimator(network, epochs=3)).fit(*blobs)

    html = pipeline._repr_html_()

    assert html.count("<polyline") == 1
    assert "Module: Sequential" in html


def test_a_scikit_learn_that_asks_for_nothing_gets_it_below_its_diagram(clf, monkeypatch):
    monkeypatch.delattr(Presenter, "_get_fitted_attr_html")

    for html in (clf._repr_html_(), clf._repr_mimebundle_()["text/html"]):
        assert "sk-top-container" in html
        assert html.count("<polyline") == 2
        assert html.index("sk-top-container") < html.index("<polyline")


def test_where_text_is_asked_for_there_is_no_html(clf):
    with sklearn.config_context(display="text"):
        assert not hasattr(clf, "_repr_html_")
        assert "text/html" not in clf._repr_mimebundle_()


def test_showing_runs_no_code_of_the_module_and_changes_nothing(blobs):
    calls = []

    class Noting(nn.Linear):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    clf = Estimator(Noting(4, 3), epochs=1).fit(*blobs)
    n_calls, before = len(calls), set(vars(clf))

    clf._repr_html_()

    assert len(calls) == n_calls
    assert set(vars(clf)) == before


SCRIPT = "<script>alert(1)</script>"


def test_names_of_classes_metrics_and_labels_are_words_and_no_elements(blobs):
    class Network(nn.Sequential):
        pass

    class Fancy(Estimator):
        pass

    Network.__name__ = Network.__qualname__ = Fancy.__name__ = SCRIPT
    labels = [f"{SCRIPT}{label}" for label in blobs[1]]
    add = LambdaCallback(on_epoch_end=lambda state: state.logs.update({SCRIPT: 1.0}))
    clf = Fancy(Network(nn.Linear(4, 3)), epochs=2, callbacks=[add])
    clf.fit(blobs[0], labels, validation_split=0.2)

    for html in (clf._repr_html_(), make_pipeline(clf)._repr_html_(), clf.history_._repr_html_()):
        assert "<script>alert" not in html
        assert "&lt;script&gt;alert" in html


@pytest.mark.parametrize(
    ("address", "link"),
    [
        ("Documentation, https://docs.test/", "https://docs.test/api/easyclf.Estimator.html"),
        ("Homepage, https://docs.test/", ""),
    ],
)
def test_the_link_leads_to_the_reference_where_it_has_an_address(address, link, monkeypatch):
    said = metadata("easyclf")
    del said["Project-URL"]
    said["Project-URL"] = address
    monkeypatch.setattr(easyclf.presenter, "metadata", lambda name: said)

    links = re.findall(
        r'class="sk-estimator-doc-link[^"]*"[^>]*href="([^"]*)"', Estimator()._repr_html_()
    )

    assert links == ([link] if link else [])


def test_classes_of_others_have_no_page_here(monkeypatch):
    class Own(Estimator):
        pass

    said = metadata("easyclf")
    said["Project-URL"] = "Documentation, https://docs.test/"
    monkeypatch.setattr(easyclf.presenter, "metadata", lambda name: said)

    assert Own()._get_doc_link() == ""
