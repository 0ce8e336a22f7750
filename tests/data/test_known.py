"""Ready-made data sets: described without files; read where the files are there. Counts are those of their origin."""

import pytest

from fedloom.core.errors import DataError
from fedloom.core.rng import stream
from fedloom.data.folder import data_folder
from fedloom.data.known import KNOWN, heart_disease, telco_churn
from fedloom.data.partition import ByColumn

ROWS = {
    "heart_disease": 920,
    "telco_churn": 7043,
    "credit_default": 30000,
    "math_achieve": 7185,
    "mnist": 60000,
    "pneumonia_mnist": 4708,
}
TESTS = {"mnist": 10000, "pneumonia_mnist": 624}
POSITIVES = {"heart_disease": 509, "telco_churn": 1869, "credit_default": 6636, "pneumonia_mnist": 3494}


@pytest.fixture
def _files() -> None:
    try:
        data_folder()
    except DataError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", KNOWN)
def test_each_is_described_without_its_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDLOOM_DATA", "/nowhere")
    source = KNOWN[name]()
    assert source.input_shape
    assert (source.classes == 0) == (source.task == "regression")
    with pytest.raises(DataError, match="set the environment variable FEDLOOM_DATA"):
        source.read()


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize("name", KNOWN)
def test_each_reads_as_many_rows_as_its_origin_states(name: str) -> None:
    source = KNOWN[name]()
    rows, test = source.read(), source.test()
    assert rows.size == ROWS[name]
    assert (test.size if test is not None else None) == TESTS.get(name)
    if name in POSITIVES:
        assert rows.labels().sum() == POSITIVES[name]


@pytest.mark.usefixtures("_files")
def test_heart_disease_lies_at_four_hospitals() -> None:
    sites = ByColumn("site").split(heart_disease().read(), stream(0, "partition"))
    sizes = {name: len(index) for name, index in sites.items()}
    assert sizes == {"cleveland": 303, "hungarian": 294, "switzerland": 123, "va_long_beach": 200}


def test_schemas_have_their_published_columns() -> None:
    heart, telco = heart_disease().schema, telco_churn().schema
    assert [column.name for column in heart.features] == [
        *("age", "sex", "cp", "trestbps", "fbs", "restecg", "thalach", "exang", "oldpeak")
    ]
    assert heart.inputs == 17
    assert len(telco.features) == 19
    assert telco.outputs == ("No", "Yes")
