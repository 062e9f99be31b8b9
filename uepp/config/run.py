"""All stages of a run."""

from pydantic import model_validator

from uepp.config.base import Stage
from uepp.config.data import DataConfig, FeaturesConfig, GraphConfig, HistoryConfig, MarketplaceConfig
from uepp.config.ranker import RankerConfig
from uepp.config.relevance import RelevanceConfig
from uepp.config.retrieval import BoostingConfig, EvaluationConfig, ExportConfig, ServingConfig
from uepp.config.text import PretrainingConfig, TextConfig
from uepp.config.training import LossConfig, ModelConfig, NegativesConfig, TrainingConfig


class Config(Stage):
    """The whole run."""

    marketplace: MarketplaceConfig = MarketplaceConfig()
    data: DataConfig = DataConfig()
    features: FeaturesConfig = FeaturesConfig()
    graph: GraphConfig = GraphConfig()
    history: HistoryConfig = HistoryConfig()
    text: TextConfig = TextConfig()
    pretraining: PretrainingConfig = PretrainingConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    negatives: NegativesConfig = NegativesConfig()
    training: TrainingConfig = TrainingConfig()
    export: ExportConfig = ExportConfig()
    boosting: BoostingConfig = BoostingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    serving: ServingConfig = ServingConfig()
    relevance: RelevanceConfig = RelevanceConfig()
    ranker: RankerConfig = RankerConfig()

    @model_validator(mode="after")
    def _text_encoder_is_read(self) -> "Config":
        is_read = "text" in (*self.model.product_encoders, *self.model.query_encoders)
        if is_read and self.text.encoder is None:
            raise ValueError("text.encoder = None: give the directory of a text encoder (uepp pretrain makes one)")
        if self.text.encoder is not None and not is_read:
            raise ValueError(
                f"text.encoder = {self.text.encoder!r}: no tower reads it; add text to model.product_encoders"
            )
        return self
