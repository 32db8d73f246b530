from ._version import __version__ as __version__
from .concepts.card import push_concept as push_concept, write_card as write_card
from .concepts.concept import Concept as Concept
from .concepts.formats import load_concept as load_concept, save_concept as save_concept
from .concepts.library import Library as Library
from .config.drawing import SamplingConfig as SamplingConfig
from .config.encoder import EncoderConfig as EncoderConfig
from .config.inversion import InversionConfig as InversionConfig
from .config.model import ModelConfig as ModelConfig
from .config.runs import (
    ComposeConfig as ComposeConfig,
    DebiasConfig as DebiasConfig,
    TrainConfig as TrainConfig,
)
from .evaluation.choosing import choose as choose
from .evaluation.fairness import compare_fairness as compare_fairness, debias as debias
from .evaluation.features import load_judge as load_judge
from .evaluation.gallery import save_gallery as save_gallery
from .generation.ddim_inversion import bipartite as bipartite
from .generation.editing import (
    edit as edit,
    ranked as ranked,
    read_picture as read_picture,
    save_edits as save_edits,
)
from .generation.generate import generate as generate, save_drawing as save_drawing
from .images import read_folder as read_folder
from .models.full_pipeline import save_full_pipeline as save_full_pipeline
from .models.loading import load_backbone as load_backbone
from .runs.compose import compose as compose
from .runs.encoder import train_encoder as train_encoder
from .runs.words import choose_word as choose_word
from .training.job import Job as Job
from .training.loop import invert as invert, invert_many as invert_many
from .training.together import invert_together as invert_together
from .vocabulary.inject import injected as injected
