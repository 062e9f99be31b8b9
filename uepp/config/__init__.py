"""Every setting of a run: one frozen model a stage, with its default, unit and range.

A YAML file holds only what differs from the defaults here. `--set a.b=value` goes through the same
models, so a setting is checked the same way wherever it comes from.
"""

from uepp.config.base import INTERACTION_TYPES, InteractionType, ProductEncoder, QueryEncoder, TextField
from uepp.config.data import DataConfig, FeaturesConfig, GraphConfig, HistoryConfig, MarketplaceConfig
from uepp.config.files import Given, load_config, locate, merge_settings, save_config, shipped_configs, shipped_studies
from uepp.config.ranker import RankerConfig
from uepp.config.relevance import BLIND_SAMPLERS, SAMPLER_NAMES, RelevanceConfig, SamplerName
from uepp.config.retrieval import BoostingConfig, EvaluationConfig, ExportConfig, ServingConfig
from uepp.config.run import Config
from uepp.config.text import PretrainingConfig, TextConfig
from uepp.config.training import LossConfig, ModelConfig, NegativesConfig, TrainingConfig
from uepp.config.yaml_text import read_yaml

__all__ = [
    "BLIND_SAMPLERS",
    "INTERACTION_TYPES",
    "SAMPLER_NAMES",
    "BoostingConfig",
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "ExportConfig",
    "FeaturesConfig",
    "Given",
    "GraphConfig",
    "HistoryConfig",
    "InteractionType",
    "LossConfig",
    "MarketplaceConfig",
    "ModelConfig",
    "NegativesConfig",
    "PretrainingConfig",
    "ProductEncoder",
    "QueryEncoder",
    "RankerConfig",
    "RelevanceConfig",
    "SamplerName",
    "ServingConfig",
    "TextConfig",
    "TextField",
    "TrainingConfig",
    "load_config",
    "locate",
    "merge_settings",
    "read_yaml",
    "save_config",
    "shipped_configs",
    "shipped_studies",
]
