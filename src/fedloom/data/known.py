"""Public data sets, ready to use; their files lie in `data_folder()` and are not part of the library."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from .arrays import Npz
from .folder import FOLDER
from .schema import Column, Schema
from .sources import Csv, Source


def heart_disease() -> Csv:
    """UCI Heart Disease (Detrano et al., 1989): 920 patients of four hospitals, column `site`; is there disease?

    Nine columns that all four hospitals recorded. `chol` is left out (never measured at one hospital), as are
    `slope`, `ca` and `thal` (mostly missing at three). A resting blood pressure of 0 means missing. Ranges are what a
    living adult can have, in years, mmHg, beats a minute and mm.
    """
    features = (
        Column("age", range=(0, 120)),
        Column("sex", "categorical", ("0", "1")),
        Column("cp", "categorical", ("1", "2", "3", "4")),
        Column("trestbps", missing="mean", range=(60, 240), missing_values=("", "0")),
        Column("fbs", "categorical", ("0", "1"), missing="other"),
        Column("restecg", "categorical", ("0", "1", "2"), missing="other"),
        Column("thalach", missing="mean", range=(40, 220)),
        Column("exang", "categorical", ("0", "1"), missing="other"),
        Column("oldpeak", missing="mean", range=(-5, 10)),
    )
    schema = Schema(features, "disease", classes=("0", "1"))
    return Csv(f"{FOLDER}/heart_disease/heart_disease.csv.gz", schema)


def telco_churn() -> Csv:
    """IBM's sample of 7,043 customers of a fictional operator: who leaves? `TotalCharges` is blank for new ones."""
    internet = ("No", "No internet service", "Yes")
    features = (
        Column("gender", "categorical", ("Female", "Male")),
        Column("SeniorCitizen", "categorical", ("0", "1")),
        _yes_no("Partner"),
        _yes_no("Dependents"),
        Column("tenure"),
        _yes_no("PhoneService"),
        Column("MultipleLines", "categorical", ("No", "No phone service", "Yes")),
        Column("InternetService", "categorical", ("DSL", "Fiber optic", "No")),
        Column("OnlineSecurity", "categorical", internet),
        Column("OnlineBackup", "categorical", internet),
        Column("DeviceProtection", "categorical", internet),
        Column("TechSupport", "categorical", internet),
        Column("StreamingTV", "categorical", internet),
        Column("StreamingMovies", "categorical", internet),
        Column("Contract", "categorical", ("Month-to-month", "One year", "Two year")),
        _yes_no("PaperlessBilling"),
        Column(
            "PaymentMethod",
            "categorical",
            ("Bank transfer (automatic)", "Credit card (automatic)", "Electronic check", "Mailed check"),
        ),
        Column("MonthlyCharges"),
        Column("TotalCharges", missing="mean"),
    )
    schema = Schema(features, "Churn", classes=("No", "Yes"))
    return Csv(f"{FOLDER}/telco_churn/telco_churn.csv.gz", schema)


def credit_default() -> Csv:
    """UCI Default of Credit Card Clients (Yeh and Lien, 2009): 30,000 clients in Taiwan, 2005; who defaults?"""
    months = (0, 2, 3, 4, 5, 6)
    features = (
        Column("LIMIT_BAL"),
        Column("SEX", "categorical", ("1", "2")),
        Column("EDUCATION", "categorical", tuple(str(code) for code in range(7))),
        Column("MARRIAGE", "categorical", tuple(str(code) for code in range(4))),
        Column("AGE"),
        *(Column(f"PAY_{month}") for month in months),
        *(Column(f"BILL_AMT{month}") for month in range(1, 7)),
        *(Column(f"PAY_AMT{month}") for month in range(1, 7)),
    )
    schema = Schema(features, "default.payment.next.month", classes=("0", "1"))
    return Csv(f"{FOLDER}/credit_default/credit_default.csv.gz", schema)


def math_achieve() -> Csv:
    """High School and Beyond (1982): 7,185 pupils of 160 schools, column `School`; regression of `MathAch`."""
    features = (_yes_no("Minority"), Column("Sex", "categorical", ("Female", "Male")), Column("SES"), Column("MEANSES"))
    return Csv(f"{FOLDER}/math_achieve/math_achieve.csv.gz", Schema(features, "MathAch", "regression"))


def mnist() -> Npz:
    """MNIST (LeCun et al., 1998): 60,000 and 10,000 handwritten digits of 28 x 28 bytes."""
    return Npz(f"{FOLDER}/mnist/mnist.npz")


def pneumonia_mnist() -> Npz:
    """PneumoniaMNIST (Yang et al., MedMNIST v2, 2023): 4,708 and 624 chest X-rays of 28 x 28 bytes."""
    return Npz(f"{FOLDER}/pneumonia_mnist/pneumonia_mnist.npz", classes=2, names=("normal", "pneumonia"))


def _yes_no(name: str) -> Column:
    return Column(name, "categorical", ("No", "Yes"))


KNOWN: Mapping[str, Callable[[], Source]] = MappingProxyType(
    {made.__name__: made for made in (heart_disease, telco_churn, credit_default, math_achieve, mnist, pneumonia_mnist)}
)
