"""The Mizzen API: the four kinds as pydantic models, and every name that two packages share."""

from mizzen_api.dataset import Dataset
from mizzen_api.modelservice import ModelService
from mizzen_api.searchjob import SearchJob
from mizzen_api.trainingjob import TrainingJob

KINDS: tuple[type[Dataset] | type[SearchJob] | type[TrainingJob] | type[ModelService], ...] = (
    Dataset,
    SearchJob,
    TrainingJob,
    ModelService,
)

__all__ = ["KINDS", "Dataset", "ModelService", "SearchJob", "TrainingJob"]
