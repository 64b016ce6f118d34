"""Figures of predictions, from scikit-learn, scipy and seqeval; GLUE's (Wang et al., arXiv 1804.07461, table 1) among them."""

import math

import numpy as np
from scipy.stats import pearsonr, spearmanr
from seqeval.metrics import sequence_labeling
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef


def classification_scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Logits (rows, classes) and class numbers (rows,) -> accuracy, F1 (of class 1 if there are two, else the mean over classes),
    Matthews correlation."""
    predicted = logits.argmax(-1)
    average = "binary" if logits.shape[-1] == 2 else "macro"
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "f1": float(f1_score(labels, predicted, average=average, zero_division=0)),
        "matthews": float(matthews_corrcoef(labels, predicted)),
    }


def is_constant(predicted: np.ndarray, expected: np.ndarray) -> bool:
    """Class numbers: whether one is predicted for all, though several are right."""
    return len(np.unique(predicted)) == 1 < len(np.unique(expected))


def regression_scores(outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Numbers (rows, 1) and (rows,) -> Pearson and Spearman correlation (0 where either side is constant), mean squared error."""
    predicted = outputs.reshape(-1)
    constant = len(labels) < 2 or np.ptp(predicted) == 0 or np.ptp(labels) == 0
    correlations = (0.0, 0.0) if constant else (pearsonr(predicted, labels)[0], spearmanr(predicted, labels)[0])
    pearson, spearman = (0.0 if math.isnan(value) else float(value) for value in correlations)
    return {"pearson": pearson, "spearman": spearman, "mse": float(np.mean((predicted - labels) ** 2))}


def tag_scores(expected: list[list[str]], predicted: list[list[str]], *, entities: bool) -> dict[str, float]:
    """Tags of the words of each sentence -> accuracy over words, and for `entities` in IOB tags precision, recall and F1 over those
    of all types together, as CoNLL counts them (Tjong Kim Sang & De Meulder, arXiv cs/0306050, section 2.3)."""
    accuracy = {"accuracy": float(sequence_labeling.accuracy_score(expected, predicted))}
    if not entities:
        return accuracy
    found = sequence_labeling.precision_recall_fscore_support(expected, predicted, average="micro", zero_division=0)
    return dict(zip(("precision", "recall", "f1"), map(float, found), strict=False)) | accuracy
