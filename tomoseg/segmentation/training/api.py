"""Training from Python: the parameters are keywords."""

from tomoseg.keywords import takes_parameters
from tomoseg.segmentation.training import cross_validation, trainer
from tomoseg.segmentation.training.parameters import TrainParameters, check

train = takes_parameters("train", TrainParameters, check)(trainer.train)
cross_validate = takes_parameters("train", TrainParameters, check)(cross_validation.cross_validate)
